"""Texts of several lines from models and tools, made safe for a terminal."""

import re

# The same set as in web/src/parts/printable.ts; tests/golden/unseen_characters.json holds both to it.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable_lines(text: object) -> str:
    """The text with its lines and tabs, without characters that move a terminal's cursor or reorder its text."""
    return _CONTROLS.sub("", str(text).replace("\r\n", "\n")).rstrip("\n")
