"""The rehearsal model's rate limits."""

import pytest

from local.rehearsal.errors import ApiError
from local.rehearsal.rates import Rate, RateLimits


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> RateLimits:
    return RateLimits(clock)


def test_without_rates_nothing_is_refused_and_no_header_is_sent(limits: RateLimits) -> None:
    for _ in range(1000):
        limits.admit("m", 10**6)
    assert limits.headers("m") == {}


def test_requests_beyond_the_limit_are_refused_and_come_back_one_by_one(limits: RateLimits, clock: Clock) -> None:
    limits.add(Rate(requests=60))
    for _ in range(60):
        limits.admit("m", 0)
    with pytest.raises(ApiError) as refused:
        limits.admit("m", 0)
    assert (refused.value.kind, refused.value.status) == ("rate_limit_error", 429)
    assert refused.value.headers["retry-after"] == "1"
    assert refused.value.headers["anthropic-ratelimit-requests-remaining"] == "0"
    clock.now += 1
    limits.admit("m", 0)
    with pytest.raises(ApiError):
        limits.admit("m", 0)
    limits.admit("another", 0)


def test_input_that_would_exceed_the_limit_is_refused(limits: RateLimits) -> None:
    limits.add(Rate(model="m", input_tokens=30_000))
    limits.admit("m", 20_000)
    with pytest.raises(ApiError, match="30,000 input tokens per minute") as refused:
        limits.admit("m", 15_000)
    assert refused.value.headers["retry-after"] == "10"
    limits.admit("m", 10_000)


def test_output_counts_as_it_is_produced_and_tokens_are_rounded(limits: RateLimits, clock: Clock) -> None:
    limits.add(Rate(output_tokens=6000))
    limits.admit("m", 0)
    limits.produce("m", 2400)
    assert limits.headers("m")["anthropic-ratelimit-output-tokens-remaining"] == "4000"
    limits.produce("m", 4000)
    with pytest.raises(ApiError, match="output tokens"):
        limits.admit("m", 0)
    clock.now += 5
    limits.admit("m", 0)


def test_a_burst_may_be_smaller_than_a_minute(limits: RateLimits) -> None:
    limits.add(Rate(requests=60, burst_seconds=2))
    limits.admit("m", 0)
    limits.admit("m", 0)
    with pytest.raises(ApiError):
        limits.admit("m", 0)
