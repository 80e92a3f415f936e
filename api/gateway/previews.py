"""The gateway of previews: answers on their hosts, and lets only those through to a product who may see it.

Order of a request: is it well-formed, who asks, may they, where is the product. Addresses below `/.cofounder` are the
gateway's own and never reach a product.
"""

import asyncio
import secrets
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode

import structlog
from fastapi import Request
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.client_address import address_key, client_address
from api.errors import UNAUTHORIZED, Problem
from api.gateway.headers import KEY_HEADER, Route, cookies_named, credentials_in
from api.gateway.pages import answer, how_to_open, is_navigation
from api.gateway.proxy import AccessLost, Lost, ProductDown, Proxy
from api.gateway.tunnel import Refusal
from api.gateway.upstream import Upstreams
from api.gateway.visitor import (
    Visitor,
    Visits,
    cookie_name,
    entry_cookie_name,
    is_secure,
    may_use_cookie,
    set_cookie,
)
from api.identity import identify
from api.limits import Limits
from clients.oidc.provider import IdentityProviders
from db.models import Preview
from db.previews import find_preview, upstream_of
from db.session import Access, Sessions
from db.transaction import request_transaction
from domain.api_keys import is_key
from domain.errors import (
    CofounderError,
    CredentialRefused,
    DatabaseUnavailable,
    IssuerUnavailable,
    NoRowSecurity,
    Refused,
)
from domain.identity import How, Identity
from domain.preview_address import build_of_host
from services.preview_access import VISIT_LIFETIME, begin_visit, may_see, state_of
from settings import Settings

log = structlog.get_logger(__name__)

_OWN_PATHS = "/.cofounder"
_ENTER = f"{_OWN_PATHS}/enter"

_ENTRY_SECONDS = 600
"""Someone may take this long to sign in on the way to a preview."""

_MOST_REQUESTS = 200
"""Requests of one preview that may be open in this process at once, streams and WebSockets included."""


class Previews:
    """Serves the previews of this process. Closed with its `close`."""

    def __init__(self, settings: Settings, sessions: Sessions, limits: Limits, providers: IdentityProviders) -> None:
        self._settings = settings
        self._limits = limits
        self._providers = providers
        self._sessions = sessions
        self._every = sessions.acting(Access.everything())
        self._secure = is_secure(settings.preview_url)
        self._scheme = settings.preview_url.partition(":")[0]
        self._visits = Visits(sessions)
        self._upstreams = Upstreams()
        self._proxy = Proxy(self._upstreams, self._is_ours)
        self._open: Counter[uuid.UUID] = Counter()
        self._ending = asyncio.Event()

    def end(self) -> None:
        """End every open stream, before the process does. Pages connect again."""
        self._ending.set()

    async def close(self) -> None:
        """Close the connections to products."""
        await self._upstreams.close()

    def build_of(self, scope: Scope) -> uuid.UUID | None:
        """The build whose preview a request is for; None if it is for the API."""
        hosts = Headers(raw=scope["headers"]).getlist("host")
        return build_of_host(self._settings.preview_url, hosts[0]) if len(hosts) == 1 else None

    async def serve(self, build_id: uuid.UUID, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a preview."""
        navigation = is_navigation(scope["method"], scope["headers"])
        try:
            refusal = await self._serve(build_id, scope, receive, send, navigation)
        except DatabaseUnavailable as error:
            refusal = answer(navigation, 503, "Try again in a minute", str(error), headers={"Retry-After": "10"})
        except _Denied as denied:
            refusal = answer(navigation, denied.status, "This preview is private", str(denied))
        except AccessLost:
            if self._ending.is_set():
                refusal = answer(navigation, 503, "Cofounder is restarting", "Try again in a few seconds.")
            else:
                refusal = answer(navigation, 403, "This preview is private", "You may not see it any longer.")
        except ProductDown as down:
            refusal = answer(navigation, down.status, "The product does not answer", *_restart(build_id))
        if refusal is not None:
            await refusal(scope, receive, send)

    async def admit(self, scope: Scope) -> tuple[Proxy, Route, Lost]:
        """Check a request for a WebSocket, and say where it leads.

        Raises:
            Refusal: it leads nowhere.
        """
        build_id = self.build_of(scope)
        if build_id is None or scope["path"].startswith(_OWN_PATHS):
            raise Refusal(404, "There are no WebSockets here.")
        try:
            visitor = await self._visitor(build_id, scope)
            preview = await self._preview(build_id)
        except DatabaseUnavailable as error:
            raise Refusal(503, str(error)) from error
        except _Denied as denied:
            raise Refusal(denied.status, str(denied)) from denied
        if visitor is None:
            raise Refusal(403, "This preview is private, and only its own pages may open its WebSockets.")
        upstream = None if preview is None else upstream_of(preview)
        if upstream is None:
            raise Refusal(503, "This preview is closed.")
        scope["client"] = (self._client(scope), 0)
        return self._proxy, Route(self._origin(scope), upstream.url, upstream.token), visitor.until_lost

    @contextmanager
    def counted(self, build_id: uuid.UUID) -> Iterator[bool]:
        """Count a request of a preview while it is open. Yields whether it is one too many."""
        self._open[build_id] += 1
        try:
            yield self._open[build_id] > _MOST_REQUESTS
        finally:
            self._open[build_id] -= 1
            if not self._open[build_id]:
                del self._open[build_id]

    async def _serve(
        self, build_id: uuid.UUID, scope: Scope, receive: Receive, send: Send, navigation: bool
    ) -> Response | None:
        """Answer a request, or return what to answer."""
        if problem := _malformed(scope):
            return answer(navigation, 400, "This is not a request that previews take", problem)
        path = scope["path"]
        if path == _ENTER and scope["method"] == "GET":
            return await self._enter(build_id, scope)
        if path == _OWN_PATHS or path.startswith(f"{_OWN_PATHS}/"):
            return answer(navigation, 404, "Not found", f"There is nothing at {_OWN_PATHS}.")
        visitor = await self._visitor(build_id, scope)
        if visitor is None:
            if navigation:
                return self._to_sign_in(build_id, scope)
            detail = "Open the preview in a browser; or send an API key in the header X-Cofounder-Key."
            return answer(False, 401, "This preview is private", detail)
        preview = await self._preview(build_id)
        upstream = None if preview is None else upstream_of(preview)
        if upstream is None:
            return _closed(navigation, build_id, preview)
        route = Route(self._origin(scope), upstream.url, upstream.token)
        with self.counted(build_id) as too_many:
            if too_many:
                sentence = f"{_MOST_REQUESTS} requests of it are open. Close other tabs with it, or wait."
                return answer(navigation, 503, "This preview is busy", sentence, headers={"Retry-After": "5"})
            known = {**scope, "client": (self._client(scope), 0)}
            await self._proxy.serve(known, receive, send, route, self._until_lost(visitor))
        return None

    def _until_lost(self, visitor: Visitor) -> Lost:
        async def wait() -> None:
            losing, ending = asyncio.create_task(visitor.until_lost()), asyncio.create_task(self._ending.wait())
            try:
                await asyncio.wait([losing, ending], return_when=asyncio.FIRST_COMPLETED)
            finally:
                losing.cancel()
                ending.cancel()

        return wait

    async def _visitor(self, build_id: uuid.UUID, scope: Scope) -> Visitor | None:
        """Who makes a request; None if nothing shows that they may see the preview.

        Raises:
            _Denied: a key or token that does not work, or may not see it.
            DatabaseUnavailable: that can't be found out now.
        """
        headers = Headers(raw=scope["headers"])
        token = headers.get(KEY_HEADER.decode())
        if token is None:
            found = credentials_in(headers.get("authorization", "").encode("latin-1"))
            token = next((each for each in found if self._is_ours(each)), None)
        if token is not None:
            identity = await self._identity(scope, token)

            async def check() -> bool:
                async with request_transaction(self._every) as tx:
                    return identity.is_operator or await may_see(tx, identity, build_id)

            if not await check():
                raise _Denied(404, f"There is no preview of build {build_id} that this key may see.")
            return Visitor(check)
        if not may_use_cookie(scope, self._origin(scope)):
            return None
        return await self._visits.find(build_id, scope["headers"], secure=self._secure)

    async def _identity(self, scope: Scope, token: str) -> Identity:
        request = Request({**scope, "type": "http", "headers": []})  # nothing but the token counts
        address = address_key(self._client(scope))
        named = Headers(raw=scope["headers"]).get("x-cofounder-user")
        try:
            try:
                identity = await identify(request, self._settings, self._sessions, self._providers, token, named)
            except (Problem, CredentialRefused) as error:
                if isinstance(error, CredentialRefused) or error.kind is UNAUTHORIZED:
                    await self._limits.note_wrong_credentials(address)
                raise
            if identity.how in (How.API_TOKEN, How.OPERATOR_TOKEN):  # people choose these, so someone may guess them
                self._limits.check_address(address)
        except DatabaseUnavailable:
            raise
        except Problem as problem:
            raise _Denied(problem.kind.status, problem.detail) from problem
        except (IssuerUnavailable, NoRowSecurity) as error:
            raise _Denied(503, str(error)) from error
        except CofounderError as error:
            raise _Denied(403 if isinstance(error, Refused) else 401, str(error)) from error
        return identity

    async def _preview(self, build_id: uuid.UUID) -> Preview | None:
        async with request_transaction(self._every) as tx:
            return await find_preview(tx, build_id)

    def _to_sign_in(self, build_id: uuid.UUID, scope: Scope) -> Response:
        """Send a browser to the API, which knows who is signed in, and which sends it back to `_enter` with a code."""
        nonce = secrets.token_urlsafe(32)
        state = state_of(nonce)
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        to = f"{path}?{query}" if query else path
        address = f"{self._settings.public_url}/previews/{build_id}/enter?{urlencode({'state': state, 'to': to})}"
        response = Response(status_code=303, headers={"Location": address, **_PRIVATE})
        name = entry_cookie_name(state, secure=self._secure)
        response.headers.append("Set-Cookie", set_cookie(name, nonce, _ENTRY_SECONDS, secure=self._secure))
        return response

    async def _enter(self, build_id: uuid.UUID, scope: Scope) -> Response:
        """Turn a code into the cookie of a visit."""
        given = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        state, to = given.get("state", ""), own_path(given.get("to", "/"))
        name = entry_cookie_name(state, secure=self._secure)
        nonces = cookies_named(scope["headers"], name)
        if not any(secrets.compare_digest(state_of(nonce), state) for nonce in nonces):
            sentence = (
                "Your browser did not keep this address's cookie. Allow cookies for it, and open the preview again."
            )
            return answer(True, 403, "This preview can't be shown", sentence)
        async with request_transaction(self._every) as tx:
            token = await begin_visit(tx, build_id, given.get("code", ""), state)
        if token is None:
            return answer(True, 403, "This took too long", "Open the preview again.")
        response = Response(status_code=303, headers={"Location": to, **_PRIVATE})
        seconds = int(VISIT_LIFETIME.total_seconds())
        visit = set_cookie(cookie_name(secure=self._secure), token, seconds, secure=self._secure)
        response.headers.append("Set-Cookie", visit)
        response.headers.append("Set-Cookie", set_cookie(name, "", 0, secure=self._secure))
        return response

    def _client(self, scope: Scope) -> str:
        """The visitor's address."""
        return client_address(scope, self._settings.trusted_proxies or ())

    def _origin(self, scope: Scope) -> str:
        """The preview's origin, as the browser sees it."""
        return f"{self._scheme}://{Headers(raw=scope['headers']).get('host', '').lower()}"

    def _is_ours(self, text: str) -> bool:
        """Whether a text is a credential for the API."""
        tokens = (self._settings.api_token, self._settings.api_operator_token)
        return is_key(text) or self._providers.is_for_us(text) or any(_equal(text, token) for token in tokens)


class PreviewHosts:
    """The outermost part of the application: the gateway answers on the hosts of previews, the API on all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to one of them."""
        if scope["type"] == "http":
            previews: Previews = scope["app"].state.resources.previews
            if (build_id := previews.build_of(scope)) is not None:
                await previews.serve(build_id, scope, receive, send)
                return
        await self._app(scope, receive, send)


@asynccontextmanager
async def open_previews(
    settings: Settings, sessions: Sessions, limits: Limits, providers: IdentityProviders
) -> AsyncIterator[Previews]:
    """Serve previews; close their connections at the end of the block."""
    previews = Previews(settings, sessions, limits, providers)
    try:
        yield previews
    finally:
        await previews.close()


class _Denied(Exception):
    """A key or token does not let its holder see a preview. Says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def own_path(path: str) -> str:
    """The path if it stays on its host, else `/`."""
    is_own = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable() and path.isascii()
    return path if is_own else "/"


def _malformed(scope: Scope) -> str | None:
    """Why a request is not passed on to a product, whose server may read it in another way than this one."""
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and b"content-length" in names:
        return "It says in two ways how long its body is."
    if not scope["raw_path"].startswith(b"/"):
        return "Its target is not a path."
    if scope["method"] in ("CONNECT", "TRACE"):
        return f"{scope['method']} is not passed on."
    return None


def _closed(navigation: bool, build_id: uuid.UUID, preview: Preview | None) -> Response:
    if preview is not None and preview.state == "opening":
        again = {"Retry-After": "5", **({"Refresh": "5"} if navigation else {})}
        sentence = "The product is being started. This page looks again every 5 seconds."
        return answer(navigation, 503, "This preview is opening", sentence, headers=again)
    return answer(navigation, HTTPStatus.SERVICE_UNAVAILABLE, "This preview is closed", *how_to_open(build_id))


def _restart(build_id: uuid.UUID) -> tuple[str, str]:
    return (
        f"Is it your product? See what it printed: cofounder preview {build_id} --log. Start it again: "
        f"cofounder preview {build_id} --restart",
        "Otherwise ask the person who sent you here.",
    )


def _equal(text: str, secret: SecretStr | None) -> bool:
    return secret is not None and secrets.compare_digest(text.encode(), secret.get_secret_value().encode())
