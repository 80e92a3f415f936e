"""A page that stays open for an hour: what it keeps grows with the events, and with nothing else."""

from itertools import islice

import pytest
from playwright.async_api import CDPSession

from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, write_feed
from tests.web.feed_page import NODES_MOST, open_feed

pytestmark = pytest.mark.web

EVENTS = 19_200
"""What a busy build writes in eight minutes, 40 a second, and a usual one in an hour."""

AT_ONCE = 400

GROWTH_MOST = 440
"""Bytes of JavaScript objects that an event may leave: 1 MiB in a minute of 40 events a second."""


async def _devtools(console: Console) -> CDPSession:
    devtools = await console.context.new_cdp_session(console.page)
    await devtools.send("HeapProfiler.enable")
    return devtools


async def _heap(devtools: CDPSession) -> int:
    """Bytes of JavaScript objects, after two collections: what the first one frees may hold more."""
    for _ in range(2):
        await devtools.send("HeapProfiler.collectGarbage")
    return int((await devtools.send("Runtime.getHeapUsage"))["usedSize"])


async def test_an_hour_of_events(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    lines = feed_lines(EVENTS)
    feed = await open_feed(console, build, await write_feed(sessions, build, islice(lines, AT_ONCE)))
    devtools = await _devtools(console)
    measured: list[tuple[int, int]] = []
    while some := list(islice(lines, AT_ONCE)):
        last = await write_feed(sessions, build, some)
        await feed.has(last)
        if last % 3200 == 0:
            await feed.stays_at_end()
            assert await feed.nodes() <= NODES_MOST
            measured.append((last, await _heap(devtools)))
    assert (await feed.loaded())[1:] == (EVENTS, EVENTS, True)
    (first, before), (last, after) = measured[0], measured[-1]
    growth = (after - before) / (last - first)
    assert growth <= GROWTH_MOST, [(events, f"{heap / 2**20:.1f} MiB") for events, heap in measured]
