"""What is written of a build's status, and what the reaper repeats."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from activities.lifecycle import LifecycleActivities
from db.models import Build, Preview
from domain.names import REAPER_WORKFLOW
from domain.payloads import PreviewChange, StatusChange, TakeSnapshot
from domain.status import Status, WaitingFor
from local.stack import LocalStack
from tests.integration.rooms import open_rooms
from tests.workflows.scenarios import bash, steps
from tests.workshop import Workshop


async def test_a_reason_that_can_not_be_stored_does_not_stop_a_build(stack: LocalStack, shop: Workshop) -> None:
    async with open_rooms(stack) as rooms:
        build_id = await rooms.build()
        waits = StatusChange(
            build_id=build_id,
            seq=1,
            status=Status.NEEDS_INPUT,
            waiting_for=WaitingFor.OPERATOR,
            reason="it said \x00\ud800",
        )
        await rooms.run(LifecycleActivities(rooms.sessions, shop.builds).record_status, waits)
        failed = TakeSnapshot(build_id=build_id, sandbox_id="", number=1, reason="phase", error="it said \x00")
        await rooms.run(rooms.snapshot.note_snapshot_failure, failed)
        closed = PreviewChange(build_id=build_id, seq=1, state="failed", reason="it said \x00")
        await rooms.run(rooms.preview.record_preview, closed)
        async with rooms.sessions() as session:
            assert (await session.get_one(Build, uuid.UUID(build_id))).reason == "it said \ufffd\ufffd"
            assert (await session.get_one(Preview, uuid.UUID(build_id))).reason == "it said \ufffd"
        assert (await rooms.events(build_id, "snapshot_failed"))[0].data["error"] == "it said \ufffd"


async def test_the_reaper_repeats_a_cancel_that_was_lost(shop: Workshop) -> None:
    build_id = await shop.start(script=steps([bash("sleep 300", 400)]))
    async with asyncio.timeout(300):
        while not await shop.events(build_id, "tool_started"):
            await asyncio.sleep(0.05)
    async with shop.sessions.begin() as session:
        asked = datetime.now(UTC) - timedelta(minutes=1)
        await session.execute(update(Build).where(Build.id == build_id).values(cancel_requested_at=asked))
    reaped = f"reap-{uuid.uuid4()}"
    await shop.client.execute_workflow(REAPER_WORKFLOW, id=reaped, task_queue=shop.settings.temporal_task_queue)
    assert (await shop.finished(build_id)).status == Status.CANCELLED
