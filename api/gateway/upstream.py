"""Connections to the products behind previews."""

import ssl
from collections.abc import AsyncIterable, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2
from httpcore2 import AsyncNetworkBackend, AsyncNetworkStream

from clients.loopback import address_of

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0
"""A product that has not begun to answer after this many seconds is given up."""

IDLE_SECONDS = 900.0
"""An answer that sends nothing for this many seconds is cut off, as are bodies that the product does not read."""

_KEEP_SECONDS = 2.0
"""Reuse a connection for this many seconds. Less than Node's 5, which would close one just as a request is sent."""

_IDLE_CONNECTIONS = 100


class _Names(AsyncNetworkBackend):
    """Connects to names below `localhost`, which the resolver does not know.

    The connections of two sandboxes on this machine differ in the name only, so it must not be replaced any earlier:
    a request to one would be sent on a connection of the other.
    """

    def __init__(self) -> None:
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's own
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        return await self._backend.connect_tcp(address_of(host), port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class Upstreams:
    """All connections of this process to products. They follow no redirects and keep no cookies."""

    def __init__(self) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=None,  # visitors of one product must not wait for those of another
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_KEEP_SECONDS,
            network_backend=_Names(),
        )

    async def ask(
        self,
        url: str,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: AsyncIterable[bytes] | None = None,
    ) -> httpcore2.Response:
        """Send a request and return the answer, of which only the head has been read.

        Raises:
            httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException: there is no answer.
        """
        parts = urlsplit(url)
        timeouts = {"connect": CONNECT_SECONDS, "read": ANSWER_SECONDS, "write": IDLE_SECONDS}
        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target),
            headers=headers,
            content=body,
            extensions={"timeout": timeouts},
        )
        try:
            answer = await self._pool.handle_async_request(request)
        except (httpcore2.RemoteProtocolError, httpcore2.ReadError, httpcore2.WriteError):
            if body is not None or method not in ("GET", "HEAD", "OPTIONS"):
                raise
            answer = await self._pool.handle_async_request(request)  # the product had just closed that connection
        timeouts["read"] = IDLE_SECONDS
        return answer

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()
