"""The pages for people: signing in, and who is signed in. Plain HTML with script and style from our own origin."""

from pathlib import Path

from fastapi import APIRouter, Response

from api.errors import NOT_FOUND, Problem
from api.security_headers import OWN_PAGE, POLICY

router = APIRouter(include_in_schema=False)

_PAGES = Path(__file__).parents[1] / "pages"

_FILES = {"pages.css": "text/css", "sign_in.js": "text/javascript", "home.js": "text/javascript"}
"""The files that pages load, with their media types."""

# A page of ours may load nothing from elsewhere. No cache has it, so that an update shows at once.
_HEADERS = {POLICY: OWN_PAGE, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


@router.get("/sign-in")
async def sign_in() -> Response:
    """Signs in with the code in the address's fragment. Loading the page does not use the code up."""
    return _page("sign_in.html")


@router.get("/")
@router.get("/builds/{build_id}")
async def home() -> Response:
    """Who is signed in, and the build in the address."""
    return _page("home.html")


@router.get("/pages/{name}")
async def file(name: str) -> Response:
    """A script or a style of the pages."""
    if name not in _FILES:
        raise Problem(NOT_FOUND, f"There is nothing at /pages/{name}.")
    content = (_PAGES / name).read_bytes()
    return Response(content, media_type=_FILES[name], headers={"Cache-Control": "no-cache"})


def _page(name: str) -> Response:
    return Response((_PAGES / name).read_bytes(), media_type="text/html", headers=_HEADERS)
