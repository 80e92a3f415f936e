"""What is against a page as it is shown now: rules of axe-core, and text that wider spacing hides (WCAG 1.4.12)."""

from pathlib import Path
from typing import Any

from playwright.async_api import Page

_AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"

_RUN = """async () => {
    const rules = { "target-size": { enabled: true } };  // WCAG 2.2: 24 pixels, or as much room around it
    const { violations } = await axe.run(document, { resultTypes: ["violations"], rules });
    const barOf = element => {
        for (let up = element; up !== null; up = up.parentElement) {
            if (/sticky|fixed/.test(getComputedStyle(up).position)) return up;
        }
        return undefined;
    };
    // What has scrolled under a bar gets room when one scrolls on: the bar's buttons are not its neighbours.
    const isUnderBar = ({ target, any }) => {
        const near = any.flatMap(({ relatedNodes }) => relatedNodes);
        const bars = near.map(each => barOf(document.querySelector(each.target[0])));
        const element = document.querySelector(target[0]);
        return bars.length > 0 && bars.every(bar => bar && !bar.contains(element));
    };
    const at = ({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary.slice(0, 300)}`;
    return violations.flatMap(({ id, impact, nodes }) => {
        const those = id === "target-size" ? nodes.filter(node => !isUnderBar(node)) : nodes;
        return those.length > 0 ? [{ id, impact, at: those.map(at) }] : [];
    });
}"""

_TEXT_SPACING = """
async () => {
    const root = document.querySelector("dialog[open]") ?? document.body;
    const look = () => {
        const cut = [], seen = [];
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const node = walker.currentNode, at = node.parentElement, text = node.data.trim();
            if (text === "" || !at.checkVisibility({ opacityProperty: true })) continue;
            if (at.closest(".visually-hidden")) continue;
            // A line that is always shortened has its whole text here, and on the page that its row leads to.
            if (at.closest("[title]")?.title.includes(text)) continue;
            const range = document.createRange();
            range.selectNodeContents(node);
            const plain = ({ left, right, top, bottom }) => ({ left, right, top, bottom });
            const lines = [...range.getClientRects()].map(plain);
            let isFixed = false, isCut = false;
            for (let up = at; up !== null; up = up.parentElement) {
                const { overflowX, overflowY, position, display } = getComputedStyle(up);
                isFixed ||= position === "fixed" || position === "sticky";
                if (display === "inline" || up === document.body || up === document.documentElement) continue;
                const { left, right, top, bottom } = up.getBoundingClientRect();
                for (const line of lines) {
                    if (/hidden|clip/.test(overflowX)) isCut ||= line.left < left - 1 || line.right > right + 1;
                    if (/hidden|clip/.test(overflowY)) isCut ||= line.top < top - 1 || line.bottom > bottom + 1;
                    if (overflowX !== "visible") line.left = Math.max(line.left, left);
                    if (overflowX !== "visible") line.right = Math.min(line.right, right);
                    if (overflowY !== "visible") line.top = Math.max(line.top, top);
                    if (overflowY !== "visible") line.bottom = Math.min(line.bottom, bottom);
                }
            }
            if (isCut) cut.push(text);
            if (!isFixed) seen.push(...lines.map(line => ({ node, text, line })));
        }
        const over = [];
        for (const [index, one] of seen.entries()) {
            for (const other of seen.slice(index + 1)) {
                const wide = Math.min(one.line.right, other.line.right) - Math.max(one.line.left, other.line.left);
                const high = Math.min(one.line.bottom, other.line.bottom) - Math.max(one.line.top, other.line.top);
                if (one.node !== other.node && wide > 2 && high > 6) over.push(`${one.text} | ${other.text}`);
            }
        }
        return { cut: new Set(cut), over: new Set(over), wide: document.scrollingElement.scrollWidth > innerWidth };
    };
    const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const before = look();
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`
        * { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important }
        p { margin-block-end: 2em !important }`);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    let lost = [];
    for (let tries = 0; tries < 60; tries++) {  // lists measure their rows again, in frames that follow
        await frame();
        const after = look();
        lost = [
            ...[...after.cut].filter(text => !before.cut.has(text)).map(text => `cut: ${text.slice(0, 200)}`),
            ...[...after.over].filter(text => !before.over.has(text)).map(text => `overlap: ${text.slice(0, 200)}`),
            ...(after.wide && !before.wide ? ["the page scrolls sideways"] : []),
        ];
        if (lost.length === 0) break;
    }
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter(each => each !== sheet);
    await frame();
    return lost;
}
"""
"""Sets the four spacings, and returns which text is cut off or lies over another one that was not before."""

_IMPACTS = ("moderate", "serious", "critical")
"""Minor ones are advice."""


async def violations(page: Page, *, spacing: bool = True) -> list[dict[str, Any]]:
    """Return what breaks a rule of WCAG or good practice: `id`, `impact`, and `at`, where and why.

    Args:
        spacing: also set wide spacings, and look whether text gets lost.
    """
    if not await page.evaluate("() => 'axe' in window"):
        await page.evaluate(_AXE.read_text())
    found: list[dict[str, Any]] = await page.evaluate(_RUN)
    lost = await page.evaluate(_TEXT_SPACING) if spacing else []
    found = [each for each in found if each["impact"] in _IMPACTS]
    return [*found, {"id": "text-spacing", "impact": "serious", "at": lost}] if lost else found


async def scrolls_sideways(page: Page) -> bool:
    """Whether the page is wider than its window."""
    return bool(await page.evaluate("() => document.scrollingElement.scrollWidth > innerWidth"))
