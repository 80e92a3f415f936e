"""Reads all rows of a project or a build, page by page, as documents."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import inspect, select, tuple_

from db.models import Base, Build, Erasure, Project
from db.transaction import Transaction

PAGE = 200
"""Rows in one read. A row of a conversation may have a hundred kilobytes."""

Key = tuple[Any, ...]
"""The primary key of the last row of a page."""


async def read_page(tx: Transaction, model: type[Base], of: Mapping[str, object], after: Key | None) -> Sequence[Base]:
    """Return the next rows of a table, in the order of their keys. Fewer than `PAGE`: they are the last.

    Projects that are being erased are left out: an export that is written meanwhile would keep their names.

    Args:
        of: the columns that say whose rows.
    """
    key = inspect(model).primary_key
    query = select(model).filter_by(**of).order_by(*key).limit(PAGE)
    if model is Project:
        query = query.where(~select(Erasure.id).where(Erasure.project_id == Project.id).exists())
    if after is not None:
        query = query.where(tuple_(*key) > after)
    return (await tx.session.scalars(query)).all()


def key_of(row: Base) -> Key:
    """The row's primary key."""
    mapper = inspect(type(row))
    return tuple(getattr(row, mapper.get_property_by_column(column).key) for column in mapper.primary_key)


def columns_of(row: Base, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The row's columns that were read, by name; times as text, so that they can be written as JSON."""
    state, mapper = inspect(row), inspect(type(row))
    names = {column.key: mapper.get_property_by_column(column).key for column in mapper.columns}
    return {
        name: _plain(getattr(row, attribute))
        for name, attribute in names.items()
        if name not in without and attribute not in state.unloaded
    }


async def builds_of_project(tx: Transaction, project_id: uuid.UUID) -> Sequence[Build]:
    """Return the project's builds, the oldest first."""
    query = select(Build).where(Build.project_id == project_id).order_by(Build.created_at, Build.id)
    return (await tx.session.scalars(query)).all()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value
