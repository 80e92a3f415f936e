"""The pages for people: the web console, and signing in, which works without the console."""

from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deps import ProcessResourcesDep, Resources
from api.errors import NOT_FOUND, Problem
from api.hosts import is_loopback
from api.origins import host_of
from api.security_headers import OWN_PAGE, POLICY
from api.web import BundleFile
from domain.issuers import Issuer
from domain.preview_address import preview_source
from settings import Settings

router = APIRouter(include_in_schema=False)

_PAGES = Path(__file__).parents[1] / "pages"

_FILES = {"icon.svg": "image/svg+xml", "pages.css": "text/css", "sign_in.js": "text/javascript"}
"""The files that pages load, with their media types."""

# A page of ours may load nothing from elsewhere. No cache has it, so that an update shows at once.
HEADERS = {POLICY: OWN_PAGE, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}

_READ: Any = {"methods": ["GET", "HEAD"]}

_FOREVER = "public, max-age=31536000, immutable"
"""For files that have a hash of their content in their name."""


@router.get("/sign-in")
async def sign_in(request: Request, resources: ProcessResourcesDep) -> Response:
    """Signs in with the code in the address's fragment. Loading the page does not use the code up. Lists the identity
    providers."""
    if (elsewhere := other_address(request, resources.settings)) is not None:
        return redirect(elsewhere)
    return page("sign_in.html", providers="".join(map(_choice, resources.providers.for_sign_in())))


@router.api_route("/", **_READ)
@router.api_route("/new", **_READ)
@router.api_route("/projects/{project_id}", **_READ)
@router.api_route("/projects/{project_id}/edit", **_READ)
@router.api_route("/builds/{build_id}", **_READ)
@router.api_route("/fleet", **_READ)
@router.api_route("/fleet/stuck", **_READ)
@router.api_route("/fleet/spend", **_READ)
@router.api_route("/fleet/controls", **_READ)
@router.api_route("/fleet/builds/{build_id}", **_READ)
@router.api_route("/fleet/users/{user_id:path}", **_READ)
@router.api_route("/usage", **_READ)
@router.api_route("/account", **_READ)
@router.api_route("/deleted/{erasure_id}", **_READ)
async def console(request: Request, resources: ProcessResourcesDep) -> Response:
    """The web console. Its script shows what belongs to the address; web/src/paths.ts builds these."""
    if (elsewhere := other_address(request, resources.settings)) is not None:
        return redirect(elsewhere)
    return _console(request.headers, resources)


@router.api_route("/assets/{path:path}", **_READ)
async def asset(path: str, request: Request, resources: ProcessResourcesDep) -> Response:
    """A script, a style or an image of the console."""
    found = resources.bundle and resources.bundle.files.get(f"assets/{path}")
    if not found:
        raise Problem(
            NOT_FOUND, f"There is nothing at /assets/{path}. Load the page again: it may be of an old version."
        )
    return _file(request.headers, found, _FOREVER)


@router.get("/pages/{name}")
async def file(name: str) -> Response:
    """A script or a style of the pages."""
    if name not in _FILES:
        raise Problem(NOT_FOUND, f"There is nothing at /pages/{name}.")
    content = (_PAGES / name).read_bytes()
    return Response(content, media_type=_FILES[name], headers={"Cache-Control": "no-cache"})


class UnknownAddress:
    """Answers requests for addresses that no route has: browsers see the console say so, programs get a problem."""

    def __init__(self, problem: ASGIApp) -> None:
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the console's page and the status 404, if a person asks."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        is_page = scope.get("method") in ("GET", "HEAD") and "text/html" in headers.get("accept", "")
        if not is_page or scope["path"].startswith("/v1/"):
            await self._problem(scope, receive, send)
            return
        answer = _console(headers, scope["app"].state.resources, 404)
        await answer(scope, receive, send)


def other_address(request: Request, settings: Settings) -> str | None:
    """The same page under PUBLIC_URL, if the browser calls this machine `localhost` and PUBLIC_URL does not, or the
    other way round. Only under PUBLIC_URL the page may change anything, and there its cookies are."""
    host, public = request.headers.get("host", ""), urlsplit(settings.public_url).netloc
    if host == public or not is_loopback(host_of(f"//{host}")) or not is_loopback(host_of(settings.public_url)):
        return None
    return f"{settings.public_url}{request.url.path}" + (f"?{request.url.query}" if request.url.query else "")


def redirect(url: str) -> Response:
    """Send the browser to another address. It takes the fragment along."""
    return Response(status_code=303, headers={**HEADERS, "Location": url})


def page(name: str, status: int = 200, **parts: str) -> Response:
    """A page of ours, with the parts that stand for `$name` in it, in HTML."""
    content = Template((_PAGES / name).read_text()).substitute(parts)
    return Response(content, status, HEADERS, "text/html")


def console_policy(settings: Settings) -> str:
    """The policy of the console. It can't turn text into HTML or scripts, and frames only previews."""
    # 'self' among the frames: the way into a private preview leads over a page of ours.
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; font-src 'self'; "
        f"connect-src 'self'; frame-src 'self' {preview_source(settings.preview_url)}; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _console(request: Headers, resources: Resources, status: int = 200) -> Response:
    if resources.bundle is None:
        return page("no_console.html", 503)
    headers = {POLICY: console_policy(resources.settings), "Referrer-Policy": "no-referrer"}
    return _file(request, resources.bundle.index, "no-cache", headers | {"X-Frame-Options": "DENY"}, status)


def _file(
    request: Headers, file: BundleFile, cache: str, headers: dict[str, str] | None = None, status: int = 200
) -> Response:
    """The file, compressed if the browser can read that; or only that the browser's copy is good."""
    headers = {"Cache-Control": cache, "ETag": file.etag, "Vary": "Accept-Encoding", **(headers or {})}
    if status == 200 and file.etag in request.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = file.content
    if file.compressed is not None and "gzip" in request.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = file.compressed, "gzip"
    return Response(content, status, headers, file.media_type)


def _choice(issuer: Issuer) -> str:
    return f'<li><a class="button" href="/sign-in/{issuer.name}">Sign in with {escape(issuer.label)}</a></li>'
