"""Make text from outside fit for PostgreSQL, which rejects NUL characters and lone surrogates in text and JSONB."""

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_TOKEN = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{32,}|(?<=://)[^/\s:@]*:[^/\s@]*(?=@)")
"""A key or token: at least 32 letters and digits in one word. Or the user and password in a URL."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can store the text as it is."""
    return _UNSTORABLE.search(text) is None


def blank_tokens(text: str) -> str:
    """Replace what looks like a key, a token or the password of a URL. Ids of builds and calls stay."""
    return _TOKEN.sub(lambda found: found[0] if _ID.search(found[0]) else "***", text)


def storable(text: str, max_characters: int | None = None) -> str:
    """Replace the characters that can't be stored, and cut the text to this many characters."""
    clean = _UNSTORABLE.sub("\ufffd", text)
    return clean if max_characters is None or len(clean) <= max_characters else clean[: max_characters - 1] + "…"
