"""Each fault alone: the build becomes ready with the same workspace as without faults, and every invariant holds."""

import pytest

from tests.faults.cases import each_kind_of_fault, more_of_each_fault
from tests.faults.report import check_cases


@pytest.mark.timeout(3000)
async def test_each_kind_of_fault_alone(subtests: pytest.Subtests) -> None:
    await check_cases(each_kind_of_fault, subtests)


@pytest.mark.thorough
@pytest.mark.timeout(3000)
async def test_more_of_each_fault(subtests: pytest.Subtests) -> None:
    await check_cases(more_of_each_fault, subtests)
