"""Reads a page as it is drawn: text, links, images, size. The scripts run apart from the page's own, which can't
change what they use, and end after a time."""

import asyncio
from typing import Any

from playwright.async_api import CDPSession
from playwright.async_api import Error as PlaywrightError

from domain.page_view import (
    ERROR_CHARACTERS,
    MOST_ERRORS,
    MOST_LINKS,
    TEXT_CHARACTERS,
    URL_CHARACTERS,
    Link,
    Viewport,
    origin_of,
    path_of,
)

SCRIPT_SECONDS = 10.0
"""How long one of these scripts may keep the page busy."""

_ATTEMPTS = 4
"""How often a page is read that loads another one meanwhile."""

_PAUSE_SECONDS = 0.3
"""Before such a page is read again."""

_WALK = """(async () => {
  const scroller = document.scrollingElement || document.documentElement;
  for (let at = 1; at <= 12 && scroller.scrollTop + innerHeight + 1 < scroller.scrollHeight; at++) {
    window.scrollTo({top: at * innerHeight, behavior: 'instant'});
    await new Promise(done => setTimeout(done, 40));
  }
  window.scrollTo({top: 0, left: 0, behavior: 'instant'});
  return true;
})()"""
"""Scrolls down and up again, so that the page loads the images that it loads late."""

_READ = """(async (most) => {
  const pause = time => new Promise(done => setTimeout(done, time));
  const body = document.body instanceof HTMLElement ? document.body : null;
  const images = [...document.images].slice(0, most.links).filter(image => image.currentSrc || image.src);
  const drawn = image => Promise.race([image.decode().then(() => true, () => false), pause(1500)]);
  const broken = [];
  await Promise.all(images.map(async image => {
    const waiting = !image.complete && image.loading !== 'lazy';
    if ((image.complete && image.naturalWidth === 0 || waiting) && await drawn(image) === false)
      broken.push((image.currentSrc || image.src).slice(0, most.url));
  }));
  const root = document.documentElement, scroller = document.scrollingElement || root;
  const hides = element => element && ['hidden', 'clip'].includes(getComputedStyle(element).overflowX);
  const isCut = hides(root) || getComputedStyle(root).overflowX === 'visible' && hides(body);
  const width = isCut ? scroller.clientWidth : Math.max(scroller.scrollWidth, scroller.clientWidth);
  const wide = [];
  if (body && width > most.width) {
    const within = scroller.clientWidth;
    for (const element of [...body.querySelectorAll('*')].slice(0, 3000)) {
      const box = element.getBoundingClientRect();
      if (box.right <= within + 1 || box.width === 0) continue;
      if (wide.some(each => each.element.contains(element))) continue;
      if (wide.length >= 3) break;
      const names = element.id ? '#' + element.id
        : element.classList.length ? '.' + [...element.classList].slice(0, 3).join('.') : '';
      wide.push({element, text: element.localName + names + ', ' + Math.round(box.width) + ' px wide'});
    }
  }
  const links = [];
  for (const link of document.links) {
    if (links.length >= most.links) break;
    const data = link.dataset || {};
    const acts = link.hasAttribute('download') || data.method || data.turboMethod || link.hasAttribute('hx-delete')
      || link.hasAttribute('hx-post') || link.hasAttribute('hx-put');
    if (!acts) links.push([String(link.href).slice(0, 2000), String(link.innerText || '').trim().slice(0, 80)]);
  }
  return {
    title: String(document.title).slice(0, most.error),
    text: (body ? body.innerText : root.textContent || '').slice(0, most.text),
    broken: broken.slice(0, most.errors),
    width, layout: scroller.clientWidth, height: scroller.scrollHeight,
    wide: wide.map(each => each.text.slice(0, 200)),
    hasViewport: !!document.querySelector('meta[name=viewport i]'),
    links,
  };
})"""


class Reading:
    """What `read_page` returns: checked values, whatever the page did."""

    def __init__(self, value: object, url: str, viewport: Viewport) -> None:
        fields: dict[str, Any] = value if isinstance(value, dict) else {}
        own = origin_of(url)
        self.title = _text(fields.get("title"), ERROR_CHARACTERS)
        self.text = _text(fields.get("text"), TEXT_CHARACTERS)
        self.height = _number(fields.get("height")) or viewport.height
        self.layout_width = _number(fields.get("layout")) or viewport.width
        self.overflow_px = max(0, _number(fields.get("width")) - viewport.width)
        self.overflow_cause = _overflow_cause(fields, self.layout_width, viewport) if self.overflow_px else ""
        broken = [_text(each, URL_CHARACTERS) for each in _list(fields.get("broken"))]
        self.broken_images = tuple(
            path_of(each)[:URL_CHARACTERS] if each.startswith("http") else each[:80]
            for each in dict.fromkeys(broken)
            if origin_of(each) == own or not each.startswith("http")
        )[:MOST_ERRORS]
        links = [each for each in _list(fields.get("links")) if isinstance(each, list) and len(each) == 2]
        self.links = tuple(
            Link(path_of(href), _text(text, 80))
            for href, text in links[:MOST_LINKS]
            if isinstance(href, str) and origin_of(href) == own
        )


async def walk_page(session: CDPSession) -> None:
    """Scroll through the page once."""
    await _evaluate(session, _WALK)


async def read_page(session: CDPSession, url: str, viewport: Viewport) -> Reading:
    """Read the page.

    Raises:
        PlaywrightError: the page is gone, is busy all the time or loads again and again.
    """
    most = {
        "text": TEXT_CHARACTERS,
        "links": MOST_LINKS,
        "errors": MOST_ERRORS,
        "error": ERROR_CHARACTERS,
        "url": URL_CHARACTERS,
        "width": viewport.width,
    }
    arguments = ", ".join(f"{name}: {value}" for name, value in most.items())
    return Reading(await _evaluate(session, f"{_READ}({{{arguments}}})"), url, viewport)


async def _evaluate(session: CDPSession, script: str) -> object:
    """Run a script in a world of its own. A page that loads another one meanwhile is asked again, a few times."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            tree = await session.send("Page.getFrameTree")
            world = await session.send(
                "Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"], "worldName": "look"}
            )
            answer = await session.send(
                "Runtime.evaluate",
                {
                    "expression": script,
                    "contextId": world["executionContextId"],
                    "returnByValue": True,
                    "awaitPromise": True,
                    "timeout": SCRIPT_SECONDS * 1000,
                },
            )
        except PlaywrightError as error:
            if not _was_replaced(error):
                raise
            if attempt == _ATTEMPTS:
                raise PlaywrightError("it loads again and again") from error
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        if "exceptionDetails" in answer:
            raise PlaywrightError(f"it could not be read: {answer['exceptionDetails'].get('text', '')}")
        return answer["result"].get("value")
    return None


def _was_replaced(error: PlaywrightError) -> bool:
    text = str(error)
    return any(part in text for part in ("context was destroyed", "Cannot find context", "No frame", "navigated"))


def _overflow_cause(fields: dict[str, Any], layout_width: int, viewport: Viewport) -> str:
    if viewport.is_mobile and layout_width > viewport.width and not fields.get("hasViewport"):
        return (
            f"it has no viewport declaration, so a phone draws it {layout_width} px wide and very small; it needs "
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
        )
    wide = [_text(each, 200) for each in _list(fields.get("wide"))]
    return "; ".join(wide)


def _text(value: object, characters: int) -> str:
    return value[:characters] if isinstance(value, str) else ""


def _number(value: object) -> int:
    return int(min(value, 1_000_000)) if isinstance(value, int | float) and value == value else 0


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
