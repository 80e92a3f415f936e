"""A company's mirror: a package index and an npm registry over TLS that require a name and a password."""

import base64
import contextlib
import hashlib
import io
import json
import ssl
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

HOST = "mirror.test"
USER, PASSWORD = "reader@example.com", "p/ss w:rd-of-the-mirror"
INDEX = "/team/pypi/simple/"
REGISTRY = "/team/npm/"
ELSEWHERE = "/team/security/apikey"


class PackageServer:
    """Serves a package `demo-package` of both kinds. Links are as such servers write them: some absolute, one of them
    with the password in it, and one relative."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "mirror.pem"
        key = directory / "mirror.key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"),
                *("-addext", f"subjectAltName=DNS:{HOST}", "-keyout", str(key), "-out", str(self.certificate)),
            ],
            check=True,
            capture_output=True,
        )
        self.requests: list[tuple[str, str]] = []
        """The requested paths, with the Host header."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def origin(self) -> str:
        return f"https://{HOST}:{self.port}"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a client with the password."""
        wheel, tarball = _wheel(), _tarball()
        html, data = {"Content-Type": "text/html"}, {"Content-Type": "application/octet-stream"}
        match path:
            case "/team/pypi/simple/demo-package/":
                links = (
                    f"https://{USER.replace('@', '%40')}:secret@{HOST}:{self.port}/team/pypi/packages/demo_package-1.0",
                    "../../packages/demo_package-2.0",
                )
                page = "".join(f'<a href="{link}-py3-none-any.whl">file</a>' for link in links)
                return 200, html, page.encode()
            case "/team/pypi/packages/demo_package-2.0-py3-none-any.whl":
                return 302, {"Location": f"{self.origin}/team/pypi/files/demo_package-2.0-py3-none-any.whl"}, b""
            case "/team/pypi/files/demo_package-2.0-py3-none-any.whl":
                return 200, data, wheel
            case "/team/npm/@demo%2fpackage" | "/team/npm/@demo/package":
                version = {
                    "name": "@demo/package",
                    "version": "1.0.0",
                    "dist": {
                        "tarball": f"{self.origin}/team/npm/@demo/package/-/package-1.0.0.tgz",
                        "integrity": f"sha512-{base64.b64encode(hashlib.sha512(tarball).digest()).decode()}",
                    },
                }
                packument = {"name": "@demo/package", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
                return 200, {"Content-Type": "application/json"}, json.dumps(packument).encode()
            case "/team/npm/@demo/package/-/package-1.0.0.tgz":
                return 200, data, tarball
            case "/team/security/apikey":
                return 200, {"Content-Type": "text/plain"}, PASSWORD.encode()
            case _:
                return 404, html, b"<p>no such page"


def _handler(server: PackageServer) -> type[BaseHTTPRequestHandler]:
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, self.headers["Host"]))
            if self.headers["Authorization"] == expected:
                status, headers, body = server.answer(self.path)
            else:
                status, headers, body = 401, {"WWW-Authenticate": "Basic"}, b"who are you?"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _wheel() -> bytes:
    metadata = b"Metadata-Version: 2.1\nName: demo-package\nVersion: 2.0\n"
    files = {
        "demo_package.py": b"where = 'from the mirror'\n",
        "demo_package-2.0.dist-info/METADATA": metadata,
        "demo_package-2.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, "demo_package-2.0.dist-info/RECORD"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in (files | {"demo_package-2.0.dist-info/RECORD": record.encode()}).items():
            archive.writestr(name, content)
    return packed.getvalue()


def _tarball() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (
            ("package/package.json", b'{"name": "@demo/package", "version": "1.0.0", "main": "index.js"}'),
            ("package/index.js", b"module.exports = 'from the mirror'\n"),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    data = bytearray(packed.getvalue())
    data[4:8] = bytes(4)  # a fixed time for gzip, so that every tarball has the same hash
    return bytes(data)


@contextlib.contextmanager
def package_server(directory: Path) -> Iterator[PackageServer]:
    """Run a server while the block runs."""
    server = PackageServer(directory)
    try:
        yield server
    finally:
        server.close()


def with_credentials(url: str, user: str, password: str) -> str:
    """Return the URL with the name and the password, as an operator writes it."""
    return url.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)
