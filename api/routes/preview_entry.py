"""The way into a private preview, on the API's own address: for those who are signed in here, and those with a link.

A preview's host sends browsers to `enter`, which sends them back with a code. A link's secret is in the fragment of the
page's address, which reaches no server; the page's script sends it in a body.
"""

import html
import uuid
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from api.deps import ProcessResourcesDep, Resources, address_of, require_json
from api.errors import Problem
from api.identity import identify
from api.security_headers import OWN_PAGE, POLICY
from db.session import Access
from db.transaction import request_transaction
from domain.errors import CofounderError, DatabaseUnavailable, Refused
from domain.identity import Identity
from domain.preview_address import preview_address
from services.preview_access import code_for, code_for_link

router = APIRouter(prefix="/previews", include_in_schema=False)

_PAGES = Path(__file__).parents[1] / "pages"

_HEADERS = {
    POLICY: OWN_PAGE.replace(
        "frame-ancestors 'none'", "frame-ancestors 'self'"
    ),  # the console shows previews in a frame
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}

_State = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]

_Path = Annotated[str, Query(max_length=8000)]


class LinkSecret(BaseModel):
    """The secret of a preview link, and which browser to let in where."""

    secret: str = Field(max_length=200)
    state: str = Field(pattern="^[0-9a-f]{64}$")
    to: str = Field(default="/", max_length=8000)


class Entrance(BaseModel):
    """Where the browser goes next."""

    location: str


@router.get("/preview.js")
async def script() -> Response:
    """What the page does."""
    content = (_PAGES / "preview.js").read_bytes()
    return Response(content, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


@router.get("/{build_id}")
async def link(build_id: uuid.UUID, resources: ProcessResourcesDep) -> Response:
    """Keeps the secret of a preview link for this tab, and goes on to the preview."""
    return _page(resources, build_id, 200)


@router.get("/{build_id}/enter")
async def enter(
    build_id: uuid.UUID, state: _State, request: Request, resources: ProcessResourcesDep, to: _Path = "/"
) -> Response:
    """Send a browser that is signed in back to the preview; show others how to get in."""
    identity = await _identity(request, resources)
    if identity is not None:
        async with request_transaction(resources.sessions.acting(Access.everything())) as tx:
            code = await code_for(tx, identity, build_id, state)
        if code is not None:
            location = _entrance(resources, build_id, code, state, to)
            return Response(status_code=303, headers={**_HEADERS, "Location": location})
    return _page(resources, build_id, 403, "" if identity is None else identity.user_id)


@router.post("/{build_id}/enter", dependencies=[Depends(require_json)])
async def enter_by_link(
    build_id: uuid.UUID, link: LinkSecret, request: Request, resources: ProcessResourcesDep
) -> Entrance:
    """Let a browser in that has the secret of a preview link."""
    try:
        async with request_transaction(resources.sessions.acting(Access.everything())) as tx:
            code = await code_for_link(tx, build_id, link.secret, link.state)
    except Refused:
        await resources.limits.note_wrong_credentials(address_of(request, resources.settings))
        raise
    return Entrance(location=_entrance(resources, build_id, code, link.state, link.to))


async def _identity(request: Request, resources: Resources) -> Identity | None:
    """Who is signed in in this browser, if anyone.

    Without the headers that say which page asks: a preview may, as the answer only leads to its own host, where the
    page that asked can't read it.
    """
    kept = [each for each in request.scope["headers"] if not each[0].startswith(b"sec-fetch-") and each[0] != b"origin"]
    try:
        return await identify(
            Request({**request.scope, "headers": kept}),
            resources.settings,
            resources.sessions,
            resources.providers,
            None,
            None,
        )
    except DatabaseUnavailable:
        raise
    except (Problem, CofounderError):
        return None


def _entrance(resources: Resources, build_id: uuid.UUID, code: str, state: str, to: str) -> str:
    query = urlencode({"code": code, "state": state, "to": to})
    return f"{preview_address(resources.settings.preview_url, build_id)}/.cofounder/enter?{query}"


def _page(resources: Resources, build_id: uuid.UUID, status: int, user: str = "") -> Response:
    """The page. `user`: who is signed in, and may not see the preview."""
    address = preview_address(resources.settings.preview_url, build_id)
    text = (_PAGES / "preview.html").read_text()
    for name, value in (("address", address), ("user", user)):
        text = text.replace(f"{{{{{name}}}}}", html.escape(value))
    return Response(text, status, _HEADERS, "text/html")
