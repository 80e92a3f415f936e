"""Looks at a running product as a visitor does: its first page, the pages that this links to, and their links."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from clients.browser import Browser, PageFailed, PageLeft, is_blank
from clients.link_probe import PROBE_SECONDS, LinkAnswer, LinkProbe
from domain.page_findings import NO_FAULT
from domain.page_view import VIEWPORTS, DeadLink, Link, PageView, Viewport
from domain.traffic import Upstream

LINKED_PAGES = 8
"""Pages that are looked at beside the first one, in every viewport."""

LINKS_ASKED = 60
"""Links that are followed, all pages together."""

LINKED_SECONDS = 150.0
"""How long looking at linked pages may take. What was not seen by then is left out."""

_NO_ANSWER = f"no answer within {PROBE_SECONDS:.0f} s, or redirects without end"

_ACTS = re.compile(
    r"\b(?:log|sign)[-_ ]?(?:out|off)\b|\b(?:delete|remove|destroy|unsubscribe|revoke|deactivate|clear|reset|drop)\b",
    re.IGNORECASE,
)
"""Links that may do something when they are followed."""


@dataclass
class Site:
    """What was seen of a product's pages."""

    views: list[PageView]
    """The first page in every viewport, then the linked ones."""
    problems: list[str] = field(default_factory=list)
    """Linked pages that could not be shown or are blank, a sentence each."""


async def look_at_site(
    browser: Browser, upstream: Upstream, on_links: Callable[[int], Awaitable[None]], seconds: float = LINKED_SECONDS
) -> Site:
    """Look at the first page and at those that it links to; follow the links of all of them.

    Links that may act (log out, delete), downloads, and what needs a login are not held against the product.

    Args:
        on_links: called with the number of linked pages before those are looked at.

    Raises:
        PageFailed: the first page can't be shown.
        Misconfigured: Chromium is missing or does not start.
    """
    site = Site(await browser.views(upstream))
    answers: dict[str, LinkAnswer] = {}
    try:
        async with asyncio.timeout(seconds):
            probe = LinkProbe(upstream)
            await _follow(probe, _links(site.views), answers)
            paths = _pages(site.views, answers)
            if paths:
                await on_links(len(paths))
                await _look(browser, upstream, paths, site)
                await _follow(probe, _links(site.views), answers)
    except TimeoutError:
        pass
    site.views = [replace(view, dead_links=_dead(view, answers)) for view in site.views]
    return site


async def _follow(probe: LinkProbe, links: Iterable[Link], answers: dict[str, LinkAnswer]) -> None:
    """Ask for the links that were not asked for yet, up to `LINKS_ASKED` in all."""

    async def ask(path: str) -> None:
        answers[path] = await probe.ask(path)

    new = [path for path in dict.fromkeys(link.path for link in links) if path not in answers]
    await asyncio.gather(*(ask(path) for path in new[: LINKS_ASKED - len(answers)]))


async def _look(browser: Browser, upstream: Upstream, paths: Sequence[str], site: Site) -> None:
    """View the pages in every viewport, in order of the paths as far as time allows."""

    seen: dict[tuple[int, int], PageView] = {}

    async def view(at: tuple[int, int], path: str, viewport: Viewport) -> None:
        try:
            found = seen[at] = await browser.view(upstream, viewport, path)
        except PageLeft:
            return
        except PageFailed as failed:
            site.problems.append(f"{path} ({viewport.name}): {failed}")
            return
        if not found.text.strip() and is_blank(found.webp):
            site.problems.append(f"{path} ({viewport.name}): it is blank")

    pages = [((i, j), path, viewport) for i, path in enumerate(paths) for j, viewport in enumerate(VIEWPORTS)]
    try:
        await asyncio.gather(*(view(*page) for page in pages))
    finally:
        site.views += [seen[at] for at in sorted(seen)]


def _links(views: Iterable[PageView]) -> list[Link]:
    """The links of the pages that can be followed without doing anything."""
    return [link for view in views for link in view.links if not _ACTS.search(_words(link))]


def _words(link: Link) -> str:
    return f"{link.path.replace('/', ' ').replace('_', ' ')} {link.text}"


def _pages(first: Sequence[PageView], answers: dict[str, LinkAnswer]) -> list[str]:
    """The linked pages to look at. Different pages come before the same one with another query."""
    seen = {view.path for view in first} | {"/"}
    paths = list(
        dict.fromkeys(
            answer.path
            for answer in answers.values()
            if answer.status == 200 and answer.is_page and answer.path not in seen
        )
    )
    different: dict[str, str] = {}
    for path in paths:
        different.setdefault(urlsplit(path).path, path)
    ordered = dict.fromkeys([*different.values(), *paths])
    return list(ordered)[:LINKED_PAGES]


def _dead(view: PageView, answers: dict[str, LinkAnswer]) -> tuple[DeadLink, ...]:
    dead: list[DeadLink] = []
    for link in view.links:
        answer = answers.get(link.path)
        if answer is None or not _is_dead(answer.status):
            continue
        reason = f"status {answer.status}" if answer.status else _NO_ANSWER
        if all(link.path != other.path for other in dead):
            dead.append(DeadLink(link.path, link.text, reason))
    return tuple(dead)


def _is_dead(status: int) -> bool:
    return status == 0 or (status >= 400 and status not in NO_FAULT)
