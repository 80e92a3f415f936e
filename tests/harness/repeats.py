"""Checks that a build's model calls and tool calls were made once each."""

import uuid
from collections import Counter

from sqlalchemy import select

from db.models import LedgerEntry, Turn
from tests.harness.worker import WorkerHarness


async def paid_calls(harness: WorkerHarness, build_id: uuid.UUID) -> dict[int, int]:
    """Return how many model calls each turn of the build has paid for."""
    async with harness.session() as tx:
        turns = await tx.session.scalars(
            select(LedgerEntry.turn).where(
                LedgerEntry.build_id == build_id, LedgerEntry.kind == "turn", LedgerEntry.state != "released"
            )
        )
        return dict(Counter(turns))


async def assert_nothing_was_repeated(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Check that each turn was paid once, and each tool call began and ended once."""
    async with harness.session() as tx:
        turns = list(await tx.session.scalars(select(Turn.number).where(Turn.build_id == build_id)))
    paid = await paid_calls(harness, build_id)
    assert paid == dict.fromkeys(turns, 1), f"turns {turns}, paid: {paid}"
    for kind in ("tool_started", "tool_done"):
        calls = Counter(event.data["tool_use_id"] for event in await harness.events(build_id, kind))
        assert set(calls.values()) == {1}, (kind, calls)
