"""Text from outside, made fit for PostgreSQL, which refuses NUL characters and lone surrogates in text and JSONB."""

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str, longest: int | None = None) -> str:
    """The text with what can't be stored replaced, and cut where it is longer than so many characters."""
    kept = _UNSTORABLE.sub("\ufffd", text)
    return kept if longest is None or len(kept) <= longest else kept[: longest - 1] + "…"
