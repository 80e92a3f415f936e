"""Each fault alone: the build becomes ready with the same workspace as without faults, and every invariant holds."""

import pytest

from tests.faults.cases import each_connection_struck, each_fault_alone
from tests.faults.report import check_cases


@pytest.mark.timeout(3000)
async def test_each_fault_alone(subtests: pytest.Subtests) -> None:
    await check_cases(each_fault_alone, subtests)


@pytest.mark.thorough
@pytest.mark.timeout(3000)
async def test_each_connection_struck(subtests: pytest.Subtests) -> None:
    await check_cases(each_connection_struck, subtests)
