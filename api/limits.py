"""Limits of what an identity may ask for: requests by class, new projects, and live feeds open at once.

Buckets are rows that all APIs share. Feeds are counted in this process alone, since they end with it.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from time import monotonic

import structlog

from api.errors import TOO_MANY_REQUESTS, Problem
from db.request_buckets import forget_full_buckets, take_token
from db.session import Sessions
from db.transaction import autocommit
from domain.request_limits import RequestClass, RequestLimits

log = structlog.get_logger(__name__)

_FEED_RETRY_SECONDS = 10
"""Seconds after which a client tries again to open a feed: no one knows when one of its others ends."""

_FORGET_SECONDS = 3600.0

_WHAT = {
    RequestClass.READ: "You have read too often in the last minute.",
    RequestClass.WRITE: "You have sent too many changes in the last minute.",
    RequestClass.EXPENSIVE: "You have started builds and previews, downloaded or pushed too often in the last minute.",
    RequestClass.NEW_PROJECT: "You have made as many projects as one may make in a day.",
    RequestClass.WRONG_CREDENTIALS: "Too many requests with wrong credentials have come from your address.",
}


class Limits:
    """Checks the limits. A database that does not answer refuses nothing: the route itself says so better."""

    def __init__(self, sessions: Sessions, limits: RequestLimits) -> None:
        self._sessions = sessions
        self._limits = limits
        self._open_feeds: Counter[str] = Counter()
        self._blocked: dict[str, float] = {}
        self._forget_at = monotonic() + _FORGET_SECONDS

    async def take(self, identity: str, kind: RequestClass) -> None:
        """Count a request.

        Args:
            identity: a user, or `operator`.

        Raises:
            Problem: there were too many.
        """
        if (seconds := await self._take(f"identity {identity}", kind)) is not None:
            raise too_many(_WHAT[kind], seconds)

    async def note_wrong_credentials(self, address: str) -> None:
        """Count a request whose credentials were wrong.

        Raises:
            Problem: there were too many from this address.
        """
        seconds = await self._take(f"address {address}", RequestClass.WRONG_CREDENTIALS)
        if seconds is not None:
            now = monotonic()
            self._blocked = {each: until for each, until in self._blocked.items() if until > now}
            self._blocked[address] = now + seconds
            raise too_many(_WHAT[RequestClass.WRONG_CREDENTIALS], seconds)

    def check_address(self, address: str) -> None:
        """Refuse even right credentials of a kind that can be guessed, while the address has guessed too often.

        Raises:
            Problem: it has.
        """
        left = self._blocked.get(address, 0.0) - monotonic()
        if left > 0:
            raise too_many(_WHAT[RequestClass.WRONG_CREDENTIALS], int(left) + 1)

    @contextlib.contextmanager
    def open_feed(self, identity: str) -> Iterator[None]:
        """Count a live feed until the end of the block.

        Raises:
            Problem: the identity has too many open.
        """
        if 0 < self._limits.open_feeds <= self._open_feeds[identity]:
            raise too_many(
                f"You have {self._open_feeds[identity]} live feeds open, as many as one may have. Close one.",
                _FEED_RETRY_SECONDS,
            )
        self._open_feeds[identity] += 1
        try:
            yield
        finally:
            self._open_feeds[identity] -= 1
            if not self._open_feeds[identity]:
                del self._open_feeds[identity]

    async def _take(self, identity: str, kind: RequestClass) -> int | None:
        limit = self._limits.of_class[kind]
        if limit.amount == 0:
            return None
        try:
            async with autocommit(self._sessions) as tx:
                seconds = await take_token(tx, identity, kind, limit)
                if monotonic() >= self._forget_at:
                    self._forget_at = monotonic() + _FORGET_SECONDS
                    await forget_full_buckets(tx)
        except Exception as error:  # a limit that can't be checked must not refuse what the database could still do
            log.warning("a limit was not checked", kind=kind, error=error)
            return None
        return seconds


def too_many(detail: str, seconds: int) -> Problem:
    """The problem of an identity that has asked for too much."""
    wait = f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"
    return Problem(
        TOO_MANY_REQUESTS,
        f"{detail} Try again in {wait}.",
        headers={"Retry-After": str(seconds)},
        more={"retry_after_seconds": seconds},
    )
