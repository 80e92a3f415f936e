"""The pages for people: signing in, and who is signed in. Plain HTML with script and style from our own origin."""

from html import escape
from pathlib import Path
from string import Template

from fastapi import APIRouter, Response

from api.deps import ProcessResourcesDep
from api.errors import NOT_FOUND, Problem
from api.security_headers import OWN_PAGE, POLICY
from domain.issuers import Issuer

router = APIRouter(include_in_schema=False)

_PAGES = Path(__file__).parents[1] / "pages"

_FILES = {"pages.css": "text/css", "sign_in.js": "text/javascript", "home.js": "text/javascript"}
"""The files that pages load, with their media types."""

# A page of ours may load nothing from elsewhere. No cache has it, so that an update shows at once.
HEADERS = {POLICY: OWN_PAGE, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


@router.get("/sign-in")
async def sign_in(resources: ProcessResourcesDep) -> Response:
    """Signs in with the code in the address's fragment. Loading the page does not use the code up. Lists the identity
    providers."""
    return page("sign_in.html", providers="".join(map(_choice, resources.providers.for_sign_in())))


@router.get("/")
@router.get("/builds/{build_id}")
async def home() -> Response:
    """Who is signed in, and the build in the address."""
    return page("home.html")


@router.get("/pages/{name}")
async def file(name: str) -> Response:
    """A script or a style of the pages."""
    if name not in _FILES:
        raise Problem(NOT_FOUND, f"There is nothing at /pages/{name}.")
    content = (_PAGES / name).read_bytes()
    return Response(content, media_type=_FILES[name], headers={"Cache-Control": "no-cache"})


def page(name: str, status: int = 200, **parts: str) -> Response:
    """A page of ours, with the parts that stand for `$name` in it, in HTML."""
    content = Template((_PAGES / name).read_text()).substitute(parts)
    return Response(content, status, HEADERS, "text/html")


def _choice(issuer: Issuer) -> str:
    return f'<li><a class="button" href="/sign-in/{issuer.name}">Sign in with {escape(issuer.label)}</a></li>'
