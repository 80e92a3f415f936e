"""Runs a storm: model calls of one user's builds succeed, fail, crash, stall and go stale side by side, while money is
added, plans change and days pass. The calls are those of `think`, over real HTTP, each on a connection of its own. The
oracle is what the model server says it billed.
"""

import asyncio
import itertools
import json
import random
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

import pytest
from sqlalchemy import TextClause, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.lifecycle import LifecycleActivities
from activities.think import ThinkActivities
from activities.turn.rates import CallRates
from clients.build_workflows import BuildWorkflows
from clients.model.anthropic import AnthropicProvider
from db import limits, money
from db import transaction as transactions
from db.builds import BuildRequest, insert_build
from db.drift import find_drift
from db.models import LedgerEntry, Limit, Message, PlanTier, Prompt, Turn, User
from db.projects import create_project
from db.session import Sessions, make_sessions
from db.transaction import transaction
from db.users import UserChange, change_user, ensure_user
from domain.limits import LimitName
from domain.models import default_prices
from domain.payloads import CheckBudget, StatusChange, ThinkInput, ThinkOutcome, ThinkResult
from domain.pricing import Tokens, cost_microdollars
from domain.rates import AssumedRates
from domain.status import Status
from tests.harness.wait import DEADLINE

MODEL = "claude-sonnet-5-5"
MAX_TOKENS = 2000
PRICES = default_prices()
_ENOUGH = AssumedRates(requests=10**6, input=10**9, output=10**9)
"""Rates that hold no call up: a storm's server names none."""
SYSTEM = json.dumps([{"type": "text", "text": "Build. " * 100}])

START = date(2031, 1, 29)
RENEWAL_DAY = 31
"""The first day. The cycle ends with the second night."""

DAY_OF_THE_PLAN = {"small": 90_000, "bigger": 200_000}
"""The allowance in micro-dollars of a day without savings. A worst-case call costs about 25,000."""


class Fate(StrEnum):
    """What happens to an attempt at a turn."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """the server answers with an error status"""
    BROKEN = "broken"
    """the stream ends after the server has said what it bills"""
    HUNG_UP = "hung_up"
    """the stream ends before the server has said anything"""
    CANCELLED = "cancelled"
    CRASHED_BEFORE = "crashed_before"
    """the process dies after it has reserved the money"""
    CRASHED_AFTER = "crashed_after"
    """the process dies after it has received the answer"""
    STALLED_BEFORE = "stalled_before"
    """the attempt hangs before its call and another takes over; later it continues and makes the call"""
    STALLED_AFTER = "stalled_after"
    """the attempt hangs after its call and another takes over; later it continues with the answer"""


class Crash(BaseException):
    """The process dies here: none of our clean-up may run."""


_POINT = {
    Fate.CRASHED_BEFORE: "think.before_call",
    Fate.STALLED_BEFORE: "think.before_call",
    Fate.CRASHED_AFTER: "think.after_call",
    Fate.STALLED_AFTER: "think.after_call",
}
_PATH = {Fate.REFUSED: "refused", Fate.BROKEN: "broken", Fate.HUNG_UP: "hung_up", Fate.CANCELLED: "silent"}


@dataclass
class _Attempt:
    fate: Fate
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)


_attempt: ContextVar[_Attempt] = ContextVar("attempt")
_storm: "ContextVar[Storm]" = ContextVar("storm")


async def _point(name: str) -> None:
    """Replaces `activities.runtime.crash_point`."""
    await _storm.get().point(name)


@dataclass
class Oracle:
    """A model server that records what it bills by request id. Each call costs a random amount up to its worst case;
    one byte of the prompt counts as one token."""

    dice: random.Random
    billed: dict[str, Tokens] = field(default_factory=dict)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve, and return the server and its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            body = await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
            fate = head.split(" ")[1].split("/")[1]
            if fate == "refused":
                writer.write(b"HTTP/1.1 529 Overloaded\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            elif fate == "silent":
                await reader.read()
            elif fate != "hung_up":
                writer.write(self._answer(body, whole=fate == "answered"))
            await writer.drain()
        writer.close()

    def _answer(self, body: bytes, *, whole: bool) -> bytes:
        request_id = f"req_{uuid.uuid4().hex}"
        output = self.dice.choice([1, self.dice.randint(1, MAX_TOKENS), json.loads(body)["max_tokens"]])
        output = min(output, json.loads(body)["max_tokens"]) if whole else 1
        cached = self.dice.choice([0, len(body) // 2])
        self.billed[request_id] = Tokens(cache_write_5m=len(body) - cached, cache_read=cached, output=output)
        usage = {
            "input_tokens": 0,
            "cache_creation_input_tokens": len(body) - cached,
            "cache_read_input_tokens": cached,
            "output_tokens": 1,
        }
        message = {"id": "msg", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": usage}
        started: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": message | started}]
        if whole:
            events += [
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Said. And done."}},
                {"type": "content_block_stop", "index": 0},
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                    "usage": {"output_tokens": output},
                },
                {"type": "message_stop"},
            ]
        stream = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
        return f"{head}Request-Id: {request_id}\r\n\r\n{stream}".encode()


class _NoImages:
    async def get_image(self, sha256: str) -> bytes:
        raise AssertionError("nothing here shows images")


@dataclass
class Storm:
    """One user, several builds, and a clock. `sent` counts the attempts that reserved money."""

    sessions: Sessions
    address: str
    oracle: Oracle
    workflows: BuildWorkflows
    user_id: str = field(default_factory=lambda: f"storm-{uuid.uuid4()}")
    day: date = START
    sent: int = 0
    builds: list[uuid.UUID] = field(default_factory=list)
    turns: dict[uuid.UUID, int] = field(default_factory=dict)
    hanging: list[tuple[_Attempt, "asyncio.Task[ThinkResult | None]"]] = field(default_factory=list)
    closed: set[uuid.UUID] = field(default_factory=set)
    plans: dict[str, str] = field(default_factory=dict)
    added: dict[date, int] = field(default_factory=dict)
    first: date = START
    """The first day."""

    async def begin(self, builds: int) -> None:
        """Insert the rows."""
        tag = uuid.uuid4().hex[:8]
        days_of_next = 28  # from 31 January to 28 February
        budgets = {name: share * days_of_next for name, share in DAY_OF_THE_PLAN.items()}
        async with transaction(self.sessions) as tx:
            for name, budget in (*budgets.items(), ("unlimited", None)):
                self.plans[name] = f"{name}-{tag}"
                values: dict[str, Any] = {"default_models": {}, "concurrent_builds": 2, "tool_call_cap": 10}
                tx.session.add(PlanTier(name=self.plans[name], cycle_budget=budget, **values))
            await tx.session.flush()
            await ensure_user(tx, self.user_id)
            user = await tx.session.get_one(User, self.user_id)
            user.plan, user.renewal_day = self.plans["small"], RENEWAL_DAY
        for _ in range(builds):
            async with transaction(self.sessions) as tx:
                project = await create_project(tx, self.user_id, "A storm", {"name": "A storm"}, None)
                build = await insert_build(tx, BuildRequest(project.id, self.user_id, "Weather it."))
                assert build is not None
                build.model = MODEL
                tx.session.add(Prompt(build_id=build.id, system=SYSTEM, tools="[]"))
                self.builds.append(build.id)
                self.turns[build.id] = 1
        # The cycle has as much money left as its days have allowances.
        spent = budgets["small"] - 2 * DAY_OF_THE_PLAN["small"]
        before: dict[str, Any] = {"day": self.first - timedelta(days=1), "model": MODEL, "turn": 0}
        async with transaction(self.sessions) as tx:
            tx.session.add(
                LedgerEntry(
                    id=uuid.uuid4(),
                    build_id=self.builds[0],
                    user_id=self.user_id,
                    state="settled",
                    cost=spent,
                    closed_at=func.now(),
                    **before,
                )
            )

    # ---- what happens

    async def think(self, number: int, fate: Fate) -> None:
        """Make an attempt at the build's turn, as Temporal does: the next begins when this one has ended or hangs."""
        build_id = self.builds[number % len(self.builds)]
        if build_id in self.closed:
            return
        attempt = _Attempt(fate)
        task = asyncio.create_task(self._think(build_id, attempt))
        if fate in (Fate.STALLED_BEFORE, Fate.STALLED_AFTER):
            stalls = asyncio.create_task(attempt.stalled.wait())
            await asyncio.wait([task, stalls], return_when=asyncio.FIRST_COMPLETED)
            stalls.cancel()
            if not task.done():
                self.hanging.append((attempt, task))
                return await self.think(number, Fate.ANSWERED)
        elif fate is Fate.CANCELLED:
            calls = asyncio.create_task(attempt.stalled.wait())
            await asyncio.wait([task, calls], return_when=asyncio.FIRST_COMPLETED)
            calls.cancel()
            await asyncio.sleep(0.02)
            task.cancel()
        await self._over(build_id, task)

    async def _over(self, build_id: uuid.UUID, task: "asyncio.Task[ThinkResult | None]") -> None:
        with suppress(asyncio.CancelledError, Crash):
            result = await task
            if result is not None and result.outcome is ThinkOutcome.END_TURN:
                self.turns[build_id] += 1

    async def _think(self, build_id: uuid.UUID, attempt: _Attempt) -> ThinkResult | None:
        """Run one attempt; None if it failed in an expected way."""
        _attempt.set(attempt)
        _storm.set(self)
        model = AnthropicProvider(
            "a-key", f"{self.address}/{_PATH.get(attempt.fate, 'answered')}", idle_seconds=DEADLINE
        )
        activities = self._activities(model)
        given = ThinkInput(build_id=str(build_id), turn=self.turns[build_id])
        try:
            return await self._environment().run(activities.think, given)
        except ApplicationError as error:
            if error.type == "BuildFailed" and build_id in self.closed:
                return None
            if error.type not in ("ModelCallFailed", "BrokenStream", "LostCall", "StaleClaim", "RowsAreAhead"):
                raise AssertionError(f"no attempt may fail like this: {error.type}") from error
            return None
        finally:
            await model.close()

    def _activities(self, model: AnthropicProvider) -> ThinkActivities:
        return ThinkActivities(
            *(self.sessions, {"anthropic": model}, _NoImages(), PRICES, MAX_TOKENS),
            rates=CallRates(self.sessions, {MODEL: _ENOUGH}),
        )

    def _environment(self) -> ActivityEnvironment:
        environment = ActivityEnvironment()
        started = datetime.combine(self.day, time(12), UTC)
        environment.info = replace(environment.info, started_time=started, workflow_run_id="a-run")
        return environment

    async def point(self, name: str) -> None:
        """Do at this point of an attempt what its fate says."""
        attempt = _attempt.get()
        if name == "think.before_call":
            self.sent += 1
            if attempt.fate is Fate.CANCELLED:
                attempt.stalled.set()
        if _POINT.get(attempt.fate) != name:
            return
        if attempt.fate in (Fate.CRASHED_BEFORE, Fate.CRASHED_AFTER):
            raise Crash
        attempt.stalled.set()
        await attempt.goes_on.wait()

    async def comes_back(self) -> None:
        """Let all hanging attempts continue at once."""
        hanging, self.hanging = self.hanging, []
        for attempt, _ in hanging:
            attempt.goes_on.set()
        # Its result is ignored: Temporal has given up the attempt.
        await asyncio.gather(*(task for _, task in hanging))

    async def top_up(self, amount: int) -> None:
        """Send the same top-up twice at once; it must count once."""
        key, day = str(uuid.uuid4()), self.day

        async def add() -> None:
            async with transaction(self.sessions) as tx:
                await money.top_up(tx, self.user_id, amount, day, key=key)

        await asyncio.gather(add(), add())
        self.added[day] = self.added.get(day, 0) + amount

    async def change_plan(self, plan: str) -> None:
        """Change to another plan or to the same one."""
        async with transaction(self.sessions) as tx:
            await change_user(tx, self.user_id, UserChange(plan=self.plans[plan]), self.day)

    async def midnight(self) -> None:
        """Begin a new day, while calls may be in flight."""
        self.day += timedelta(days=1)

    async def close(self, number: int) -> None:
        """Close a build with calls in flight, as if it had been terminated."""
        build_id = self.builds[number % len(self.builds)]
        self.closed.add(build_id)
        lifecycle = LifecycleActivities(self.sessions, self.workflows)
        ended = StatusChange(build_id=str(build_id), seq=10, status=Status.FAILED, reason="terminated")
        await ActivityEnvironment().run(lifecycle.record_status, ended)

    # ---- what must hold

    async def look(self) -> None:
        """Check in one snapshot of the database that no day has spent or reserved more than 110 % of its allowance, and
        that all totals are the sums of the ledger."""
        async with transaction(self.sessions) as tx:
            await tx.execute(text("set transaction isolation level repeatable read"), {})
            for night in range((self.day - self.first).days + 1):
                state = await money.budget_of(tx, self.user_id, self.first + timedelta(days=night))
                if state.ceiling is not None:
                    assert state.spent + state.reserved <= state.ceiling, f"night {night}: {state}"
            assert await find_drift(tx, self.first) == []

    async def settle_down(self) -> None:
        """End every attempt, and repeat every turn that was lost, or check that it rightly waits for money."""
        await self.comes_back()
        for build_id in set(self.builds) - self.closed:
            await self._over(build_id, asyncio.create_task(self._think(build_id, _Attempt(Fate.ANSWERED))))
            # An entry that a lost call left open is closed by the turn's next attempt, or when the build waits.
            lifecycle = LifecycleActivities(self.sessions, self.workflows)
            waits = StatusChange(build_id=str(build_id), seq=10, status=Status.SLEEPING)
            await ActivityEnvironment().run(lifecycle.record_status, waits)

    async def check(self) -> None:
        """Compare the ledger with the oracle call by call, and check that no build still waits for others."""
        await self.look()
        async with transaction(self.sessions) as tx:
            of_storm = (LedgerEntry.user_id == self.user_id, LedgerEntry.day >= self.first)
            rows = list(await tx.session.scalars(select(LedgerEntry).where(*of_storm)))
            answered = await tx.session.scalars(
                select(func.count()).select_from(Turn).where(Turn.build_id.in_(self.builds), Turn.outcome.is_not(None))
            )
            said = await tx.session.scalars(
                select(func.count())
                .select_from(Message)
                .where(Message.build_id.in_(self.builds), Message.role == "assistant")
            )
            spent = await tx.session.scalar(select(func.coalesce(func.sum(LedgerEntry.cost), 0)).where(*of_storm))
            for day, amount in self.added.items():
                assert await money.topped_up(tx, self.user_id, day) == amount
        assert answered.one() == said.one()
        by_state = {state: [row for row in rows if row.state == state] for state in _STATES}
        assert not by_state["open"]
        assert len(rows) == self.sent, "there must be one row for each call that reserved money"
        settled = {row.request_id: row for row in by_state["settled"]}
        assert len(settled) == len(by_state["settled"])
        for request_id, row in settled.items():
            billed = self.oracle.billed[request_id or ""]
            assert _tokens(row) == billed
            assert row.cost == cost_microdollars(PRICES, MODEL, billed)
        lost = set(self.oracle.billed) - set(settled)
        assert len(lost) <= len(by_state["estimated"]), "a billed call must be settled or stay an estimate"
        estimates = sum(row.cost for row in by_state["estimated"])
        assert self._cost(lost) <= estimates, "an estimate must not be less than the bill"
        assert int(spent or 0) == self._cost(settled) + estimates
        assert all(row.cost == 0 for row in by_state["released"])
        for build_id in set(self.builds) - self.closed:
            await self._is_not_stuck(build_id)

    def _cost(self, request_ids: Iterable[str | None]) -> int:
        return sum(cost_microdollars(PRICES, MODEL, self.oracle.billed[each or ""]) for each in request_ids)

    async def _is_not_stuck(self, build_id: uuid.UUID) -> None:
        model = AnthropicProvider("a-key", f"{self.address}/answered", idle_seconds=DEADLINE)
        activities = self._activities(model)
        turn = self.turns[build_id]
        said = await self._environment().run(activities.check_budget, CheckBudget(build_id=str(build_id), turn=turn))
        assert not said.exhausted or said.outcome in (ThinkOutcome.BUDGET, ThinkOutcome.TOO_SMALL)
        _attempt.set(_Attempt(Fate.ANSWERED))
        _storm.set(self)
        given = ThinkInput(build_id=str(build_id), turn=turn)
        result = await self._environment().run(activities.think, given)
        assert result.outcome in (ThinkOutcome.END_TURN, ThinkOutcome.BUDGET, ThinkOutcome.TOO_SMALL)
        # The turn's own message is not stored yet when the budget is checked, so the call may cost a little more.
        assert not (said.exhausted and result.outcome is ThinkOutcome.END_TURN)
        await model.close()


_STATES = ("open", "settled", "estimated", "released")


def _tokens(row: LedgerEntry) -> Tokens:
    return Tokens(
        input=row.input_tokens,
        cache_write_5m=row.cache_write_5m_tokens,
        cache_write_1h=row.cache_write_1h_tokens,
        cache_read=row.cache_read_tokens,
        output=row.output_tokens,
    )


Happening = Callable[[Storm], Awaitable[None]]


async def weather(
    engine: AsyncEngine,
    workflows: BuildWorkflows,
    seed: int,
    rounds: Iterable[list[Happening]],
    builds: int = 4,
) -> None:
    """Run the events of each round side by side, check the limit all the while, and check the ledger at the end."""
    oracle = Oracle(random.Random(seed))
    async with oracle.listening() as address:
        storm = Storm(make_sessions(engine), address, oracle, workflows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("activities.think.crash_point", _point)
            await storm.begin(builds)
            try:
                for happenings in rounds:
                    steps = [*(happening(storm) for happening in happenings), storm.look()]
                    for outcome in await asyncio.gather(*steps, return_exceptions=True):
                        if outcome is not None:
                            raise outcome
                    await storm.look()
                await storm.settle_down()
                await storm.check()
            finally:
                for _, task in storm.hanging:
                    task.cancel()
                await asyncio.gather(*(task for _, task in storm.hanging), return_exceptions=True)


# ---- the storms of several users


_FLEET_DAYS = itertools.count()
"""Each storm of a fleet begins on a day of its own, on which no one else has spent anything."""


@dataclass
class Fleet:
    """The storms of several users, side by side, under a limit on what they spend in a day together."""

    sessions: Sessions
    storms: list[Storm]
    limit: int | None = None
    calls: int = 0
    highest: int = 0
    """The most that was spent and reserved in a day, in percent of the limit."""

    async def limit_to(self, value: int | None) -> None:
        """Set the limit, as operators do."""
        async with transaction(self.sessions) as tx:
            await limits.set_limit(tx, LimitName.FLEET_DAY, value, by="a storm", today=self.storms[0].day)
        self.limit = value

    async def raise_limit(self, more: int) -> None:
        """Raise the limit while calls are made."""
        await self.limit_to((self.limit or 0) + more)

    async def midnight(self) -> None:
        """Begin a new day for all users."""
        for storm in self.storms:
            await storm.midnight()

    async def look(self) -> None:
        """Check in one snapshot that the day's calls do not exceed the limit, and that its totals are their sums."""
        async with transaction(self.sessions) as tx:
            await tx.execute(text("set transaction isolation level repeatable read"), {})
            day = self.storms[0].day
            of_day = select(func.coalesce(func.sum(LedgerEntry.cost), 0)).where(LedgerEntry.day == day)
            used = int(await tx.session.scalar(of_day) or 0)
            limit = await tx.session.scalar(select(Limit.value).where(Limit.name == LimitName.FLEET_DAY))
            assert await find_drift(tx, day) == []
        if limit is not None:
            assert used <= limit, f"{used} of {limit} on {day}"
            self.highest = max(self.highest, used * 100 // limit)


FleetHappening = Callable[[Fleet], Awaitable[None]]


async def fleet_weather(
    engine: AsyncEngine,
    workflows: BuildWorkflows,
    seed: int,
    rounds: Iterable[list[FleetHappening]],
    *,
    users: int,
    limit: int,
) -> Fleet:
    """As `weather`, for several users with unlimited plans under one limit."""
    sessions = make_sessions(engine)
    first = date(2036, 1, 29) + timedelta(days=100 * next(_FLEET_DAYS))
    async with AsyncExitStack() as servers:
        storms = []
        for number in range(users):
            oracle = Oracle(random.Random(seed + number))
            address = await servers.enter_async_context(oracle.listening())
            storms.append(Storm(sessions, address, oracle, workflows, day=first, first=first))
        fleet = Fleet(sessions, storms)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("activities.think.crash_point", _point)
            try:
                for storm in storms:
                    await storm.begin(2)
                    await storm.change_plan("unlimited")
                await fleet.limit_to(limit)
                for happenings in rounds:
                    steps = [*(happening(fleet) for happening in happenings), fleet.look()]
                    for outcome in await asyncio.gather(*steps, return_exceptions=True):
                        if outcome is not None:
                            raise outcome
                    await fleet.look()
                await asyncio.gather(*(storm.settle_down() for storm in storms))
                for storm in storms:
                    await storm.check()
                await fleet.look()
            finally:
                await fleet.limit_to(None)
                hanging = [task for storm in storms for _, task in storm.hanging]
                for task in hanging:
                    task.cancel()
                await asyncio.gather(*hanging, return_exceptions=True)
        fleet.calls = sum(storm.sent for storm in storms)
    return fleet


@asynccontextmanager
async def rewriting(engine: AsyncEngine, pattern: str, instead: str) -> AsyncIterator[None]:
    """Switch a safeguard off: in each statement, of SQLAlchemy sessions and of direct SQL, replace what matches the
    pattern. Fails if nothing matches."""
    found = 0

    def rewritten(statement: str) -> str:
        nonlocal found
        statement, count = re.subn(pattern, instead, statement, flags=re.DOTALL | re.IGNORECASE)
        found += count
        return statement

    def rewrite(*args: Any) -> tuple[str, Any]:
        return rewritten(args[2]), args[3]

    def compiled(statement: TextClause) -> Any:
        known = as_written(statement)
        return replace(known, sql=rewritten(known.sql))

    as_written = transactions._compiled
    event.listen(engine.sync_engine, "before_cursor_execute", rewrite, retval=True)
    transactions._compiled = compiled  # type: ignore[assignment]
    try:
        yield
    finally:
        transactions._compiled = as_written
        event.remove(engine.sync_engine, "before_cursor_execute", rewrite)
    assert found, "the pattern matches nothing: the safeguard is written differently now"
