"""Many builds that write to their feeds at once: their commits share the disk's flushes."""

import asyncio
import itertools
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Literal

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db.events import listen
from db.feed import append_events
from db.nudges import CHANNEL
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from domain.events import NarrationEvent
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.feeds import build_row
from tests.harness.wait import wait_until

WRITERS = 32
_ROUND_SECONDS, _ROUNDS = 2.0, 4
_FLUSH_MICROSECONDS = 2000

_NOTIFY = text(f"select pg_notify('{CHANNEL}', :build)")

Way = Literal["without", "after the commit", "in the commit"]
"""How a writer nudges readers: not at all; as `append_events` does; as it did before."""


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    """Sessions on a server that flushes every commit to its disk, which takes two milliseconds more than it does."""
    async with LocalStack(parts=["postgres"]) as durable:
        url = await new_database(durable)
        address = make_url(url)
        connection = await asyncpg.connect(address.set(drivername="postgresql").render_as_string(hide_password=False))
        for name, value in (("commit_delay", _FLUSH_MICROSECONDS), ("commit_siblings", 0)):
            await connection.execute(f"alter database {address.database} set {name} = {value}")
        await connection.close()
        engine = make_engine(url, pool_size=WRITERS)
        running = make_sessions(engine)
        yield running
        await running.nudges.close()
        await engine.dispose()


async def _write(sessions: Sessions, build: uuid.UUID, way: Way) -> int:
    """Append to a build's feed for some seconds; returns how often."""
    ends = time.monotonic() + _ROUND_SECONDS
    for number in itertools.count():
        if time.monotonic() >= ends:
            return number
        async with transaction(sessions) as tx:
            await append_events(tx, build, [NarrationEvent(text="I go on.", claim="1")], turn=1)
            if way != "after the commit":
                tx.nudged.clear()
            if way == "in the commit":
                await tx.execute(_NOTIFY, {"build": str(build)})
    raise AssertionError("it counts for ever")


async def test_commits_of_feeds(sessions: Sessions, figure: Callable[[str], None]) -> None:
    """D10: 32 writers append to feeds with a flush of 2 ms: nudges cost few commits, and none is lost."""
    builds = [await build_row(sessions, f"user-{n}") for n in range(WRITERS)]
    commits: Counter[Way] = Counter()
    heard: set[str] = set()
    ways: tuple[Way, ...] = ("without", "after the commit", "in the commit")
    async with listen(sessions, heard.add):
        for _ in range(_ROUNDS):  # in turn, so that what else the machine does slows each alike
            for way in ways:
                heard.clear()
                commits[way] += sum(await asyncio.gather(*(_write(sessions, build, way) for build in builds)))
                if way == "after the commit":
                    await wait_until(lambda: heard == {str(build) for build in builds})
    seconds = _ROUNDS * _ROUND_SECONDS
    figure("; ".join(f"{way}: {commits[way] / seconds:,.0f} commits/s" for way in ways))
    assert commits["after the commit"] >= 0.7 * commits["without"]
    assert commits["in the commit"] < 0.7 * commits["without"], "this server would not show the difference"
