"""Whether the model's API takes a call now: this worker's share of the buckets that all workers lease from.

Calls that have to wait stand in a line of their worker, in which the user who was served least goes next. A lease is
for about two seconds; what it leaves goes back with the next one. What a call really took is corrected after it.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from clients.model.protocol import OnUsage
from db.buckets import Exchange, exchange
from db.session import Sessions
from db.transaction import transaction
from domain.errors import RateLimited
from domain.pricing import Iteration, Tokens
from domain.rates import LEASE_SECONDS, Amounts, AssumedRates, RateKind, Reading

_FIRST_OUTPUT = 1000.0
"""Tokens of output that a call is expected to have before this worker has seen one."""

_LEARNING = 0.1
"""Weight of the last call in the average output of calls; that of the first calls is greater."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, LEASE_SECONDS
"""Seconds until a worker whose calls wait asks for a lease again."""

_BLOCKED_SECONDS = 5.0
"""How long no call is made after a refusal that names no time."""

_LONGEST_BLOCK = 120.0

_FORGETTING_SECONDS = 60.0
"""What a user was served counts half after this time."""

MOST_WAITING = 50
MOST_WAITING_OF_USER = 16
"""Calls in a worker's line, and of one user. Further ones wait in their workflows, where they use no activity slot."""


@dataclass(eq=False)
class _Waiter:
    user_id: str
    need: Amounts
    number: int
    admitted: asyncio.Future[Amounts]
    """What the call took of the share."""


@dataclass
class _Model:
    """What this worker knows of a model's rates."""

    share: dict[RateKind, float] = field(default_factory=dict)
    """Leased and not used. A kind that is missing has no limit, while the lease is valid."""
    valid_until: float = 0.0
    limited: bool = True
    learned: bool = False
    wait: float = 0.0
    """Seconds that the last request for a lease was told to wait."""
    back: dict[RateKind, float] = field(default_factory=dict)
    readings: Mapping[RateKind, Reading] | None = None
    read_at: float = 0.0
    blocked: float | None = None
    expected_output: float = _FIRST_OUTPUT
    calls: int = 0
    """Calls that `expected_output` is learned from."""
    waiters: list[_Waiter] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    pump: "asyncio.Task[None] | None" = None
    served: dict[str, float] = field(default_factory=dict)
    served_at: float = 0.0

    def covers(self, need: Amounts) -> bool:
        """Whether the share has as much."""
        if self.valid_until <= monotonic():
            return False
        return all(left >= need.get(kind, 0.0) for kind, left in self.share.items())

    def take(self, user_id: str, need: Amounts) -> Amounts:
        """Use a part of the share for a call of the user. Returns what was taken: none of a kind without a limit."""
        taken = {kind: need.get(kind, 0.0) for kind in self.share}
        for kind, amount in taken.items():
            self.share[kind] -= amount
        now = monotonic()
        faded = 0.5 ** ((now - self.served_at) / _FORGETTING_SECONDS)
        self.served = {user: calls * faded for user, calls in self.served.items() if calls * faded > 0.01}
        self.served[user_id] = self.served.get(user_id, 0.0) + 1
        self.served_at = now
        return taken

    def put_back(self, amounts: Amounts) -> None:
        """Return an amount, or take more for a negative one, with the next lease."""
        for kind, amount in amounts.items():
            self.back[kind] = self.back.get(kind, 0.0) + amount
        self.changed.set()

    def next(self) -> _Waiter:
        """The waiting call of the user who was served least, the oldest if there are several."""
        return min(self.waiters, key=lambda waiter: (self.served.get(waiter.user_id, 0.0), waiter.number))


class Admission:
    """A call that may be made. Its parts are the callbacks of `ModelProvider.stream`; close it after the call."""

    def __init__(self, model: _Model, taken: Amounts) -> None:
        self._model = model
        self._taken = taken
        self._tokens: Tokens | None = None
        self._sent = False

    @classmethod
    def of_no_call(cls) -> "Admission":
        """An admission where no call will be made."""
        return cls(_Model(), {})

    def note_limits(self, readings: Mapping[RateKind, Reading]) -> None:
        """Keep what the API says of its limits. It has accepted the call."""
        model = self._model
        model.readings, model.read_at, self._sent = readings, monotonic(), True
        if not model.learned:
            # The limits were assumed so far: calls that wait, and the next one, ask again.
            model.valid_until = 0.0
            model.changed.set()

    def noting(self, on_usage: OnUsage) -> OnUsage:
        """A callback that keeps the usage for the rates as well."""

        def note(tokens: Tokens, request_id: str | None, iterations: tuple[Iteration, ...]) -> None:
            self._tokens = tokens
            on_usage(tokens, request_id, iterations)

        return note

    def count(self) -> None:
        """Count the call as made although no answer came."""
        self._sent = True

    def close(self) -> None:
        """Correct the estimates by what the call took; all of it goes back if the API did not accept the call."""
        if not self._sent:
            self._model.put_back(self._taken)
        elif self._tokens is not None:
            self._correct(self._tokens)

    def _correct(self, tokens: Tokens) -> None:
        model, taken = self._model, self._taken
        read = tokens.input + tokens.cache_write_5m + tokens.cache_write_1h
        model.calls += 1
        model.expected_output += max(_LEARNING, 1 / model.calls) * (tokens.output - model.expected_output)
        # What the API said with this answer counts its input, and none of its output. So a call that was made before
        # any limit was known, and took nothing, owes its output only.
        model.put_back(
            {
                RateKind.INPUT: taken[RateKind.INPUT] - read if RateKind.INPUT in taken else 0.0,
                RateKind.OUTPUT: taken.get(RateKind.OUTPUT, 0.0) - tokens.output,
            }
        )


class CallRates:
    """Admits the calls of a worker. One for all of its activities."""

    def __init__(
        self, sessions: Sessions, assumed: Mapping[str, AssumedRates] | None = None, patience: float = 60.0
    ) -> None:
        """
        Args:
            assumed: limits of models whose API has not named its own.
            patience: how many seconds a turn's call waits in its activity.
        """
        self.patience = patience
        self._sessions = sessions
        self._assumed = assumed or {}
        self._models: dict[str, _Model] = {}
        self._numbers = 0

    def is_limited(self, model: str) -> bool:
        """Whether the model may have limits, as far as this worker knows."""
        return self._of(model).limited

    async def admit(self, model: str, user_id: str, input_tokens: float, patience: float) -> Admission | None:
        """Wait until the API takes the call.

        Args:
            input_tokens: of its prompt, without what the cache is expected to have.
            patience: the longest wait, in seconds.

        Returns:
            None if it can't be made within that time.
        """
        state = self._of(model)
        need = {RateKind.REQUESTS: 1.0, RateKind.INPUT: input_tokens, RateKind.OUTPUT: state.expected_output}
        if not state.waiters and state.covers(need):
            return Admission(state, state.take(user_id, need))
        if self._is_full(state, user_id):
            return None
        self._numbers += 1
        waiter = _Waiter(user_id, need, self._numbers, asyncio.get_running_loop().create_future())
        state.waiters.append(waiter)
        if state.pump is None or state.pump.done():
            state.pump = asyncio.create_task(self._serve(model, state))
        try:
            async with asyncio.timeout(patience):
                taken = await waiter.admitted
        except TimeoutError:
            if not waiter.admitted.done() or waiter.admitted.cancelled():
                return None
            taken = waiter.admitted.result()
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.exception() is None:
                state.put_back(waiter.admitted.result())
            raise
        finally:
            if waiter in state.waiters:
                state.waiters.remove(waiter)
        return Admission(state, taken)

    async def note_refusal(self, model: str, error: RateLimited) -> None:
        """Tell all workers that the API takes no calls until its time is over."""
        state, seconds = self._of(model), error.retry_after_seconds
        state.blocked = min(_LONGEST_BLOCK, max(1.0, _BLOCKED_SECONDS if seconds is None else seconds))
        state.valid_until = 0.0
        if error.readings:
            state.readings, state.read_at = error.readings, monotonic()
        await self._lease(model, state, None)

    def seconds_to_wait(self, model: str) -> int:
        """How long a call that was not admitted should wait before it asks again."""
        state = self._of(model)
        return max(10, min(60, round(max(state.wait, len(state.waiters) * 1.0))))

    def _of(self, model: str) -> _Model:
        return self._models.setdefault(model, _Model())

    def _is_full(self, state: _Model, user_id: str) -> bool:
        of_user = sum(waiter.user_id == user_id for waiter in state.waiters)
        return len(state.waiters) >= MOST_WAITING or of_user >= MOST_WAITING_OF_USER

    async def _serve(self, name: str, model: _Model) -> None:
        """Admit waiting calls until there are none."""
        try:
            while model.waiters:
                waiter = model.next()
                if not model.covers(waiter.need):
                    wait = await self._lease(name, model, waiter)
                    if wait > 0:
                        await _pause(model, wait)
                        continue
                if waiter in model.waiters and not waiter.admitted.done():
                    model.waiters.remove(waiter)
                    waiter.admitted.set_result(model.take(waiter.user_id, waiter.need))
                elif waiter in model.waiters:
                    model.waiters.remove(waiter)
        except Exception as error:
            for waiter in model.waiters:
                if not waiter.admitted.done():
                    waiter.admitted.set_exception(error)
            model.waiters.clear()

    async def _lease(self, name: str, model: _Model, waiter: _Waiter | None) -> float:
        """Ask for what the waiting calls need; returns how many seconds to wait for it, 0 if there is enough."""
        queued: dict[RateKind, float] = {}
        for other in model.waiters:
            for kind, amount in other.need.items() if other is not waiter else ():
                queued[kind] = queued.get(kind, 0.0) + amount
        back = dict(model.back)
        for kind, left in model.share.items():
            back[kind] = back.get(kind, 0.0) + left
        given = Exchange(
            model=name,
            assumed=self._assumed.get(name, AssumedRates()),
            need={} if waiter is None else waiter.need,
            queued=queued,
            back=back,
            readings=model.readings,
            age=monotonic() - model.read_at,
            blocked=model.blocked,
        )
        model.share, model.back, model.readings, model.blocked, model.valid_until = {}, {}, None, None, 0.0
        model.changed.clear()
        try:
            async with transaction(self._sessions) as tx:
                lease = await exchange(tx, given)
        except BaseException:
            model.put_back(back)
            model.blocked = given.blocked if model.blocked is None else model.blocked
            raise
        model.limited, model.learned, model.wait = lease.limited, lease.learned, lease.wait
        if lease.granted is not None:
            model.share = dict(lease.granted)
            model.valid_until = monotonic() + LEASE_SECONDS
        return lease.wait


async def _pause(model: _Model, wait: float) -> None:
    """Wait for the bucket to refill, or until a call has left something or told the limits."""
    await asyncio.sleep(_SHORTEST_PAUSE * random.uniform(0.8, 1.2))
    if (rest := min(_LONGEST_PAUSE, wait) - _SHORTEST_PAUSE) > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(rest * random.uniform(1.0, 1.2)):
                await model.changed.wait()
