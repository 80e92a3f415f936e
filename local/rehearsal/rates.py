"""Rate limits per model, as the vendor's API enforces them: token buckets that refill all the time.

From the vendor's page "Rate limits": requests, input tokens and output tokens per minute are limited per model. Input
counts without cache reads. Output counts as it is produced, whatever `max_tokens` says. Every answer says in its
headers what is left; token counts are rounded to thousands.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from local.rehearsal.errors import ApiError

Kind = Literal["requests", "input-tokens", "output-tokens"]


class Rate(BaseModel):
    """The limits of a model, for tests. Limits that are null are neither enforced nor in headers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="", description="Name of the model; empty for every model.")
    requests: int | None = Field(default=None, gt=0, description="Requests per minute.")
    input_tokens: int | None = Field(default=None, gt=0, description="Input tokens per minute, cache reads left out.")
    output_tokens: int | None = Field(default=None, gt=0, description="Output tokens per minute.")
    burst_seconds: float = Field(
        default=60.0, gt=0, description="The burst that is served at once, in seconds' worth of the limit."
    )

    @property
    def limits(self) -> dict[Kind, int]:
        """The limits that are set, per minute."""
        kinds: dict[Kind, int | None] = {
            "requests": self.requests,
            "input-tokens": self.input_tokens,
            "output-tokens": self.output_tokens,
        }
        return {kind: limit for kind, limit in kinds.items() if limit is not None}


@dataclass
class _Bucket:
    limit: int
    capacity: float
    level: float
    at: float

    def refill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + self.limit / 60 * (now - self.at))
        self.at = now

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) / self.limit * 60)


class RateLimits:
    """The registered limits and what is left of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.rates: list[Rate] = []
        self._clock = clock
        self._buckets: dict[str, dict[Kind, _Bucket]] = {}

    def add(self, rate: Rate) -> Rate:
        """Register limits. They take precedence over earlier ones, and their buckets are full."""
        self.rates.append(rate)
        self._buckets.clear()
        return rate

    def clear(self) -> None:
        """Forget all limits."""
        self.rates.clear()
        self._buckets.clear()

    def admit(self, model: str, input_tokens: int) -> None:
        """Count a request and its input.

        Raises:
            ApiError: it would exceed a limit. It is not counted.
        """
        buckets = self._of(model)
        needs: dict[Kind, float] = {"requests": 1, "input-tokens": input_tokens, "output-tokens": 1}
        for kind, bucket in buckets.items():
            if bucket.level < needs[kind]:
                raise self._exceeded(model, kind, bucket, min(needs[kind], bucket.capacity))
        for kind in ("requests", "input-tokens"):
            if kind in buckets:
                buckets[kind].level -= needs[kind]

    def produce(self, model: str, output_tokens: int) -> None:
        """Count output that was produced; the bucket may go below zero."""
        if (bucket := self._of(model).get("output-tokens")) is not None:
            bucket.level -= output_tokens

    def headers(self, model: str) -> dict[str, str]:
        """The headers of an answer."""
        return dict(self._headers(model))

    def _headers(self, model: str) -> Iterator[tuple[str, str]]:
        for kind, bucket in self._of(model).items():
            left = max(0.0, bucket.level)
            remaining = math.floor(left) if kind == "requests" else round(left / 1000) * 1000
            full_at = datetime.now(UTC) + timedelta(seconds=bucket.seconds_until(bucket.capacity))
            yield f"anthropic-ratelimit-{kind}-limit", str(bucket.limit)
            yield f"anthropic-ratelimit-{kind}-remaining", str(min(remaining, bucket.limit))
            yield f"anthropic-ratelimit-{kind}-reset", f"{full_at:%Y-%m-%dT%H:%M:%SZ}"

    def _exceeded(self, model: str, kind: Kind, bucket: _Bucket, needed: float) -> ApiError:
        what = kind.replace("-", " ")
        return ApiError(
            "rate_limit_error",
            f"This request would exceed your organization's rate limit of {bucket.limit:,} {what} per minute "
            f"(model: {model}). For details, refer to: https://docs.claude.com/en/api/rate-limits.",
            headers={"retry-after": str(math.ceil(bucket.seconds_until(needed))), **self.headers(model)},
        )

    def _of(self, model: str) -> dict[Kind, _Bucket]:
        now = self._clock()
        if model not in self._buckets:
            rate = next((rate for rate in reversed(self.rates) if rate.model in ("", model)), Rate())
            self._buckets[model] = {
                kind: _Bucket(limit, capacity, capacity, now)
                for kind, limit in rate.limits.items()
                for capacity in (max(1.0, limit / 60 * rate.burst_seconds),)
            }
        buckets = self._buckets[model]
        for bucket in buckets.values():
            bucket.refill(now)
        return buckets
