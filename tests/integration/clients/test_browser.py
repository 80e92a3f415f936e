"""Screenshots of difficult and hostile pages, with the system's Chromium."""

import asyncio
import contextlib
import http.server
import io
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageDraw

from clients.browser import Browser, PageFailed, find_chromium, is_blank
from domain.errors import Misconfigured
from domain.page_view import VIEWPORTS
from tests.harness.processes import command_line, lives, survivors
from tests.harness.wait import wait_until


class Site(http.server.ThreadingHTTPServer):
    """A server of the test that records its requests."""

    pages: dict[str, bytes]
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://site.localhost:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        page = self.server.pages.get(self.path)
        if page is not None and page.startswith(b"http"):
            self.send_response(302)
            self.send_header("Location", page.decode())
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if page is not None else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page or b"nothing")))
        self.end_headers()
        self.wfile.write(page or b"nothing")

    def do_POST(self) -> None:
        self.server.asked.append("posted " + self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(pages: dict[str, bytes]) -> Site:
    site = Site(("127.0.0.1", 0), Handler)
    site.pages, site.asked = pages, []
    threading.Thread(target=site.serve_forever, daemon=True).start()
    return site


@pytest.fixture
def other() -> Iterator[Site]:
    """A server that the page must not reach."""
    site = serve({"/": b"<h1>Other</h1>"})
    yield site
    site.shutdown()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    made = Browser()
    yield made
    await made.close()


def browsers() -> set[psutil.Process]:
    """Return this process's Chromium processes and their drivers, without other children such as tests' servers."""
    return {
        child
        for child in psutil.Process().children(recursive=True)
        if lives(child) and any(word in " ".join(command_line(child)) for word in ("chrom", "playwright"))
    }


async def test_both_viewports(browser: Browser) -> None:
    site = serve(
        {"/": b"<body style='background:#036'><h1>Hello</h1><script>fetch('/',{method:'POST',body:'hi'})</script>"}
    )
    shots = await browser.views(site.url + "/")
    assert [(shot.viewport, shot.width, shot.height) for shot in shots] == [
        ("desktop", 1280, 800),
        ("mobile", 390, 844),
    ]
    for shot in shots:
        with Image.open(io.BytesIO(shot.webp)) as picture:
            assert (picture.format, picture.size) == ("WEBP", (shot.width, shot.height))
        assert shot.http_status == 200
        assert not is_blank(shot.webp)
    assert "posted hi" in site.asked
    site.shutdown()


async def test_status_and_blankness_are_told(browser: Browser) -> None:
    site = serve({"/blank": b"<title>nothing to see</title>"})
    missing = await browser.view(site.url + "/missing", VIEWPORTS[0])
    assert missing.http_status == 404
    assert not is_blank(missing.webp)
    assert is_blank((await browser.view(site.url + "/blank", VIEWPORTS[1])).webp)
    site.shutdown()


async def test_a_page_reaches_no_other_server(browser: Browser, other: Site) -> None:
    port = other.server_address[1]
    addresses = [f"http://127.0.0.1:{port}/x", f"http://localhost:{port}/x", f"http://other.localhost:{port}/x"]
    page = "<h1>Page</h1><img src=/bounce><iframe src=file:///etc/passwd></iframe>"
    for address in addresses:
        page += f"<img src={address}><iframe src={address}></iframe><script>fetch('{address}')</script>"
        page += f"<script>new WebSocket('{address.replace('http', 'ws')}')</script>"
    site = serve({"/": page.encode(), "/bounce": addresses[0].encode(), "/away": addresses[1].encode()})
    shot = await browser.view(site.url + "/", VIEWPORTS[0])
    assert shot.http_status == 200
    assert "/bounce" in site.asked
    with pytest.raises(PageFailed):
        await browser.view(site.url + "/away", VIEWPORTS[0])
    assert other.asked == []
    site.shutdown()


async def test_a_page_that_is_not_there(browser: Browser) -> None:
    with pytest.raises(PageFailed):
        await browser.view("http://site.localhost:9/", VIEWPORTS[0])


async def test_it_starts_again_after_a_crash_and_leaves_nothing_behind() -> None:
    before = browsers()
    site = serve({"/": b"<h1>Hello</h1>"})
    own = Browser()
    await own.view(site.url + "/", VIEWPORTS[0])
    for process in browsers() - before:
        with contextlib.suppress(psutil.Error):
            if "chrom" in process.exe():
                process.kill()
    await wait_until(lambda: own._chromium is None or not own._chromium.is_connected())
    assert (await own.view(site.url + "/", VIEWPORTS[0])).http_status == 200
    started = browsers() - before
    assert started
    await own.close()
    await own.close()
    assert not await asyncio.to_thread(survivors, started)
    site.shutdown()


def test_a_missing_chromium_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="CHROMIUM_PATH"):
        find_chromium()
    with pytest.raises(Misconfigured, match="not a program"):
        find_chromium(tmp_path / "nothing")
    program = tmp_path / "chromium"
    program.touch(mode=0o755)
    assert find_chromium() == program


async def test_a_chromium_that_does_not_start_is_explained(tmp_path: Path) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    own = Browser(program)
    with pytest.raises(Misconfigured, match="does not start"):
        await own.view("http://site.localhost:9/", VIEWPORTS[0])
    await own.close()


def picture(draw: str, colour: str = "white") -> bytes:
    image = Image.new("RGB", (390, 844), colour)
    pen = ImageDraw.Draw(image)
    if draw == "text":
        pen.text((20, 20), "Join the waitlist today", fill="black")
    elif draw == "dot":
        pen.point((5, 5), fill="black")
    elif draw == "halves":
        pen.rectangle((0, 0, 195, 844), fill="navy")
    elif draw == "faint":
        pen.rectangle((0, 0, 195, 844), fill="#fdfdfd")
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80)
    return out.getvalue()


@pytest.mark.parametrize(
    ("draw", "colour", "blank"),
    [
        ("", "white", True),
        ("", "#123456", True),
        ("dot", "white", True),
        ("faint", "white", True),
        ("text", "white", False),
        ("text", "#eef", False),
        ("halves", "white", False),
    ],
)
def test_is_blank(draw: str, colour: str, blank: bool) -> None:
    assert is_blank(picture(draw, colour)) is blank
