"""Record the pictures of README.md from a real run of `make demo`: the terminal, the console, the Temporal UI
and the product.

.venv/bin/python -m scripts.record_demo            runs the sample brief with the rehearsal model, about two minutes
"""

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

from clients.browser import find_chromium
from domain.errors import CofounderError
from scripts.terminal_svg import Frame, Terminal, animated_svg

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"

_COLUMNS, _ROWS = 96, 30
_SPEED = 2.0
"""The recording plays this many times faster than the run. Its title says so."""

_FRAME_SECONDS, _HOLD_SECONDS = 0.3, 6.0
"""Shortest time between two frames, and how long the last frame stays, in seconds."""

_WIDTH = 1200
"""Width of the pictures in pixels."""

_CONSOLE_WIDTH = 1600
"""Width of the console's pictures in pixels: they have small text."""

_DESKTOP: dict[str, Any] = {"viewport": ViewportSize(width=1440, height=900), "device_scale_factor": 2}
_PHONE: dict[str, Any] = {
    "viewport": ViewportSize(width=390, height=844),
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}

_PAINT_SECONDS = 3.0
"""How long a product in the frame of another origin gets to appear: nothing says when it is painted, in seconds."""

_GIVE_UP_SECONDS = 600.0
"""Seconds after which a demo that is not ready counts as failed."""

_PICTURES = ("console-building.webp", "console-ready.webp", "console-phone.webp", "temporal-ui.webp", "product.webp")

_STAYS_UP = "Everything stays up until Ctrl-C."


class Demo:
    """`make demo` in a terminal of its own, with its output and frames."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.output = ""
        self._terminal = Terminal()
        self._terminal.feed("$ make demo\n")

    async def __aenter__(self) -> "Demo":
        self._pid, self._terminal_fd = pty.fork()
        if self._pid == 0:
            os.chdir(ROOT)
            os.execvpe("make", ["make", "demo"], _environment())
        size = struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0)
        fcntl.ioctl(self._terminal_fd, termios.TIOCSWINSZ, size)
        return self

    async def __aexit__(self, *_: object) -> None:
        os.write(self._terminal_fd, b"\x03")  # Ctrl-C, to every process in that terminal
        await asyncio.to_thread(self._wait)

    async def play(self) -> None:
        """Record frames until the product is ready and the demo waits for Ctrl-C.

        Raises:
            CofounderError: the demo ended before that, or took too long.
        """
        began = time.monotonic()
        self._shoot(0.0)
        while _STAYS_UP not in self.output:
            if time.monotonic() - began > _GIVE_UP_SECONDS:
                raise CofounderError(f"The demo was not ready within {_GIVE_UP_SECONDS:.0f} seconds.")
            output = await asyncio.to_thread(self._read)
            if not output:
                raise CofounderError(f"The demo ended before it was ready. Its last output:\n{self.output[-2000:]}")
            self.output += output
            self._terminal.feed(output)
            self._shoot((time.monotonic() - began) / _SPEED)

    def address(self, of: str) -> str:
        """Return the last value that the demo printed after a name.

        Raises:
            CofounderError: the demo has not printed one.
        """
        values = self._addresses(of)
        if not values:
            raise CofounderError(f"The demo did not print the address of its {of}.")
        return values[-1]

    async def next_address(self, of: str) -> str:
        """Wait until the demo has printed a value after a name, and return it."""
        while not self._addresses(of):  # noqa: ASYNC110 - a thread reads the output
            await asyncio.sleep(0.2)
        return self.address(of)

    def _addresses(self, of: str) -> list[str]:
        output = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.output)
        return re.findall(rf"^{of} +(\S+)(?: .*)?\r?\n", output, re.MULTILINE)

    def _shoot(self, at: float) -> None:
        rows = self._terminal.screen(_COLUMNS, _ROWS)
        if self.frames and rows == self.frames[-1].rows:
            return
        if self.frames and at - self.frames[-1].at < _FRAME_SECONDS:
            at = self.frames.pop().at  # too soon after the last frame: replace it
        self.frames.append(Frame(at, rows))

    def _read(self) -> str:
        try:
            return os.read(self._terminal_fd, 1 << 16).decode(errors="replace")
        except OSError:  # Linux raises this once no process has the other end open
            return ""

    def _wait(self) -> None:
        while self._read():
            pass
        os.waitpid(self._pid, 0)


def _environment() -> dict[str, str]:
    """Return an environment without the caller's variables that change the build or its look."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {"LANG": "C.UTF-8", **inherited, "TERM": "xterm-256color", "COLORTERM": "truecolor"}


@asynccontextmanager
async def _chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        try:
            yield chromium
        finally:
            await chromium.close()


class Console:
    """The web console in a desktop's and a phone's browser, both signed in by the link that the demo prints."""

    def __init__(self, desktop: Page, phone: Page, directory: Path) -> None:
        self._desktop, self._phone, self._directory = desktop, phone, directory
        self._build = desktop.url
        """Address of the build's page."""

    @classmethod
    async def open(cls, chromium: Browser, demo: Demo, directory: Path) -> "Console":
        """Open the page of the build as soon as the demo has printed the link."""
        context = await chromium.new_context(**_DESKTOP, color_scheme="light")
        desktop = await context.new_page()
        await desktop.goto(await demo.next_address("watch it"))
        await desktop.wait_for_url("**/builds/*")
        cookies = await context.storage_state()
        phone = await (await chromium.new_context(**_PHONE, color_scheme="light", storage_state=cookies)).new_page()
        await phone.goto(desktop.url)
        return cls(desktop, phone, directory)

    async def take_building(self) -> None:
        """Take the page of the build while the agent works, with the changes of a phase that is done."""
        await self._desktop.get_by_text("Phase 2: ").wait_for(timeout=_GIVE_UP_SECONDS * 1000)
        await self._desktop.goto(f"{self._build}?tab=changes&phase=2")
        await self._desktop.get_by_role("tabpanel").get_by_role("button", name="page.html").click()
        await self._desktop.get_by_text("1 failed").first.wait_for()
        await _save(self._desktop, self._directory / "console-building.webp", _CONSOLE_WIDTH)
        await self._phone.screenshot(path=self._directory / "phone-1.png", animations="disabled")

    async def take_ready(self) -> None:
        """Take the page of the build with its product on a dark desktop, and what a phone shows, side by side."""
        await self._desktop.emulate_media(color_scheme="dark")
        await self._desktop.goto(self._build)
        await self._take_product(self._desktop)
        await _save(self._desktop, self._directory / "console-ready.webp", _CONSOLE_WIDTH)
        await self._phone.goto(f"{self._build}?tab=preview")
        await self._take_product(self._phone)
        await self._phone.screenshot(path=self._directory / "phone-2.png", animations="disabled")
        await self._phone.goto(self._build.partition("/builds/")[0])
        await self._phone.get_by_role("main").locator("img").first.evaluate("picture => picture.decode()")
        await self._phone.screenshot(path=self._directory / "phone-3.png", animations="disabled")
        screens = [self._directory / f"phone-{number}.png" for number in (1, 2, 3)]
        page = await self._desktop.context.new_page()
        await _side_by_side(page, screens, ViewportSize(width=1240, height=844))
        await _save(page, self._directory / "console-phone.webp")

    @staticmethod
    async def _take_product(page: Page) -> None:
        await page.frame_locator("iframe").get_by_role("heading", level=1).wait_for()
        await asyncio.sleep(_PAINT_SECONDS)


async def _watch(chromium: Browser, demo: Demo, directory: Path) -> Console:
    console = await Console.open(chromium, demo, directory)
    await console.take_building()
    return console


async def _take_pictures(chromium: Browser, demo: Demo, directory: Path) -> None:
    """Take a picture of the Temporal UI, and one that shows the product on both screens."""
    page = await chromium.new_page(viewport=ViewportSize(width=1400, height=1000), device_scale_factor=2)
    await page.goto(demo.address("Temporal UI"), wait_until="networkidle")
    await page.get_by_text("evidence gate 1").first.wait_for()
    await _save(page, directory / "temporal-ui.webp")
    pictures = [ROOT / demo.address(name) for name in ("desktop", "mobile")]
    await _side_by_side(page, pictures, ViewportSize(width=1230, height=590))
    await _save(page, directory / "product.webp")


async def _side_by_side(page: Page, pictures: Sequence[Path], size: ViewportSize) -> None:
    """Show pictures of one height in a row."""
    style = f"height:{size['height']}px;box-sizing:border-box;border:1px solid #d0d0cc;border-radius:12px"
    images = "".join(f'<img src="{picture.as_uri()}" style="{style}">' for picture in pictures)
    with tempfile.TemporaryDirectory() as directory:
        document = Path(directory) / "pictures.html"
        document.write_text(
            f'<body style="margin:0;display:flex;justify-content:space-between;background:#fff">{images}</body>'
        )
        await page.set_viewport_size(size)
        await page.goto(document.as_uri(), wait_until="load")


async def _save(page: Page, target: Path, width: int = _WIDTH) -> None:
    with Image.open(io.BytesIO(await page.screenshot(animations="disabled"))) as picture:
        smaller = picture.convert("RGB").resize((width, picture.height * width // picture.width))
        smaller.save(target, "WEBP", quality=75, method=6)


async def main() -> None:
    """Run the demo and replace the pictures: all of them, or none if something fails."""
    with tempfile.TemporaryDirectory() as directory:
        pictures = Path(directory)
        async with _chromium() as chromium, Demo() as demo:
            console, _ = await asyncio.gather(_watch(chromium, demo, pictures), demo.play())
            await console.take_ready()
            await _take_pictures(chromium, demo, pictures)
        title = "make demo: an idea becomes a running, tested product; shown at twice the speed"
        (pictures / "demo.svg").write_text(animated_svg(demo.frames, _COLUMNS, _ROWS, _HOLD_SECONDS, title))
        for name in ("demo.svg", *_PICTURES):
            (IMAGES / name).write_bytes((pictures / name).read_bytes())
            sys.stdout.write(f"docs/images/{name}: {(IMAGES / name).stat().st_size / 1024:.0f} KB\n")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except CofounderError as error:
        sys.exit(f"error: {error}")
