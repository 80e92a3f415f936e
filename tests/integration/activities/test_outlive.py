"""A model call in flight when its run is reset: it ends, the new run takes its answer, and it is paid once."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import select
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.runtime.outlive import LOOK_SECONDS
from activities.think import ThinkActivities
from clients.model.anthropic import AnthropicProvider
from db.models import Build, LedgerEntry, Prompt
from db.transaction import transaction
from domain.models import default_prices
from domain.payloads import ThinkInput, ThinkOutcome, ThinkResult
from domain.tools import render_tools
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.model_server import MODEL, START, STOP, SYSTEM, ends, says, speaking
from tests.harness.wait import wait_until

ANSWER = (START, *says(0, "Done."), ends("end_turn"), STOP)

GONE = ActivityCancellationDetails(not_found=True)
"""What a heartbeat says after a reset."""


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> str:
    build_id = await harness.build()
    async with transaction(harness.sessions) as tx:
        (await tx.session.get_one(Build, uuid.UUID(build_id))).model = MODEL
        tx.session.add(Prompt(build_id=uuid.UUID(build_id), system=SYSTEM, tools=render_tools()))
    return build_id


class Attempt:
    """An attempt at the build's first turn, by a run."""

    def __init__(self, harness: ActivityHarness, model: AnthropicProvider, build: str, run_id: str) -> None:
        self.environment = ActivityEnvironment()
        self.environment.info = replace(self.environment.info, workflow_run_id=run_id)
        activities = ThinkActivities(harness.sessions, {"anthropic": model}, harness.store, default_prices(), 1000)
        request = ThinkInput(build_id=build, turn=1)
        self.result: asyncio.Task[ThinkResult] = asyncio.ensure_future(self.environment.run(activities.think, request))


async def ledger(harness: ActivityHarness, build: str) -> list[LedgerEntry]:
    async with transaction(harness.sessions) as tx:
        calls = select(LedgerEntry).where(LedgerEntry.build_id == uuid.UUID(build)).order_by(LedgerEntry.opened_at)
        return list((await tx.session.scalars(calls)).all())


async def is_kept(harness: ActivityHarness, build: str) -> bool:
    return (await ledger(harness, build))[0].kept_at is not None


async def test_the_new_run_takes_the_answer_of_the_old_ones_call(harness: ActivityHarness, build: str) -> None:
    asked, answer, received = asyncio.Event(), asyncio.Event(), list[bytes]()
    async with speaking(*ANSWER, asked=asked, answer=answer, received=received) as model:
        old = Attempt(harness, model, build, "old")
        await asked.wait()
        new = Attempt(harness, model, build, "new")
        old.environment.cancel(GONE)
        await wait_until(lambda: is_kept(harness, build))
        another = Attempt(harness, model, build, "old")  # as after a heartbeat that came too late
        await asyncio.sleep(3 * LOOK_SECONDS)
        answer.set()
        results = [await each.result for each in (old, new, another)]
    assert [each.outcome for each in results] == [ThinkOutcome.END_TURN] * 3
    assert len(received) == 1
    assert [entry.state for entry in await ledger(harness, build)] == ["settled"]


async def test_a_call_whose_attempt_says_nothing_is_made_again(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("activities.think.LOST_AFTER_SECONDS", 1.0)
    async with speaking(*ANSWER, asked=asked, answer=answer) as model:
        old = Attempt(harness, model, build, "old")
        await asked.wait()
        new = Attempt(harness, model, build, "new")
        await wait_until(lambda: _are(harness, build, 2))
        answer.set()
        assert (await new.result).outcome is ThinkOutcome.END_TURN
        with pytest.raises(ApplicationError, match="another attempt"):
            await old.result
    assert [entry.state for entry in await ledger(harness, build)] == ["settled", "settled"]


async def _are(harness: ActivityHarness, build: str, count: int) -> bool:
    return len(await ledger(harness, build)) == count


async def test_a_cancelled_build_ends_its_call(harness: ActivityHarness, build: str) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()
    async with speaking(*ANSWER, asked=asked, answer=answer) as model:
        attempt = Attempt(harness, model, build, "old")
        await asked.wait()
        attempt.environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt.result
        answer.set()
    assert [entry.state for entry in await ledger(harness, build)] == ["estimated"]
