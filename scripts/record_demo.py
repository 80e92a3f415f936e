"""Record the pictures of README.md from a real run of `make demo`: the terminal, the Temporal UI and the product.

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
from pathlib import Path

from PIL import Image
from playwright.async_api import Page, ViewportSize, async_playwright

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

_GIVE_UP_SECONDS = 600.0
"""Seconds after which a demo that is not ready counts as failed."""

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
        values = re.findall(rf"^{of} +(\S+)\s*$", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.output), re.MULTILINE)
        if not values:
            raise CofounderError(f"The demo did not print the address of its {of}.")
        return str(values[-1])

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


async def _take_pictures(demo: Demo, directory: Path) -> None:
    """Take a picture of the Temporal UI, and one that shows the product on both screens."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        page = await chromium.new_page(viewport=ViewportSize(width=1400, height=1000), device_scale_factor=2)
        await page.goto(demo.address("Temporal UI"), wait_until="networkidle")
        await page.get_by_text("evidence gate 1").first.wait_for()
        await _save(page, directory / "temporal-ui.webp")
        pictures = "".join(
            f'<img src="{(ROOT / demo.address(name)).as_uri()}" style="height:590px">' for name in ("desktop", "mobile")
        )
        (directory / "product.html").write_text(
            f'<body style="margin:0;display:flex;gap:14px;background:#fff">{pictures}</body>'
        )
        await page.set_viewport_size(ViewportSize(width=1230, height=590))
        await page.goto((directory / "product.html").as_uri(), wait_until="load")
        await _save(page, directory / "product.webp")
        await chromium.close()


async def _save(page: Page, target: Path) -> None:
    with Image.open(io.BytesIO(await page.screenshot(animations="disabled"))) as picture:
        smaller = picture.convert("RGB").resize((_WIDTH, picture.height * _WIDTH // picture.width))
        smaller.save(target, "WEBP", quality=75, method=6)


async def main() -> None:
    """Run the demo and replace the pictures: all of them, or none if something fails."""
    with tempfile.TemporaryDirectory() as directory:
        pictures = Path(directory)
        async with Demo() as demo:
            await demo.play()
            await _take_pictures(demo, pictures)
        title = "make demo: an idea becomes a running, tested product; shown at twice the speed"
        (pictures / "demo.svg").write_text(animated_svg(demo.frames, _COLUMNS, _ROWS, _HOLD_SECONDS, title))
        for name in ("demo.svg", "temporal-ui.webp", "product.webp"):
            (IMAGES / name).write_bytes((pictures / name).read_bytes())
            sys.stdout.write(f"docs/images/{name}: {(IMAGES / name).stat().st_size / 1024:.0f} KB\n")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except CofounderError as error:
        sys.exit(f"error: {error}")
