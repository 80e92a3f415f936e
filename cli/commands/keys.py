"""`cofounder keys …`: API keys, with which programs act for a user."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User
from domain.api_keys import LIFETIME, LONGEST_LIFETIME, LONGEST_OVERLAP, OVERLAP
from domain.identity import FOUNDER_SCOPES, Scope

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    help="Make API keys for programs, and end them. A key goes into API_TOKEN, also for `cofounder` itself.",
)

_SECONDS_PER_HOUR = 3600

_KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id; see `cofounder keys list`.")]


@app.command(epilog="Example: cofounder keys create 'the nightly export' --scope builds:read --days 30")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The program that will use the key.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help=f"What the key may do. Repeatable. Default: {', '.join(sorted(FOUNDER_SCOPES))}."),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            "--days", min=1, max=LONGEST_LIFETIME.days, help=f"Days until it expires. Default: {LIFETIME.days}."
        ),
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Make an API key and print it. It is shown only now; the API stores its hash.

    Operators make keys for others with --user.
    """

    async def run(api: "ApiClient", output: "Output") -> None:
        made = await api.create_key(name, [str(each) for each in scope or ()], days)
        output.print_result(made, lambda console: _print_made(console, made))

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(name="list", epilog="Example: cofounder keys list")
def list_(as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List the keys that work, the newest first. Their secrets can't be shown again."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.list_keys()

        def show(console: "Console") -> None:
            from cli.output import print_table, table_time

            if not result["keys"]:
                output.note("No API keys. Make one: cofounder keys create NAME")
                return
            names = ("key", "scopes", "last used", "expires", "name")
            rows = [
                (
                    each["id"],
                    " ".join(each["scopes"]),
                    table_time(console, each["last_used_at"]) if each["last_used_at"] else "never",
                    table_time(console, each["expires_at"]) if each["expires_at"] else "never",
                    each["name"] + (f" (replaced by {each['replaced_by']})" if each["replaced_by"] else ""),
                )
                for each in result["keys"]
            ]
            print_table(console, names, rows)

        output.print_result(result, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder keys rotate 0123456789abcdef --overlap 2")
def rotate(
    key: _KeyId,
    overlap: Annotated[
        float,
        typer.Option(
            "--overlap",
            min=0,
            max=LONGEST_OVERLAP.total_seconds() / _SECONDS_PER_HOUR,
            help="Hours for which the old key still works; 0 if it has leaked.",
        ),
    ] = OVERLAP.total_seconds() / _SECONDS_PER_HOUR,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Replace a key by a new one with the same name, scopes and lifetime. Both work during the overlap."""

    async def run(api: "ApiClient", output: "Output") -> None:
        made = await api.rotate_key(key, round(overlap * _SECONDS_PER_HOUR))

        def show(console: "Console") -> None:
            _print_made(console, made)
            ends = f"works for another {overlap:g} hours" if overlap else "does not work any more"
            output.note(f"The old key {key} {ends}.")

        output.print_result(made, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder keys revoke 0123456789abcdef")
def revoke(key: _KeyId, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """End a key at once, with the keys and sign-ins that were made with it."""

    async def run(api: "ApiClient", output: "Output") -> None:
        await api.revoke_key(key)
        output.print_result({"revoked": key}, f"{key} is revoked. Programs that use it are refused from now on.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _print_made(console: "Console", made: dict[str, Any]) -> None:
    from cli.output import local_time, print_rows

    key = made["key"]
    rows = [("key", key["id"]), ("scopes", " ".join(key["scopes"])), ("expires", local_time(key["expires_at"]))]
    print_rows(console, [*rows, ("name", key["name"])])
    console.print("\nThe key, shown only now. Keep it where the program reads its secrets:", style="bold")
    console.print(f"  {made['secret']}")
