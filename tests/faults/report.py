"""What became of each case: driven to its end, checked against the invariants, and noted under its name."""

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
from tests.faults.invariants import Damage, Handed, check_build, handed_over
from tests.faults.sample_build import sample_script
from tests.harness.faults import FaultHarness
from tests.harness.worker import WorkerHarness
from tests.wait import DEADLINE

_PATIENCE_SECONDS = 2 * DEADLINE

_LOOK_SECONDS = 0.5
"""Dozens of builds are looked at side by side; each look is a query."""


class Report:
    """Cases by name; None is a case in which everything held, a text says what did not."""

    def __init__(self, fault_harness: FaultHarness) -> None:
        self.fault_harness = fault_harness
        self.cases: dict[str, str | None] = {}
        self._expected: asyncio.Future[Handed] = asyncio.get_running_loop().create_future()

    async def reference(self, harness: WorkerHarness) -> None:
        """A build that nothing strikes: what the others have to hand over."""
        async with self.case("nothing happens"):
            build_id = await harness.start(script=sample_script())
            await closed(harness, build_id)
            self._expected.set_result(await handed_over(self.fault_harness, build_id))
            await self.check(harness, build_id)

    async def ready(self, name: str, harness: WorkerHarness, build_id: uuid.UUID, *, wake: bool = False) -> None:
        """The case's build becomes ready, with what the reference has, and everything holds."""
        async with self.case(name):
            await closed(harness, build_id, wake=wake)
            await self.check(harness, build_id)

    async def check(self, harness: WorkerHarness, build_id: uuid.UUID) -> None:
        """Check a build that has to be ready, and close its preview."""
        try:
            await check_build(self.fault_harness, build_id, await asyncio.wait_for(self._expected, _PATIENCE_SECONDS))
        finally:
            await close_preview(harness, build_id)

    @asynccontextmanager
    async def case(self, name: str) -> AsyncIterator[None]:
        """Note how the block ends."""
        try:
            yield
        except Damage as damage:
            self.cases[name] = str(damage)
        except Exception:
            self.cases[name] = traceback.format_exc()
        else:
            self.cases[name] = None


async def closed(harness: WorkerHarness, build_id: uuid.UUID, *, wake: bool = False) -> Build:
    """Wait until a build has closed, its workflow too. `wake`: when it waits for a person, there is one.

    Raises:
        Damage: it waits for ever.
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
    """What the build's workflow waits for."""
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
    """Close the preview of a ready build, as the end of its hour would."""
    preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    with suppress(WorkflowFailureError, RPCError):
        await preview.cancel()
        await preview.result()


async def side_by_side(*cases: Coroutine[Any, Any, None]) -> None:
    """Run them all to their ends; the first error is raised then."""
    ended = await asyncio.gather(*cases, return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error
