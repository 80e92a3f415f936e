from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.outage import (
    FIRST_RAMP,
    FIRST_WAIT,
    LATEST_RETRY,
    LONGEST_WAIT,
    MOST_RAMP,
    REASONS,
    builds_a_second,
    probe_wait,
    wait_before_retry,
)
from domain.status import Dependency


def test_founders_read_a_sentence_for_each_dependency() -> None:
    assert set(REASONS) == set(Dependency)
    assert all("by itself" in reason for reason in REASONS.values())


@given(waits=st.integers(0, 10_000), lasted=st.floats(0, 1e7), fraction=st.floats(0, 1))
def test_no_wait_is_longer_than_the_outage_has_lasted_plus_a_minute(waits: int, lasted: float, fraction: float) -> None:
    wait = wait_before_retry(waits, timedelta(seconds=lasted), fraction)
    assert timedelta() < wait <= min(LONGEST_WAIT, timedelta(seconds=lasted) + LATEST_RETRY)


def test_waits_grow_to_five_minutes_and_vary() -> None:
    long = timedelta(days=1)
    assert [wait_before_retry(waits, long, 0) / FIRST_WAIT for waits in range(6)] == [1, 2, 4, 8, 10, 10]
    assert wait_before_retry(4, long, 1) < 0.8 * wait_before_retry(4, long, 0)


def test_probes_back_off_to_five_minutes() -> None:
    assert [probe_wait(failures).total_seconds() for failures in range(7)] == [15, 30, 60, 120, 240, 300, 300]


def test_builds_go_on_in_ramps() -> None:
    rates = [builds_a_second(timedelta(seconds=seconds)) for seconds in (0, 15, 30, 3000)]
    assert rates == [FIRST_RAMP, 2 * FIRST_RAMP, 4 * FIRST_RAMP, MOST_RAMP]
