"""Pages of long lists, newest first. A page follows a position, not a page number, so new rows do not shift it."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, tuple_

from db.models import Build, Project, WebhookDelivery


@dataclass(frozen=True)
class Position:
    """The position of a row in its list; the next page begins after it."""

    created_at: datetime
    id: uuid.UUID


def page_after(
    query: Select[Any], table: type[Build | Project | WebhookDelivery], after: Position | None, limit: int
) -> Select[Any]:
    """Select the query's next rows, newest first. Rows created at the same moment are ordered by id."""
    if after is not None:
        query = query.where(tuple_(table.created_at, table.id) < tuple_(after.created_at, after.id))
    return query.order_by(table.created_at.desc(), table.id.desc()).limit(limit)
