"""Which addresses sandboxes reach: public ones, and private ones of hosts that the operator has listed.

Not even a listed host may lead to this machine, a link-local address, or a server that Cofounder works with: anyone who
controls the host's DNS could point a sandbox at them. A name is resolved once, and the address that was checked is the
one to connect to.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from domain.addresses import METADATA_SERVICES, IpAddress, carried_address, is_public
from local.sandbox.http_head import Refused

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 15.0

_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Every address of a host. Raises OSError if there is none."""


@dataclass(frozen=True)
class OffLimits:
    """A host whose addresses no sandbox reaches, and the setting that names it."""

    setting: str
    host: str


async def resolve(host: str) -> Sequence[str]:
    """Ask the system's resolver."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in entries]


class AddressRules:
    """Decides about addresses. One for all sandboxes of a server.

    - `private_hosts`: these may be reached at private addresses.
    - `off_limits`: never reached, even if a listed host has the same address.
    - `resolve`, `also_allowed` (addresses that are reached though they are private): only tests give others.
    """

    def __init__(
        self,
        private_hosts: Iterable[str] = (),
        off_limits: Iterable[OffLimits] = (),
        *,
        resolve: Resolve = resolve,
        also_allowed: Iterable[str] = (),
    ) -> None:
        self.private_hosts = frozenset(host_name(host) for host in private_hosts)
        self._off_limits = tuple(off_limits)
        self._resolve = resolve
        self._also_allowed = frozenset(also_allowed)

    async def address_of(self, host: str) -> str:
        """The address at which to reach a host. Connect to it, and do not resolve the name again.

        Raises:
            Refused: no address may be reached, or none is known.
        """
        addresses = await self._addresses(host)
        reasons = []
        for address in addresses:
            if (reason := await self._objection(host, address)) is None:
                return address
            reasons.append(reason)
        log.warning("%s resolves to %s", host, ", ".join(addresses))
        raise Refused(f"This sandbox may not reach {host}: {reasons[0]}.")

    async def _addresses(self, host: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                return await self._resolve(host)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise Refused(f"{host} could not be reached: {str(error) or 'no answer from DNS'}", 502) from error

    async def _objection(self, host: str, address: str) -> str | None:
        """Why a host is not reached at an address, or None if it is."""
        if address in self._also_allowed:
            return None
        if kind := _never_reached(address):
            return f"its address is {kind}, which SANDBOX_PRIVATE_HOSTS never allows"
        if host not in self.private_hosts:
            if is_public(address):
                return None
            return (
                "its address is private. The operator allows that with SANDBOX_PRIVATE_HOSTS or"
                f" `cofounder local sandbox --private-host {host}`"
            )
        for each in self._off_limits:
            try:
                addresses = await self._addresses(each.host)
            except Refused:  # then it is not known to be another address
                log.warning("%s is refused because %s of %s does not resolve", host, each.host, each.setting)
                return f"the host of {each.setting} can't be resolved, so it could have the same address"
            if carried_address(address) in map(carried_address, addresses):
                return f"it has the address of {each.setting}, which SANDBOX_PRIVATE_HOSTS never allows"
        return None


def host_name(text: str) -> str:
    """A host's name in the one form in which names are compared."""
    return text.strip().lower().rstrip(".")


def _never_reached(address: str) -> str | None:
    """What makes an address one that not even a listed host may have, or None."""
    ip = carried_address(address)
    if ip is None:
        return "not a plain IPv4 or IPv6 address"
    for kind, applies in (
        ("a loopback address", ip.is_loopback),
        ("a link-local address", ip.is_link_local),
        ("a multicast address", ip.is_multicast),
        ("the unspecified address", ip.is_unspecified or ip in _THIS_NETWORK),
        ("that of a cloud's metadata service", ip in METADATA_SERVICES),
        ("an address of this machine", ip in _own_addresses()),
        ("a reserved address", ip.is_reserved),
        ("not a plain IPv4 or IPv6 address", not _is_unicast_form(address, ip)),
    ):
        if applies:
            return kind
    return None


def _is_unicast_form(address: str, ip: IpAddress) -> bool:
    """Public, or private in a plain form: IPv4, IPv4 mapped into IPv6, or unique local IPv6. Behind a 6to4 or NAT64
    address the network decides which private IPv4 address is meant."""
    if is_public(address):
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        return ip in _UNIQUE_LOCAL
    written = ipaddress.ip_address(address)
    return isinstance(written, ipaddress.IPv4Address) or written.ipv4_mapped is not None


def _own_addresses() -> set[IpAddress | None]:
    """The addresses of this machine's interfaces now: they change while the server runs."""
    return {
        carried_address(entry.address.partition("%")[0])
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    }
