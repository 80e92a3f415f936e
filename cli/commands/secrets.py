"""`cofounder secrets …`: secrets that a product reads from its environment; and, for operators, their encryption."""

import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User
from domain.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    help="Set secrets of a product, such as the key of a payment service. Only its preview gets their values.",
)

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The environment variable that the product reads, e.g. STRIPE_API_KEY.")
]
_Project = Annotated[
    uuid.UUID | None, typer.Option("--project", help="The project; may be left out if you have only one.")
]

_NEXT_START = "The product has it when its preview starts the next time: cofounder preview BUILD --restart"


@app.command(name="set", epilog="Example: cofounder secrets set STRIPE_API_KEY < key.txt")
def set_(
    name: _Name, project: _Project = None, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None
) -> None:
    """Set a secret, or replace its value. It is read from standard input or a hidden prompt, and never shown again.

    The agent sees only the name: its commands and the checks of the product get `stand-in-` and the name instead.
    """
    from cli.inputs import read_secret

    value = read_secret(name)

    async def run(api: "ApiClient", output: "Output") -> None:
        project_id = await _resolve(api, project)
        stored = await api.set_secret(project_id, name, value)
        output.print_result(stored, f"{stored['name']} is set for project {project_id}. {_NEXT_START}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(name="list", epilog="Example: cofounder secrets list")
def list_(project: _Project = None, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List the names of a project's secrets."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.list_secrets(await _resolve(api, project))

        def show(console: "Console") -> None:
            from cli.output import print_rows

            if not result["secrets"]:
                console.print("No secrets. Set one: cofounder secrets set NAME")
            print_rows(console, [(each["name"], f"set {each['set_at'][:16]} UTC") for each in result["secrets"]])

        output.print_result(result, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder secrets remove STRIPE_API_KEY")
def remove(
    name: _Name, project: _Project = None, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None
) -> None:
    """Remove a secret. A preview that is open keeps it until it closes."""

    async def run(api: "ApiClient", output: "Output") -> None:
        project_id = await _resolve(api, project)
        await api.remove_secret(project_id, name)
        output.print_result({"removed": name}, f"{name} is removed from project {project_id}.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder secrets rotate")
def rotate(as_json: AsJson = False) -> None:
    """For operators: encrypt all secrets again with the first key of SECRETS_KEY (in the database at DATABASE_URL).

    Put a new key before the old ones, restart the API and the workers, rotate, then take the old ones away. Backups of
    the database still need them. Exit code 1 if a secret can't be read.
    """
    import asyncio

    from cli.accounts import database
    from cli.output import Output
    from clients.cipher import cipher_of
    from services import webhooks
    from services.product_secrets import Rotation
    from services.product_secrets import rotate as encrypt_again
    from settings import load_settings

    settings = load_settings()

    async def run() -> Rotation:
        async with database(settings) as sessions:
            rotation = await encrypt_again(sessions, cipher_of(settings))
            await webhooks.rotate(sessions, cipher_of(settings), rotation)
            return rotation

    rotation = asyncio.run(run())
    output = Output(as_json)
    output.print_result(
        {
            "key": rotation.key_id,
            "encrypted": rotation.encrypted,
            "unreadable": [{"secret": secret, "reason": reason} for secret, reason in rotation.unreadable],
        },
        f"{rotation.encrypted} secrets are encrypted again, now with the key {rotation.key_id}.",
    )
    for secret, reason in rotation.unreadable:
        output.note(f"{secret} stays as it is: {reason}.")
    if rotation.unreadable:
        raise typer.Exit(1)


async def _resolve(api: "ApiClient", project: uuid.UUID | None) -> str:
    """The project's id; the user's only project if none is named.

    Raises:
        NotFound, InvalidInput: the user has none, or several.
    """
    if project is not None:
        return str(project)
    listed = (await api.list_projects(limit=2))["projects"]
    if not listed:
        raise NotFound("There is no project yet. Start one: cofounder build --idea …")
    if len(listed) > 1:
        raise InvalidInput(
            "You have several projects. Name one with --project; `cofounder list --projects` shows them."
        )
    return str(listed[0]["id"])
