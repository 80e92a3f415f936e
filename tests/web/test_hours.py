"""A page that stays open for an hour: what it keeps grows with the events, and with nothing else."""

import json
import uuid
from itertools import islice
from typing import Any

import pytest
from playwright.async_api import CDPSession
from sqlalchemy import func

from db.models import Message, ToolCall, Turn
from db.transaction import transaction
from domain.events import ToolDoneEvent, ToolStartedEvent
from domain.tool_output import render_result
from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, first_lines, write_feed
from tests.web.feed_page import NODES_MOST, open_feed

pytestmark = pytest.mark.web

EVENTS = 19_200
"""What a busy build writes in eight minutes, 40 a second, and a usual one in an hour."""

AT_ONCE = 400

GROWTH_MOST = 440
"""Bytes of JavaScript objects that an event may leave: 1 MiB in a minute of 40 events a second."""

CALLS = 500

OUTPUT_LINES = 1000
"""Lines that each call has printed, of 20 characters."""

LEFT_MOST = 0.10
"""The part of the heap that calls may leave once they are closed."""

_OPEN_AND_CLOSE = """
async (scroller, [from, to]) => {
    const soon = () => new Promise(done => setTimeout(done, 4));
    const shown = () => [...scroller.querySelectorAll('[data-row^="ctoolu_"]')];
    const number = row => Number(row.dataset.row.slice("ctoolu_".length));
    const rowOf = async wanted => {
        for (;;) {
            const rows = shown();
            const row = rows.find(each => number(each) === wanted);
            if (row !== undefined) return row;
            const numbers = rows.map(number);
            scroller.scrollTop += numbers.length === 0 || Math.min(...numbers) > wanted ? -200 : 200;
            await soon();
        }
    };
    const press = async call => (await rowOf(call)).querySelector("[aria-expanded]").click();
    for (let call = from; call >= to; call--) {
        await press(call);
        while ((await rowOf(call)).querySelector("[data-call] pre") === null) await soon();
        await press(call);
        while ((await rowOf(call)).querySelector("[data-call]") !== null) await soon();
    }
}
"""
"""Opens the calls of a feed from one to an earlier one, waits for what each has printed, and closes it again."""


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


async def _write_calls(console: Console, build: uuid.UUID) -> int:
    """Write `CALLS` commands with what they printed, each in a turn of its own. Returns the id of the last event."""
    rows: list[Any] = []
    lines = first_lines()
    for number in range(1, CALLS + 1):
        call = {"tool_use_id": f"toolu_{number}", "name": "bash", "summary": f"cat part_{number}.txt"}
        block = {"type": "tool_use", "id": call["tool_use_id"], "name": "bash", "input": {"command": call["summary"]}}
        result = render_result(call["tool_use_id"], f"part {number:>6} of many\n" * OUTPUT_LINES, is_error=False)
        done = {"state": "done", "result": result, "is_error": False, "done_at": func.now()}
        answered = {"outcome": "tool_use", "answered_at": func.now()}
        rows.append(Turn(build_id=build, number=number, run_id="r", claim=uuid.uuid4(), **answered))
        rows.append(Message(build_id=build, turn=number, role="assistant", content=json.dumps([block])))
        rows.append(ToolCall(build_id=build, turn=number, position=0, **call, **done))
        lines += [(number, ToolStartedEvent(**call)), (number, ToolDoneEvent(**call, is_error=False, seconds=1.5))]
    async with transaction(console.api.sessions) as tx:
        tx.session.add_all(rows)
    return await write_feed(console.api.sessions, build, lines)


async def test_calls_that_are_closed_are_not_kept(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    feed = await open_feed(console, build, await _write_calls(console, build), everything=True)
    devtools = await _devtools(console)
    # All events are loaded, and the browser has compiled what opening a call runs.
    await feed.scroller.evaluate(_OPEN_AND_CLOSE, [1, 1])
    await feed.scroller.evaluate(_OPEN_AND_CLOSE, [CALLS, CALLS - 100])
    before = await _heap(devtools)
    await feed.scroller.evaluate(_OPEN_AND_CLOSE, [CALLS, 1])
    after = await _heap(devtools)
    assert after <= before * (1 + LEFT_MOST), f"{before / 2**20:.1f} MiB, then {after / 2**20:.1f} MiB"
