"""Which headers pass between a browser and the product behind a preview.

The product is not trusted: it sees nothing that identifies anyone to us, and sets nothing that reaches beyond its own
host. It sees its own address in the sandbox as `Host`, as it does in the evidence gate, so `Origin` and `Referer` name
that address, too.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HeaderList = list[tuple[bytes, bytes]]
"""Names and values; names are in lower case."""

TRAFFIC_HEADER = b"e2b-traffic-access-token"
"""Carries the token with which the sandbox service lets a request through to a product."""

KEY_HEADER = b"x-cofounder-key"
"""In this header a program shows an API key to a preview, if the product needs `Authorization` for itself."""

_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"http2-settings"),
    }
)
"""Headers of one connection, not of the message."""

_FROM_PROXIES = frozenset({b"host", b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip"})
"""Request headers that only a proxy sets. A visitor's own would be a lie."""

_OURS = (b"x-cofounder-", b"x-forwarded-", b"e2b-")
"""Beginnings of request headers that are ours or a proxy's. `e2b-` ones would lead to another sandbox."""

_REACHES_BEYOND = frozenset(
    {
        b"strict-transport-security",  # ours to say, for the whole domain
        b"clear-site-data",  # clears the cookies of the domain's other hosts as well
        b"alt-svc",  # leads the browser to another server, past this gateway
        b"nel",  # reports addresses of ours, which may have a code in them, to another server
        b"report-to",
        *(b"x-accel-redirect", b"x-sendfile", b"x-lighttpd-send-file"),  # commands to a web server in front of us
        *(b"date", b"server"),  # the server of this process adds its own
    }
)
"""Response headers that a product may not send, as they concern more than its own host."""

_OUR_COOKIE = re.compile(rb"(?i)(__(host|secure)-)?cofounder([-_.].*)?")
"""Names of cookies that are ours, on any host."""

_COOKIE_SPACE = b" \t"


@dataclass(frozen=True)
class Route:
    """From a preview's address to its product.

    - `origin`: the preview's, as browsers see it.
    - `upstream`: the URL of the product's server.
    - `token`: what the sandbox service wants to see; None if its sandbox is open to everyone.
    """

    origin: str
    upstream: str
    token: str | None = field(default=None, repr=False)

    @property
    def upstream_host(self) -> str:
        """The upstream's host, with its port if that is not the usual one."""
        return urlsplit(self.upstream).netloc


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], route: Route, client: str | None, is_ours: Callable[[str], bool]
) -> HeaderList:
    """The headers that the product gets, without those that frame the body.

    Args:
        client: the visitor's address.
        is_ours: whether a text of `Authorization` is a credential for the API.
    """
    headers = list(headers)
    dropped = _HOP_BY_HOP | _named_in_connection(headers) | _FROM_PROXIES | {b"content-length"}
    passed: HeaderList = [(b"host", route.upstream_host.encode())]
    cookies: list[bytes] = []
    for name, value in headers:
        if name in dropped or name.startswith(_OURS):
            continue
        if name == b"cookie":
            cookies += foreign_cookies(value)
        elif name == b"authorization":
            if not any(is_ours(each) for each in credentials_in(value)):
                passed.append((name, value))
        elif name in (b"origin", b"referer"):
            passed.append((name, _moved(value, route.origin, route.upstream)))
        else:
            passed.append((name, value))
    if cookies:
        passed.append((b"cookie", b"; ".join(cookies)))
    if client is not None:
        passed.append((b"x-forwarded-for", client.encode()))
    passed.append((b"x-forwarded-proto", urlsplit(route.origin).scheme.encode()))
    if route.token is not None:
        passed.append((TRAFFIC_HEADER, route.token.encode()))
    return passed


def response_headers(headers: Iterable[tuple[bytes, bytes]], route: Route) -> HeaderList:
    """The headers that the browser gets, with those that frame the body but no others of the connection."""
    headers = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | _named_in_connection(headers) | _REACHES_BEYOND
    passed: HeaderList = []
    for name, value in headers:
        if name in dropped or name.startswith((b"x-cofounder-", b"e2b-")):
            continue
        if name == b"set-cookie" and not _may_set(value):
            continue
        if name == b"location":
            value = _moved(value, route.upstream, route.origin, any_scheme=True)
        passed.append((name, value))
    return passed


def cookies_named(headers: Iterable[tuple[bytes, bytes]], name: str) -> list[str]:
    """The values of a cookie of ours in a request. Several, if a browser has it in several partitions."""
    values = []
    for header, line in headers:
        for each in line.split(b";") if header == b"cookie" else ():
            found, equals, value = each.strip(_COOKIE_SPACE).partition(b"=")
            if equals and found == name.encode():
                values.append(value.decode("latin-1"))
    return values


def foreign_cookies(line: bytes) -> list[bytes]:
    """The cookies of a `Cookie` header that are not ours. Quotes mean nothing in it."""
    cookies = [each.strip(_COOKIE_SPACE) for each in line.split(b";")]
    return [each for each in cookies if each and not _is_our_cookie(each)]


def credentials_in(value: bytes) -> list[str]:
    """The texts in an `Authorization` header that may be a token: what follows the scheme, and Basic's two parts."""
    text = value.decode("latin-1")
    scheme, _, rest = text.strip().partition(" ")
    found = [text.strip(), rest.strip(), *re.split(r'[\s,;="]+', text)]
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest.strip(), validate=True).decode("latin-1").partition(":")
        except (binascii.Error, ValueError):
            return found
        found += [user, password]
    return found


def _is_our_cookie(cookie: bytes) -> bool:
    """Whether a cookie has a name of ours. One without a name is sent as its value, so its value counts."""
    name, _, value = cookie.partition(b"=")
    name = name.strip(_COOKIE_SPACE)
    if not name:
        name = value.partition(b"=")[0].strip(_COOKIE_SPACE)
    return _OUR_COOKIE.fullmatch(name) is not None


def _may_set(cookie: bytes) -> bool:
    """Whether a product may set the cookie: only for its own host, and not one of ours."""
    pair, *attributes = cookie.split(b";")
    names = {each.partition(b"=")[0].strip(b" \t\r\n\f\v").lower() for each in attributes}
    return b"domain" not in names and not _is_our_cookie(pair.strip(_COOKIE_SPACE))


def _moved(url: bytes, origin: str, to: str, *, any_scheme: bool = False) -> bytes:
    """The URL with another origin, if it has this one.

    `any_scheme`: http counts as https, as a product behind a proxy takes itself for a server without TLS.
    """
    try:
        parts, old = urlsplit(url.decode("ascii")), urlsplit(origin)
        if parts.hostname is None or parts.hostname != old.hostname:
            return url
        if any_scheme:
            is_same = parts.scheme in ("http", "https", "") and parts.port in (None, old.port, _usual(old.scheme))
        else:
            port, old_port = parts.port or _usual(parts.scheme), old.port or _usual(old.scheme)
            is_same = (parts.scheme, port) == (old.scheme, old_port)
    except ValueError:
        return url
    return to.encode() + url.partition(b"//")[2][len(parts.netloc) :] if is_same else url


def _usual(scheme: str) -> int | None:
    return {"http": 80, "https": 443}.get(scheme)


def _named_in_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    lines = [value for name, value in headers if name == b"connection"]
    return {name.strip().lower() for line in lines for name in line.split(b",")}
