"""How long a sandbox has run for a build. A trigger on the permits keeps the rows of `SandboxRun`."""

import uuid
from datetime import date

from sqlalchemy import Date, bindparam, text
from sqlalchemy.dialects.postgresql import UUID

from db.transaction import Transaction

_SECONDS = text("select sandbox_seconds(:build, :day)").bindparams(
    bindparam("build", type_=UUID(as_uuid=True)), bindparam("day", type_=Date())
)


async def sandbox_seconds(tx: Transaction, build_id: uuid.UUID, day: date) -> int:
    """Seconds of the UTC day in which the build's workspace or gate had a sandbox. Days are the database's."""
    return int((await tx.execute(_SECONDS, {"build": build_id, "day": day})).scalar())
