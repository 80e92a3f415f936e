"""Long lists in pages, newest first. A page follows a position, not a number, so that new rows shift nothing."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, tuple_

from db.models import Build, Project


@dataclass(frozen=True)
class Position:
    """A row's place in its list; the next page begins after it."""

    created_at: datetime
    id: uuid.UUID


def page_after(query: Select[Any], table: type[Build | Project], after: Position | None, limit: int) -> Select[Any]:
    """The query's next rows, newest first. The id decides between rows of the same moment."""
    if after is not None:
        query = query.where(tuple_(table.created_at, table.id) < tuple_(after.created_at, after.id))
    return query.order_by(table.created_at.desc(), table.id.desc()).limit(limit)
