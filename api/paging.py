"""Pages of lists: their size, and the cursor of the next page."""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Query

from api.deps import Resources, ResourcesDep
from db.models import Build, BulkRun, Project, WebhookDelivery
from db.paging import Position
from domain.errors import InvalidInput

PAGE_MAX = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SEAL_BYTES = 16


class Cursors:
    """Makes and reads the cursors of one list. They are signed: the API refuses a cursor that it did not make."""

    def __init__(self, secret: str, name: str) -> None:
        self._key = hashlib.sha256(f"cursor {name} {secret}".encode()).digest()

    def encode(self, position: Position) -> str:
        """The cursor of the page that begins after this row."""
        return self.encode_number((position.created_at - _EPOCH) // _MICROSECOND, position.id)

    def decode(self, cursor: str) -> Position:
        """The row after which the page begins.

        Raises:
            InvalidInput: it is not a cursor of this list.
        """
        at, row_id = self.decode_number(cursor)
        return Position(_EPOCH + at * _MICROSECOND, row_id)

    def encode_number(self, value: int, row_id: uuid.UUID) -> str:
        """The cursor of the page that begins after the row with this value, of a list that is sorted by a number."""
        position_bytes = value.to_bytes(8, "big", signed=True) + row_id.bytes
        return _text(self._seal(position_bytes) + position_bytes)

    def decode_number(self, cursor: str) -> tuple[int, uuid.UUID]:
        """The value and the row after which the page begins.

        Raises:
            InvalidInput: it is not a cursor of this list.
        """
        raw = base64.urlsafe_b64decode(cursor + "==")
        seal, position_bytes = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        # The last character has spare bits, so several texts decode to the same bytes. Accept only the one made here.
        if hmac.compare_digest(seal, self._seal(position_bytes)) and _text(raw) == cursor:
            return int.from_bytes(position_bytes[:8], "big", signed=True), uuid.UUID(bytes=position_bytes[8:])
        raise InvalidInput(
            "This cursor is not one of this list's. Send `next_cursor` unchanged, or no cursor for the first page.",
            "cursor",
        )

    def _seal(self, position_bytes: bytes) -> bytes:
        return hmac.digest(self._key, position_bytes, "sha256")[:_SEAL_BYTES]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass(frozen=True)
class Page:
    """The part of a list that a request asks for."""

    limit: int
    after: Position | None
    cursors: Cursors

    def next_cursor(self, last: Build | Project | WebhookDelivery | BulkRun | None) -> str | None:
        """The cursor of the page after this one. `last`: this page's last row, or None if no more follow."""
        return None if last is None else self.cursors.encode(Position(last.created_at, last.id))


def cursors_of(resources: Resources, name: str) -> Cursors:
    """The cursors of the list with this name."""
    token = resources.settings.api_token
    assert token is not None, "the API does not start without a token"
    return Cursors(token.get_secret_value(), name)


def page_of(name: str) -> Callable[..., Page]:
    """The dependency that reads a list's page from the query."""

    def page(
        resources: ResourcesDep,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="The number of entries at most.")] = 20,
        cursor: Annotated[
            str | None,
            Query(
                pattern="^[A-Za-z0-9_-]{54}$", description="`next_cursor` of the previous page; left out for the first."
            ),
        ] = None,
    ) -> Page:
        cursors = cursors_of(resources, name)
        return Page(limit, None if cursor is None else cursors.decode(cursor), cursors)

    return page


BuildsPage = Annotated[Page, Depends(page_of("builds"))]
ProjectsPage = Annotated[Page, Depends(page_of("projects"))]
BulkRunsPage = Annotated[Page, Depends(page_of("bulk runs"))]
ErasuresPage = Annotated[Page, Depends(page_of("erasures"))]
DeliveriesPage = Annotated[Page, Depends(page_of("deliveries"))]
