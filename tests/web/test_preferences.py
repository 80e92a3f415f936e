"""What people set in their system: colours of their own, which replace the page's, and less motion."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.harness.accessibility import violations
from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, PHONE, Console, console_of
from tests.harness.feeds import build_row
from tests.harness.tab_order import wrong_in_tab_order
from tests.web.build_page import status_chip
from tests.web.views import founders_dialogs, founders_pages, make_sample, operators_pages, show

_ALIKE = """
() => {
    const chosen = document.querySelectorAll(
        '[aria-selected="true"], [aria-pressed="true"], [aria-current]:not([aria-current="false"]), :checked + span');
    const look = (element, part) => {
        const style = getComputedStyle(element, part);
        return [style.borderTopStyle, style.borderTopWidth, style.borderBottomColor, style.borderBottomWidth,
            style.outlineStyle, style.outlineWidth, style.textDecorationLine, style.content].join();
    };
    const looks = element => [undefined, "::before", "::after"].map(part => look(element, part)).join(" ");
    const isChosen = element =>
        element.matches('[aria-selected="true"], [aria-pressed="true"], [aria-current], :checked + span');
    return [...chosen].filter(element => {
        if (!element.checkVisibility()) return false;
        const others = [...document.getElementsByClassName(element.className)]
            .filter(each => each.tagName === element.tagName && !isChosen(each) && each.checkVisibility());
        return element.className !== "" && others.some(each => looks(each) === looks(element));
    }).map(element => element.outerHTML.slice(0, 160));
}
"""
"""What is chosen and looks like what is not: the same border, outline, underline and marks."""

_MOVING = """
() => {
    const inMs = text => parseFloat(text) * (/ms$/.test(text.trim()) ? 1 : 1000);
    const longest = text => Math.max(...text.split(",").map(inMs));
    const moving = [];
    for (const element of document.querySelectorAll("*")) {
        for (const part of [undefined, "::before", "::after", "::backdrop"]) {
            const style = getComputedStyle(element, part);
            const ms = longest(style.transitionDuration) + longest(style.transitionDelay);
            const name = element.outerHTML.slice(0, 120);
            if (style.transitionProperty !== "none" && ms > 10) moving.push(`${name}: ${ms} ms`);
            if (style.scrollBehavior === "smooth") moving.push(`${name} scrolls smoothly`);
        }
    }
    for (const animation of document.getAnimations()) {
        const changes = animation.effect.getKeyframes().flatMap(frame => Object.keys(frame));
        const kinds = new Set(["offset", "computedOffset", "easing", "composite", "visibility"]);
        const names = changes.filter(name => !kinds.has(name));  // what is only hidden for a while does not move
        if (names.length > 0) moving.push(`${animation.effect.target.outerHTML.slice(0, 120)} animates ${names}`);
    }
    return moving;
}
"""


@pytest.fixture
async def forced(web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    """A founder's browser that shows all pages in the system's colours."""
    async with console_of(web_browser, web_api, f"founder-{uuid.uuid4()}", **DESKTOP) as signed_in:
        await signed_in.page.emulate_media(forced_colors="active", reduced_motion="reduce")
        yield signed_in


@pytest.mark.web
@pytest.mark.parametrize("width", [1440, 390])
async def test_what_is_chosen_is_told_apart_in_forced_colours(forced: Console, width: int) -> None:
    page = forced.page
    await page.set_viewport_size({"width": width, "height": 900})
    sample = await make_sample(forced)
    found: dict[str, Any] = {}
    for view in founders_pages(sample):
        await show(page, forced.api.url, view)
        broken = await violations(page, spacing=False) if width == 1440 else []
        if wrong := [*await page.evaluate(_ALIKE), *broken]:
            found[str(view)] = wrong
    assert found == {}


@pytest.mark.web
async def test_states_and_the_focus_are_seen_in_forced_colours(forced: Console) -> None:
    page = forced.page
    sample = await make_sample(forced)
    await forced.open(f"/builds/{sample.asking}")
    chip = status_chip(page, "Needs you")
    await expect(chip).to_be_visible()
    assert await chip.evaluate("chip => getComputedStyle(chip).borderTopStyle") == "solid"
    assert await chip.evaluate("chip => chip.querySelector('svg') !== null")
    shown = {f"/builds/{sample.asking}", "/", "/account"}
    for view in founders_pages(sample):
        if view.path in shown:
            await show(page, forced.api.url, view)
            assert (str(view), await wrong_in_tab_order(page)) == (str(view), [])


async def _moving(page: Page) -> list[str]:
    moving: list[str] = await page.evaluate(_MOVING)
    return moving


@pytest.mark.web
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_nothing_moves_for_those_who_want_less_motion(
    web_api: RunningApi, web_browser: Browser, size: dict[str, Any]
) -> None:
    found = {}
    async with console_of(web_browser, web_api, f"founder-{uuid.uuid4()}", **size) as console:
        page = console.page
        await page.emulate_media(reduced_motion="reduce")
        sample = await make_sample(console)
        for view in [*founders_pages(sample), *founders_dialogs(sample)]:
            await show(page, console.api.url, view, is_phone=size == PHONE)
            if moving := await _moving(page):
                found[str(view)] = moving
        await page.route("**/v1/builds?*", lambda _: None)
        await console.open("/")
        await expect(page.locator("[data-loading]").first).to_be_visible()
        found |= {"loading": moving} if (moving := await _moving(page)) else {}
        await page.unroute_all(behavior="ignoreErrors")
    assert found == {}


@pytest.mark.web
async def test_nothing_moves_on_operators_pages(web_api: RunningApi, web_browser: Browser) -> None:
    user = f"founder-{uuid.uuid4()}"
    build = await build_row(web_api.sessions, user)
    found = {}
    async with console_of(web_browser, web_api, web_api.settings.api_user, is_operator=True, **DESKTOP) as operator:
        await operator.page.emulate_media(reduced_motion="reduce", forced_colors="active")
        for view in operators_pages(build, user):
            await show(operator.page, operator.api.url, view)
            if wrong := [*await _moving(operator.page), *await operator.page.evaluate(_ALIKE)]:
                found[str(view)] = wrong
    assert found == {}
