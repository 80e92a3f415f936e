"""Which row of how many a row of the feed is, for those who hear the page."""

import pytest
from playwright.async_api import expect

from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, write_feed
from tests.harness.wait import wait_until
from tests.web.feed_page import open_feed

pytestmark = pytest.mark.web

_PLACES = """rows => rows.map(row => [
    Number(row.dataset.index), Number(row.getAttribute("aria-posinset")), Number(row.getAttribute("aria-setsize")),
])"""


async def test_rows_say_their_place_and_how_many_there_are_once_that_is_known(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    last = await write_feed(console.api.sessions, build, feed_lines(1_500))
    feed = await open_feed(console, build, last, everything=True)
    assert not (await feed.loaded())[3]
    places = await feed.rows.evaluate_all(_PLACES)
    assert places
    assert all(place == index + 1 for index, place, _ in places)
    assert {size for *_, size in places} == {-1}, "earlier rows are not loaded yet"

    async def all_loaded() -> bool:
        await feed.scroll_to(0)
        await feed.settled()
        return (await feed.loaded())[3]

    await wait_until(all_loaded)
    await feed.scroll_to(0)
    await expect(feed.rows.and_(console.page.locator('[aria-posinset="1"]'))).to_be_visible()
    sizes = {size for *_, size in await feed.rows.evaluate_all(_PLACES)}
    assert len(sizes) == 1
    await console.page.keyboard.press("End")
    await feed.stays_at_end()
    places = await feed.rows.evaluate_all(_PLACES)
    assert max(place for _, place, _ in places) == sizes.pop()
