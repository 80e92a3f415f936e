"""A limit on the size of request bodies. FastAPI's own limit answers in plain text; here every error is a problem."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Refuses bodies above `max_bytes` while they are read, with or without an announced length."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `receive` that counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        total = int(announced) if announced.isdecimal() else 0
        counted = 0

        async def receive_within_limit() -> Message:
            nonlocal counted
            if total <= self._max_bytes:
                message = await receive()
                counted += len(message.get("body", b""))
                if counted <= self._max_bytes:
                    return message
            raise HTTPException(413)

        await self._app(scope, receive_within_limit, send)
