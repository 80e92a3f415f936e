"""Addresses of this machine. Proxies from the environment are not meant for them."""

from urllib.parse import urlsplit

_ADDRESS = "127.0.0.1"
_NAMES = (_ADDRESS, "::1", "localhost")


def is_loopback(url: str | None) -> bool:
    """Whether the URL's server is on this machine, by its name or address."""
    return (urlsplit(url or "").hostname or "") in _NAMES


def address_of(host: str) -> str:
    """Return an address for `localhost` and the names below it, which browsers resolve and the resolver does not."""
    return _ADDRESS if host == "localhost" or host.endswith(".localhost") else host


def with_address(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL with `address_of` its host, and the headers that still name the host; none if nothing changed."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if address_of(host) == host:
        return url, {}
    return parts._replace(netloc=f"{_ADDRESS}:{parts.port or 80}").geturl(), {"Host": parts.netloc}
