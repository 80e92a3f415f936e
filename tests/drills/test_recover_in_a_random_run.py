"""The operator's acts of `make chaos`, each without other faults, while people start builds and talk to them."""

from collections.abc import Callable

import pytest

from tests.faults.chaos import run_chaos
from tests.faults.plan import OPERATOR_ACTS, Action

Figure = Callable[[str], None]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("act", OPERATOR_ACTS)
async def test_an_act_in_a_random_run(act: str, figure: Figure) -> None:
    """Lose the namespace, or put the database back, in a random run."""
    outcome = await run_chaos(1, 45, plan=[Action(15.0, act, 0.5, 10.0)])
    assert not outcome.damage, outcome
    assert outcome.struck[act] == 1
    figure(f"{act.partition(': ')[2]}: {sum(outcome.builds.values())} builds, {outcome.builds['ready']} ready")
