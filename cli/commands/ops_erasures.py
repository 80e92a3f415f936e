"""`cofounder ops erase` and `ops erasures`: over the API, so that an operator's key is enough."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands.ops import as_operator
from cli.parameters import ApiUrl, AsJson

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

acts = typer.Typer()
"""Commands of `cofounder ops` itself."""


@acts.command(epilog="Example: cofounder ops erase ada --confirm ada")
def erase(
    user_id: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    confirm: Annotated[str, typer.Option("--confirm", metavar="USER", help="The user's id once more.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Erase a founder for good: the account, and all projects that no one else is a member of.

    The account is suspended at once. What calls have cost stays in the ledger, under a random id.
    """
    from urllib.parse import quote

    async def run(api: "ApiClient", output: "Output") -> None:
        erasure = await api.write_ops("POST", f"users/{quote(user_id, safe='')}/erase", {"user_id": confirm})
        output.print_result(erasure, f"{user_id} is being erased. To see how far it is: cofounder ops erasures")

    as_operator(run, as_json=as_json, api_url=api_url)


@acts.command(epilog="Example: cofounder ops erasures")
def erasures(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """List the erasures of all users, the newest first, to compare with after a restore of the database."""
    from cli.erasures import sentence_of
    from cli.output import print_rows

    async def run(api: "ApiClient", output: "Output") -> None:
        found: list[dict[str, object]] = []
        cursor = None
        while True:
            page = await api.read_ops("erasures", limit=100, cursor=cursor)
            found += page["erasures"]
            if (cursor := page["next_cursor"]) is None:
                break
        rows = [(str(each["id"]), sentence_of(each)) for each in found]
        output.print_result(
            {"erasures": found},
            lambda console: print_rows(console, rows) if rows else console.print("Nothing was erased."),
        )

    as_operator(run, as_json=as_json, api_url=api_url)
