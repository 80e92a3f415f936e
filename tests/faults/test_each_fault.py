"""Each fault alone: the build ends ready with the workspace that it has without faults, and everything holds."""

from collections.abc import Awaitable, Callable

import pytest

from tests.faults.cases import each_fault_alone
from tests.faults.invariants import check_no_secret, check_nothing_left
from tests.faults.report import Report
from tests.harness.faults import fault_harness


@pytest.mark.timeout(3000)
async def test_each_fault_alone(subtests: pytest.Subtests) -> None:
    await all_holds(each_fault_alone, subtests)


async def all_holds(cases: Callable[[Report], Awaitable[None]], subtests: pytest.Subtests) -> None:
    """Try the cases on a ground of their own; each is a subtest, and so is what they leave."""
    async with fault_harness() as here:
        report = Report(here)
        await cases(report)
        async with report.case("no secret is anywhere"):
            await check_no_secret(here)
        async with report.case("nothing is left"):
            await check_nothing_left(here)
    for name, damage in sorted(report.cases.items()):
        with subtests.test(name):
            assert damage is None, damage
