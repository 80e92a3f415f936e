"""Rates: what buckets hold, what workers lease from them, and what they learn from the API."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.rates import Bucket, ModelRates, RateKind, Reading

NOW = datetime(2026, 11, 29, 6, tzinfo=UTC)
LATER = NOW + timedelta(seconds=3600)


def requests(level: float, per_minute: int = 60) -> ModelRates:
    return ModelRates({RateKind.REQUESTS: Bucket(per_minute, level, NOW)}, learned=True)


def test_a_bucket_never_holds_more_than_ten_seconds_worth() -> None:
    assert Bucket(60, 0, NOW).refilled(NOW + timedelta(seconds=3)).level == 3
    assert Bucket(60, 0, NOW).refilled(LATER).level == 10
    assert Bucket(1, 0, NOW).refilled(LATER).level == 1, "one request must fit"


def test_a_clock_that_goes_back_refills_nothing() -> None:
    earlier = Bucket(60, 0, NOW).refilled(NOW - timedelta(seconds=5))
    assert (earlier.level, earlier.at) == (0, NOW)


def test_an_empty_bucket_says_how_long_to_wait() -> None:
    rates, lease = requests(0.5).lease(NOW, {RateKind.REQUESTS: 1}, {})
    assert (lease.wait, lease.granted) == (0.5, None)
    assert rates == requests(0.5)


def test_a_call_larger_than_the_bucket_goes_when_it_is_full_and_the_next_one_waits_longer() -> None:
    need = {RateKind.REQUESTS: 25.0}
    assert requests(9).lease(NOW, need, {})[1].wait == 1
    rates, lease = requests(10).lease(NOW, need, {})
    assert lease.granted == need
    assert rates.buckets[RateKind.REQUESTS].level == -15
    assert rates.lease(NOW, {RateKind.REQUESTS: 1}, {})[1].wait == 16


def test_a_lease_has_what_waits_and_a_spare_share_of_the_rest() -> None:
    _, lease = requests(10).lease(NOW, {RateKind.REQUESTS: 1}, {RateKind.REQUESTS: 5})
    assert lease.granted == {RateKind.REQUESTS: 7}
    _, lease = requests(10).lease(NOW, {RateKind.REQUESTS: 1}, {RateKind.REQUESTS: 50})
    assert lease.granted == {RateKind.REQUESTS: 10}


def test_the_first_answer_sets_the_limits() -> None:
    assumed = ModelRates({kind: Bucket(50, 1, NOW) for kind in RateKind})
    rates = assumed.learn({RateKind.REQUESTS: Reading(600, 580), RateKind.OUTPUT: Reading(60_000, 4000)}, NOW, 0)
    assert rates.learned
    assert rates.buckets == {
        RateKind.REQUESTS: Bucket(600, 100, NOW),
        RateKind.OUTPUT: Bucket(60_000, 4500, NOW),  # the API rounds to thousands
    }
    assert assumed.learn({}, NOW, 0).buckets == {}, "the API has no limits"
    assert rates.learn({}, NOW, 0) == rates, "an answer without headers changes nothing later"


def test_later_answers_lower_what_is_left_and_change_limits() -> None:
    lowered = requests(8).learn({RateKind.REQUESTS: Reading(60, 2)}, NOW, age=1)
    assert lowered.buckets[RateKind.REQUESTS].level == 3, "what has come in since the answer counts"
    assert requests(3).learn({RateKind.REQUESTS: Reading(60, 40)}, NOW, 0) == requests(3), "calls on their way count"
    assert requests(3).learn({RateKind.REQUESTS: Reading(6000, 40)}, NOW, 0) == requests(3, 6000)


def test_a_refusal_empties_the_buckets_for_all_until_its_time_is_over() -> None:
    rates = requests(9).block(NOW, 7)
    assert rates.lease(NOW, {}, {})[1].wait == 7
    after = NOW + timedelta(seconds=7)
    _, lease = rates.refilled(after).lease(after, {RateKind.REQUESTS: 1}, {})
    assert lease.granted is not None
    assert rates.block(NOW, 2).blocked_until == after, "a shorter block does not shorten a longer one"
    assert ModelRates({}, learned=True).block(NOW, 7).lease(NOW, {}, {})[1].wait == 7, "also without a limit"


@settings(deadline=None)  # a busy machine
@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 60_000), st.integers(0, 60_000)), max_size=60),
    st.integers(10, 100_000),
)
def test_the_api_s_own_bucket_is_never_exceeded(calls: list[tuple[float, int, int]], limit: int) -> None:
    """Whatever comes when: with honest estimates, a call that is admitted fits into a minute's bucket of the API."""
    ours = ModelRates({RateKind.INPUT: Bucket(limit, 0, NOW)}, learned=True)
    theirs, now = float(limit), NOW
    for seconds, need, _ in calls:
        need = min(need, limit)
        now += timedelta(seconds=seconds)
        theirs = min(limit, theirs + limit / 60 * seconds)
        ours, lease = ours.refilled(now).lease(now, {RateKind.INPUT: need}, {})
        if lease.granted is not None:
            assert need <= theirs * 1.000001 + 1
            theirs -= need
            ours = ours.put_back({RateKind.INPUT: lease.granted[RateKind.INPUT] - need})
