"""`cofounder account …`: delete your account."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    help="Delete your account. `cofounder me` shows it, `cofounder export` saves what is known of you.",
)


@app.callback()
def group() -> None:
    """Keep `delete` a command of its own: Typer would leave its name out."""


@app.command(epilog="Example: cofounder account delete --confirm ada")
def delete(
    confirm: Annotated[
        str, typer.Option("--confirm", metavar="USER", help="Your user's id, as `cofounder me` shows it.")
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Delete your account for good, with all projects that no one else is a member of. Nothing can be brought back.

    Save what you want to keep first: `cofounder export PROJECT`, and `cofounder export`.
    """

    async def run(api: "ApiClient", output: "Output") -> None:
        erasure = await api.erase_account(confirm)
        output.print_result(
            erasure,
            f"{confirm} is being deleted. Your key will stop working soon. Keep this id: it is the only way to "
            f"the certificate. To see how far it is: cofounder erasures show {erasure['id']}",
        )

    with_api(run, as_json=as_json, api_url=api_url, user=user)
