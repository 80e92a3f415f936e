"""Nudges of the feeds' readers: with the commit for what is rare, after it for what every turn writes."""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Set

import pytest
import structlog
from structlog.testing import capture_logs

from db.events import listen
from db.feed import append_events
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from domain.events import BuildEvent, NarrationEvent, StatusEvent
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.feeds import build_row
from tests.harness.wait import wait_until

_NARRATION = NarrationEvent(text="I go on.", claim="1")


class _Stop(Exception):
    pass


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    engine = make_engine(await new_database(stack), pool_size=4)
    running = make_sessions(engine)
    yield running
    await running.nudges.close()
    await engine.dispose()


async def _append(sessions: Sessions, build: uuid.UUID, appended: BuildEvent, turn: int | None = 1) -> None:
    async with transaction(sessions) as tx:
        await append_events(tx, build, [appended], turn=turn)


async def test_what_a_turn_writes_is_nudged_after_its_commit_and_together(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = [await build_row(sessions, f"user-{n}") for n in range(3)]
    sent, send = 0, sessions.nudges._send

    async def count(nudged: Set[uuid.UUID]) -> None:
        nonlocal sent
        sent += 1
        await send(nudged)

    monkeypatch.setattr(sessions.nudges, "_send", count)
    heard: Counter[str] = Counter()
    async with listen(sessions, lambda build: heard.update([build])):
        with contextlib.suppress(_Stop):
            async with transaction(sessions) as tx:
                await append_events(tx, builds[2], [_NARRATION], turn=1)
                raise _Stop
        for _ in range(5):
            await asyncio.gather(*(_append(sessions, build, _NARRATION) for build in builds[:2]))
        await sessions.nudges.close()
        await wait_until(lambda: len(heard) == 2)
        assert set(heard) == {str(build) for build in builds[:2]}, "what was rolled back is not announced"
        assert heard.total() <= 2 * sent < 20, "builds that append at about the same time share a transaction"


@pytest.mark.parametrize(("appended", "turn"), [(StatusEvent(status="ready"), 1), (_NARRATION, None)])
async def test_what_may_be_the_last_for_long_is_nudged_with_its_commit(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, appended: BuildEvent, turn: int | None
) -> None:
    build = await build_row(sessions, "founder")
    monkeypatch.setattr(sessions.nudges, "add", lambda _: None)  # as if the process died after the commit
    heard: list[str] = []
    async with listen(sessions, heard.append):
        await _append(sessions, build, appended, turn)
        await wait_until(lambda: heard == [str(build)])


async def test_nudges_that_cannot_be_sent_hold_nothing_up(stack: LocalStack) -> None:
    engine = make_engine(await new_database(stack), pool_size=2)
    sessions = make_sessions(engine)
    build = await build_row(sessions, "founder")
    structlog.contextvars.bind_contextvars(build_id=str(build))
    await _append(sessions, build, _NARRATION)
    whole, sessions.nudges._statements = (
        sessions.nudges._statements,
        make_engine("postgresql+asyncpg://localhost:1/none"),
    )
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        await sessions.nudges.close()
    structlog.contextvars.clear_contextvars()
    sessions.nudges._statements = whole
    assert [(line["builds"], line.get("build_id")) for line in logs] == [(1, None)], "it is of no single build"
    heard: list[str] = []
    async with listen(sessions, heard.append):
        await _append(sessions, build, _NARRATION)
        await wait_until(lambda: heard == [str(build)])
    await engine.dispose()
