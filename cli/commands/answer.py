"""`cofounder answer`: the answer to a build's question."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, User, parse_build_and_text
from domain.errors import CofounderError

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_OPTIONS = ("1", "2", "3", "4")
"""Texts that choose an option instead of being an answer in words."""


@app.command(epilog='Example: cofounder answer last 2\n\nExample: cofounder answer "Use SQLite instead."')
def answer(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[BUILD] ANSWER",
            help="An option's number or your own words. Put a build's id before it unless you mean `last`.",
        ),
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Answer a build's question, which `cofounder show` shows. The build continues with your answer."""
    build, text = parse_build_and_text(words)
    choice: dict[str, object] = {"option": int(text)} if text.strip() in _OPTIONS else {"text": text}

    async def run(api: "ApiClient", output: "Output") -> None:
        build_id = await resolve_build_id(api, build)
        question = (await api.read_build(build_id))["question"]
        if question is None:
            raise CofounderError("The build has no open question. To send it a message: cofounder say …")
        stored = await api.answer(build_id, question["id"], choice)
        output.print_result(stored, f"The build continues with your answer: {stored['answer']}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
