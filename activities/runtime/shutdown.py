"""What becomes of running activities when their worker stops.

A model call that is cut off is paid for and asked for again, so it may end. Everything else ends after a short time:
its next attempt finds what it has done, as a tool call attaches to its process in the sandbox. If it makes a paid call
at that moment, as the gate does for its judge, it ends after that.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.compact import CompactActivities
from activities.runtime.paid_call import PaidCalls, count_paid_calls
from activities.think import ThinkActivities
from domain.failures import WORKER_STOPPED

UNPAID_GRACE = timedelta(seconds=10)
"""Time that a stopping worker gives activities that call no model."""

_PAID: tuple[Callable[..., Any], ...] = (ThinkActivities.think, CompactActivities.compact)
"""They call a model. A stopping worker waits for them as long as GRACEFUL_SHUTDOWN_SECONDS."""

_PAID_TYPES = frozenset(each.__name__ for each in _PAID)


class Shutdown(Interceptor):
    """Ends running activities of a stopping worker: those without a model call soon, all of them at `end_now`."""

    def __init__(self) -> None:
        self._now = asyncio.Event()

    def end_now(self) -> None:
        """End model calls too. What they have cost is booked."""
        self._now.set()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See the SDK."""
        return _EndedByShutdown(next, self._now)


class _EndedByShutdown(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, now: asyncio.Event) -> None:
        super().__init__(next)
        self._now = now

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        is_paid = activity.info().activity_type in _PAID_TYPES
        calls = PaidCalls()
        count_paid_calls(calls)
        return await _until(self._now.wait() if is_paid else self._short_grace(calls), super().execute_activity(input))

    async def _short_grace(self, calls: PaidCalls) -> None:
        await activity.wait_for_worker_shutdown()
        if not await self._ends_within(UNPAID_GRACE.total_seconds()):
            ending = {asyncio.ensure_future(self._now.wait()), asyncio.ensure_future(calls.until_none())}
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            for each in ending:
                each.cancel()

    async def _ends_within(self, seconds: float) -> bool:
        """Whether all activities are to end at once before so many seconds are over."""
        try:
            async with asyncio.timeout(seconds):
                await self._now.wait()
        except TimeoutError:
            return False
        return True


async def _until(end: Coroutine[Any, Any, Any], work: Coroutine[Any, Any, Any]) -> Any:
    """Do the work, and cancel it if it has not ended by `end`.

    Raises:
        ApplicationError: it was cancelled so. A cancel by Temporal is raised as usual.
    """
    running, is_ended = asyncio.current_task(), False
    assert running is not None, "activities are tasks"

    async def watch() -> None:
        nonlocal is_ended
        await end
        is_ended = True
        running.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_ended and not activity.is_cancelled():
            running.uncancel()
            text = "The worker was stopped; another one continues."
            raise ApplicationError(text, type=WORKER_STOPPED) from None
        raise
    finally:
        watching.cancel()
