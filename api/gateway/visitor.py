"""Who looks at a preview, and whether they still may: by the cookie of a visit, or by a key that a program sends."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from api.gateway.headers import HeaderList, cookies_named
from db.session import Access, Sessions
from db.transaction import request_transaction
from domain.errors import DatabaseUnavailable
from services.preview_access import may_visit

_TRUSTED_SECONDS = 3.0
"""The answer of the database is believed this many seconds: after that a visitor without access gets nothing."""

_CHECK_SECONDS = 10.0
"""Open streams and WebSockets are checked again after this many seconds."""

_LONGEST_OUTAGE_SECONDS = 60.0
"""They are ended after this many seconds without an answer of the database."""

_MOST_REMEMBERED = 10_000

_MOST_COOKIES = 4
"""A browser has one for each site in whose frames it shows the preview, and sends one or two of them."""

_SECURE_NAME = "__Host-cofounder-preview"
_NAME = "cofounder-preview"

Check = Callable[[], Awaitable[bool]]


class Visitor:
    """Someone who may see a preview. `check` asks the database again."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def until_lost(self) -> None:
        """Return when the visitor may not see the preview any longer."""
        known = time.monotonic()
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            try:
                if not await self._check():
                    return
                known = time.monotonic()
            except DatabaseUnavailable:
                if time.monotonic() - known > _LONGEST_OUTAGE_SECONDS:
                    return


class Visits:
    """The visits of browsers, by the token in their cookie."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions.acting(Access.everything())
        self._known: dict[tuple[uuid.UUID, str], tuple[bool, float]] = {}

    async def find(self, build_id: uuid.UUID, headers: HeaderList, *, secure: bool) -> Visitor | None:
        """The visitor whose cookie is in a request; None if there is no cookie of a visit that may go on.

        Raises:
            DatabaseUnavailable: that can't be found out now.
        """
        for token in cookies_named(headers, cookie_name(secure=secure))[:_MOST_COOKIES]:
            if await self.may_go_on(build_id, token):

                async def check(token: str = token) -> bool:
                    return await self.may_go_on(build_id, token)

                return Visitor(check)
        return None

    async def may_go_on(self, build_id: uuid.UUID, token: str) -> bool:
        """Whether the visit with this token may see the preview, as of a few seconds ago.

        Raises:
            DatabaseUnavailable: that can't be found out now.
        """
        key, now = (build_id, token), time.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[1] < _TRUSTED_SECONDS:
            return known[0]
        async with request_transaction(self._sessions) as tx:
            may = await may_visit(tx, build_id, token)
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (may, now)
        return may


def cookie_name(*, secure: bool) -> str:
    """The name of a visit's cookie. Over http to another machine the secure one is not possible."""
    return _SECURE_NAME if secure else _NAME


def entry_cookie_name(state: str, *, secure: bool) -> str:
    """The name of the cookie that binds a code to the browser that has asked for it. Each attempt has its own."""
    return f"{cookie_name(secure=secure)}-entry-{state[:16]}"


def set_cookie(name: str, value: str, seconds: int, *, secure: bool) -> str:
    """The header that sets a cookie of ours on a preview's host.

    Browsers also keep it in a frame of our console, apart from the one for the preview's own tab (`Partitioned`).
    """
    scope = "Secure; SameSite=None; Partitioned" if secure else "SameSite=Lax"
    return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; {scope}"


def may_use_cookie(scope: Scope, origin: str) -> bool:
    """Whether the cookie in a request counts: a page of the preview itself makes it, or a person follows a link.

    Otherwise any site could read the product, or open its WebSockets, in the browser of someone who may see it.

    Args:
        origin: the preview's own.
    """
    headers = Headers(raw=scope["headers"])
    claimed = headers.get("origin")
    if scope["type"] == "websocket":
        return claimed is not None and claimed.lower() == origin
    if headers.get("sec-fetch-mode") == "navigate":
        return True
    if claimed is not None and claimed.lower() != origin:
        return False
    return headers.get("sec-fetch-site") in (None, "same-origin", "none")


def is_secure(preview_url: str) -> bool:
    """Whether browsers keep secure cookies for previews: over https, and on this machine."""
    parts = urlsplit(preview_url)
    return parts.scheme == "https" or (parts.hostname or "").endswith(".localhost")
