"""What the database says of itself: its version, its last migration, and the models of its plans."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, text

from db.models import PlanTier
from db.transaction import Transaction


@dataclass(frozen=True)
class Schema:
    """The database's server and schema."""

    server_version: str
    revision: str | None
    """The last migration; None if there are no tables yet."""


async def read_schema(tx: Transaction) -> Schema:
    """Read which server it is, and which migration was the last."""
    version = str(await tx.session.scalar(text("show server_version")))
    if await tx.session.scalar(text("select to_regclass('alembic_version')")) is None:
        return Schema(version, None)
    revision = await tx.session.scalar(text("select version_num from alembic_version"))
    return Schema(version, None if revision is None else str(revision))


async def models_of_plans(tx: Transaction) -> list[tuple[str, Mapping[str, str]]]:
    """Return each plan with its models by role."""
    rows = await tx.session.execute(select(PlanTier.name, PlanTier.default_models))
    return [(name, models) for name, models in rows]
