"""A browser that watches the builds of a random run as their founders do. At the end it shows what the API says."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from playwright.async_api import Browser, BrowserContext, Page
from playwright.async_api import Error as BrowserError
from sqlalchemy import func, select

from clients.browser import close_surely
from db.models import Build, Event
from db.transaction import transaction
from tests.faults.people import MISSED, People
from tests.harness.api_process import ApiProcess
from tests.harness.console import DESKTOP, chromium
from tests.harness.faults import FaultHarness
from tests.harness.wait import DEADLINE, wait_until

MOST_PAGES = 12
"""Pages of builds that are open at once. They stay open until the end of the run."""

_OPEN_SECONDS = 60.0
"""Give up a page that has not shown its feed after this time, and open another: the API may have been killed while the
page's own code was loaded."""


_DATASET = "element => ({...element.dataset})"


@dataclass
class Watched:
    """A build's page, and what was last seen to differ from the API."""

    build_id: uuid.UUID
    user: str
    page: Page
    differs: str = "was not compared"


@dataclass
class Watcher:
    """Opens the page of each build that people start, up to a number, and compares them at the end."""

    faults: FaultHarness
    browser: Browser
    api: ApiProcess
    people: People
    watched: dict[uuid.UUID, Watched] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """Exceptions in the code of pages."""
    _contexts: dict[str, BrowserContext] = field(default_factory=dict)
    _signed_in: set[str] = field(default_factory=set)

    async def watch(self) -> None:
        """Open the pages of builds until it is cancelled."""
        while True:
            with suppress(*MISSED, TimeoutError):
                for build in await self.people.open_builds():
                    if build.id not in self.watched and len(self.watched) < MOST_PAGES:
                        await self._open(build)
            await asyncio.sleep(1)

    async def check(self) -> list[str]:
        """Wait until each page shows what the API says; return what it has not shown in time.

        Call it when all builds have closed, and while the API runs.
        """
        findings = await asyncio.gather(*map(self._check, self.watched.values()))
        return [finding for finding in findings if finding is not None] + self.errors

    async def _open(self, build: Build) -> None:
        with suppress(BrowserError):
            page = await (await self._context(build.user_id)).new_page()
            page.on("pageerror", lambda error: self.errors.append(f"the page of build {build.id}: {error}"))
            watched = Watched(build.id, build.user_id, page)
            try:
                await self._show(watched)
            except BrowserError:
                self._signed_in.discard(build.user_id)
                await close_surely(page)
                raise
            self.watched[build.id] = watched

    async def _context(self, user: str) -> BrowserContext:
        if user not in self._contexts:
            self._contexts[user] = await self.browser.new_context(**DESKTOP)
        return self._contexts[user]

    async def _show(self, watched: Watched) -> None:
        """Load the build's page, with a link that signs its user in if need be."""
        path, fragment = f"/builds/{watched.build_id}", ""
        if watched.user not in self._signed_in:
            made = await self.api.ask("POST", "/sign-in-links", watched.user, {})
            fragment = urlsplit(str(made.raise_for_status().json()["url"])).fragment
        link = f"/sign-in#{fragment}&to={quote(path, safe='')}" if fragment else path
        await watched.page.goto(f"{self.api.url}{link}")
        await watched.page.locator("[data-count]").wait_for(timeout=_OPEN_SECONDS * 1000)
        self._signed_in.add(watched.user)

    async def _check(self, watched: Watched) -> str | None:
        try:
            await wait_until(lambda: self._is_same(watched), seconds=DEADLINE, look_seconds=1)
        except TimeoutError:
            return f"the page of build {watched.build_id}: {watched.differs}"
        return None

    async def _is_same(self, watched: Watched) -> bool:
        """Whether the page shows the build's status and each of its events once. A build that was lost with the
        database has no page to compare."""
        with suppress(*MISSED):
            build = await self.api.ask("GET", f"/builds/{watched.build_id}", watched.user)
            if build.status_code == 404:
                return True
            try:
                if await watched.page.get_by_text("You are signed out").count():
                    # The database was put back to before the sign-in.
                    self._signed_in.discard(watched.user)
                    await self._show(watched)
                loaded = await watched.page.locator("[data-count]").evaluate(_DATASET, timeout=5000)
                status = watched.page.locator("header [data-status]")
                shown = await status.get_attribute("data-status", timeout=5000)
            except BrowserError as error:
                watched.differs = f"shows no feed or status: {error}"
                return False
            first, last, count = int(loaded["first"]), int(loaded["last"]), int(loaded["count"])
            there, closing = await self._events(watched.build_id, first, last)
            watched.differs = (
                f"shows {shown} and {count} events from {first} to {last}; the API says {build.json()['status']}, "
                f"there are {there} such events, and the build closed with {closing}"
            )
            return shown == build.json()["status"] and count == there and last >= closing
        return False

    async def _events(self, build_id: uuid.UUID, first: int, last: int) -> tuple[int, int]:
        """How many events there are from the first id to the last, and the id of the one with the last status. The feed
        of a closed build ends: what its preview does later is not followed."""
        async with transaction(self.faults.sessions) as tx:
            of_build = select(func.count()).where(Event.build_id == build_id)
            there = await tx.session.scalar(of_build.where(Event.id.between(first, last)))
            statuses = select(func.max(Event.id)).where(Event.build_id == build_id, Event.type == "status")
            return there or 0, await tx.session.scalar(statuses) or 0


@asynccontextmanager
async def watcher(faults: FaultHarness, api: ApiProcess, people: People) -> AsyncIterator[Watcher]:
    """Run a browser that watches the builds."""
    async with chromium() as browser:
        yield Watcher(faults, browser, api, people)
