"""The page of a build keeps up with its feed, whatever happens to the way there: no event is lost or doubled."""

import asyncio
import os
import re
import sys
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, expect
from sqlalchemy import select

from clients.browser import close_surely
from db.models import Event
from db.transaction import transaction
from domain.events import NarrationEvent
from local.ports import Ports
from local.postgres import api_database_url
from local.stack import LocalStack
from tests.harness.api_server import TOKEN, RunningApi
from tests.harness.console import DESKTOP, Console, console_of
from tests.harness.fault_proxy import FaultProxy
from tests.harness.feeds import build_row, feed_lines, turn_lines, write_events, write_feed
from tests.harness.wait import wait_until
from tests.web.feed_page import FeedOnPage, open_feed

pytestmark = pytest.mark.web

FIRST = 60
"""Events that a feed has at first."""

MORE = 20
"""Events that it gets while the connection is lost."""

SET_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@dataclass
class Way:
    """A browser at an API in a process of its own, with a proxy in between that can break the connection."""

    console: Console
    proxy: FaultProxy
    port: int
    environment: dict[str, str]
    process: Process | None = None
    written: int = 0
    build: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def feed(self) -> Locator:
        """The feed on the page. It says what it has loaded."""
        return self.console.page.locator("[data-count]")

    async def start_api(self) -> None:
        """Start the API, and wait until it answers."""
        arguments = ("-m", "api", "--port", str(self.port))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=self.environment, stderr=asyncio.subprocess.DEVNULL
        )

        async def answers() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await wait_until(answers)

    async def kill_api(self) -> None:
        """Kill the API's process."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def write(self, number: int) -> None:
        """Append events to the build's feed."""
        lines = (
            list(feed_lines(number)) if self.written == 0 else turn_lines(1000 + self.written, calls=(number - 4) // 2)
        )
        self.written = await write_feed(self.console.api.sessions, self.build, lines)

    async def has_all(self) -> None:
        """Wait until the page has each event of the database once, and says that it is live."""
        await expect(self.feed).to_have_attribute("data-last", str(self.written))
        await expect(self.feed).to_have_attribute("data-count", str(self.written))
        await expect(self.console.page.locator("[data-live=live]")).to_be_visible()

    async def is_lost(self) -> None:
        """Wait until the page says that it is not connected, and since when."""
        lost = self.console.page.locator("[data-live=reconnecting], [data-live=offline]")
        await expect(lost).to_contain_text(re.compile(r"(Reconnecting, try \d+|Offline).*, as of \d"))
        await expect(lost.get_by_role("button", name="Try now")).to_be_visible()


@pytest.fixture
async def way(stack: LocalStack, web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Way]:
    """A page of a build with a feed, shown and live. The test's own requests do not go over the proxy."""
    ports = Ports()
    port = ports.choose(set())
    proxy = FaultProxy(port)
    await proxy.start()
    url = f"http://127.0.0.1:{proxy.port}"
    own = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment = {
        **own,
        **stack.environment,
        "DATABASE_URL": api_database_url(stack.environment["DATABASE_URL"]),
        "API_TOKEN": TOKEN,
        "PUBLIC_URL": url,
        "PREVIEW_URL": f"http://*.localhost:{proxy.port}",
    }
    user = f"founder-{uuid.uuid4()}"
    process: Way | None = None
    try:
        unsigned = Way(Console(web_api, user, None, None), proxy, port, environment)  # type: ignore[arg-type]
        process = unsigned
        await unsigned.start_api()
        async with console_of(web_browser, replace(web_api, url=url), user, **DESKTOP) as console:
            way = replace(unsigned, console=console, build=await build_row(web_api.sessions, user))
            process = way
            # The browser's console has an error for each lost connection.
            console.expect_error("Failed to load resource", "net::ERR_")
            await way.write(FIRST)
            await console.open(f"/builds/{way.build}")
            await way.has_all()
            yield way
    finally:
        if process is not None:
            await process.kill_api()
        await proxy.close()
        ports.release()


async def test_the_api_is_killed_and_starts_again(way: Way) -> None:
    for _ in range(2):
        await way.kill_api()
        await way.is_lost()
        await way.write(MORE)
        await way.start_api()
        await way.has_all()
    await way.write(MORE)
    await way.has_all()


async def test_the_network_goes_and_comes(way: Way) -> None:
    await way.console.context.set_offline(True)
    way.proxy.cut()
    await way.is_lost()
    await expect(way.console.page.get_by_text("You are offline").first).to_be_visible()
    await way.write(MORE)
    await way.console.context.set_offline(False)
    await way.has_all()
    await expect(way.console.page.get_by_text("You are offline")).to_have_count(0)


async def test_a_connection_that_hangs_is_noticed(way: Way) -> None:
    """No byte comes and nothing closes the connection, as after a change of networks. Takes most of a minute."""
    way.proxy.blackhole()
    await way.write(MORE)
    await way.is_lost()
    way.proxy.heal()
    await way.has_all()
    assert way.proxy.struck["blackhole"] > 0


async def test_the_computer_sleeps(way: Way) -> None:
    """The clock jumps by hours, then the page is looked at: the connection, which may be dead, is made again."""
    page = way.console.page
    await page.clock.install()
    await way.console.open(f"/builds/{way.build}")
    await way.has_all()
    way.proxy.blackhole()
    await way.write(MORE)
    streams = _streams_of(way.console.page)
    await page.clock.fast_forward(8 * 3600 * 1000)
    way.proxy.cut()
    way.proxy.heal()
    await page.evaluate(SET_HIDDEN, False)
    await way.has_all()
    assert len(streams) >= 1, "nothing was connected again"


async def test_a_page_that_nobody_looks_at_lets_its_connection_go(console: Console) -> None:
    page, sessions = console.page, console.api.sessions
    build = await build_row(sessions, console.user)
    last = await write_feed(sessions, build, feed_lines(FIRST))
    await page.clock.install()
    feed = await open_feed(console, build, last)
    await wait_until(lambda: _viewers(console, build) == 1)
    await page.evaluate(SET_HIDDEN, True)
    await page.clock.fast_forward(61_000)
    await expect(page.locator("[data-live=paused]")).to_be_visible()
    await wait_until(lambda: _viewers(console, build) == 0)
    last = await write_feed(sessions, build, turn_lines(99))
    streams = _streams_of(page)
    await page.evaluate(SET_HIDDEN, False)
    await _has_each(feed, last)
    await wait_until(lambda: _viewers(console, build) == 1)
    assert len(streams) == 1


async def test_a_page_that_is_too_slow_is_dropped_and_comes_back(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its script stands still, so the browser takes no more from the connection once its buffers are full."""
    monkeypatch.setattr("api.feeds._PENDING_EVENTS", 20)
    monkeypatch.setattr("api.routes.events._SLOW_VIEWER_SECONDS", 1.0)
    page, sessions = console.page, console.api.sessions
    build = await build_row(sessions, console.user)
    last = await write_feed(sessions, build, feed_lines(FIRST))
    feed = await open_feed(console, build, last)
    await wait_until(lambda: _viewers(console, build) == 1)
    devtools = await console.context.new_cdp_session(page)
    await devtools.send("Debugger.enable")
    stopped = asyncio.ensure_future(page.evaluate("() => { debugger; }"))
    streams = _streams_of(page)
    long = NarrationEvent(text="x" * 100_000, claim="claim")

    async def is_dropped() -> bool:
        nonlocal last
        last = await write_events(sessions, build, *[long] * 10, turn=99)
        return _viewers(console, build) == 0

    await wait_until(is_dropped)
    await devtools.send("Debugger.resume")
    await stopped
    await _has_each(feed, last)
    await expect(page.locator("[data-live=live]")).to_be_visible()
    assert len(streams) >= 1, "it comes back by itself"
    async with transaction(sessions) as tx:
        ids = list(await tx.session.scalars(select(Event.id).where(Event.build_id == build).order_by(Event.id)))
    assert ids == list(range(1, last + 1))


async def test_eight_tabs_share_the_browsers_six_connections(console: Console) -> None:
    sessions = console.api.sessions
    builds = [await build_row(sessions, console.user) for _ in range(8)]
    for build in builds:
        await write_feed(sessions, build, feed_lines(FIRST))
    tabs: list[Page] = []
    for build in builds:
        tab = await console.new_tab(f"/builds/{build}")
        await expect(tab.locator("[data-count]")).to_have_attribute("data-last", str(FIRST))
        tabs.append(tab)
    # Each request of each page is answered, though three feeds are connected.
    assert await asyncio.gather(
        *(tab.evaluate("() => fetch('/v1/me').then(({ status }) => status)") for tab in tabs)
    ) == [200] * len(tabs)
    last = [await write_feed(sessions, build, turn_lines(99)) for build in builds]
    for tab, number in zip(tabs, last, strict=True):
        await expect(tab.locator("[data-count]")).to_have_attribute("data-last", str(number))
        await expect(tab.locator("[data-count]")).to_have_attribute("data-count", str(number))
    # A tab that is closed leaves its place to another.
    for tab in tabs[:5]:
        await close_surely(tab)
    for tab in tabs[5:]:
        await expect(tab.locator("[data-live=live]")).to_be_visible()


def _streams_of(page: Page) -> list[str]:
    """The feeds that the page opens from now on."""
    urls: list[str] = []
    page.on(
        "request", lambda request: urls.append(request.url) if urlsplit(request.url).path.endswith("/events") else None
    )
    return urls


def _viewers(console: Console, build: uuid.UUID) -> int:
    """Connections that the API holds open for the build's feed."""
    return console.api.resources.feeds.viewers(build)


async def _has_each(feed: FeedOnPage, last: int) -> None:
    """Wait until the page has each event up to this one, once."""
    await feed.has(last)
    await expect(feed.scroller).to_have_attribute("data-count", str(last))
