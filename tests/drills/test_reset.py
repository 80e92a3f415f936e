"""`temporal workflow reset`, Temporal's cure after a bad deploy: the build goes on over its rows."""

import uuid
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import select

from db.models import LedgerEntry, Turn
from domain.names import build_workflow_id
from domain.status import Status
from tests.harness.reset import completed_tasks, reset
from tests.harness.sample_build import sample_script
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import release_command

Figure = Callable[[str], None]


async def paid_calls(harness: WorkerHarness, build_id: uuid.UUID) -> dict[int, int]:
    """Return how many model calls each turn of the build has paid for."""
    async with harness.session() as tx:
        turns = await tx.session.scalars(
            select(LedgerEntry.turn).where(LedgerEntry.build_id == build_id, LedgerEntry.state != "released")
        )
        return dict(Counter(turns))


async def assert_nothing_was_repeated(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Check that each turn was paid once, and each tool call began and ended once."""
    async with harness.session() as tx:
        turns = list(await tx.session.scalars(select(Turn.number).where(Turn.build_id == build_id)))
    assert await paid_calls(harness, build_id) == dict.fromkeys(turns, 1)
    for kind in ("tool_started", "tool_done"):
        calls = Counter(event.data["tool_use_id"] for event in await harness.events(build_id, kind))
        assert set(calls.values()) == {1}, (kind, calls)


@pytest.mark.fast
async def test_reset_in_the_middle(harness: WorkerHarness, figure: Figure) -> None:
    """Reset a build to its first task, and to one in its middle, while a command runs."""
    for share in (0.0, 0.5):
        build_id = await harness.start(script=sample_script(hold=True))
        await harness.until_event(build_id, "tool_started", turn=3)
        workflow_id = build_workflow_id(build_id)
        tasks = await completed_tasks(harness.client, workflow_id)
        await reset(harness.client, workflow_id, tasks[int(share * len(tasks))])
        await release_command(harness, build_id)
        row = await harness.finished(build_id)
        assert row.status == Status.READY, row.reason
        await assert_nothing_was_repeated(harness, build_id)
    figure("2 builds ready, each turn paid once")
