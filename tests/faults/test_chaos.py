"""A short random run with a fixed seed; `make chaos` makes long ones."""

import pytest

from tests.faults.chaos import run_chaos
from tests.faults.plan import kinds, planned

SECONDS, SEED = 25, 1349
"""Servers and workers are killed, connections cut, files put back, and the model fails, in so short a time."""


def test_a_plan_comes_of_its_seed_alone() -> None:
    assert planned(5, 600) == planned(5, 600)
    assert planned(5, 600) != planned(6, 600)
    assert planned(5, 600)[:20] == planned(5, 600.5)[:20]
    struck = [action.kind for action in planned(5, 3600)]
    assert set(struck[: len(kinds())]) == set(kinds())


@pytest.mark.timeout(1800)
async def test_a_short_random_run() -> None:
    outcome = await run_chaos(SEED, SECONDS)
    assert not outcome.damage, outcome
