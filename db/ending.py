"""What a build leaves open when it ends, and how that is closed."""

import uuid

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import money, steering
from db.models import Snapshot, ToolCall
from domain.tool_output import render_result

_ENDED_BEFORE = "The build ended before this call did."


async def close_dangling_work(session: AsyncSession, build_id: uuid.UUID) -> None:
    """What a cut short turn left: its call stays in the ledger as estimated, every tool call gets its one result. And
    nobody waits for an answer any more."""
    await money.estimate_all_of(session, build_id)
    await steering.close_question(session, build_id)
    left = await session.scalars(
        select(ToolCall).where(ToolCall.build_id == build_id, ToolCall.state != "done").with_for_update()
    )
    for call in left:
        call.result = render_result(call.tool_use_id, _ENDED_BEFORE, is_error=True)
        call.is_error, call.state, call.done_at = True, "done", func.now()
    await session.execute(
        update(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.state == "taking")
        .values(state="failed", claim=uuid.uuid4())
    )
