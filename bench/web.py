"""Measure the pages of the web console on a slow line, and a build's page with a long feed.

    python -m bench.web [--events 10000,50000] [--loads 3]

Chromium, the API and the database run on this machine. The first table is about pages that are opened with an empty
cache by a computer that is a quarter as fast as this one, over a line of 10 Mbit/s with 40 ms; it has the medians of so
many loads. FCP and LCP are when the first and the largest content is there, CLS is how far content moves, and TBT is
for how long the page could not react. Sizes are of compressed files, without the API's answers.

The second table says, for each length of the feed, how long it takes from opening the page until the newest events are
there, and until all are loaded by scrolling to the beginning; how long a frame takes while the feed is scrolled for
five seconds; and the page's elements and JavaScript objects after that. The third table says how long people wait for
pages after a sleep of their computer, and in the operators' list of 2,000 builds: medians of as many tries. With
JSON=path in the environment it also writes the figures to that file.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from playwright.async_api import Browser, Page, expect
from pydantic import SecretStr
from rich.box import SIMPLE_HEAD
from rich.console import Console as Terminal
from rich.table import Table

from bench.machine import machine
from bench.web_waits import Wait, measure_waits
from db.migrate import migrate
from local.stack import LocalStack
from tests.harness.api_server import OPERATORS, RunningApi, running_api, settings_for
from tests.harness.console import DESKTOP, chromium, console_of
from tests.harness.feeds import build_row, feed_lines, write_feed
from tests.harness.page_files import page_files
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


@dataclass(frozen=True)
class Load:
    """What a first visit to a page costs. Times in milliseconds, sizes in bytes."""

    page: str
    fcp: float
    lcp: float
    cls: float
    tbt: float
    scripts: int
    styles: int
    files: int


_LINE: Mapping[str, Any] = {
    "offline": False,
    "latency": 40,
    "downloadThroughput": 10e6 / 8,
    "uploadThroughput": 10e6 / 8,
}
_SLOWER = 4

_WATCH = """
window.seen = { lcp: 0, cls: 0, tbt: 0 };
const watch = (type, note) => new PerformanceObserver(list => list.getEntries().forEach(note))
    .observe({ type, buffered: true });
watch("largest-contentful-paint", entry => { seen.lcp = entry.startTime; });
watch("layout-shift", entry => { if (!entry.hadRecentInput) seen.cls += entry.value; });
watch("longtask", entry => { seen.tbt += Math.max(0, entry.duration - 50); });
"""

_READ = """
() => ({ ...seen, fcp: performance.getEntriesByName("first-contentful-paint")[0].startTime })
"""


async def measure(counts: Sequence[int], loads: int) -> tuple[list[Load], list[Figures], list[Wait]]:
    """Measure each page and each wait `loads` times, and a build's page for each length of the feed."""
    async with LocalStack(temporal_ui=False) as servers:
        environment = servers.environment
        await migrate(environment["DATABASE_URL"])
        settings = settings_for(environment["DATABASE_URL"], environment, api_operator_token=SecretStr(OPERATORS))
        async with (
            running_api(settings, environment) as api,
            chromium() as browser,
        ):
            await _one(api, browser, 100)  # warm up
            pages = await _pages(api, browser, loads)
            feeds = [await _one(api, browser, count) for count in counts]
            return pages, feeds, await measure_waits(api, browser, loads)


async def _pages(api: RunningApi, browser: Browser, loads: int) -> list[Load]:
    user = api.settings.api_user
    build = await build_row(api.sessions, user)
    last = await write_feed(api.sessions, build, feed_lines(1000))
    paths = {
        "projects": ("/", "main h2"),
        "new idea": ("/new", "main h1"),
        "build": (f"/builds/{build}", f'[data-last="{last}"]'),
        "usage": ("/usage", "main h1"),
        "account": ("/account", "main h1"),
    }
    return [_median([await _load(api, browser, name, *each) for _ in range(loads)]) for name, each in paths.items()]


async def _load(api: RunningApi, browser: Browser, name: str, path: str, sign: str) -> Load:
    """Open the page with an empty cache, and wait for the sign that it is there and until it loads nothing more."""
    async with console_of(browser, api, api.settings.api_user, **DESKTOP) as console:
        page = console.page
        await page.goto("about:blank")
        devtools = await console.context.new_cdp_session(page)
        await devtools.send("Network.enable")
        await devtools.send("Network.clearBrowserCache")
        await devtools.send("Network.emulateNetworkConditions", dict(_LINE))
        await devtools.send("Emulation.setCPUThrottlingRate", {"rate": _SLOWER})
        await page.add_init_script(_WATCH)
        await console.open(path)
        await page.locator(sign).first.wait_for()
        files = await page_files(page, api.url)
        seen = await page.evaluate(_READ)
    return Load(name, seen["fcp"], seen["lcp"], seen["cls"], seen["tbt"], files.scripts, files.styles, files.requests)


def _median(loads: list[Load]) -> Load:
    figures = {field.name: median(getattr(load, field.name) for load in loads) for field in fields(Load)[1:]}
    return replace(loads[0], **figures)


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
    parser.add_argument("--loads", type=int, default=3, help="how often each page is loaded")
    arguments = parser.parse_args()
    counts = [int(each) for each in arguments.events.split(",") if each]
    pages, results, waits = asyncio.run(measure(counts, arguments.loads))
    terminal = Terminal(width=max(Terminal().width, 130), highlight=False)
    table = Table(title="First visits on a slow computer and line", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("page")
    for column in ("FCP, s", "LCP, s", "CLS", "TBT, ms", "scripts, kB", "styles, kB", "files"):
        table.add_column(column, justify="right")
    for load in pages:
        seconds = f"{load.fcp / 1000:.2f}", f"{load.lcp / 1000:.2f}", f"{load.cls:.3f}", f"{load.tbt:.0f}"
        table.add_row(load.page, *seconds, f"{load.scripts / 1000:.1f}", f"{load.styles / 1000:.1f}", str(load.files))
    terminal.print(table)
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
    table = Table(title="Waits for pages", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("what")
    table.add_column("s", justify="right")
    table.add_column("at most, s", justify="right")
    for wait in waits:
        table.add_row(wait.what, f"{wait.seconds:.2f}", f"{wait.most:.1f}")
    terminal.print(table)
    terminal.print(machine())
    if path := os.environ.get("JSON"):
        measured: dict[str, Sequence[Load | Figures | Wait]] = {"pages": pages, "feeds": results, "waits": waits}
        rows = {name: [asdict(each) for each in those] for name, those in measured.items()}
        Path(path).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
