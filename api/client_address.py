"""The address of a client: that of its connection, unless a proxy which the settings name has passed it on."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope


def client_address(scope: Scope, trusted_proxies: Sequence[str]) -> str:
    """The client's address; empty if the connection has none.

    Proxies add the address of the client that connects to them at the end of `X-Forwarded-For`. So the last one that is
    not a trusted proxy's is the client's, and everything before it is only what the client says.

    Args:
        trusted_proxies: addresses and networks.
    """
    client = scope.get("client")
    address = str(client[0]) if client else ""
    forwarded = [
        part.strip()
        for line in Headers(scope=scope).getlist("x-forwarded-for")
        for part in line.split(",")
        if part.strip()
    ]
    while forwarded and _is_in(address, trusted_proxies):
        before = forwarded.pop()
        if _parse(before) is None:
            break
        address = before
    return address


def address_key(address: str) -> str:
    """By what an address is counted: an IPv6 client has a whole /64 to choose from."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, 64), strict=False))
    return address


def _is_in(address: str, networks: Sequence[str]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in ip_network(each) for each in networks)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None
