"""Measure a build's page in the web console with a long feed.

    python -m bench.web [--events 10000,50000]

Chromium, the API and the database run on this machine. For each length of the feed the table says how long it takes
from opening the page until the newest events are there, and until all are loaded by scrolling to the beginning; how
long a frame takes while the feed is scrolled for five seconds; and the page's elements and JavaScript objects after
that. With JSON=path in the environment it also writes the figures to that file.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from playwright.async_api import Browser, Page, expect
from rich.box import SIMPLE_HEAD
from rich.console import Console as Terminal
from rich.table import Table

from bench.machine import machine
from db.migrate import migrate
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, running_api, settings_for
from tests.harness.console import DESKTOP, chromium, console_of
from tests.harness.feeds import build_row, feed_lines, write_feed
from tests.harness.wait import wait_until

_SCROLL_SECONDS = 5.0

_SCROLL = """
(scroller, milliseconds) => new Promise(done => {
    const frames = [];
    const began = performance.now();
    let before = began;
    const step = now => {
        frames.push(now - before);
        before = now;
        scroller.scrollTop -= 120;
        if (now - began < milliseconds) requestAnimationFrame(step);
        else done(frames.slice(1));
    };
    requestAnimationFrame(step);
})
"""
"""Scrolls up by 120 pixels a frame, and returns how long each frame took, in milliseconds."""


@dataclass(frozen=True)
class Figures:
    """What a page with so many events costs. Frames are in milliseconds."""

    events: int
    newest_seconds: float
    whole_seconds: float
    frame_p50: float
    frame_p95: float
    frame_longest: float
    nodes: int
    heap_mb: float


async def measure(counts: Sequence[int]) -> list[Figures]:
    """Measure a page for each length of the feed."""
    async with LocalStack(temporal_ui=False) as servers:
        environment = servers.environment
        await migrate(environment["DATABASE_URL"])
        async with (
            running_api(settings_for(environment["DATABASE_URL"], environment), environment) as api,
            chromium() as browser,
        ):
            await _one(api, browser, 100)  # warm up
            return [await _one(api, browser, count) for count in counts]


async def _one(api: RunningApi, browser: Browser, count: int) -> Figures:
    user = f"bench-{count}"
    build = await build_row(api.sessions, user)
    last = await write_feed(api.sessions, build, feed_lines(count))
    async with console_of(browser, api, user, **DESKTOP) as console:
        page = console.page
        began = time.monotonic()
        await console.open(f"/builds/{build}")
        feed = page.locator("[data-first]")
        await expect(feed).to_have_attribute("data-last", str(last))
        newest = time.monotonic() - began
        frames = sorted(await feed.evaluate(_SCROLL, _SCROLL_SECONDS * 1000))
        whole = await _load_all(page)
        devtools = await console.context.new_cdp_session(page)
        await devtools.send("HeapProfiler.enable")
        await devtools.send("HeapProfiler.collectGarbage")
        heap = (await devtools.send("Runtime.getHeapUsage"))["usedSize"]
        nodes = int(await page.evaluate("() => document.querySelectorAll('*').length"))
    return Figures(
        events=count,
        newest_seconds=newest,
        whole_seconds=whole,
        frame_p50=frames[len(frames) // 2],
        frame_p95=frames[int(len(frames) * 0.95)],
        frame_longest=frames[-1],
        nodes=nodes,
        heap_mb=heap / 1e6,
    )


async def _load_all(page: Page) -> float:
    """Stay at the beginning of the feed until all of it is loaded. Returns the seconds."""
    feed = page.locator("[data-first]")
    began = time.monotonic()

    async def is_complete() -> bool:
        await feed.evaluate("element => { element.scrollTop = 0; }")
        return await feed.get_attribute("data-complete") == "true"

    await wait_until(is_complete)
    return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.web", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", default="10000,50000", help="lengths of feeds, separated by commas")
    counts = [int(each) for each in parser.parse_args().events.split(",")]
    results = asyncio.run(measure(counts))
    terminal = Terminal(width=max(Terminal().width, 130), highlight=False)
    table = Table(title="A build's page with a long feed", title_justify="left", box=SIMPLE_HEAD)
    columns = ("events", "newest, s", "all, s", "frame p50, ms", "p95, ms", "longest, ms", "elements", "heap, MB")
    for column in columns:
        table.add_column(column, justify="right")
    for each in results:
        figures = (each.newest_seconds, each.whole_seconds, each.frame_p50, each.frame_p95, each.frame_longest)
        table.add_row(
            f"{each.events:,}", *(f"{value:.1f}" for value in figures), str(each.nodes), f"{each.heap_mb:.1f}"
        )
    terminal.print(table)
    terminal.print(machine())
    if path := os.environ.get("JSON"):
        Path(path).write_text(json.dumps([asdict(each) for each in results], indent=2))


if __name__ == "__main__":
    main()
