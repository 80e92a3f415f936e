"""Rates of a model's API: token buckets that all workers share, and the arithmetic of leases from them.

The API limits requests, input tokens (cache reads left out) and output tokens per minute. Our buckets refill as fast as
the API's, but hold only a few seconds' worth: after a pause, and in the morning, calls begin at the rate that they can
go on with, and what the API would allow beyond that is a margin for estimates that were wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class RateKind(StrEnum):
    """What the API counts."""

    REQUESTS = "requests"
    INPUT = "input"
    OUTPUT = "output"


Amounts = Mapping[RateKind, float]
"""So many of each kind; a kind that is missing counts as 0."""

BURST_SECONDS = 10.0
"""A full bucket holds this many seconds' worth of its limit."""

LEASE_SECONDS = 2.0
"""A worker takes about this many seconds' worth at a time, so that calls do not queue for the bucket's row."""

SPARE_SHARE = 0.25
"""A worker takes at most this share of what is left beyond what its waiting calls need."""

_ROUNDING = 500
"""The API rounds the tokens that are left to thousands."""


@dataclass(frozen=True)
class AssumedRates:
    """Limits per minute of a model, assumed until its API has named its own. None: no limit is assumed."""

    requests: int | None = None
    input: int | None = None
    output: int | None = None

    def __post_init__(self) -> None:
        if any(limit is not None and limit < 1 for limit in (self.requests, self.input, self.output)):
            raise ValueError("limits per minute must be at least 1")


@dataclass(frozen=True)
class Reading:
    """What the headers of an answer say of a limit."""

    limit: int
    """Per minute."""
    remaining: float


@dataclass(frozen=True)
class Bucket:
    """What is left of a limit. `level` is below 0 after a call that was larger than the bucket."""

    per_minute: int
    level: float
    at: datetime

    @property
    def per_second(self) -> float:
        """How fast it refills."""
        return self.per_minute / 60

    @property
    def capacity(self) -> float:
        """The most that it holds."""
        return max(1.0, self.per_second * BURST_SECONDS)

    def refilled(self, now: datetime) -> "Bucket":
        """The bucket at a later time."""
        seconds = max(0.0, (now - self.at).total_seconds())
        return replace(self, level=min(self.capacity, self.level + self.per_second * seconds), at=max(now, self.at))

    def add(self, amount: float) -> "Bucket":
        """Put some back, or take some for a negative amount."""
        return replace(self, level=min(self.capacity, self.level + amount))

    def seconds_until(self, need: float) -> float:
        """How long until it has as much, or is full."""
        return max(0.0, (min(need, self.capacity) - self.level) / self.per_second)

    def corrected(self, reading: Reading, age: float) -> "Bucket":
        """The bucket after the API has said what is left, `age` seconds ago. It never has more than the API says."""
        said = reading.remaining + reading.limit / 60 * age
        said += _ROUNDING if reading.limit >= 2 * _ROUNDING else 0
        level = min(self.level, said)
        return replace(self, per_minute=reading.limit, level=level).add(0)


@dataclass(frozen=True)
class ModelRates:
    """The buckets of a model. A kind without a bucket has no limit."""

    buckets: Mapping[RateKind, Bucket]
    learned: bool = False
    """Whether the API has named its limits, or has answered without naming any."""
    blocked_until: datetime | None = None
    """The API has refused a call until then."""

    def refilled(self, now: datetime) -> "ModelRates":
        """The buckets at a later time."""
        return replace(self, buckets={kind: bucket.refilled(now) for kind, bucket in self.buckets.items()})

    def put_back(self, amounts: Amounts) -> "ModelRates":
        """Return what was leased and not used. A negative amount was used beyond what was leased."""
        return replace(
            self, buckets={kind: bucket.add(amounts.get(kind, 0.0)) for kind, bucket in self.buckets.items()}
        )

    def learn(self, readings: Mapping[RateKind, Reading], now: datetime, age: float) -> "ModelRates":
        """Take over what an answer's headers said `age` seconds ago. Without readings: the API names no limits."""
        if not readings:
            return self if self.learned else replace(self, buckets={}, learned=True)
        buckets = dict(self.buckets) if self.learned else {}
        for kind, reading in readings.items():
            known = buckets.get(kind) or Bucket(reading.limit, float("inf"), now)
            buckets[kind] = known.corrected(reading, age)
        return replace(self, buckets=buckets, learned=True)

    def block(self, now: datetime, seconds: float) -> "ModelRates":
        """Empty the buckets: the API has refused a call, and says after how many seconds it takes others."""
        until = now + timedelta(seconds=seconds)
        return replace(
            self,
            buckets={kind: replace(each, level=min(each.level, 0.0)) for kind, each in self.buckets.items()},
            blocked_until=until if self.blocked_until is None else max(until, self.blocked_until),
        )

    def lease(self, now: datetime, need: Amounts, queued: Amounts) -> "tuple[ModelRates, Lease]":
        """Take what a call needs, what others that wait need if there is as much, and a spare share.

        A call that is larger than a bucket goes once that is full, and leaves it below 0.
        """
        waits = [bucket.seconds_until(need.get(kind, 0.0)) for kind, bucket in self.buckets.items()]
        if self.blocked_until is not None:
            waits.append((self.blocked_until - now).total_seconds())
        wait = max(waits, default=0.0)
        if wait > 0:
            return self, Lease(wait=wait, limited=True, learned=self.learned)
        granted: dict[RateKind, float] = {}
        for kind, bucket in self.buckets.items():
            least = need.get(kind, 0.0)
            left = max(0.0, bucket.level - least)
            others = min(queued.get(kind, 0.0), left)
            spare = min(bucket.per_second * LEASE_SECONDS, (left - others) * SPARE_SHARE)
            granted[kind] = least + others + spare
        taken = {kind: -amount for kind, amount in granted.items()}
        return self.put_back(taken), Lease(granted=granted, limited=bool(self.buckets), learned=self.learned)


@dataclass(frozen=True)
class Lease:
    """What a worker may use until it asks again, at most for `LEASE_SECONDS`; or how long to wait for it."""

    wait: float = 0.0
    """Seconds; 0 if it was granted."""
    granted: Amounts | None = None
    """None if it was not. A kind that is missing has no limit."""
    limited: bool = False
    """Whether the model has a limit at all."""
    learned: bool = False
    """Whether its limits are the API's own."""
