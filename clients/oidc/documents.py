"""Reads JSON documents of identity providers, and keeps them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx2
import structlog

from clients.dns import Resolve, resolve
from clients.loopback import is_loopback
from domain.addresses import is_public
from domain.errors import IssuerUnavailable
from domain.issuers import Issuer, is_safe_url

FETCH_SECONDS = 5.0
"""Seconds that a provider has for an answer."""

LARGEST_DOCUMENT = 512 * 1024
"""Bytes. The key sets of large providers have about 20,000."""

FRESH_SECONDS = 3600.0
"""A document is read again after this long, so a key that its issuer has withdrawn is accepted no longer than that."""

KEPT_SECONDS = 24 * 3600.0
"""While a provider does not answer, its last document counts for this long."""

RETRY_SECONDS = 10.0
"""The shortest time between two readings, whatever tokens arrive."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Unreadable(Exception):
    """A document could not be read; the message is for the operator's log."""


class DocumentCache(Generic[T]):
    """What was last read from a provider. One request reads it again; others meanwhile use the last one."""

    def __init__(self, label: str, read: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._label = label
        self._read = read
        self._clock = clock
        self._reading = asyncio.Lock()
        self._value: T | None = None
        self._read_at = 0.0
        self._tried_at = float("-inf")
        self.failed = False
        """Whether the last reading has failed."""

    async def get(self) -> T:
        """What was last read, if that is not too old; or what is read now.

        Raises:
            IssuerUnavailable: it was never read, or too long ago.
        """
        if self._age() > FRESH_SECONDS and not (self._value is not None and self._reading.locked()):
            await self.renew()
        if self._value is None or self._age() > KEPT_SECONDS:
            raise self.unavailable()
        return self._value

    async def renew(self) -> None:
        """Read it again, unless that was done or tried a moment ago. A failure changes only `failed`."""
        async with self._reading:
            now = self._clock()
            if now - self._tried_at < RETRY_SECONDS:
                return
            self._tried_at = now
            try:
                self._value = await self._read()
                self._read_at, self.failed = now, False
            except (Unreadable, IssuerUnavailable) as error:
                self.failed = True
                _log.warning("an identity provider can't be read", issuer=self._label, reason=str(error))

    def unavailable(self) -> IssuerUnavailable:
        """The error for a request that can't be answered before the provider is."""
        return IssuerUnavailable(self._label, int(RETRY_SECONDS))

    def _age(self) -> float:
        return float("inf") if self._value is None else self._clock() - self._read_at


async def check_server(issuer: Issuer, url: object, resolver: Resolve = resolve) -> str:
    """Return the URL that a provider's document names, if this process may send a request there.

    A provider's document must not make this process ask servers of the internal network. The hosts that the operator
    has configured may be there.

    Raises:
        Unreadable: says what is wrong with it.
    """
    if not isinstance(url, str) or not is_safe_url(url):
        raise Unreadable(f"{url!r} is not a URL of the form https://host/path")
    host = urlsplit(url).hostname or ""
    if host in {urlsplit(configured).hostname for configured in (issuer.issuer, issuer.jwks_url) if configured}:
        return url
    try:
        addresses = await resolver(host)
    except (OSError, TimeoutError):
        return url  # perhaps only a proxy can resolve it
    if not all(is_public(address) for address in addresses):
        raise Unreadable(f"{host} has a private address; set jwks_url to a server there if you trust it")
    return url


async def fetch(
    url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Ask for a JSON object, with POST if there is a form. Follows no redirects. Returns its status, and the object.

    Raises:
        Unreadable: no answer in time, one that is too large, or not a JSON object.
    """
    method = "GET" if form is None else "POST"
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx2.AsyncClient(trust_env=not is_loopback(url), follow_redirects=False, timeout=FETCH_SECONDS) as http,
            http.stream(method, url, data=form, headers={"Accept": "application/json", **(headers or {})}) as answer,
        ):
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LARGEST_DOCUMENT:
                    raise Unreadable(f"{url} answered with more than {LARGEST_DOCUMENT} bytes")
            status = answer.status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
        raise Unreadable(f"{url} does not answer: {type(error).__name__}: {error}") from None
    if 300 <= status < 400 or status >= 500:
        raise Unreadable(f"{url} answered with status {status}")
    try:
        content = json.loads(bytes(body))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Unreadable(f"{url} answered with status {status} and not with a JSON object")
    return status, content


async def read_document(url: str) -> dict[str, Any]:
    """Ask for a JSON object and return it.

    Raises:
        Unreadable: the server did not answer with one.
    """
    status, content = await fetch(url)
    if status != 200:
        raise Unreadable(f"{url} answered with status {status}")
    return content
