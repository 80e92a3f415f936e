"""How many requests an identity may make: a bucket of tokens for each class of requests, which refills steadily."""

import math
from dataclasses import dataclass
from enum import StrEnum


class RequestClass(StrEnum):
    """What a token of a bucket is for."""

    READ = "read"
    WRITE = "write"
    EXPENSIVE = "expensive"
    """Starting a build, pushing, opening a preview, downloading a workspace. Also counts as a read or a write."""
    NEW_PROJECT = "new_project"
    WRONG_CREDENTIALS = "wrong_credentials"
    """Of an address and not of an identity: no one knows who it is."""


@dataclass(frozen=True)
class RequestLimit:
    """At most `amount` requests at once, and as many in each `seconds` later on. 0: no limit."""

    amount: int
    seconds: float = 60.0

    @property
    def per_second(self) -> float:
        """Tokens that come back in a second."""
        return self.amount / self.seconds

    def retry_after(self, tokens: float) -> int:
        """Whole seconds until a bucket with less than one token has one."""
        return max(1, math.ceil((1 - tokens) / self.per_second))


@dataclass(frozen=True)
class RequestLimits:
    """The limits that the settings name, and the feeds that an identity may have open at once (0: no limit)."""

    of_class: dict[RequestClass, RequestLimit]
    open_feeds: int
