"""Arguments and options that several commands share, and their parsers."""

import uuid
from typing import Annotated
from urllib.parse import urlsplit

import typer

from domain.user_id import RULE, is_user_id

LAST = "last"
"""Stands for the user's newest build in place of a build's id."""


def parse_build_id(text: str) -> str:
    """Parse a build's id or `last`.

    Raises:
        BadParameter: the text is neither.
    """
    if text == LAST:
        return text
    try:
        return str(uuid.UUID(text.removeprefix("build-")))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a build's id. Run `cofounder list` to see the ids.") from None


def parse_start(text: str) -> tuple[str, int | None]:
    """Parse `BUILD` or `BUILD:SNAPSHOT`.

    Raises:
        BadParameter: the build is neither an id nor `last`, or the snapshot is not a number.
    """
    build, colon, number = text.partition(":")
    if colon and not (number.isdecimal() and int(number)):
        raise typer.BadParameter(f"{number!r} is not a snapshot's number. Run `cofounder restore BUILD` to see them.")
    return parse_build_id(build), int(number) if colon else None


def parse_build_and_text(words: list[str]) -> tuple[str, str]:
    """Split `[BUILD] TEXT` into the build (the newest if left out) and the text.

    Raises:
        BadParameter: the text is empty, or not quoted.
    """
    if len(words) > 2:
        raise typer.BadParameter("Put the text between quotes.")
    *named, text = words
    if not text.strip():
        raise typer.BadParameter("The text is empty. Type what you want to say.")
    return (parse_build_id(named[0]) if named else LAST), text


def _parse_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is not a valid URL. Use https://host or http://host:port.")


def _parse_user(text: str) -> str:
    if not is_user_id(text):
        raise typer.BadParameter(f"{text!r} is not a valid user id. {RULE}")
    return text


BuildId = Annotated[
    str,
    typer.Argument(metavar="BUILD", parser=parse_build_id, help=f"The build's id, or `{LAST}` for your newest build."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: print one JSON document and nothing else.")]
ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api-url", metavar="URL", parser=_parse_url, help="The API's address, instead of COFOUNDER_API_URL."
    ),
]
User = Annotated[
    str | None,
    typer.Option("--user", metavar="USER", parser=_parse_user, help="Act for this user. Only operators may."),
]
Organisation = Annotated[
    str, typer.Argument(metavar="ORGANISATION", help="Its id, or its name; see `cofounder orgs list`.")
]
Real = Annotated[
    bool, typer.Option("--real", envvar="REAL", help="Use ANTHROPIC_API_KEY and E2B_API_KEY. Costs money.")
]
Yes = Annotated[bool, typer.Option("--yes", envvar="YES", help="With --real: do not ask for confirmation.")]
