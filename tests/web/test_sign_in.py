"""Signing in with a link, in the real console: where it lands, that it works once, and what the browser keeps of it."""

from playwright.async_api import Browser, expect

from clients.browser import close_surely
from tests.harness.console import DESKTOP, Console
from tests.harness.feeds import build_row


async def test_a_link_lands_on_the_build_and_works_once(console: Console, web_browser: Browser) -> None:
    build = await build_row(console.api.sessions, console.user)
    link = await console.sign_in_link(f"/builds/{build}")
    code = link.partition("#code=")[2].partition("&")[0]
    await console.page.goto(link)
    await console.page.wait_for_url(f"{console.api.url}/builds/{build}")
    await expect(console.page.get_by_role("main")).to_be_visible()

    # The browser keeps a cookie that no script can read, and nothing else.
    [cookie] = await console.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["secure"]) == (True, "Lax", "/", False)
    kept = await console.page.evaluate(
        "() => [document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)].join()"
    )
    assert cookie["value"] not in kept
    assert code not in kept
    # Playwright names a page's address with its fragment; what is sent has none.
    assert not [each for each in console.requests if code in each.url.partition("#")[0] or code in str(each.headers)]
    await console.page.go_back()
    assert code not in console.page.url

    other = await web_browser.new_context(**DESKTOP)
    try:
        page = await other.new_page()
        await page.goto(link)
        await expect(page.get_by_role("heading", level=1)).to_have_text("This link was used before")
        await expect(page.get_by_role("main")).to_contain_text("cofounder open")
        assert await other.cookies() == []
    finally:
        await close_surely(other)


async def test_signing_out_in_one_tab_signs_out_the_others(console: Console) -> None:
    console.expect_error("status of 401")
    other = await console.new_tab()
    await expect(other.get_by_role("button", name="Account")).to_be_visible()
    await console.page.get_by_role("button", name="Account").click()
    await console.page.get_by_role("menuitem", name="Sign out").click()
    await expect(other.get_by_role("dialog")).to_be_visible()
    await expect(other.get_by_role("dialog").get_by_role("link", name="Sign in")).to_be_visible()
    assert await console.context.cookies() == []
