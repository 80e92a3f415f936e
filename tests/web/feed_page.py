"""The feed on a build's page, for tests: what is loaded, its place in view, and what its rows hold."""

import uuid

from playwright.async_api import Page, expect

from tests.harness.console import Console
from tests.harness.wait import wait_until

NODES_MOST = 1500
"""Elements of a page, however long its feed is."""


class FeedOnPage:
    """The feed of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.scroller = page.locator("[data-first]")
        self.rows = page.locator("[data-row]")

    async def loaded(self) -> tuple[int, int, int, bool]:
        """The ids of the first and the last loaded event, how many are loaded, and whether that is all."""
        data = await self.scroller.evaluate("element => ({...element.dataset})")
        return int(data["first"]), int(data["last"]), int(data["count"]), data["complete"] == "true"

    async def has(self, last: int) -> None:
        """Wait until the event with this id is loaded."""
        await expect(self.scroller).to_have_attribute("data-last", str(last))

    async def scroll_to(self, top: int) -> None:
        await self.scroller.evaluate("(element, top) => { element.scrollTop = top; }", top)

    async def is_at_end(self) -> bool:
        below = "element => element.scrollHeight - element.clientHeight - element.scrollTop"
        return float(await self.scroller.evaluate(below)) < 2

    async def stays_at_end(self) -> None:
        await wait_until(self.is_at_end)
        await self.settled()
        assert await self.is_at_end()

    async def settled(self) -> None:
        """Wait until the list has measured its rows."""
        frames = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
        for _ in range(3):
            await self.page.evaluate(frames)

    async def first_visible(self) -> tuple[str, float]:
        """The key of the first row that is in view as a whole, and how far below the top of the list it begins."""
        found = await self.scroller.evaluate(
            """scroller => {
                const top = scroller.getBoundingClientRect().top;
                const rows = [...scroller.querySelectorAll("[data-row]")]
                    .map(row => [row.dataset.row, row.getBoundingClientRect().top - top])
                    .filter(([, offset]) => offset >= 0)
                    .sort((one, other) => one[1] - other[1]);
                return rows[0];
            }"""
        )
        return str(found[0]), float(found[1])

    async def offset_of(self, key: str) -> float:
        """How far below the top of the list the row begins."""
        return float(
            await self.scroller.evaluate(
                """(scroller, key) => [...scroller.querySelectorAll("[data-row]")]
                    .find(row => row.dataset.row === key).getBoundingClientRect().top
                    - scroller.getBoundingClientRect().top""",
                key,
            )
        )

    async def nodes(self) -> int:
        return int(await self.page.evaluate("() => document.querySelectorAll('*').length"))

    async def whole(self) -> list[dict[str, str]]:
        """Scroll through the feed and return each row's attributes, text, and content with what is folded, in order."""
        found: dict[int, dict[str, str]] = {}
        top = 0
        while True:
            await self.scroll_to(top)
            await self.settled()
            seen = await self.rows.evaluate_all(
                "rows => rows.map(row => ({...row.dataset, text: row.innerText, content: row.textContent}))"
            )
            found |= {int(row["index"]): row for row in seen}
            height, view, now = await self.scroller.evaluate("e => [e.scrollHeight, e.clientHeight, e.scrollTop]")
            if now + view >= height - 1:
                return [found[index] for index in sorted(found)]
            top = now + view // 2


async def open_feed(console: Console, build: uuid.UUID, last: int, *, everything: bool = False) -> FeedOnPage:
    """Open the build's page and wait for the event with the id `last`."""
    await console.open(f"/builds/{build}")
    feed = FeedOnPage(console.page)
    await feed.has(last)
    await console.page.get_by_role("button", name="Everything" if everything else "Story").click()
    await feed.stays_at_end()
    return feed
