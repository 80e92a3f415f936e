"""`cofounder answer`: the answer to a build's question."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, User, parse_build_and_text
from domain.errors import CofounderError

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_OPTIONS = ("1", "2", "3", "4", "5", "6")
"""Texts that choose an option instead of being an answer in words."""

UUID_CHARACTERS = 36


QuestionId = Annotated[
    str | None,
    typer.Option(
        "--question",
        metavar="ID",
        help="Which question, by the beginning of its id. Needed if the agent has asked several without waiting.",
        show_default=False,
    ),
]


@app.command(epilog='Example: cofounder answer last 2\n\nExample: cofounder answer "Use SQLite instead."')
def answer(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[BUILD] ANSWER",
            help="An option's number or your own words. Put a build's id before it unless you mean `last`.",
        ),
    ],
    question_id: QuestionId = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Answer a build's question, which `cofounder show` shows. The build continues with your answer.

    That is the question that the build waits for; if it waits for none, what its agent has asked meanwhile.
    """
    build, text = parse_build_and_text(words)
    choice: dict[str, object] = {"option": int(text)} if text.strip() in _OPTIONS else {"text": text}

    async def run(api: "ApiClient", output: "Output") -> None:
        build_id = await resolve_build_id(api, build)
        chosen = choose_question(await api.read_build(build_id), question_id)
        stored = await api.answer(build_id, chosen, choice)
        output.print_result(stored, f"The build continues with your answer: {stored['answer']}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def choose_question(build: dict[str, Any], beginning: str | None) -> str:
    """Return the id of the question to answer.

    Args:
        build: as the API describes it.
        beginning: how the id begins; a whole id is returned as it is, so that the API says what became of it.

    Raises:
        CofounderError: there is none, or more than one.
    """
    if beginning is not None and len(beginning) == UUID_CHARACTERS:
        return beginning
    waits, meanwhile = build["question"], build.get("agent_questions") or []
    candidates = [asked for asked in ([waits] if waits else []) + meanwhile if asked["id"].startswith(beginning or "")]
    if beginning is None and waits:
        candidates = [waits]
    if not candidates:
        which = "no open question" if beginning is None else f"no open question {beginning}"
        raise CofounderError(f"The build has {which}. To send it a message: cofounder say …")
    if len(candidates) > 1:
        listed = "; ".join(f"--question {asked['id'][:8]} for “{asked['problem']}”" for asked in candidates)
        raise CofounderError(f"The agent has asked {len(candidates)} questions. Choose one: {listed}")
    return str(candidates[0]["id"])
