"""Marks a paid call inside an activity that is not paid itself, so that a stopping worker lets it end."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token


class PaidCalls:
    """The paid calls that an activity's attempt is making."""

    def __init__(self) -> None:
        self._calls = 0
        self._none = asyncio.Event()
        self._none.set()

    async def until_none(self) -> None:
        """Wait until no call is being made."""
        await self._none.wait()

    @contextmanager
    def making_one(self) -> Iterator[None]:
        """A call is being made inside the block."""
        self._calls += 1
        self._none.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._none.set()


_CURRENT: ContextVar[PaidCalls | None] = ContextVar("paid_calls", default=None)


def count_paid_calls(calls: PaidCalls) -> Token[PaidCalls | None]:
    """Let this attempt's calls be counted here."""
    return _CURRENT.set(calls)


@contextmanager
def paid_call() -> Iterator[None]:
    """A stopping worker lets the block end, for as long as it lets model calls end."""
    calls = _CURRENT.get()
    if calls is None:
        yield
        return
    with calls.making_one():
        yield
