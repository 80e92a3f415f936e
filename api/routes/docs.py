"""The page that describes the API. Its script and style come from a locked package and not from another origin."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fastapi import APIRouter, Response

from api.security_headers import OWN_PAGE, POLICY

router = APIRouter(include_in_schema=False)

_PAGES = Path(__file__).parents[1] / "pages"

_CACHED = {"Cache-Control": "public, max-age=3600"}

_POLICY = f"{OWN_PAGE}; img-src 'self' data:".replace("img-src 'self'; ", "")
"""Swagger UI's style has its arrows as `data:` images."""


@router.get("/docs")
async def docs() -> Response:
    """Every operation of the API, to read and to try out."""
    return Response((_PAGES / "docs.html").read_bytes(), media_type="text/html", headers={POLICY: _POLICY})


@router.get("/docs/docs.js")
async def script() -> Response:
    """What the page does."""
    return _file(_PAGES / "docs.js", "text/javascript")


@router.get("/docs/swagger-ui-bundle.js")
async def swagger_script() -> Response:
    """Swagger UI."""
    return _file(_swagger("swagger-ui-bundle.js"), "text/javascript")


@router.get("/docs/swagger-ui.css")
async def swagger_style() -> Response:
    """The style of Swagger UI."""
    return _file(_swagger("swagger-ui.css"), "text/css")


@router.get("/docs/favicon-32x32.png")
async def icon() -> Response:
    """Swagger UI's icon."""
    return _file(_swagger("favicon-32x32.png"), "image/png")


def _swagger(name: str) -> Traversable:
    return files("fastapi_swagger") / "resources" / name


def _file(file: Path | Traversable, media_type: str) -> Response:
    return Response(file.read_bytes(), media_type=media_type, headers=_CACHED)
