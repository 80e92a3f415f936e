"""Make text from outside fit for PostgreSQL, which rejects NUL characters and lone surrogates in text and JSONB."""

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can store the text as it is."""
    return _UNSTORABLE.search(text) is None


def storable(text: str, max_characters: int | None = None) -> str:
    """Replace the characters that can't be stored, and cut the text to this many characters."""
    clean = _UNSTORABLE.sub("\ufffd", text)
    return clean if max_characters is None or len(clean) <= max_characters else clean[: max_characters - 1] + "…"
