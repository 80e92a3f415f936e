"""Runs the cases of a fault test to their end, checks the invariants, and records each result by name."""

import asyncio
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.faults.invariants import Deliverable, check_build, check_no_secret, check_nothing_left, deliverable_of
from tests.harness.fault_waits import PATIENCE_SECONDS, Damage, close_preview, until_closed
from tests.harness.faults import FaultHarness, fault_harness
from tests.harness.sample_build import sample_script
from tests.harness.worker import WorkerHarness


class Report:
    """The result of each case by name: None if every invariant held, otherwise a text that says which did not.

    `script` is that of the reference, the sample build's by default.
    """

    def __init__(self, fault_harness: FaultHarness, script: dict[str, Any] | None = None) -> None:
        self.fault_harness = fault_harness
        self.script = script or sample_script()
        self.cases: dict[str, str | None] = {}
        self._expected: asyncio.Future[Deliverable] = asyncio.get_running_loop().create_future()

    async def reference(self, harness: WorkerHarness) -> None:
        """Run a build without faults. Its deliverable is what all others must deliver."""
        async with self.case("nothing happens"):
            build_id = await harness.start(script=self.script)
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
            await check_build(self.fault_harness, build_id, await asyncio.wait_for(self._expected, PATIENCE_SECONDS))
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


async def side_by_side(*cases: Coroutine[Any, Any, None]) -> None:
    """Run all cases to their end, then raise the first error."""
    results = await asyncio.gather(*cases, return_exceptions=True)
    for error in results:
        if isinstance(error, BaseException):
            raise error


async def check_cases(cases: Callable[[Report], Awaitable[None]], subtests: pytest.Subtests) -> None:
    """Run the cases in a harness of their own. Each is a subtest, and so is the check of what they leave behind."""
    async with fault_harness() as faults:
        report = Report(faults)
        await cases(report)
        async with report.case("no secret is anywhere"):
            await check_no_secret(faults)
        async with report.case("nothing is left"):
            await check_nothing_left(faults)
    for name, damage in sorted(report.cases.items()):
        with subtests.test(name):
            assert damage is None, damage
