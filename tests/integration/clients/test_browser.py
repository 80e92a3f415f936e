"""Views of difficult and hostile pages, with the system's Chromium."""

import asyncio
import contextlib
import http.server
import io
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageDraw
from playwright.async_api import Error as PlaywrightError

from clients.browser import CLOSE_SECONDS, Browser, PageFailed, close_surely, find_chromium, is_blank
from clients.preview_proxy import proxy_to
from domain.errors import Misconfigured
from domain.page_view import DESKTOP, MOBILE, MOST_ERRORS, TEXT_CHARACTERS, VIEWPORTS, PageStep
from domain.traffic import Upstream
from tests.harness.processes import command_line, lives, survivors
from tests.harness.wait import wait_until


class Site(http.server.ThreadingHTTPServer):
    """A server of the test that records its requests."""

    pages: dict[str, bytes]
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://site.localhost:{self.server_address[1]}"

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.url)


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
    shots = await browser.views(site.upstream)
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
    missing = await browser.view(site.upstream, VIEWPORTS[0], "/missing")
    assert missing.http_status == 404
    assert not is_blank(missing.webp)
    assert is_blank((await browser.view(site.upstream, VIEWPORTS[1], "/blank")).webp)
    site.shutdown()


async def test_a_page_reaches_no_other_server(browser: Browser, other: Site) -> None:
    port = other.server_address[1]
    addresses = [f"http://127.0.0.1:{port}/x", f"http://localhost:{port}/x", f"http://other.localhost:{port}/x"]
    page = "<h1>Page</h1><img src=/bounce><iframe src=file:///etc/passwd></iframe>"
    for address in addresses:
        page += f"<img src={address}><iframe src={address}></iframe><script>fetch('{address}')</script>"
        page += f"<script>new WebSocket('{address.replace('http', 'ws')}')</script>"
    site = serve({"/": page.encode(), "/bounce": addresses[0].encode(), "/away": addresses[1].encode()})
    shot = await browser.view(site.upstream, VIEWPORTS[0])
    assert shot.http_status == 200
    assert "/bounce" in site.asked
    with pytest.raises(PageFailed):
        await browser.view(site.upstream, VIEWPORTS[0], "/away")
    assert other.asked == []
    site.shutdown()


async def test_a_page_that_is_not_there(browser: Browser) -> None:
    with pytest.raises(PageFailed):
        await browser.view(Upstream("http://site.localhost:9"), VIEWPORTS[0])


async def test_it_starts_again_after_a_crash_and_leaves_nothing_behind() -> None:
    before = browsers()
    site = serve({"/": b"<h1>Hello</h1>"})
    own = Browser()
    await own.view(site.upstream, VIEWPORTS[0])
    for process in browsers() - before:
        with contextlib.suppress(psutil.Error):
            if "chrom" in process.exe():
                process.kill()
    await wait_until(lambda: own._chromium is None or not own._chromium.is_connected())
    assert (await own.view(site.upstream, VIEWPORTS[0])).http_status == 200
    started = browsers() - before
    assert started
    await own.close()
    await own.close()
    assert not await asyncio.to_thread(survivors, started)
    site.shutdown()


async def test_pages_close_while_their_next_document_comes(browser: Browser) -> None:
    """Chromium forgets the request of every fourth such context or more. Each is closed without ending the others'."""
    listens = "for (const name of ['beforeunload', 'pagehide', 'unload']) addEventListener(name, () => {})"
    site = serve(
        {
            "/": f"<script>{listens}</script><meta http-equiv=refresh content='0; URL=/next'>".encode(),
            "/next": f"<script>{listens}</script><h1>Next</h1>".encode(),
        }
    )
    # The browser's own context has a proxy for each view.
    chromium = await browser._launch()
    async with proxy_to(site.upstream) as proxy:
        for _ in range(12):
            context = await chromium.new_context(proxy={"server": proxy})
            page = await context.new_page()
            await page.goto(site.url)
            with contextlib.suppress(PlaywrightError):  # the next document comes
                await page.evaluate("() => document.title")
            async with asyncio.timeout(CLOSE_SECONDS):
                await close_surely(context)
    assert chromium.is_connected()
    assert chromium.contexts == []
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
        await own.view(Upstream("http://site.localhost:9"), VIEWPORTS[0])
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


# ---- what a view tells


FAULTY = b"""<!doctype html><title>Shop</title>
<meta name=viewport content="width=device-width">
<h1>Shop</h1><p hidden>secret</p>
<img src=/missing.png><img src=/not-a-picture loading=lazy style="margin-top:2000px">
<img src="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>">
<table id=prices style="width:600px"><tr><td>1</td></tr></table>
<a href=/terms#top>Terms</a> <a href=/report.csv download>Report</a> <a href=http://elsewhere.example/>Else</a>
<a href=mailto:a@b.c>Mail</a> <a href=tel:1>Call</a> <a href=javascript:void(0)>Do</a> <a href=#prices>Prices</a>
<script src=/gone.js></script><script src=http://cdn.example/x.js></script>
<script>
  Array.prototype.slice = () => ['hacked']; Document.prototype.hacked = 1;
  console.error('could not load', {a: 1}); console.warn('only a warning'); fetch('/api/prices');
  fetch('http://localhost:9/api').catch(() => 0); Promise.reject(new Error('left alone')); null.price;
</script>"""


async def test_a_view_tells_what_a_visitor_gets(browser: Browser) -> None:
    site = serve({"/": FAULTY, "/not-a-picture": b"<p>text</p>", "/report.csv": b"1"})
    desktop, phone = await browser.views(site.upstream)
    for view in (desktop, phone):
        assert (view.path, view.http_status, view.title) == ("/", 200, "Shop")
        assert view.text.startswith("Shop")
        assert "secret" not in view.text
        assert [error.split("\n")[0] for error in sorted(view.console_errors)] == [
            "Uncaught Error: left alone",
            "Uncaught TypeError: Cannot read properties of null (reading 'price')",
            "could not load {a: 1}",
        ]
        failed = {(each.address, each.kind, each.reason) for each in view.failed_requests}
        assert failed >= {
            ("/missing.png", "image", "status 404"),
            ("/gone.js", "script", "status 404"),
            ("/api/prices", "fetch", "status 404"),
        }
        assert {each.address for each in view.failed_requests if each.is_elsewhere} == {
            "http://cdn.example/x.js",
            "http://localhost:9/api",
        }
        assert sorted(view.broken_images) == ["/missing.png", "/not-a-picture"]
        assert [(link.path, link.text) for link in view.links] == [("/terms", "Terms"), ("/", "Prices")]
    assert desktop.overflow_px == 0
    assert 210 <= phone.overflow_px <= 230
    assert phone.overflow_cause == "table#prices, 600 px wide"
    site.shutdown()


@pytest.mark.parametrize(
    ("page", "overflow_px"),
    [
        (b"<!doctype html><p>Without a viewport declaration</p>", 590),
        (b"<!doctype html><meta name=viewport content='width=device-width'><p>As it should be</p>", 0),
        (
            b"<!doctype html><meta name=viewport content='width=device-width'><style>body{overflow-x:hidden}</style>"
            b"<div style='position:absolute;left:0;width:900px'>Cut off on purpose</div>",
            0,
        ),
    ],
)
async def test_the_width_on_a_phone(browser: Browser, page: bytes, overflow_px: int) -> None:
    site = serve({"/": page})
    view = await browser.view(site.upstream, MOBILE)
    assert view.overflow_px == overflow_px
    assert ("viewport declaration" in view.overflow_cause) is (overflow_px == 590)
    site.shutdown()


async def test_a_whole_page_has_a_bounded_picture(browser: Browser) -> None:
    site = serve(
        {"/": b"<!doctype html><div style='height:3000px'>Top</div>Bottom", "/long": b"<p style=height:90000px>"}
    )
    whole = await browser.view(site.upstream, DESKTOP, full_page=True)
    assert whole.width == 1280
    assert 3000 < whole.height < 3100
    long = await browser.view(site.upstream, DESKTOP, "/long", full_page=True)
    assert long.height == 4000
    assert "the picture shows the first 4000 px" in long.notes[0]
    site.shutdown()


# ---- steps


FORM = b"""<!doctype html><title>Waitlist</title><form onsubmit="event.preventDefault(); show()">
<input name=email placeholder=Address><select name=size><option>small<option>large</select>
<button>Join</button></form><button hidden>Hidden</button><p id=answer></p>
<a href=/thanks target=_blank>New window</a><a href=/gone>Gone</a>
<script>function show() {
  const form = document.forms[0];
  if (confirm('Sure?')) setTimeout(() => answer.textContent = form.email.value + ' is ' + form.size.value, 50);
}</script>"""


async def test_steps_are_taken_in_order(browser: Browser) -> None:
    site = serve({"/": FORM, "/thanks": b"Thanks"})
    steps = [
        PageStep("fill", "input[name=email]", "ada@example.org"),
        PageStep("fill", "select", "large"),
        PageStep("press", "input[name=email]", "Enter"),
        PageStep("wait", "", "ada@example.org is large"),
        PageStep("click", "text=New window", ""),
    ]
    view = await browser.view(site.upstream, MOBILE, steps=steps)
    assert view.failed_step == ""
    assert "ada@example.org is large" in view.text
    assert any("Sure?" in note and "accepted" in note for note in view.notes)
    assert any("further window" in note for note in view.notes)
    left = await browser.view(site.upstream, DESKTOP, steps=[PageStep("click", "text=Gone", "")])
    assert (left.path, left.http_status) == ("/gone", 404)
    site.shutdown()


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        (PageStep("click", "text=Leave", ""), ["nothing on the page matches", 'text="Join"', 'input[name="email"]']),
        (PageStep("click", "button[hidden]", ""), ["none of them is visible"]),
        (PageStep("fill", "text=Join", "x"), ["Element is not an <input>"]),
        (PageStep("click", "##", ""), ["##"]),
        (PageStep("press", "", "NoSuchKey"), ["NoSuchKey"]),
        (PageStep("wait", "", "never shown"), ["did not appear within 2 s"]),
        (PageStep("click", "", ""), ["names no selector"]),
        (PageStep("fill", "select", "medium"), ["small, large"]),
    ],
)
async def test_a_step_that_can_not_be_done(
    monkeypatch: pytest.MonkeyPatch, browser: Browser, step: PageStep, answer: list[str]
) -> None:
    monkeypatch.setattr("clients.page_steps.STEP_SECONDS", 2.0)
    site = serve({"/": FORM})
    view = await browser.view(site.upstream, DESKTOP, steps=[step, PageStep("click", "text=Gone", "")])
    assert view.failed_step.startswith("Step 1 of 2")
    for part in answer:
        assert part in view.failed_step
    assert view.path == "/"
    assert view.text
    site.shutdown()


# ---- hostile pages


HOSTILE = {
    "dialogs": b"<h1>Hi</h1><script>setTimeout(() => { for (;;) alert('again') }, 300)</script>",
    "windows": b"<h1>Hi</h1><script>setInterval(() => open('/'), 5)</script>",
    "leaving": b"<h1>Hi</h1><script>onbeforeunload = e => e.preventDefault(); location = 'http://evil.example/'</script>",
    "reloading": b"<h1>Hi</h1><script>location.reload()</script>",
    "download": b"<h1>Hi</h1><script>location = URL.createObjectURL(new Blob(['x'.repeat(1e6)]))</script>",
    "errors": b"<h1>Hi</h1><script>setInterval(() => console.error('x' + Math.random()))</script>",
    "requests": b"<h1>Hi</h1><script>setInterval(() => fetch('/no' + Math.random()), 1)</script>",
    "large": b"<h1>Hi</h1><script>document.write('<p>text<a href=/x>x</a>'.repeat(50000))</script>",
    "clobbered": b"<img name=body><img name=title><img name=links><h1>Hi</h1>",
    "busy": b"<h1>Hi</h1><script>setTimeout(() => { for (;;); }, 500)</script>",
}


@pytest.mark.parametrize("name", list(HOSTILE))
async def test_a_hostile_page_ends(name: str, monkeypatch: pytest.MonkeyPatch, browser: Browser) -> None:
    site = serve({"/": HOSTILE[name]})
    with monkeypatch.context() as hasty, contextlib.suppress(PageFailed):
        hasty.setattr("clients.browser.PAGE_SECONDS", 3.0)
        view = await browser.view(site.upstream, DESKTOP)
        assert view.path == "/"
        assert len(view.text) <= TEXT_CHARACTERS
        assert len(view.console_errors) <= MOST_ERRORS
        assert len(view.failed_requests) <= MOST_ERRORS
    good = serve({"/": b"<h1>Good</h1>"})
    assert (await browser.view(good.upstream, DESKTOP)).text == "Good"
    site.shutdown()
    good.shutdown()


async def test_nothing_goes_past_the_proxy(browser: Browser) -> None:
    """WebRTC speaks UDP, which no HTTP proxy carries."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        page = f"""<h1>Call</h1><script>
        const peer = new RTCPeerConnection({{iceServers: [{{urls: 'stun:127.0.0.1:{port}'}}]}});
        peer.createDataChannel('x'); peer.createOffer().then(offer => peer.setLocalDescription(offer));
        </script>"""
        site = serve({"/": page.encode()})
        steps = [PageStep("wait", "", "")]
        assert (await browser.view(site.upstream, DESKTOP, steps=steps)).http_status == 200
        with pytest.raises(BlockingIOError):
            listener.recv(100)
        site.shutdown()
