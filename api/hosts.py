"""Answers only requests for the API's own host names: otherwise a page could give its name this server's address."""

import re
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import FOREIGN_HOST, problem_response
from api.origins import host_of
from settings import Settings

_HEALTH = ("/healthz", "/readyz")
"""Answer under any name: probes ask by the address of a machine or a pod. Neither says anything private."""

_HOST_HEADER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def accepted_hosts(settings: Settings) -> frozenset[str]:
    """The names under which the API answers. If PUBLIC_URL is on loopback, all of loopback's."""
    public = host_of(settings.public_url)
    loopback = _LOOPBACK if is_loopback(public) else frozenset()
    return frozenset({public, *(settings.allowed_hosts or ())}) | loopback


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HostCheck:
    """Refuses requests for other hosts before anything else sees them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a problem."""
        if scope["type"] != "http" or scope["path"] in _HEALTH:
            await self._app(scope, receive, send)
            return
        settings: Settings = scope["app"].state.resources.settings
        hosts = Headers(scope=scope).getlist("host")
        is_one = len(hosts) == 1 and _HOST_HEADER.fullmatch(hosts[0]) is not None
        if is_one and host_of(f"//{hosts[0]}") in accepted_hosts(settings):
            await self._app(scope, receive, send)
            return
        detail = (
            f"This API is at {settings.public_url}. Use that address; or add the host of yours to ALLOWED_HOSTS, or "
            "correct PUBLIC_URL, on the machine of the API."
        )
        await problem_response(FOREIGN_HOST, detail)(scope, receive, send)
