"""Resolves the names of hosts."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

RESOLVE_SECONDS = 10.0
"""Seconds that a name's resolution may take."""

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Every address of a host, IPv4 first. Raises OSError if there is none."""


async def resolve(host: str) -> Sequence[str]:
    """Ask the system's resolver for every address of a host, IPv4 first.

    Raises:
        OSError: it has none, or no server answers in time.
    """
    async with asyncio.timeout(RESOLVE_SECONDS):
        entries = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    return sorted(addresses, key=lambda address: ":" in address)
