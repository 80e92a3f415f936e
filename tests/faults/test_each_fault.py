"""Each fault alone: the build becomes ready with the same workspace as without faults, and every invariant holds."""

from collections.abc import Awaitable, Callable

import pytest

from tests.faults.cases import each_fault_alone
from tests.faults.invariants import check_no_secret, check_nothing_left
from tests.faults.report import Report
from tests.harness.faults import fault_harness


@pytest.mark.timeout(3000)
async def test_each_fault_alone(subtests: pytest.Subtests) -> None:
    await check_cases(each_fault_alone, subtests)


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
