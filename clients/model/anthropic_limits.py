"""What the headers of Anthropic's answers say of its rate limits (the vendor's page "Rate limits")."""

from collections.abc import Mapping

from domain.rates import RateKind, Reading

_NAMES = {RateKind.REQUESTS: "requests", RateKind.INPUT: "input-tokens", RateKind.OUTPUT: "output-tokens"}

_MOST = 10**12


def read_limits(headers: Mapping[str, str]) -> dict[RateKind, Reading]:
    """Return the limits that the headers name, and what is left of them, without headers that can't be read."""
    readings: dict[RateKind, Reading] = {}
    for kind, name in _NAMES.items():
        limit = _count(headers.get(f"anthropic-ratelimit-{name}-limit"))
        remaining = _count(headers.get(f"anthropic-ratelimit-{name}-remaining"))
        if limit and remaining is not None:
            readings[kind] = Reading(limit, remaining)
    return readings


def _count(value: str | None) -> int | None:
    number = int(value) if value is not None and value.isascii() and value.isdecimal() and len(value) <= 12 else None
    return number if number is not None and number < _MOST else None
