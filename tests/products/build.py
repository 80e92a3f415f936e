"""Builds recorded products on the real stack: worker, sandboxes, installs, gate, browser and snapshots."""

import contextlib
import itertools
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from temporalio.service import RPCError
from temporalio.testing import TimeSkipper

from db.models import Event, Snapshot, ToolCall
from domain.names import preview_workflow_id
from domain.status import Status
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness
from tests.products.recordings import Recording
from tests.products.report import DayResult, ProductResult

BUILD_SECONDS = 3600.0
"""Give up a build after this many seconds."""

_ERROR_CHARACTERS = 1500
"""How much of the end of a failed call's result is shown."""


async def build_product(harness: WorkerHarness, recording: Recording) -> ProductResult:
    """Build the product day by day. Stop at the first day that does not end with a product that is ready."""
    result = ProductResult(recording.name, len(recording.days))
    user_id = await harness.founder()
    project_id = await harness.project(user_id, recording.brief)
    for script in recording.days:
        build_id = await harness.start(user_id, project_id=project_id, goal="Build the product.", script=script)
        result.days.append(await _result_of(harness, build_id))
        if result.days[-1].status != Status.READY:
            break
        await _until_the_next_day(harness, build_id)
    return result


async def _result_of(harness: WorkerHarness, build_id: uuid.UUID) -> DayResult:
    row = await harness.until(build_id, frozenset({Status.NEEDS_INPUT, Status.READY}), BUILD_SECONDS)
    day = DayResult(row.status, seconds=await _seconds(harness, build_id))
    if row.status != Status.READY:
        day.problem = await _problem(harness, build_id, row.reason or "")
        await harness.builds.cancel(build_id)
    await harness.finished(build_id)
    return day


async def _until_the_next_day(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Let a day pass, in which the preview ends and releases its sandbox: only the snapshot is left of the product."""
    preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    with contextlib.suppress(RPCError):  # it ends before the day is over
        await TimeSkipper(harness.client).fast_forward(preview, timedelta(days=1))

    async def has_ended() -> bool:
        return (await preview.describe()).close_time is not None

    await wait_until(has_ended, look_seconds=0.2)


async def _seconds(harness: WorkerHarness, build_id: uuid.UUID) -> dict[str, float]:
    """How long each step of the last gate took, and the snapshot that it was given."""
    events = await harness.events(build_id)
    began = [event.id for event in events if event.type == "gate_started"]
    if not began:
        return {}
    gate = [event for event in events if event.id >= began[-1] and event.type.startswith("gate_")]
    seconds = {"gate": _between(gate[0].created_at, gate[-1].created_at)}
    for event, following in itertools.pairwise(gate):
        step = str(event.data.get("text", "")).partition(":")[0]
        if step in ("install", "check", "start"):
            seconds[step] = _between(event.created_at, following.created_at)
    async with harness.session() as tx:
        query = select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.stored_at.is_not(None))
        snapshots: Sequence[Snapshot] = (await tx.session.scalars(query.order_by(Snapshot.number))).all()
    for snapshot in snapshots:
        if snapshot.stored_at is not None:
            seconds["snapshot"] = _between(snapshot.created_at, snapshot.stored_at)
    return seconds


def _between(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


async def _problem(harness: WorkerHarness, build_id: uuid.UUID, reason: str) -> str:
    bounced: list[Event] = await harness.events(build_id, "gate_bounced")
    texts = [reason, *(finding for event in bounced[-1:] for finding in event.data["findings"])]
    async with harness.session() as tx:
        query = select(ToolCall).where(ToolCall.build_id == build_id, ToolCall.is_error.is_(True))
        failed = (await tx.session.scalars(query.order_by(ToolCall.turn, ToolCall.position))).all()
    texts += [f"Failed call in turn {call.turn}: {(call.result or '')[-_ERROR_CHARACTERS:]}" for call in failed]
    return "\n".join(texts)
