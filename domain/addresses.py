"""Which IP addresses belong to the public internet, and which to a private network or a cloud's metadata service."""

import ipaddress

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
METADATA_SERVICES = frozenset(
    ipaddress.ip_address(address)
    for address in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Where clouds tell a virtual machine its credentials, as far as these are not link-local: Alibaba, Azure, Oracle, AWS,
Google."""


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, looking through IPv6 forms that carry an IPv4 address."""
    ip = carried_address(address)
    if ip is None or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def carried_address(address: str) -> IpAddress | None:
    """The address itself, or the IPv4 address that an IPv6 one stands for. None for what hides its target: one with a
    scope, a Teredo address, or not an address at all."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.scope_id is not None or ip.teredo:
        return None
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
