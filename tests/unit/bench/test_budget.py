"""Builds end within days and dollars, by the simulation that `python -m bench.budget` prints the tables of."""

import statistics

import pytest

from bench.budget import SEEDS, Plan, Simulation, mean_days, mean_dollars, plans, turns_a_day

DEFAULT = plans()[0]
SLEEPING = [plan for plan in plans() if plan.cycle_budget is not None]


def test_a_build_of_150_turns_on_the_default_plan_takes_five_days_and_six_dollars() -> None:
    builds = [Simulation(DEFAULT, DEFAULT.model, "now", seed).run(150) for seed in SEEDS]
    assert [build.turns for build in builds] == [150] * len(SEEDS)
    assert mean_days(builds) <= 5
    assert mean_dollars(builds) <= 6


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
def test_no_plan_is_stuck_below_600_turns(plan: Plan) -> None:
    builds = [Simulation(plan, plan.model, "now", seed).run(600) for seed in SEEDS]
    assert [(build.turns, build.stuck) for build in builds] == [(600, False)] * len(SEEDS)


@pytest.mark.parametrize("plan", SLEEPING, ids=lambda plan: plan.name)
def test_little_of_the_allowance_is_unused_at_sleep(plan: Plan) -> None:
    for turns in (150, 600):
        builds = [Simulation(plan, plan.model, "now", seed).run(turns) for seed in SEEDS]
        assert statistics.mean(share for build in builds for share in build.unused or []) < 15


def test_a_morning_with_a_long_conversation_is_no_wind_down() -> None:
    """Priced as if nothing were cached, the day would end after the three turns of a wind-down."""
    assert int(turns_a_day(DEFAULT, DEFAULT.model, "before", 120_000)) <= 4
    assert int(turns_a_day(DEFAULT, DEFAULT.model, "look-ahead", 120_000)) >= 20
