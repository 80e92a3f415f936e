"""The addresses of previews: each build's has a host of its own, so that no product shares an origin with another.

PREVIEW_URL is the pattern, such as `http://*.localhost:8000`; in the place of `*` stands the build's id.
"""

import re
import uuid
from urllib.parse import urlsplit

PLACEHOLDER = "*"
"""Stands in the pattern for the build's id, which is 32 hexadecimal digits there."""


def preview_address(pattern: str, build_id: uuid.UUID | str) -> str:
    """The origin under which a build's preview is served."""
    return pattern.replace(PLACEHOLDER, uuid.UUID(str(build_id)).hex)


def preview_source(pattern: str) -> str:
    """The source that stands for all previews in a Content-Security-Policy, such as `http://*.localhost:8000`.

    There a `*` is all of a host's first label, so of `https://app-*.example.com` it is `https://*.example.com`.
    """
    scheme, _, host = pattern.partition("://")
    return f"{scheme}://{PLACEHOLDER}.{host.partition('.')[2]}"


def build_of_host(pattern: str, host: str) -> uuid.UUID | None:
    """The build whose preview a request's `Host` names, with or without a port; None if it is not a preview's host."""
    before, after = (urlsplit(pattern).hostname or "").split(PLACEHOLDER)
    name = host.lower().partition(":")[0].removesuffix(".")
    match = re.fullmatch(f"{re.escape(before)}([0-9a-f]{{32}}){re.escape(after)}", name)
    return None if match is None else uuid.UUID(match[1])


def is_related(pattern: str, public_url: str) -> bool:
    """Whether one of the domains of previews and of the API lies below the other, or they are the same.

    Then a script of a product can set cookies that browsers send to the API. Names below `localhost` share none.
    """
    previews = (urlsplit(pattern).hostname or "").partition(".")[2]
    public = (urlsplit(public_url).hostname or "").rstrip(".")
    if previews in ("", "localhost"):
        return False
    return f".{public}".endswith(f".{previews}") or f".{previews}".endswith(f".{public}")
