"""`cofounder sign-ins …`: the browsers in which a user is signed in."""

import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(no_args_is_help=True, help="Show the browsers in which you are signed in, and sign them out.")


@app.command(name="list", epilog="Example: cofounder sign-ins list")
def list_(as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List the browsers that are signed in. The one used last comes first."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.list_sign_ins()

        def show(console: "Console") -> None:
            from cli.output import print_table, table_time

            if not result["sign_ins"]:
                output.note("No browser is signed in. Sign one in: cofounder open")
                return
            rows = [
                (
                    each["id"],
                    table_time(console, each["created_at"]),
                    table_time(console, each["last_used_at"]),
                    each["method"],
                )
                for each in result["sign_ins"]
            ]
            print_table(console, ("sign-in", "since", "last used", "by"), rows)

        output.print_result(result, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder sign-ins end 5a1f1d0e-8a55-4b67-9f7c-d6a1c1c7a2b4")
def end(
    sign_in: Annotated[
        uuid.UUID, typer.Argument(metavar="SIGN-IN", help="The sign-in's id; see `cofounder sign-ins list`.")
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Sign a browser out. Its next request is refused."""

    async def run(api: "ApiClient", output: "Output") -> None:
        await api.end_sign_in(str(sign_in))
        output.print_result({"ended": str(sign_in)}, f"{sign_in} is ended. That browser is signed out.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
