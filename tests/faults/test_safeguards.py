"""Without a safeguard, the fault that it is against does damage, and the harness finds it."""

import pytest

from tests.faults.disabled_safeguards import SAFEGUARDS
from tests.faults.report import Report
from tests.faults.safeguards import FAULTS, found, without_each
from tests.harness.faults import fault_harness


@pytest.mark.timeout(1800)
async def test_each_safeguard_is_needed() -> None:
    assert FAULTS.keys() == set(SAFEGUARDS)
    async with fault_harness() as here:
        report = Report(here)
        await without_each(report)
    missed = {safeguard: report.cases.get(safeguard) for safeguard in FAULTS if not found(report, safeguard)}
    assert not missed
