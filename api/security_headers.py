"""Headers with which browsers protect what the API answers, on each response, whatever made it."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from settings import Settings

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of what is not a page: it loads nothing, and nothing shows it inside of a page."""

FILE = f"{NOTHING}; sandbox"
"""The policy of a file that someone else has made. If it is opened, it is not a page of our origin."""

OWN_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The policy of a page of ours: scripts, styles and all else are files of our own origin."""

POLICY = "Content-Security-Policy"

HEADERS: Mapping[str, str] = {
    POLICY: NOTHING,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""Of a response that has no value of its own for them."""

_HTTPS_ONLY = ("Strict-Transport-Security", "max-age=31536000")


class SecurityHeaders:
    """Adds the headers that a response does not have. The outermost part of the application, so that none is missed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `send` that adds them."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings: Settings = scope["app"].state.resources.settings

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if settings.public_url.startswith("https:"):
                    headers.setdefault(*_HTTPS_ONLY)
            await send(message)

        await self._app(scope, receive, send_with_headers)
