"""Each server is killed and started again; see `test_each_fault.py`."""

import pytest

from tests.faults.cases import each_server_killed
from tests.faults.report import check_cases


@pytest.mark.timeout(3000)
async def test_each_server_killed(subtests: pytest.Subtests) -> None:
    await check_cases(each_server_killed, subtests)
