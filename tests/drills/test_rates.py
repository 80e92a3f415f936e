"""Many builds against a model whose API has limits: they are used, and not run into."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from activities.turn.rates import CallRates
from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import ModelRequest
from db.session import Sessions, make_engine, make_sessions
from domain.errors import RateLimited
from local.stack import LocalStack
from tests.harness.wait import DEADLINE
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


@pytest.mark.fast
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
