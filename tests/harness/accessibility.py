"""What axe-core has against a page, as it is shown now."""

from pathlib import Path
from typing import Any

from playwright.async_api import Page

_AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"

_RUN = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes.map(({ html }) => html.slice(0, 200)) }));
}"""

_IMPACTS = ("moderate", "serious", "critical")
"""Minor ones are advice."""


async def violations(page: Page) -> list[dict[str, Any]]:
    """Return what breaks a rule of WCAG or good practice: `id`, `impact`, and `at`, the beginnings of its elements."""
    await page.evaluate(_AXE.read_text())
    found: list[dict[str, Any]] = await page.evaluate(_RUN)
    return [each for each in found if each["impact"] in _IMPACTS]


async def scrolls_sideways(page: Page) -> bool:
    """Whether the page is wider than its window."""
    return bool(await page.evaluate("() => document.scrollingElement.scrollWidth > innerWidth"))
