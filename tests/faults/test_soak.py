"""What a soak measures, and a short one."""

import pytest

from tests.faults.plan import plan_soak
from tests.faults.soak import Limit, _unjudged, run_soak
from tests.harness.resources import Samples


def _samples(values: list[float]) -> Samples:
    samples = Samples()
    for number, value in enumerate(values):
        samples.add(10.0 * number, {"worker: MB": value})
    return samples


def test_a_leak_is_found() -> None:
    leaking = _samples([200 + number for number in range(100)])
    assert leaking.growth("worker: MB") == pytest.approx(59, abs=1)
    assert not Limit(": MB", 0.1, 25).allows(leaking, "worker: MB")


def test_a_warm_up_noise_and_single_peaks_are_none() -> None:
    warm = [100.0 + 5 * number for number in range(30)]
    calm = [250.0 + number % 7 for number in range(70)]
    calm[50] = 900.0
    samples = _samples(warm + calm)
    assert abs(samples.growth("worker: MB")) < 3
    assert Limit(": MB", 0.1, 25).allows(samples, "worker: MB")


def test_what_is_not_always_there_is_measured_where_it_is() -> None:
    samples = Samples()
    samples.add(0, {"a": 1.0})
    samples.add(10, {"b": 5.0})
    samples.add(20, {"a": 2.0, "b": 5.0})
    assert samples.points("a") == [(0, 1.0), (20, 2.0)]
    assert samples.points("b") == [(10, 5.0), (20, 5.0)]
    assert len(samples.line("b")) == 2


def test_a_plan_follows_its_seed_and_kills_no_server() -> None:
    plan = plan_soak(3, 3600)
    assert plan == plan_soak(3, 3600)
    assert plan != plan_soak(4, 3600)
    assert 90 < len(plan) < 360
    assert not [action for action in plan if action.kind.startswith("killed")]


def test_a_plan_deploys() -> None:
    for seconds, deploys in ((60, 1), (3600, 5)):
        newer = [action for action in plan_soak(3, seconds) if "newer" in action.kind]
        assert len(newer) >= deploys


def test_what_was_measured_too_rarely_does_not_pass() -> None:
    samples = _samples([200.0] * 10)
    found = list(_unjudged(samples))
    assert "steady API: MB: was not measured" in found
    rare = Samples()
    for number in range(10):
        rare.add(10.0 * number, {"steady worker: MB": 200.0})
    assert "steady worker: MB: only 6 measurements after the warm-up" in _unjudged(rare)


@pytest.mark.thorough
async def test_a_short_soak() -> None:
    soak = await run_soak(2, 45, every=1)
    assert soak.outcome.damage == []
    assert {"steady worker: MB", "steady API: files", "postgres: MB", "connections"} <= set(soak.samples.values)
