"""Without a safeguard, its fault does damage, and the harness finds the damage."""

import pytest

from tests.faults.report import Report
from tests.faults.safeguards import FAULTS, damage_without, without_each
from tests.harness.disabled_safeguards import SAFEGUARDS
from tests.harness.faults import fault_harness


@pytest.mark.timeout(1800)
async def test_each_safeguard_is_needed() -> None:
    assert FAULTS.keys() == set(SAFEGUARDS)
    async with fault_harness() as faults:
        report = Report(faults)
        await without_each(report)
    missed = {safeguard: report.cases.get(safeguard) for safeguard in FAULTS if not damage_without(report, safeguard)}
    assert not missed
