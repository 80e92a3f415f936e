"""`cofounder erasures …`: the erasures that you have asked for, with their certificates."""

import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(no_args_is_help=True, help="Show what was erased, with certificates.")


@app.command(name="list", epilog="Example: cofounder erasures list")
def list_(as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List the erasures that you have asked for."""
    from cli.erasures import sentence_of
    from cli.output import print_rows

    async def run(api: "ApiClient", output: "Output") -> None:
        listed = await api.list_erasures()
        rows = [(each["id"], sentence_of(each)) for each in listed["erasures"]]
        output.print_result(
            listed,
            lambda console: print_rows(console, rows) if rows else console.print("You have no erasures."),
        )

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder erasures show 0d3c6c0e-0c52-4a57-a0bb-3c8a9d1f7a11")
def show(
    erasure: Annotated[uuid.UUID, typer.Argument(metavar="ERASURE", help="The erasure's id.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Show how far an erasure is, or its certificate. For that of an account the id is enough."""
    from cli.api_client import ApiProblem
    from cli.erasures import rows_of
    from cli.output import print_rows

    async def run(api: "ApiClient", output: "Output") -> None:
        try:
            read = await api.read_erasure(str(erasure))
        except ApiProblem as problem:
            if problem.status not in (401, 404):
                raise
            read = await api.read_certificate(str(erasure))  # of an account, whose key does not work any more
        output.print_result(read, lambda console: print_rows(console, rows_of(read)))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
