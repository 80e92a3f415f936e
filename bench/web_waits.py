"""How long people wait for pages of the web console: after a sleep, and in the operators' list of builds."""

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median

from playwright.async_api import Browser, Page

from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, console_of
from tests.harness.feeds import build_row, feed_lines, turn_lines, write_feed
from tests.harness.fleet import fill_fleet

FLEET = 2_000
"""Open builds in the operators' list."""

_SET_HIDDEN = """hidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@dataclass(frozen=True)
class Wait:
    """The median of how long something took, and the longest that it should."""

    what: str
    seconds: float
    most: float


async def measure_waits(api: RunningApi, browser: Browser, times: int) -> list[Wait]:
    """Measure each wait this many times. Fills the database with a fleet.

    Args:
        api: with the operators' token of the tests.
    """
    await fill_fleet(api.sessions, FLEET)
    taken: dict[str, list[float]] = {what: [] for what in _MOST}
    for _ in range(times):
        for measured in (_after_a_sleep, _in_the_fleet):
            for what, seconds in (await measured(api, browser)).items():
                taken[what].append(seconds)
    return [Wait(what, median(taken[what]), most) for what, most in _MOST.items()]


_MOST: Mapping[str, float] = {
    "a feed is live again after the computer slept": 1.0,
    f"the first rows of {FLEET:,} builds": 1.0,
    "a changed filter": 0.3,
}


async def _after_a_sleep(api: RunningApi, browser: Browser) -> dict[str, float]:
    user = f"sleeper-{uuid.uuid4()}"
    build = await build_row(api.sessions, user)
    last = await write_feed(api.sessions, build, feed_lines(1000))
    async with console_of(browser, api, user, **DESKTOP) as console:
        page = console.page
        await page.clock.install()
        await console.open(f"/builds/{build}")
        await _has(page, last)
        await page.evaluate(_SET_HIDDEN, True)
        await page.clock.fast_forward(8 * 3600 * 1000)
        await page.locator("[data-live=paused]").wait_for()
        last = await write_feed(api.sessions, build, turn_lines(2000))
        seconds = await _timed(lambda: page.evaluate(_SET_HIDDEN, False), lambda: _has(page, last))
    return {"a feed is live again after the computer slept": seconds}


async def _in_the_fleet(api: RunningApi, browser: Browser) -> dict[str, float]:
    async with console_of(browser, api, api.settings.api_user, is_operator=True, **DESKTOP) as console:
        page = console.page
        row = page.get_by_role("table", name="Builds of all users").locator("tbody").get_by_role("row").first
        first = await _timed(lambda: console.open("/fleet"), row.wait_for)
        tiles = page.get_by_role("navigation", name="How the builds are")
        asleep = tiles.get_by_role("link").filter(has_text="Asleep")
        matching = page.get_by_text(f"{FLEET // 2:,} builds match.")
        await asleep.wait_for()
        filtered = await _timed(asleep.click, matching.wait_for)
    return {f"the first rows of {FLEET:,} builds": first, "a changed filter": filtered}


async def _has(page: Page, last: int) -> None:
    """Wait until the page has the event with this id."""
    await page.locator(f'[data-last="{last}"]').wait_for()


async def _timed(act: Callable[[], Awaitable[object]], seen: Callable[[], Awaitable[object]]) -> float:
    """Return the seconds from the act until its effect is seen."""
    began = time.monotonic()
    await act()
    await seen()
    return time.monotonic() - began
