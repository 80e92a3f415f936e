"""Looks at pages of a running product with the system's Chromium, through Playwright."""

import asyncio
import contextlib
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops
from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext, Page, Playwright, ViewportSize, async_playwright
from playwright.async_api import Error as PlaywrightError

from clients.page_probe import read_page, walk_page
from clients.page_steps import take_steps
from clients.page_watch import PageWatch
from clients.preview_proxy import proxy_to
from domain.errors import CofounderError, Misconfigured
from domain.page_view import DESKTOP, URL_CHARACTERS, VIEWPORTS, PageStep, PageView, Viewport, origin_of, path_of
from domain.traffic import Upstream

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Names of Chromium's program, looked up on PATH in this order."""

LAUNCH_SECONDS = 60.0
"""Seconds that Chromium may take to start."""

PAGE_SECONDS = 30.0
"""Seconds that a page may take to load, and again to be drawn."""

SETTLE_SECONDS = 2.0
"""Seconds to wait for a loaded page to stop using the network: an application may still draw what it fetches."""

STEPS_SECONDS = 90.0
"""Additional seconds for a page on which steps are done."""

CLOSE_SECONDS = 10.0
"""Seconds that a page may take to close."""

CLOSE_AGAIN_SECONDS = 0.5
"""Seconds after which a page that has not closed is asked again."""

FULL_PAGE_PIXELS = 4_000
"""The longest picture of a whole page, in CSS pixels."""

PAGES_AT_ONCE = 4
"""Pages open at the same time in one process."""

WEBP_QUALITY = 80

BLANK_SHARE = 0.9999
"""A picture is blank if at least this share of its pixels has one colour. A single word on a large screen is enough to
stay below it."""

_BLANK_TOLERANCE = 16
"""How far a channel (of 255) may differ and still count as the same colour: lossy compression changes it this much."""

_DISABLED_FEATURES = (
    # A full Chromium opens a window per page. These features draw each window's address bar menus and keep a spare
    # process for it, which is three quarters of what a screenshot costs.
    *("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess"),
    # From Playwright's own list, which ours replaces: features that contact other servers, or delay or reroute a page.
    *("AimEnabled", "MediaRouter", "NetworkTimeServiceQuerying", "OptimizationHints", "PreconnectToSearch"),
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsFirstBalancedModeAutoEnable"),
    *("HttpsUpgrades", "LensOverlay", "PaintHolding", "ThirdPartyStoragePartitioning"),
)
"""Chromium features to switch off. A version of Chromium ignores names that it does not know."""

_ARGUMENTS = [
    f"--disable-features={','.join(_DISABLED_FEATURES)}",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What goes past an HTTP proxy: WebRTC, and names that are looked up ahead or without being asked for.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-first-run",
]


class PageFailed(CofounderError):
    """The page could not be shown; the message says why."""


class PageLeft(PageFailed):
    """The page leads to another server, which is not shown."""


class Browser:
    """One headless Chromium, launched at the first page and again after a crash. Close it when done."""

    def __init__(self, chromium_path: Path | None = None) -> None:
        self._path = chromium_path
        self._launching = asyncio.Lock()
        self._pages = asyncio.Semaphore(PAGES_AT_ONCE)
        self._playwright: Playwright | None = None
        self._chromium: Chromium | None = None

    async def close(self) -> None:
        """End Chromium and Playwright's driver. A later page launches them again."""
        async with self._launching:
            await self._end()

    async def views(self, upstream: Upstream, path: str = "/") -> list[PageView]:
        """View the page in every viewport; see `view`."""
        return list(await asyncio.gather(*(self.view(upstream, viewport, path) for viewport in VIEWPORTS)))

    async def view(
        self,
        upstream: Upstream,
        viewport: Viewport,
        path: str = "/",
        *,
        steps: Sequence[PageStep] = (),
        full_page: bool = False,
    ) -> PageView:
        """View a page in one viewport, after the steps. The page can reach only its own server.

        If a step can't be done, the ones after it are left out, and the view's `failed_step` says so. Without steps, a
        view whose Chromium crashes is taken once more.

        Args:
            full_page: the picture shows the page down to its end, at most `FULL_PAGE_PIXELS`; else what fits.

        Raises:
            PageFailed: it did not load, or not in time, or it left its server.
            Misconfigured: Chromium is missing or does not start.
        """
        async with self._pages:
            chromium = await self._launch()
            try:
                return await self._view(chromium, upstream, viewport, path, steps, full_page)
            except PageFailed as failed:
                # Another page may have taken Chromium down.
                if chromium.is_connected() or steps or isinstance(failed.__cause__, TimeoutError):
                    raise
            return await self._view(await self._launch(), upstream, viewport, path, steps, full_page)

    async def _view(
        self,
        chromium: Chromium,
        upstream: Upstream,
        viewport: Viewport,
        path: str,
        steps: Sequence[PageStep],
        full_page: bool,
    ) -> PageView:
        url = upstream.at(path)
        seconds = 2 * PAGE_SECONDS + (STEPS_SECONDS if steps else 0)
        async with proxy_to(upstream) as proxy:
            watch: PageWatch | None = None
            try:
                context = await chromium.new_context(
                    viewport=ViewportSize(width=viewport.width, height=viewport.height),
                    is_mobile=viewport.is_mobile,
                    has_touch=viewport.is_mobile,
                    device_scale_factor=1,
                    accept_downloads=False,
                    service_workers="block",
                    proxy={"server": proxy},
                    # Only the proxy is reached. If it reads what is sent over TLS, it checks the server's certificate.
                    ignore_https_errors=upstream.token is not None,
                )
                try:
                    async with asyncio.timeout(seconds):
                        page = await context.new_page()
                        watch = PageWatch(context, page, url, accepts_dialogs=bool(steps))
                        return await _show(page, watch, url, viewport, steps, full_page)
                finally:
                    await self._close_context(chromium, context)
            except TimeoutError as error:
                raise PageFailed(f"The page was not drawn within {seconds:.0f} s.") from error
            except PlaywrightError as error:
                verdict = watch.verdict if watch is not None else ""
                raise PageFailed(f"The page could not be shown: {verdict or _first_line(error)}") from error

    async def _close_context(self, chromium: Chromium, context: BrowserContext) -> None:
        """Close what shows a page. If the page does not let that happen, all of Chromium is ended."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await close_surely(context)
        except PlaywrightError:
            pass
        except TimeoutError:
            async with self._launching:
                if self._chromium is chromium:
                    await self._end()

    async def _launch(self) -> Chromium:
        async with self._launching:
            if self._chromium is None or not self._chromium.is_connected():
                await self._end()
                path = find_chromium(self._path)
                try:
                    async with asyncio.timeout(LAUNCH_SECONDS):
                        self._playwright = await async_playwright().start()
                        self._chromium = await self._playwright.chromium.launch(
                            executable_path=path,
                            headless=True,
                            chromium_sandbox=os.geteuid() != 0,
                            args=_ARGUMENTS + (["--no-sandbox"] if os.geteuid() == 0 else []),
                            # `close` ends it; a worker that is stopped still gets to call that.
                            handle_sigint=False,
                            handle_sigterm=False,
                            handle_sighup=False,
                        )
                except (PlaywrightError, TimeoutError, OSError) as error:
                    await self._end()
                    raise Misconfigured(
                        f"Chromium at {path} does not start: {_first_line(error)}. Set CHROMIUM_PATH to one that does."
                    ) from error
            return self._chromium

    async def _end(self) -> None:
        chromium, playwright = self._chromium, self._playwright
        self._chromium = self._playwright = None
        # One after the other: a crashed browser must not leave the driver behind.
        with contextlib.suppress(PlaywrightError, TimeoutError):
            if chromium is not None:
                async with asyncio.timeout(10):
                    await chromium.close()
        with contextlib.suppress(PlaywrightError, TimeoutError):
            if playwright is not None:
                async with asyncio.timeout(10):
                    await playwright.stop()


async def close_surely(closable: BrowserContext | Page) -> None:
    """Close a page, or a context with its pages, also while they load something.

    Chromium forgets a request to close a page whose next document comes at that moment (crbug.com/536385539). What
    waits for the page then waits forever, so each page is asked again until all is closed.
    """
    closing = asyncio.ensure_future(closable.close())
    try:
        while not (await asyncio.wait([closing], timeout=CLOSE_AGAIN_SECONDS))[0]:
            for page in [closable] if isinstance(closable, Page) else closable.pages:
                # One that closes meanwhile is not asked.
                with contextlib.suppress(PlaywrightError):
                    session = await page.context.new_cdp_session(page)
                    await session.send("Page.close")
        await closing
    finally:
        closing.cancel()


async def _show(
    page: Page, watch: PageWatch, url: str, viewport: Viewport, steps: Sequence[PageStep], full_page: bool
) -> PageView:
    answer = await page.goto(url, wait_until="load", timeout=PAGE_SECONDS * 1000)
    with contextlib.suppress(PlaywrightError):
        await page.wait_for_load_state("networkidle", timeout=SETTLE_SECONDS * 1000)
    failed_step = await take_steps(page, steps)
    if origin_of(page.url) != origin_of(url):
        raise PageLeft(f"The page leads to another server: {page.url[:URL_CHARACTERS]}")
    session = await page.context.new_cdp_session(page)
    if not steps:
        await walk_page(session)
    reading = await read_page(session, url, viewport)
    height = viewport.height
    if full_page:
        height = min(max(reading.height, viewport.height), FULL_PAGE_PIXELS)
        if reading.height > height:
            watch.note(f"The page is {reading.height} px long; the picture shows the first {height} px.")
    width = min(reading.layout_width, DESKTOP.width) if full_page else viewport.width
    png = await page.screenshot(
        type="png",
        animations="disabled",
        timeout=PAGE_SECONDS * 1000,
        full_page=full_page,
        clip={"x": 0, "y": 0, "width": width, "height": height} if full_page else None,
    )
    return PageView(
        path=path_of(page.url)[:URL_CHARACTERS],
        viewport=viewport.name,
        http_status=watch.status or (answer.status if answer is not None else 0),
        title=reading.title,
        text=reading.text,
        console_errors=tuple(watch.console_errors),
        failed_requests=tuple(watch.failed_requests),
        broken_images=reading.broken_images,
        overflow_px=reading.overflow_px,
        webp=await asyncio.to_thread(_to_webp, png),
        width=width,
        height=height,
        overflow_cause=reading.overflow_cause,
        links=reading.links,
        notes=tuple(watch.notes),
        failed_step=failed_step,
    )


def find_chromium(configured: Path | None = None) -> Path:
    """Find Chromium's program.

    Raises:
        Misconfigured: there is none; says what to do.
    """
    if configured is not None:
        if os.access(configured, os.X_OK):
            return configured
        raise Misconfigured(f"CHROMIUM_PATH is {configured}, which is not a program. Correct it, or unset it.")
    for name in NAMES:
        if path := shutil.which(name):
            return Path(path)
    raise Misconfigured(
        f"Chromium is not on PATH ({', '.join(NAMES)}). Install it (apt-get install chromium), or set CHROMIUM_PATH."
    )


def is_blank(image: bytes) -> bool:
    """Whether a picture is blank: nearly all of it is one colour."""
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    pixels = picture.width * picture.height
    background = Image.new("RGB", picture.size, _commonest_colour(picture))
    difference = ImageChops.difference(picture, background)
    channels = [channel.point(lambda value: 255 * (value > _BLANK_TOLERANCE)) for channel in difference.split()]
    differs = ImageChops.lighter(ImageChops.lighter(channels[0], channels[1]), channels[2])
    return differs.histogram()[0] / pixels >= BLANK_SHARE


def _commonest_colour(picture: Image.Image) -> tuple[int, int, int]:
    """The commonest value of each channel. If a picture has nearly one colour, this is that colour."""
    histogram = picture.histogram()
    red, green, blue = (max(range(256), key=lambda value: histogram[256 * channel + value]) for channel in range(3))
    return red, green, blue


def _to_webp(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as picture:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=WEBP_QUALITY)
        return buffer.getvalue()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
