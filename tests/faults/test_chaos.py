"""A short random run with a fixed seed. `make chaos` runs longer ones."""

import pytest

from domain.tools import check_tool_input
from tests.faults.chaos import run_chaos
from tests.faults.plan import OPERATOR_ACTS, kinds, plan_faults
from tests.harness.sample_build import sample_script

SECONDS, SEED = 13, 27063
"""In these seconds, answers are lost on the way to two servers, the database and two workers are killed, and the model
fails. No fault of this seed goes on after them."""


def test_a_plan_depends_only_on_its_seed() -> None:
    assert plan_faults(5, 600) == plan_faults(5, 600)
    assert plan_faults(5, 600) != plan_faults(6, 600)
    assert plan_faults(5, 600)[:20] == plan_faults(5, 600.5)[:20]
    struck = [action.kind for action in plan_faults(5, 3600)]
    frequent = [kind for kind in struck if kind not in OPERATOR_ACTS]
    once = len(kinds()) - len(OPERATOR_ACTS)
    assert {*frequent[:once], *OPERATOR_ACTS} == set(kinds())
    assert set(OPERATOR_ACTS) < {action.kind for action in plan_faults(5, 180)}


def test_each_call_of_the_sample_fits_its_tool() -> None:
    calls = [call for turn in sample_script(long=True, stuck=True)["turns"] for call in turn if "tool" in call]
    assert {call["tool"] for call in calls} == {"bash", "write_file", "read_file", "glob", "edit_file"}
    for call in calls:
        check_tool_input(call["tool"], call["input"])


@pytest.mark.timeout(1800)
async def test_a_short_random_run() -> None:
    outcome = await run_chaos(SEED, SECONDS)
    assert not outcome.damage, outcome
