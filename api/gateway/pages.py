"""What the gateway itself answers on a preview's host: a small page for people, a sentence for programs."""

import html
import uuid
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response

from api.gateway.headers import HeaderList

_STYLE = (
    "body{margin:0;padding:12vh 1rem;font:1rem/1.5 system-ui,sans-serif;color-scheme:light dark}"
    "main{max-width:32rem;margin:0 auto;overflow-wrap:anywhere}h1{font-size:1.5rem;line-height:1.25}"
)


def is_navigation(method: str, headers: HeaderList) -> bool:
    """Whether a browser shows the answer as a page. Old browsers do not say so, nor do others over http."""
    sent = Headers(raw=headers)
    if method not in ("GET", "HEAD"):
        return False
    if (mode := sent.get("sec-fetch-mode")) is not None:
        return mode == "navigate"
    return "text/html" in sent.get("accept", "")


def answer(
    navigation: bool, status: int, title: str, *sentences: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A page with a title and paragraphs, or the same as text. No cache keeps it."""
    given = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
        **(headers or {}),
    }
    if not navigation:
        return Response("\n".join([f"{title}.", *sentences, ""]), status, given, "text/plain")
    paragraphs = "".join(f"<p>{html.escape(each)}</p>" for each in sentences)
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{paragraphs}</main></body></html>"
    )
    return Response(body, status, given, "text/html")


def how_to_open(build_id: uuid.UUID) -> tuple[str, str]:
    """What to do about a preview that is not open, for its founder and for a guest."""
    return (
        f"Is it your product? Open the preview again: cofounder preview {build_id}",
        "Otherwise ask the person who sent you here to open it.",
    )
