"""The ids of users: whatever an operator's own system calls them, as far as a header can carry it."""

MAX_CHARACTERS = 200

PATTERN = "^[!-~]+$"
"""Printable ASCII without spaces."""

RULE = f"Use 1 to {MAX_CHARACTERS} printable ASCII characters without spaces."


def is_user_id(text: str) -> bool:
    """Whether the text can be the id of a user."""
    return 1 <= len(text) <= MAX_CHARACTERS and all("!" <= character <= "~" for character in text)
