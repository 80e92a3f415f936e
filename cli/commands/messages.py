"""`cofounder messages`: what was sent to a build's agent, and taking it back."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder messages last --take-back 2")
def messages(
    build_id: BuildId,
    take_back: Annotated[
        int | None, typer.Option("--take-back", metavar="N", min=1, help="Take this message back, while it is unread.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List the messages to a build's agent, or take one back that it has not read."""

    async def run(api: "ApiClient", output: "Output") -> None:
        from cli.output import print_table

        found_id = await resolve_build_id(api, build_id)
        if take_back is not None:
            await api.take_back_message(found_id, take_back)
            taken = {"build_id": found_id, "number": take_back}
            output.print_result(taken, f"Message {take_back} is taken back. The agent does not read it.")
            return
        document = await api.list_messages(found_id)
        listed = document["messages"]
        if not listed and not output.as_json:
            output.note("Nothing was sent to this build's agent yet. To say something: cofounder say")
            return
        rows = [(str(each["number"]), _state(each), each["text"]) for each in listed]
        output.print_result(document, lambda console: print_table(console, ("number", "state", "text"), rows))

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _state(message: dict[str, Any]) -> str:
    if message["withdrawn_at"] is not None:
        return "taken back"
    return "waits for the next turn" if message["turn"] is None else f"read at turn {message['turn']}"
