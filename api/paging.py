"""Pages of lists: how many, and the cursor after which the next one begins."""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Query

from api.deps import ResourcesDep
from db.models import Build, Project
from db.paging import Position
from domain.errors import InvalidInput

PAGE_MAX = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SEAL_BYTES = 16


class Cursors:
    """Makes and reads the cursors of one list. They are sealed: what this API did not make is refused."""

    def __init__(self, secret: str, name: str) -> None:
        self._key = hashlib.sha256(f"cursor {name} {secret}".encode()).digest()

    def encode(self, position: Position) -> str:
        """The cursor of the page that begins after this row."""
        at = (position.created_at - _EPOCH) // _MICROSECOND
        place = at.to_bytes(8, "big", signed=True) + position.id.bytes
        return _text(self._seal(place) + place)

    def decode(self, cursor: str) -> Position:
        """The row after which the page begins.

        Raises:
            InvalidInput: it is none of this list's cursors.
        """
        raw = base64.urlsafe_b64decode(cursor + "==")
        seal, place = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        # The last character has bits to spare: only the one way to write them is ours.
        if hmac.compare_digest(seal, self._seal(place)) and _text(raw) == cursor:
            at = _EPOCH + int.from_bytes(place[:8], "big", signed=True) * _MICROSECOND
            return Position(at, uuid.UUID(bytes=place[8:]))
        raise InvalidInput("This cursor is not one of this list's. Take `next_cursor` as it is, or none.", "cursor")

    def _seal(self, place: bytes) -> bytes:
        return hmac.digest(self._key, place, "sha256")[:_SEAL_BYTES]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass(frozen=True)
class Page:
    """What a request wants of a list."""

    limit: int
    after: Position | None
    cursors: Cursors

    def next_cursor(self, last: Build | Project | None) -> str | None:
        """What the answer names for the page after this one. `last`: this page's last row, if there are more."""
        return None if last is None else self.cursors.encode(Position(last.created_at, last.id))


def page_of(name: str) -> Callable[..., Page]:
    """The dependency that reads the page of a list."""

    def page(
        resources: ResourcesDep,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="How many at most.")] = 20,
        cursor: Annotated[
            str | None,
            Query(pattern="^[A-Za-z0-9_-]{54}$", description="`next_cursor` of the page before; none for the first."),
        ] = None,
    ) -> Page:
        token = resources.settings.api_token
        assert token is not None, "the API does not start without a token"
        cursors = Cursors(token.get_secret_value(), name)
        return Page(limit, None if cursor is None else cursors.decode(cursor), cursors)

    return page


BuildsPage = Annotated[Page, Depends(page_of("builds"))]
ProjectsPage = Annotated[Page, Depends(page_of("projects"))]
