"""Many builds against a model whose API has limits: they are used, and not run into."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select

from activities.turn.rates import CallRates
from clients.browser import Browser
from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import ModelRequest
from db.migrate import migrate
from db.models import Event
from db.session import Sessions, make_engine, make_sessions
from domain.errors import RateLimited
from local.stack import LocalStack
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness, worker_harness
from tests.integration.local.rehearsal_server import Server, minimal_request

Figure = Callable[[str], None]

_LIMITED = {"requests": 600, "input_tokens": 120_000, "output_tokens": 14_400, "burst_seconds": 15}
"""What the server enforces, per minute. Its bucket is little larger than ours, so that mistakes are soon refused."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A rehearsal model of the drill's own."""
    running = Server(tmp_path, "--think-ms", "300")
    yield running
    running.stop()


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    """Sessions on the stack's database."""
    engine = make_engine(stack.environment["DATABASE_URL"])
    yield make_sessions(engine)
    await engine.dispose()


class _Caller:
    """Makes calls as an activity does: admitted first, corrected afterwards."""

    def __init__(self, server: Server, model: str) -> None:
        self._provider = AnthropicProvider("a-key", server.address, idle_seconds=DEADLINE)
        self._model = model
        self.refused = 0

    async def call(self, rates: CallRates, user_id: str, token: str) -> bool:
        """Make one call; returns whether it was served."""
        body = json.dumps({**minimal_request(token), "stream": True}).encode()
        admission = await rates.admit(self._model, user_id, len(body) / 4, DEADLINE)
        assert admission is not None
        try:
            await self._provider.stream(
                ModelRequest(body), _ignore_text, admission.noting(_ignore_usage), admission.note_limits
            )
        except RateLimited as error:
            self.refused += 1
            await rates.note_refusal(self._model, error)
            return False
        finally:
            admission.close()
        return True

    async def close(self) -> None:
        await self._provider.close()


async def _ignore_text(_: str) -> None:
    pass


def _ignore_usage(*_: Any) -> None:
    pass


async def test_forty_callers_use_a_limit_without_running_into_it(
    server: Server, sessions: Sessions, figure: Figure
) -> None:
    """40 callers in two workers against a model with limits that no setting names."""
    server.register("rates", _LIMITED)
    caller, seconds, warm = _Caller(server, f"model-{uuid.uuid4()}"), 24.0, 12.0
    workers = [CallRates(sessions) for _ in range(2)]
    began = monotonic()
    served: list[float] = []

    async def keep_calling(number: int) -> None:
        while monotonic() - began < seconds:
            if await caller.call(workers[number % 2], f"user-{number % 10}", f"caller {number}"):
                served.append(monotonic() - began)

    await asyncio.gather(*(keep_calling(number) for number in range(40)))
    await caller.close()
    lines = server.served()
    used = _use(lines, [at for at in served if warm <= at < seconds], seconds - warm)
    share = caller.refused / len(lines)
    figure(f"{len(served)} calls served, {caller.refused} refused ({share:.2%}), {used:.0%} of the limit used")
    assert share < 0.01
    assert used >= 0.9


def _use(lines: Sequence[dict[str, Any]], served: Sequence[float], seconds: float) -> float:
    """The used share of the limit that is used most."""
    good = [line["usage"] for line in lines if line["status"] == 200]
    each_input = sum(usage["input"] + usage["cache_write_5m"] for usage in good) / len(good)
    each_output = sum(usage["output"] for usage in good) / len(good)
    per_minute = len(served) / seconds * 60
    used: float = max(
        per_minute / _LIMITED["requests"],
        per_minute * each_input / _LIMITED["input_tokens"],
        per_minute * each_output / _LIMITED["output_tokens"],
    )
    return used


_BUILDS_LIMIT: dict[str, Any] = {"model": "claude-haiku-5-5", "requests": 150, "burst_seconds": 15}


async def test_fifty_builds_of_a_user_and_one_of_another(browser: Browser, figure: Figure) -> None:
    """50 builds of a user and one of another, two workers, 150 requests a minute, no fairness in Temporal."""
    options = ("--max-sandboxes", "60")
    async with LocalStack(durable=False, temporal_ui=False, fair=False, sandbox_options=options) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        async with (
            worker_harness(stack, browser) as harness,
            worker_harness(stack, browser, temporal_task_queue=harness.settings.temporal_task_queue),
        ):
            await harness.rehearse("rates", _BUILDS_LIMIT)
            plan = await harness.plan(None, concurrent_builds=60, default_models={"coder": _BUILDS_LIMIT["model"]})
            crowd, other = await harness.founder(plan), await harness.founder(plan)
            script = {"kind": "long", "turns": 1000}
            builds = [await harness.start(crowd, script=script) for _ in range(50)]
            await wait_until(lambda: _all_work(harness, builds), seconds=DEADLINE)
            await asyncio.sleep(20)  # what was left of the bucket when the last ones began
            began, before = monotonic(), await harness.served()
            late = await harness.start(other, script=script)
            await asyncio.sleep(60)
            lines, seconds = (await harness.served())[len(before) :], monotonic() - began
            await harness.until_event(late, "turn_answered")
            ahead = await _served_before_first_turn(harness, late)
    refused = sum(line["status"] == 429 for line in [*before, *lines])
    used = sum(line["status"] == 200 for line in lines) / (seconds / 60 * _BUILDS_LIMIT["requests"])
    share = refused / len([*before, *lines])
    figure(
        f"{len(before) + len(lines)} calls, {refused} refused ({share:.2%}), {used:.0%} of the limit used, "
        f"{ahead} calls of the first user before the other's first turn"
    )
    assert share < 0.01
    assert used >= 0.9
    assert ahead <= 100


async def _all_work(harness: WorkerHarness, builds: Sequence[uuid.UUID]) -> bool:
    async with harness.session() as tx:
        answered = select(Event.build_id).where(Event.build_id.in_(builds), Event.type == "turn_answered").distinct()
        return len((await tx.session.scalars(answered)).all()) == len(builds)


async def _served_before_first_turn(harness: WorkerHarness, build_id: uuid.UUID) -> int:
    """How many calls were served from when the build's workspace was open until its first answer."""
    ready = [event for event in await harness.events(build_id, "status") if event.data["status"] == "scaffold"]
    answered = await harness.events(build_id, "turn_answered")
    lines = [datetime.fromisoformat(line["time"]) for line in await harness.served() if line["status"] == 200]
    return sum(ready[0].created_at <= at < answered[0].created_at for at in lines) - 1
