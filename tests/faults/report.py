"""Runs the cases of a fault test to their end, checks the invariants, and records each result by name."""

import asyncio
import traceback
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from db.models import Build
from domain.errors import CofounderError
from domain.names import preview_workflow_id
from domain.status import CLOSED, Status
from tests.faults.invariants import Damage, Deliverable, check_build, deliverable_of
from tests.faults.sample_build import sample_script
from tests.harness.faults import FaultHarness
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness

_PATIENCE_SECONDS = 2 * DEADLINE

_LOOK_SECONDS = 0.5
"""Look at a build again after this many seconds. Dozens of builds are watched side by side; each look is a query."""


class Report:
    """The result of each case by name: None if every invariant held, otherwise a text that says which did not."""

    def __init__(self, fault_harness: FaultHarness) -> None:
        self.fault_harness = fault_harness
        self.cases: dict[str, str | None] = {}
        self._expected: asyncio.Future[Deliverable] = asyncio.get_running_loop().create_future()

    async def reference(self, harness: WorkerHarness) -> None:
        """Run a build without faults. Its deliverable is what all others must deliver."""
        async with self.case("nothing happens"):
            build_id = await harness.start(script=sample_script())
            await until_closed(harness, build_id)
            self._expected.set_result(await deliverable_of(self.fault_harness, build_id))
            await self.check(harness, build_id)

    async def ready(self, name: str, harness: WorkerHarness, build_id: uuid.UUID, *, wake: bool = False) -> None:
        """Record whether the case's build becomes ready, equals the reference and keeps every invariant."""
        async with self.case(name):
            await until_closed(harness, build_id, wake=wake)
            await self.check(harness, build_id)

    async def check(self, harness: WorkerHarness, build_id: uuid.UUID) -> None:
        """Check a build that must be ready, and close its preview."""
        try:
            await check_build(self.fault_harness, build_id, await asyncio.wait_for(self._expected, _PATIENCE_SECONDS))
        finally:
            await close_preview(harness, build_id)

    @asynccontextmanager
    async def case(self, name: str) -> AsyncIterator[None]:
        """Record how the block ends."""
        try:
            yield
        except Damage as damage:
            self.cases[name] = str(damage)
        except Exception:
            self.cases[name] = traceback.format_exc()
        else:
            self.cases[name] = None


async def until_closed(harness: WorkerHarness, build_id: uuid.UUID, *, wake: bool = False) -> Build:
    """Wait until a build and its workflow have closed. `wake`: wake the build whenever it waits for a person.

    Raises:
        Damage: the build waits for a person without `wake`, or does not close in time.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
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


async def close_preview(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Close the preview of a ready build before its hour is over."""
    preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    with suppress(WorkflowFailureError, RPCError):
        await preview.cancel()
        await preview.result()


async def side_by_side(*cases: Coroutine[Any, Any, None]) -> None:
    """Run all cases to their end, then raise the first error."""
    results = await asyncio.gather(*cases, return_exceptions=True)
    for error in results:
        if isinstance(error, BaseException):
            raise error
