"""Lets pages of Temporal's UI, and no others, have payloads decrypted in an operator's browser."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from settings import Settings

CODEC_PATH = "/v1/ops/codec/decode"

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "authorization, content-type, x-namespace",
    "Access-Control-Max-Age": "600",
}


def is_of_temporal_ui(path: str, headers: Headers, settings: Settings) -> bool:
    """Whether a page of TEMPORAL_UI_URL asks for payloads to be decrypted."""
    origin = headers.get("origin")
    return path == CODEC_PATH and origin is not None and origin == _origin(settings.temporal_ui_url)


def _origin(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" if parts.port in (None, usual) else f"{parts.scheme}://{host}:{parts.port}"


class TemporalUi:
    """Answers the browser's question whether a page of Temporal's UI may ask, and names that origin in the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `send` that adds the headers."""
        if scope["type"] != "http" or scope["path"] != CODEC_PATH:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not is_of_temporal_ui(scope["path"], headers, scope["app"].state.resources.settings):
            await self._app(scope, receive, send)
            return
        allowed = {"Access-Control-Allow-Origin": headers["origin"], "Access-Control-Allow-Credentials": "true"}
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={**allowed, **_PREFLIGHT, "Vary": "Origin"})(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.update(allowed)
                answer.add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, send_with_headers)
