"""The operator's package index and npm registry, served inside sandboxes by the server's side.

A sandbox sees `http://127.0.0.1:PORT/…`, with the same paths as upstream, and no credentials: they are added here. What
upstream says about itself, in index pages, npm's metadata and redirects, is rewritten to that address, and a link to
another host stays as it is. Only GET and HEAD are passed on, and only for what lies beside the index. Only requests for
packages get the credentials: with them, other paths of such servers give out passwords and keys.
"""

import asyncio
import base64
import contextlib
import logging
import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

import httpx2

from local.sandbox.addresses import AddressRules, host_name
from local.sandbox.http_head import HEAD_BYTES, Header, Refused, parse_head, read_head, refuse

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Serve this many connections of one sandbox at a time; more have to wait."""

REQUEST_SECONDS = 60.0
"""Give up if upstream takes longer to connect or to send the next bytes."""

MAX_PAGE_BYTES = 64 << 20
"""Refuse a larger index page or metadata document: it has to fit into memory to be rewritten."""

PAGES_AT_ONCE = 4
"""Rewrite this many pages of a mirror at a time, for all sandboxes."""

BEARER_USER = "_authToken"
"""With this user in a URL, as in .npmrc, the password is a bearer token."""

_PASSED_ON = frozenset((b"accept", b"if-modified-since", b"if-none-match", b"range", b"user-agent"))
_PASSED_BACK = (
    *("accept-ranges", "cache-control", "content-disposition", "content-encoding", "content-length", "content-range"),
    *("content-type", "etag", "last-modified"),
)
_PAGE = re.compile(r"text/html|application/(?:.*\+)?(?:json|html)")


_INDEXES = ("simple", "+simple")
"""Last parts of the paths of Python indexes."""

_FILE_DIRECTORIES = ("packages", "+f", "files")
"""Directories beside a Python index that hold its files."""


@dataclass(frozen=True)
class PackageSource:
    """An index or a registry of the operator, as its setting names it."""

    setting: str
    scheme: str
    host: str
    port: int | None
    index_path: str
    served_path: str
    """Paths below this one are served. It ends with a slash."""
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, setting: str, url: str) -> Self:
        """Read the URL of a setting. `settings.py` has checked its form."""
        parts = urlsplit(url)
        path = parts.path.rstrip("/")
        above, _, last = path.rpartition("/")
        # The files of a Python index lie beside it: in ../packages/, ../+f/ or ../files/.
        served = above if last in _INDEXES else path
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        authorization = None
        if user == BEARER_USER:
            authorization = f"Bearer {password}"
        elif user or password:
            authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        host = host_name(parts.hostname or "")
        return cls(setting, parts.scheme, host, parts.port, f"{path}/", f"{served}/", authorization)

    @property
    def authority(self) -> str:
        """The host, with the port if the URL has one."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def authorizes(self, target: str) -> bool:
        """Whether a request below `served_path` gets the credentials.

        An npm registry keeps tokens and users below `-/`. If an index is at the host's root, everything of that host is
        beside it, so only the index itself and the usual directories of files get them.
        """
        names = _decoded(target.partition("?")[0]).removeprefix(self.served_path).split("/")
        if names[0] == "-" or not names[0]:
            return False
        return self.served_path != "/" or self.index_path == "/" or names[0] in (*_INDEXES, *_FILE_DIRECTORIES)

    def own_links(self) -> re.Pattern[bytes]:
        """The beginnings of links to this source, as index pages and npm's metadata write them: with or without
        credentials, with slashes escaped as in JSON."""
        host, port = re.escape(self.host), self.port or "443|80"
        return re.compile(
            rf"""https?:\\?/\\?/(?:[^/@\s"'<>]*@)?{host}(?::(?:{port}))?(?=[\\/"'])""".encode(), re.IGNORECASE
        )


class Mirror:
    """Serves one package source on a port inside any number of sandboxes."""

    def __init__(self, source: PackageSource, port: int, rules: AddressRules, trust: ssl.SSLContext) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}{source.index_path}"
        """Where sandboxes find it."""
        self._source = source
        self._rules = rules
        # A client of its own: a connection is verified for one host name, but kept by address.
        self._http = httpx2.AsyncClient(verify=trust, trust_env=False, timeout=REQUEST_SECONDS)
        self._pages = asyncio.Semaphore(PAGES_AT_ONCE)
        self._own_links = source.own_links()

    async def serve(self, listener: socket.socket, sandbox_id: str) -> asyncio.Server:
        """Accept on a socket that listens inside a sandbox."""
        slots = asyncio.Semaphore(MAX_CONNECTIONS)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with slots:
                await self._serve_connection(reader, writer, sandbox_id)

        return await asyncio.start_server(accept, sock=listener, limit=HEAD_BYTES)

    async def close(self) -> None:
        """Close the connections to upstream."""
        await self._http.aclose()

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sandbox_id: str
    ) -> None:
        with contextlib.closing(writer):
            try:
                method, target, headers = parse_head(await read_head(reader))
                await self._relay(method, target, headers, writer)
            except Refused as refusal:
                log.warning("%s of sandbox %s refused: %s", self._source.setting, sandbox_id, refusal)
                await refuse(writer, refusal)
            except (TimeoutError, OSError, asyncio.IncompleteReadError):
                writer.transport.abort()

    async def _relay(self, method: str, target: str, headers: list[Header], writer: asyncio.StreamWriter) -> None:
        request = await self._request(method, target, headers)
        async with contextlib.AsyncExitStack() as closing:
            try:
                answer = await self._http.send(request, stream=True)
                closing.push_async_callback(answer.aclose)
                self._check_credentials(answer)
                head = [
                    f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}".encode("ascii", "replace"),
                    b"connection: close",
                ]
                if location := answer.headers.get("location"):
                    head.append(b"location: " + self._rewritten(location.encode()))
                page = None
                if method == "GET" and _PAGE.match(answer.headers.get("content-type", "").lower()):
                    page = await self._page(answer)
            except httpx2.HTTPError as error:
                reason = str(error) or type(error).__name__
                raise Refused(f"{self._source.host} of {self._source.setting} did not answer: {reason}", 502) from error
            replaced = () if page is None else ("content-encoding", "content-length")
            head += [
                f"{name}: {answer.headers[name]}".encode()
                for name in _PASSED_BACK
                if name in answer.headers and name not in replaced
            ]
            if page is not None:
                head.append(b"content-length: %d" % len(page))
            writer.write(b"\r\n".join(head) + b"\r\n\r\n" + (page or b""))
            await writer.drain()
            if page is None and method == "GET":
                try:
                    async for chunk in answer.aiter_raw():
                        writer.write(chunk)
                        await writer.drain()
                except httpx2.HTTPError as error:  # the client must not take this end for the file's
                    raise ConnectionAbortedError(str(error)) from error

    async def _request(self, method: str, target: str, headers: list[Header]) -> httpx2.Request:
        source = self._source
        if method not in ("GET", "HEAD"):
            raise Refused(f"This sandbox may only read from {source.host}: {method} is not passed on.", 405)
        if not _is_below(source.served_path, target):
            raise Refused(
                f"This sandbox may not read {target.partition('?')[0]} of {source.host}:"
                f" {source.setting} serves only what is below {source.served_path}."
            )
        address = await self._rules.address_of(source.host)
        url = httpx2.URL(scheme=source.scheme, host=address, port=source.port, raw_path=target.encode())
        passed_on = [(name, value) for name, value in headers if name in _PASSED_ON]
        own = [(b"host", source.authority.encode()), (b"accept-encoding", b"identity")]
        if source.authorization is not None and source.authorizes(target):
            own.append((b"authorization", source.authorization.encode()))
        # The certificate has to be the host's, while the connection goes to the address that was checked.
        return httpx2.Request(method, url, headers=own + passed_on, extensions={"sni_hostname": source.host} | _TIMEOUT)

    def _check_credentials(self, answer: httpx2.Response) -> None:
        if answer.status_code == 401:
            source = self._source
            problem = "does not accept the credentials of" if source.authorization else "needs credentials in"
            raise Refused(f"{source.host} {problem} {source.setting}. Tell the operator.", 502)

    async def _page(self, answer: httpx2.Response) -> bytes:
        async with self._pages:
            page = bytearray()
            async for chunk in answer.aiter_bytes():
                page += chunk
                if len(page) > MAX_PAGE_BYTES:
                    raise Refused(f"A page of {self._source.host} is larger than {MAX_PAGE_BYTES} bytes.", 502)
            return self._rewritten(bytes(page))

    def _rewritten(self, page: bytes) -> bytes:
        return self._own_links.sub(f"http://127.0.0.1:{self.port}".encode(), page)


_TIMEOUT = {"timeout": httpx2.Timeout(REQUEST_SECONDS).as_dict()}


def _is_below(served_path: str, target: str) -> bool:
    """Whether a request's target is below a path, however a server may read `..`, `%2e`, `;` and backslashes in it."""
    path = target.partition("?")[0]
    if not path.startswith(served_path):
        return False
    path = _decoded(path)
    names = [name.partition(";")[0].strip() for name in re.split(r"[/\\]", path)]
    return not {".", ".."} & set(names) and not {"#", "\0"} & set(path)


def _decoded(path: str) -> str:
    """The path without any level of percent-encoding."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path
