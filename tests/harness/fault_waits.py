"""Waits for the moments of a build under faults, and for its end."""

import asyncio
import json
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from db.models import Build, LedgerEntry
from domain.errors import CofounderError, NotFound
from domain.names import preview_workflow_id
from domain.status import CLOSED, Status
from tests.harness.faults import FaultHarness
from tests.harness.scripts import HOLD_FILE
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness


@dataclass(frozen=True)
class Request:
    """A request to the model, and when it arrived, as seconds since 1970."""

    id: str
    body: dict[str, Any]
    arrived_at: float

    @property
    def is_judge(self) -> bool:
        """Whether it asks the judge of the evidence gate: one request, and no part of the agent's conversation."""
        return "format" in self.body.get("output_config", {})


LONG = "600"
"""Seconds of STREAM_IDLE_SECONDS, so that a stalled stream is not noticed."""

PATIENCE_SECONDS = 2 * DEADLINE
"""Fail after waiting this many seconds for a build that faults strike to close."""

_LOOK_SECONDS = 0.5
"""Look at a build again after this many seconds. Dozens of builds are watched side by side; each look is a query."""


class Damage(AssertionError):
    """Invariants that do not hold. `findings` describes each in a sentence."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("; ".join(findings))
        self.findings = findings


async def until_command_held(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID) -> Path:
    """Wait until the third turn's command waits in its sandbox, and return the file that holds it there."""

    async def find_hold_file() -> Path | None:
        path = hold_file_of(fault_harness, (await harness.row(build_id)).sandbox_id)
        return path if path.exists() else None

    return await wait_until(find_hold_file)


def hold_file_of(fault_harness: FaultHarness, sandbox_id: str | None) -> Path:
    """Return the file in the sandbox that makes a command wait until it is removed."""
    return fault_harness.sandbox_directory(sandbox_id or "-") / HOLD_FILE.lstrip("/")


async def until_calling(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID, turn: int) -> None:
    """Wait until the turn's model call has reached the model."""
    goal = (await harness.row(build_id)).goal

    async def calling() -> bool:
        async with harness.session() as tx:
            calls = select(func.count()).where(LedgerEntry.build_id == build_id, LedgerEntry.turn == turn)
            of_turns = [each for each in requests_of(fault_harness, goal) if not each.is_judge]
            return bool(await tx.session.scalar(calls)) and len(of_turns) >= turn

    await wait_until(calling, look_seconds=0.2)


def requests_of(fault_harness: FaultHarness, goal: str) -> list[Request]:
    """The requests sent for a build, in order of arrival."""
    return [
        Request(path.stem.partition("-")[2], json.loads(text), path.stat().st_mtime)
        for path, text in fault_harness.bodies_sent().items()
        if goal in text
    ]


async def until_closed(harness: WorkerHarness, build_id: uuid.UUID, *, wake: bool = False) -> Build:
    """Wait until a build and its workflow have closed. `wake`: wake the build whenever it waits for a person.

    Raises:
        Damage: the build waits for a person without `wake`, or does not close in time.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (row := await row_of(harness, build_id)) is None or row.status not in CLOSED:
                if row is not None and row.status == Status.NEEDS_INPUT:
                    if not wake:
                        raise Damage([f"it waits for {row.waiting_for}: {row.reason}"])
                    with suppress(CofounderError, RPCError):
                        await harness.builds.wake(build_id)
                await asyncio.sleep(_LOOK_SECONDS)
            with suppress(WorkflowFailureError):
                await harness.handle(build_id).result()
            return row
    row = await row_of(harness, build_id)
    raise Damage([f"it is stuck: {row.status if row else 'no row'}; {await _pending(harness, build_id)}"])


async def _pending(harness: WorkerHarness, build_id: uuid.UUID) -> str:
    """The pending activities of the build's workflow."""
    described = (await harness.handle(build_id).describe()).raw_description
    return "; ".join(
        f"{each.activity_type.name}, attempt {each.attempt}, after: {each.last_failure.message[:300]}"
        for each in described.pending_activities
    )


async def row_of(harness: WorkerHarness, build_id: uuid.UUID) -> Build | None:
    """The build's row; None while the database is down."""
    try:
        return await harness.row(build_id)
    except (OSError, SQLAlchemyError):
        return None


async def workflow_exists(harness: WorkerHarness, build_id: uuid.UUID) -> bool:
    """Whether Temporal knows of the build's workflow."""
    try:
        await harness.builds.describe(build_id)
    except NotFound:
        return False
    return True


async def close_preview(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Close the preview of a ready build before its hour is over."""
    preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    with suppress(WorkflowFailureError, RPCError):
        await preview.cancel()
        await preview.result()
