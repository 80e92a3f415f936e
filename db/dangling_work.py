"""Close what a build leaves open when it ends."""

import uuid

from sqlalchemy import func, select, update

from db import money, steering
from db.models import Snapshot, ToolCall
from db.transaction import Transaction
from domain.tool_output import render_result

_CALL_INTERRUPTED = "The build ended before this call did."


async def close_dangling_work(tx: Transaction, build_id: uuid.UUID) -> None:
    """Close what an interrupted turn left open, and the question to the founder.

    Its model call stays in the ledger as estimated, each tool call gets its one result, and a snapshot that was being
    taken is marked as failed.
    """
    await money.estimate_all_of(tx, build_id)
    await steering.close_question(tx, build_id)
    unfinished = await tx.session.scalars(
        select(ToolCall).where(ToolCall.build_id == build_id, ToolCall.state != "done").with_for_update()
    )
    for call in unfinished:
        call.result = render_result(call.tool_use_id, _CALL_INTERRUPTED, is_error=True)
        call.is_error, call.state, call.done_at = True, "done", func.now()
    await tx.session.execute(
        update(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.state == "taking")
        .values(state="failed", claim=uuid.uuid4())
    )
