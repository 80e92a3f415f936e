"""A few builds with a fuzz model. `make fuzz` runs two hundred."""

import pytest

from domain.status import Status
from local.rehearsal.fuzz import fuzz_answer
from tests.faults.fuzz import run_fuzz

SEEDS = range(101, 105)


def test_an_answer_depends_only_on_seed_and_number() -> None:
    tools = ["bash", "read_file"]
    assert fuzz_answer(3, 2, tools) == fuzz_answer(3, 2, tools)
    assert len({fuzz_answer(3, number, tools) for number in range(20)}) > 15


@pytest.mark.timeout(1800)
async def test_builds_survive_a_hostile_model() -> None:
    outcome = await run_fuzz(SEEDS, turns=5)
    assert not outcome.damage, outcome
    assert outcome.builds[Status.READY], outcome
