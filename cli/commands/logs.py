"""`cofounder logs`: a build's tool calls, and what one of them has printed."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_PAGE = 100
"""Turns in one request; the most that the API gives."""


@app.command(epilog="Example: cofounder logs last --call toolu_01A09q90qw90lq917835lq9")
def logs(
    build_id: BuildId,
    call: Annotated[
        str | None, typer.Option("--call", metavar="ID", help="Show this call's input and what it has returned.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new calls until the build ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: print each call as a line of JSON.")] = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List a build's tool calls, the oldest first, or show one of them."""
    if call is not None and follow:
        raise typer.BadParameter("--follow goes with the list of calls. Leave out --call.")

    async def run(api: "ApiClient", output: "Output") -> None:
        from cli.conversation_rows import print_call

        found_id = await resolve_build_id(api, build_id)
        if call is not None:
            document = await api.read_tool_call(found_id, call)
            output.print_result(document, lambda console: print_call(console, document))
            return
        last_event = (await api.read_build(found_id))["last_event_id"]
        shown = set()
        for each in await _past_calls(api, found_id):
            _print(output, each)
            if each["state"] == "done":
                shown.add(each["tool_use_id"])
        if follow:
            await _follow(api, output, found_id, last_event, shown)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


async def _past_calls(api: "ApiClient", build_id: str) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    before = None
    while True:
        page = await api.list_turns(build_id, before=before, limit=_PAGE)
        turns += page["turns"]
        before = page["next_before"]
        if before is None:
            return [{"turn": turn["number"]} | call for turn in reversed(turns) for call in turn["calls"]]


async def _follow(api: "ApiClient", output: "Output", build_id: str, after: int, shown: set[str]) -> None:
    """Print the calls that end after this event, unless they are shown."""
    async for event in api.follow(build_id, after):
        if event.type != "tool_done" or event.data.get("tool_use_id") in shown:
            continue
        shown.add(str(event.data.get("tool_use_id")))
        ended = await api.read_tool_call(build_id, str(event.data.get("tool_use_id")))
        _print(output, {name: value for name, value in ended.items() if name not in ("input", "result")})


def _print(output: "Output", call: dict[str, Any]) -> None:
    from cli.conversation_rows import call_line
    from cli.output import write_json

    if output.as_json:
        write_json(call)
    else:
        output.note(f"turn {call['turn']}  {call_line(call)}")
