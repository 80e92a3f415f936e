"""A file of a workspace as a founder sees it: its path and its content are shown as text, whatever bytes they have."""

import re
from dataclasses import dataclass

from domain.manifest import Entry, Kind

TEXT_MOST = 1_000_000
"""Show at most this many bytes of a file's text."""

HEAD_BYTES = 8_000
"""Decide by this many bytes at the beginning of a file what it is, as git does."""

LINK_TYPE = "inode/symlink"
TEXT_TYPE = "text/plain"
BINARY_TYPE = "application/octet-stream"

_SURROGATE = re.compile("[\ud800-\udfff]")
_PICTURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


@dataclass(frozen=True)
class ShownContent:
    """A file's content. `text` is None if it is binary; `truncated`: the file goes on after the text."""

    media_type: str
    text: str | None
    truncated: bool = False


def shown_path(path: str) -> str:
    """Return the path as valid text: each byte that is not UTF-8 becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", path)


def is_shown(entry: Entry) -> bool:
    """Whether the entry is one of the product's files: not a directory, and not git's own."""
    return entry.kind is not Kind.DIRECTORY and entry.path != ".git" and not entry.path.startswith(".git/")


def picture_type(head: bytes) -> str | None:
    """Return the media type of a picture that browsers show, by the file's first bytes; None for anything else.

    SVG is text: it can have scripts.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _PICTURES if head.startswith(magic)), None)


def shown_content(content: bytes, size: int) -> ShownContent:
    """Return what is shown of a file.

    Args:
        content: its first `TEXT_MOST` bytes, or all of it.
        size: how many bytes it has.
    """
    media_type = picture_type(content)
    if media_type is not None or b"\0" in content[:HEAD_BYTES]:
        return ShownContent(media_type or BINARY_TYPE, None)
    truncated = size > len(content)
    kept = content[: _whole_characters(content)] if truncated else content
    return ShownContent(TEXT_TYPE, kept.decode("utf-8", "replace"), truncated)


def _whole_characters(content: bytes) -> int:
    """How many bytes to keep, so that no character of UTF-8 is cut."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte & 0xC0 != 0x80:  # the first byte of a character
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return len(content) - (back if length > back else 0)
    return len(content)
