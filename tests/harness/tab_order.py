"""Follows the Tab key through a page: to each control once, in the order of reading, and visibly."""

from playwright.async_api import Page

_PREPARE = """
async () => {
    document.activeElement?.blur();
    const isTabbable = element => {
        if (element.tabIndex < 0 || element.disabled || element.closest("[inert]")) return false;
        if (!element.checkVisibility({ visibilityProperty: true })) return false;
        if (element.closest("details:not([open]) > :not(summary)")) return false;
        if (element.type !== "radio" || element.checked) return true;
        const group = [...document.getElementsByName(element.name)];
        return !group.some(({ checked }) => checked) && group[0] === element;
    };
    const controls = "a[href], button, input, select, textarea, summary, [tabindex]";
    // Rows of the feed come and go while one moves through them.
    window.unvisited = new Set([...document.querySelectorAll(controls)].filter(
        element => isTabbable(element) && !element.closest("ol [data-row]"),
    ));
    window.visited = new Set();
    window.before = null;
}
"""

_LOOK = """
async () => {
    const element = document.activeElement;
    if (element === document.body || element === null) return { end: true, wrong: [] };
    const name = element.outerHTML.slice(0, 120);
    // The parts of a date are within one control.
    if (element === before && /^(date|time|datetime-local)$/.test(element.type)) return { end: false, wrong: [] };
    const isFirst = element === visited.values().next().value;
    if (visited.has(element)) return { end: true, wrong: isFirst ? [] : [`a trap at ${name}`] };
    const wrong = [];
    if (before?.isConnected && !(before.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING))
        wrong.push(`before the one that precedes it: ${name}`);
    visited.add(element);
    unvisited.delete(element);
    window.before = element;

    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const isMarked = each => {
        if (!each) return false;
        const { outlineStyle, outlineWidth, outlineColor, boxShadow } = getComputedStyle(each);
        const isClear = /^rgba.*, 0\\)$/.test(outlineColor);
        const hasOutline = outlineStyle !== "none" && parseFloat(outlineWidth) >= 1 && !isClear;
        return hasOutline || boxShadow !== "none";
    };
    // A picture of a control that hides its field is marked in the field's place.
    if (![element, element.nextElementSibling, element.closest("label")].some(isMarked)) wrong.push(`no mark: ${name}`);

    const label = element.labels?.[0];
    const boxes = [...element.getClientRects()].filter(({ width, height }) => width > 2 && height > 2);
    const box = boxes[0] ?? label?.getClientRects()[0];
    if (!box) return { end: false, wrong: [...wrong, `not to be seen: ${name}`] };
    const within = (least, most, limit) => (Math.max(least, 0) + Math.min(most, limit)) / 2;
    const x = within(box.left, box.right, innerWidth), y = within(box.top, box.bottom, innerHeight);
    const hit = document.elementFromPoint(x, y);
    if (!hit) wrong.push(`outside of the window: ${name}`);
    else if (!element.contains(hit) && !hit.contains(element) && !label?.contains(hit))
        wrong.push(`under ${hit.outerHTML.slice(0, 80)}: ${name}`);
    return { end: false, wrong };
}
"""

_PRESSES_MOST = 400


async def wrong_in_tab_order(page: Page) -> list[str]:
    """Press Tab until the focus has been everywhere. Return what is wrong with where it has been: out of order, not
    marked, outside of the window or under something else, or not reached."""
    await page.evaluate(_PREPARE)
    wrong: list[str] = []
    for _ in range(_PRESSES_MOST):
        await page.keyboard.press("Tab")
        look = await page.evaluate(_LOOK)
        wrong += look["wrong"]
        if look["end"]:
            break
    else:
        wrong.append(f"no end after {_PRESSES_MOST} presses")
    missed = await page.evaluate(
        "() => [...unvisited].filter((each) => each.isConnected).map((each) => each.outerHTML.slice(0, 120))"
    )
    return wrong + [f"not reached: {each}" for each in missed]
