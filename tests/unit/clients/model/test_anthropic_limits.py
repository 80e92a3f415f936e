"""What the headers of answers say of rate limits."""

import httpx2
import pytest

from clients.model.anthropic_limits import read_limits
from domain.rates import RateKind, Reading

HEADERS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-29T06:00:01Z",
    "anthropic-ratelimit-tokens-limit": "38000",
    "anthropic-ratelimit-tokens-remaining": "38000",
    "anthropic-ratelimit-input-tokens-limit": "30000",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "anthropic-ratelimit-output-tokens-remaining": "8000",
}


def test_each_limit_is_read() -> None:
    assert read_limits(httpx2.Headers(HEADERS)) == {
        RateKind.REQUESTS: Reading(50, 49),
        RateKind.INPUT: Reading(30_000, 0),
        RateKind.OUTPUT: Reading(8000, 8000),
    }


@pytest.mark.parametrize("value", ["", "-1", "many", "1.5", "9" * 40, "٣"])
def test_a_header_that_cannot_be_read_counts_as_missing(value: str) -> None:
    changed = HEADERS | {"anthropic-ratelimit-requests-limit": value}
    assert RateKind.REQUESTS not in read_limits(changed)
    changed = HEADERS | {"anthropic-ratelimit-requests-remaining": value}
    assert RateKind.REQUESTS not in read_limits(changed)


def test_a_limit_of_nothing_counts_as_missing() -> None:
    assert RateKind.REQUESTS not in read_limits(HEADERS | {"anthropic-ratelimit-requests-limit": "0"})
