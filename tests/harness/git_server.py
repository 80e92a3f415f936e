"""A real git server over HTTP: `git http-backend` behind a small server that asks for a token."""

import base64
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "ghp-Planted+Token/0123456789abcdef"
"""What the server accepts as the password. Its characters differ in each encoding."""

_CLEAN = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
_AUTHOR = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(*arguments: str, cwd: Path, stdin: bytes = b"", **environment: str) -> str:
    """Run git without this machine's configuration and return its output; fail the test if it fails."""
    ran = subprocess.run(
        ["git", *arguments], cwd=cwd, env=_CLEAN | _AUTHOR | environment, input=stdin, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode().strip()


class GitServer:
    """The running server. Repositories are bare ones below `root`; a path's first part chooses how it answers."""

    def __init__(self, root: Path, server: ThreadingHTTPServer) -> None:
        self.root = root
        self.port = int(server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[str] = []
        """Paths of all requests, with the query."""
        self.hold = threading.Event()
        """Requests for `slow/…` wait until it is set."""

    def repository(self, name: str, hook: str | None = None) -> Path:
        """Make an empty repository, with a pre-receive hook if one is given."""
        path = self.root / f"{name}.git"
        path.mkdir(parents=True)
        git("init", "-q", "--bare", "-b", "main", ".", cwd=path)
        git("config", "http.receivepack", "true", cwd=path)
        if hook is not None:
            script = path / "hooks/pre-receive"
            script.write_text(f"#!/bin/sh\n{hook}\n")
            script.chmod(0o755)
        return path

    def url_of(self, repository: Path) -> str:
        """The repository's URL."""
        return f"{self.url}/{repository.relative_to(self.root)}"


class _Handler(BaseHTTPRequestHandler):
    git_server: GitServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self._body()
        self.git_server.requests.append(self.path)
        path, _, query = self.path.partition("?")
        sent = self.headers.get("Authorization", "")
        user, _, password = base64.b64decode(sent.removeprefix("Basic ")).decode().partition(":")
        kind = path.split("/")[1]
        if kind == "redirect":
            self._say(302, "", Location=f"http://169.254.169.254/{path}?{query}")
        elif not sent or (password != TOKEN and kind != "echo"):
            self._say(401, "no", **{"WWW-Authenticate": 'Basic realm="git"'})
        elif kind == "forbidden":
            self._say(403, "no")
        elif kind == "echo":
            self._say(403, f"{sent} {password} {password.encode().hex()}", **{"Content-Type": "text/plain"})
        else:
            if kind == "slow":
                self.git_server.hold.wait(300)
            self._serve(path, query, user, body)

    def _serve(self, path: str, query: str, user: str, body: bytes) -> None:
        variables = {
            "GIT_PROJECT_ROOT": str(self.git_server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": user,
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        ran = subprocess.run(
            ["git", "http-backend"], input=body, env=_CLEAN | variables, capture_output=True, check=False
        )
        head, _, answer = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self._say(status, answer, **headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _say(self, status: int, body: str | bytes, **headers: str) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        with suppress(ConnectionError):  # the client was ended, as some tests mean it to be
            self.end_headers()
            self.wfile.write(content)


@contextmanager
def git_server(root: Path, certificate: Path | None = None) -> Iterator[GitServer]:
    """Run a git server for the repositories below `root`. `certificate`: a PEM file with the key, to speak TLS."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    running = Handler.git_server = GitServer(root, server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield running
    finally:
        running.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


class ProcessWatch:
    """Reads the command lines and environments of all processes again and again, from a thread."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def has_seen(self, part: bytes) -> bool:
        """Whether a command line or an environment with this in it was read."""
        return any(part in each for each in tuple(self.seen))

    def __enter__(self) -> "ProcessWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").iterdir():
                if process.name.isdecimal():
                    for part in ("cmdline", "environ"):
                        with suppress(OSError):  # it has ended, or is another user's
                            self.seen.add((process / part).read_bytes())
            time.sleep(0.02)
