"""Visits to the pages of a private sandbox: each request to its server has the token, and no other server gets it."""

import base64
import contextlib
import datetime
import hashlib
import http.server
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from activities.sandbox.site import look_at_site
from clients.browser import Browser, PageFailed
from clients.link_probe import LinkAnswer, LinkProbe
from domain.page_view import DESKTOP
from domain.traffic import TRAFFIC_HEADER, Upstream

TOKEN = "the-traffic-token"


class PrivateSite(http.server.ThreadingHTTPServer):
    """A server of the test that answers only with the token, and records its requests and the tokens in them."""

    pages: dict[str, str]
    requests: list[tuple[str, list[str]]]
    scheme = "http"

    def __init__(self, pages: dict[str, str], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.requests = pages, []
        if tls is not None:
            self.scheme = "https"
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def upstream(self) -> Upstream:
        return Upstream(f"{self.scheme}://site.localhost:{self.server_address[1]}", TOKEN)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def tokens(self) -> set[tuple[str, ...]]:
        return {tuple(tokens) for _, tokens in self.requests}

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    server: PrivateSite
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        tokens = self.headers.get_all(TRAFFIC_HEADER) or []
        path = self.requestline.split()[1]  # `self.path` loses a second slash
        self.server.requests.append((path, tokens))
        page = self.server.pages.get(path)
        if tokens != [TOKEN]:
            self.send_response(403)
            page = "private"
        elif self.headers.get("Upgrade") == "websocket":
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.wfile.write(b"\x81\x06socket")
            self.close_connection = True
            return
        elif page is not None and page.startswith("http"):
            self.send_response(302)
            self.send_header("Location", page)
        else:
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Type", "text/javascript" if path.endswith(".js") else "text/html")
        body = (page or "nothing").encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve(pages: dict[str, str], tls: ssl.SSLContext | None = None) -> Iterator[PrivateSite]:
    site = PrivateSite(pages, tls)
    thread = threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.shutdown()
        site.server_close()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    made = Browser()
    yield made
    await made.close()


@pytest.fixture
def other() -> Iterator[PrivateSite]:
    """A server that must not get the token."""
    with serve({}) as site:
        yield site


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The certificate of `site.localhost`, which this process trusts."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site.localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("site.localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    trusted, private = tmp_path / "trusted.pem", tmp_path / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context


def page(other_port: int) -> str:
    """A page that asks its own server and another one, in each way that a page can ask."""
    text = "<h1>Page</h1><link rel=stylesheet href=/own.css><img src=/bounce><form method=post></form>"
    text += "<script src=/own.js></script><script>navigator.serviceWorker?.register('/worker.js').catch(() => {})"
    text += f"\nfetch('/mine', {{method: 'POST', body: 'x', headers: {{'{TRAFFIC_HEADER}': 'of the page'}}}})"
    text += "\nnew WebSocket(`${location.origin.replace('http', 'ws')}/socket`).onmessage ="
    text += " event => document.body.append(event.data)</script>"
    for address in (f"127.0.0.1:{other_port}", f"other.localhost:{other_port}", f"site.localhost:{other_port}"):
        for scheme in ("http", "https"):
            text += f"<img src={scheme}://{address}/x><iframe src={scheme}://{address}/x></iframe>"
            text += f"<script>fetch('{scheme}://{address}/x')</script>"
            text += f"<script>new WebSocket('{scheme.replace('http', 'ws')}://{address}/x')</script>"
    return text


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_only_the_own_server_gets_the_token(
    browser: Browser, other: PrivateSite, tls: ssl.SSLContext, scheme: str
) -> None:
    pages = {"/": page(other.port), "/own.css": "", "/own.js": "", "/mine": "", "/worker.js": "", "/socket": ""}
    pages["/bounce"] = f"http://site.localhost:{other.port}/x"
    with serve(pages, tls if scheme == "https" else None) as site:
        view = await browser.view(site.upstream, DESKTOP)
        assert (view.http_status, "socket" in view.text) == (200, True)
        assert set(site.paths()) >= {"/", "/own.css", "/own.js", "/bounce", "/mine", "/socket"}
        assert site.tokens() == {(TOKEN,)}
        assert other.requests == []
        public = Upstream(site.upstream.url)
        if scheme == "http":
            assert (await browser.view(public, DESKTOP)).http_status == 403


async def test_a_redirect_of_the_page_takes_the_token_nowhere(browser: Browser, other: PrivateSite) -> None:
    with serve({"/": f"http://site.localhost:{other.port}/x"}) as site:
        with pytest.raises(PageFailed):
            await browser.view(site.upstream, DESKTOP)
        assert site.tokens() == {(TOKEN,)}
    assert other.requests == []


async def test_a_server_with_another_certificate_gets_no_token(
    browser: Browser, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with serve({"/": "page"}, tls) as site:
        with pytest.raises(PageFailed):
            await browser.view(site.upstream, DESKTOP)
        assert site.requests == []


async def test_links_are_followed_with_the_token_to_the_own_server_only(browser: Browser, other: PrivateSite) -> None:
    away = f"//site.localhost:{other.port}/x"
    links = f"<h1>Links</h1><a href=/next>next</a><a href=/out>out</a><a href=/.{away}>slashes</a>"
    with serve({"/": links, "/next": "<p>Next</p>", away: "<p>Slashes</p>", "/out": f"http:{away}"}) as site:
        probe = LinkProbe(site.upstream)
        assert await probe.ask("/next") == LinkAnswer(200, "/next", is_page=True)
        assert (await probe.ask("/out")).left
        assert await probe.ask(away) == LinkAnswer(200, away, is_page=True)

        async def on_links(pages: int) -> None:
            pass

        seen = await look_at_site(browser, site.upstream, on_links)
        assert {view.path for view in seen.views} == {"/", "/next", away}
        assert site.tokens() == {(TOKEN,)}
    assert other.requests == []


def test_an_upstream_shows_no_token_and_gives_it_to_its_own_origin_only() -> None:
    upstream = Upstream("https://8000-i1.example.com", TOKEN)
    assert TOKEN not in f"{upstream!r} {upstream}"
    assert upstream.headers(upstream.at("/a?b")) == {TRAFFIC_HEADER: TOKEN}
    for elsewhere in (
        "http://8000-i1.example.com/",
        "https://8000-i1.example.com:444/",
        "https://8000-i1.example.com.evil.test/",
        "https://8000-i1.example.com@evil.test/",
        "https://evil.test/8000-i1.example.com",
    ):
        assert upstream.headers(elsewhere) == {}
    assert upstream.at("//evil.test/x") == "https://8000-i1.example.com//evil.test/x"
    assert Upstream(upstream.url).headers(upstream.url) == {}
