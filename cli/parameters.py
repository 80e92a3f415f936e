"""The arguments and options that several commands have, and how they are parsed."""

import uuid
from typing import Annotated
from urllib.parse import urlsplit

import typer

LAST = "last"
"""In place of a build's id: the user's newest build."""


def parse_build_id(text: str) -> str:
    """The id of a build, or `last`, as it was typed.

    Raises:
        BadParameter: it is neither.
    """
    if text == LAST:
        return text
    try:
        return str(uuid.UUID(text.removeprefix("build-")))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a build's id. `cofounder list` shows them.") from None


def parse_build_and_text(words: list[str]) -> tuple[str, str]:
    """The build, your newest unless one is named, and what is said to it."""
    if len(words) > 2:
        raise typer.BadParameter("Put what you say between quotes.")
    *named, text = words
    if not text.strip():
        raise typer.BadParameter("Say something.")
    return (parse_build_id(named[0]) if named else LAST), text


def _parse_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is not of the form https://host or http://host:port.")


def _parse_user(text: str) -> str:
    if not 1 <= len(text) <= 200 or not all("!" <= character <= "~" for character in text):
        raise typer.BadParameter("A user's id is 1 to 200 printable ASCII characters without a space.")
    return text


BuildId = Annotated[
    str,
    typer.Argument(metavar="BUILD", parser=parse_build_id, help=f"The build's id, or `{LAST}` for your newest build."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="For scripts: one JSON document on standard output, nothing else.")
]
ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api-url", metavar="URL", parser=_parse_url, help="The API, instead of the one at COFOUNDER_API_URL."
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        "--user", metavar="USER", parser=_parse_user, help="Speak for this user, instead of the API's default."
    ),
]
Real = Annotated[
    bool, typer.Option("--real", envvar="REAL", help="Use ANTHROPIC_API_KEY and E2B_API_KEY; costs money.")
]
Yes = Annotated[bool, typer.Option("--yes", envvar="YES", help="With --real: do not ask.")]
