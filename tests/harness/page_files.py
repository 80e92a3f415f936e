"""What a page of the web console loads: files of the console itself, apart from the API's answers."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from playwright.async_api import Page

_LOADED = """
() => new Promise(done => {
    const seen = new Map();
    let last = performance.now();
    const note = entry => { seen.set(entry.name, entry.encodedBodySize); last = performance.now(); };
    new PerformanceObserver(list => list.getEntries().forEach(note)).observe({ type: "resource", buffered: true });
    const ask = () => performance.now() - last > 500 ? done([...seen]) : setTimeout(ask, 50);
    ask();
})
"""
"""Waits until nothing has been loaded for half a second. Returns addresses and compressed sizes."""


@dataclass(frozen=True)
class PageFiles:
    """Files of the console that a page needs. Sizes are as transferred, compressed, in bytes; those of files that the
    browser's cache had are counted too."""

    scripts: int
    styles: int
    requests: int
    """How many files, with the page itself and its icon, but without what the API was asked."""
    names: tuple[str, ...]
    """Their paths, apart from the page itself."""


async def page_files(page: Page, origin: str) -> PageFiles:
    """Read what the page has loaded until now, once it loads nothing more."""
    loaded: dict[str, int] = {}
    for address, size in await page.evaluate(_LOADED):
        parts = urlsplit(address)
        if f"{parts.scheme}://{parts.netloc}" == origin and parts.path.startswith("/assets/"):
            loaded[parts.path] = size
    return PageFiles(
        scripts=sum(size for path, size in loaded.items() if path.endswith(".js")),
        styles=sum(size for path, size in loaded.items() if path.endswith(".css")),
        requests=1 + len(loaded),
        names=tuple(sorted(loaded)),
    )
