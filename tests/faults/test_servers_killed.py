"""Each server killed and started again: see `test_each_fault.py`."""

import pytest

from tests.faults.cases import each_server_killed
from tests.faults.test_each_fault import all_holds


@pytest.mark.timeout(3000)
async def test_each_server_killed(subtests: pytest.Subtests) -> None:
    await all_holds(each_server_killed, subtests)
