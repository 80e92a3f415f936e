"""Requests to the servers of a private sandbox: they need its traffic token, which is a secret."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from domain.page_view import origin_of

TRAFFIC_HEADER = "e2b-traffic-access-token"
"""The header in which a private sandbox expects its token."""


@dataclass(frozen=True)
class Upstream:
    """The address of one server in a sandbox, and the token that the sandbox expects."""

    url: str
    """Scheme, host and port."""
    token: str | None = field(default=None, repr=False)
    """None if the sandbox is public, as those of older versions are."""

    def headers(self, url: str) -> dict[str, str]:
        """The headers that a request to `url` needs. Empty if that is another server, which must not get the token."""
        if self.token is None or origin_of(url) != origin_of(self.url):
            return {}
        return {TRAFFIC_HEADER: self.token}

    def at(self, path: str) -> str:
        """The URL of a path on this server, whatever the path begins with."""
        return f"{self.url}/{path.removeprefix('/')}"


def port_of(url: str) -> int:
    """The port in the sandbox that an upstream's URL names: the beginning of its host.

    Raises:
        ValueError: it names none.
    """
    return int((urlsplit(url).hostname or "").partition("-")[0])
