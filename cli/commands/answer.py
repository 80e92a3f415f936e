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
"""What is typed for an option rather than as an answer in words."""


@app.command(epilog='Example: cofounder answer last 2\n\nExample: cofounder answer "Use SQLite instead."')
def answer(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[BUILD] ANSWER",
            help="An option's number or your own words, and before it a build other than `last`.",
        ),
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Answer the question of a build that waits for you; it goes on with your answer. `cofounder show` shows it."""
    build, text = parse_build_and_text(words)
    given: dict[str, object] = {"option": int(text)} if text.strip() in _OPTIONS else {"text": text}

    async def run(api: "ApiClient", output: "Output") -> None:
        build_id = await resolve_build_id(api, build)
        question = (await api.read_build(build_id))["question"]
        if question is None:
            raise CofounderError("The build asks nothing at the local_time. To tell it something: cofounder say …")
        found = await api.answer(build_id, question["id"], given)
        output.print_result(found, f"The build goes on with your answer: {found['answer']}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
