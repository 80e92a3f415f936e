"""The stored status of a build, and the signals that the reaper repeats."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from temporalio.exceptions import ApplicationError

from activities.lifecycle import LifecycleActivities
from db.models import Build, LedgerEntry, Preview
from db.transaction import transaction
from domain.payloads import PreviewChange, StatusChange, TakeSnapshot
from domain.status import Dependency, Status, WaitingFor
from local.stack import LocalStack
from tests.harness.activities import open_activity_harness
from tests.harness.reaper import reap
from tests.harness.scripts import bash, steps
from tests.harness.worker import WorkerHarness


async def test_a_reason_that_can_not_be_stored_does_not_stop_a_build(stack: LocalStack, harness: WorkerHarness) -> None:
    async with open_activity_harness(stack) as activity_harness:
        build_id = await activity_harness.build()
        waits = StatusChange(
            build_id=build_id,
            seq=1,
            status=Status.NEEDS_INPUT,
            waiting_for=WaitingFor.OPERATOR,
            reason="it said \x00\ud800",
        )
        await activity_harness.run(LifecycleActivities(activity_harness.sessions, harness.builds).record_status, waits)
        failed = TakeSnapshot(build_id=build_id, sandbox_id="", number=1, reason="phase", error="it said \x00")
        await activity_harness.run(activity_harness.snapshot.note_snapshot_failure, failed)
        closed = PreviewChange(build_id=build_id, seq=1, state="failed", reason="it said \x00")
        await activity_harness.run(activity_harness.preview.record_preview, closed)
        async with transaction(activity_harness.sessions) as tx:
            assert (await tx.session.get_one(Build, uuid.UUID(build_id))).reason == "it said \ufffd\ufffd"
            assert (await tx.session.get_one(Preview, uuid.UUID(build_id))).reason == "it said \ufffd"
        assert (await activity_harness.events(build_id, "snapshot_failed"))[0].data["error"] == "it said \ufffd"


async def test_a_preview_of_an_erased_build_is_not_recorded_for_ever(stack: LocalStack) -> None:
    async with open_activity_harness(stack) as activity_harness:
        change = PreviewChange(build_id=str(uuid.uuid4()), seq=1, state="opening")
        with pytest.raises(ApplicationError, match="There is no build") as refusal:
            await activity_harness.run(activity_harness.preview.record_preview, change)
        assert refusal.value.non_retryable


async def test_a_wait_for_a_dependency_is_recorded_and_gone_afterwards(
    stack: LocalStack, harness: WorkerHarness
) -> None:
    async with open_activity_harness(stack) as activity_harness:
        build_id = await activity_harness.build()
        lifecycle = LifecycleActivities(activity_harness.sessions, harness.builds)

        async def dependency() -> tuple[str, str | None]:
            async with transaction(activity_harness.sessions) as tx:
                row = await tx.session.get_one(Build, uuid.UUID(build_id))
                return row.status, row.dependency

        waits = StatusChange(build_id=build_id, seq=1, status=Status.WAITING, dependency=Dependency.STORE)
        await activity_harness.run(lifecycle.record_status, waits)
        assert await dependency() == (Status.WAITING, Dependency.STORE)
        works = StatusChange(build_id=build_id, seq=2, status=Status.CODE)
        await activity_harness.run(lifecycle.record_status, works)
        assert await dependency() == (Status.CODE, None)
        feed = [event.data for event in await activity_harness.events(build_id, "status")]
        assert feed == [{"status": "waiting", "dependency": "store"}, {"status": "code"}]


async def test_a_wait_that_does_not_say_for_what_leaves_the_row_as_it_is(
    stack: LocalStack, harness: WorkerHarness
) -> None:
    """Runs that began before the patch `waits-on` ask for it when an attempt after a wait in a wait begins."""
    async with open_activity_harness(stack) as activity_harness:
        build_id = await activity_harness.build()
        lifecycle = LifecycleActivities(activity_harness.sessions, harness.builds)
        for seq, status, dependency in (
            (1, Status.WAITING, Dependency.STORE),
            (2, Status.WAITING, None),
            (3, Status.NEEDS_INPUT, None),
        ):
            change = StatusChange(build_id=build_id, seq=seq, status=status, dependency=dependency)
            for _ in range(2):
                await activity_harness.run(lifecycle.record_status, change)
            async with transaction(activity_harness.sessions) as tx:
                row = await tx.session.get_one(Build, uuid.UUID(build_id))
            assert (row.status, row.dependency, row.status_seq) == (Status.WAITING, Dependency.STORE, seq)
        assert len(await activity_harness.events(build_id, "status")) == 1


async def test_the_reaper_closes_the_calls_of_a_build_that_was_terminated_as_it_ended(
    stack: LocalStack, harness: WorkerHarness
) -> None:
    async with open_activity_harness(stack) as activity_harness:
        build_id, claim, today = uuid.UUID(await activity_harness.build()), uuid.uuid4(), datetime.now(UTC).date()
        async with transaction(activity_harness.sessions) as tx:
            build = await tx.session.get_one(Build, build_id)
            build.status, build.closed_at = Status.FAILED, datetime.now(UTC)
            call = {"turn": 1, "day": today, "model": "claude-sonnet-5-5", "cost": 7}
            tx.session.add(LedgerEntry(id=claim, build_id=build_id, user_id=build.user_id, **call))
        await reap(harness)
        async with transaction(activity_harness.sessions) as tx:
            entry = await tx.session.get_one(LedgerEntry, claim)
        assert (entry.state, entry.cost) == ("estimated", 7)


async def test_the_reaper_repeats_a_cancel_that_was_lost(harness: WorkerHarness) -> None:
    build_id = await harness.start(script=steps([bash("sleep 300", 400)]))
    await harness.until_event(build_id, "tool_started")
    async with transaction(harness.sessions) as tx:
        asked = datetime.now(UTC) - timedelta(minutes=1)
        await tx.session.execute(update(Build).where(Build.id == build_id).values(cancel_requested_at=asked))
    await reap(harness)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
