"""`cofounder orgs …`: organisations, whose members share projects."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_organisation, with_api
from cli.parameters import ApiUrl, AsJson, Organisation, User
from domain.identity import Role

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    help="Share projects with others: owners change members, members build, viewers look.",
)

_Member = Annotated[str, typer.Argument(metavar="USER", help="The user's id. Users exist once they have signed in.")]


@app.command(name="list", epilog="Example: cofounder orgs list")
def list_(as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List your organisations, with your role in each."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.list_organisations()

        def show(console: "Console") -> None:
            from cli.output import print_table

            rows = [
                [each["id"], each["role"], f"{each['name']} (personal)" if each["is_personal"] else each["name"]]
                for each in result["organisations"]
            ]
            print_table(console, ("organisation", "your role", "name"), rows)

        output.print_result(result, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog='Example: cofounder orgs create "The choir"')
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Create an organisation, of which you are the owner."""

    async def run(api: "ApiClient", output: "Output") -> None:
        made = await api.create_organisation(name)
        output.print_result(made, f"{made['name']} is organisation {made['id']}. Add members: cofounder orgs add")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog='Example: cofounder orgs rename "The choir" "The big choir"')
def rename(
    organisation: Organisation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it from now on.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Give an organisation another name."""

    async def run(api: "ApiClient", output: "Output") -> None:
        renamed = await api.rename_organisation(await resolve_organisation(api, organisation), name)
        output.print_result(renamed, f"Organisation {renamed['id']} is called {renamed['name']} now.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog='Example: cofounder orgs members "The choir"')
def members(organisation: Organisation, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List an organisation's members and their roles."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.list_members(await resolve_organisation(api, organisation))

        def show(console: "Console") -> None:
            from cli.output import print_table, table_time

            rows = [[each["role"], table_time(console, each["since"]), each["user"]] for each in result["members"]]
            print_table(console, ("role", "since", "user"), rows)

        output.print_result(result, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog='Example: cofounder orgs add "The choir" bob --role viewer')
def add(
    organisation: Organisation,
    member: _Member,
    role: Annotated[
        Role, typer.Option("--role", help="owner: changes members; member: builds, and pays for it; viewer: looks.")
    ] = Role.MEMBER,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Add a user to an organisation, or change a member's role.

    If a member becomes a viewer, the open builds that they have started there are cancelled.
    """

    async def run(api: "ApiClient", output: "Output") -> None:
        changed = await api.set_member(await resolve_organisation(api, organisation), member, role)
        output.print_result(changed, f"{changed['user']} is {_with_article(changed['role'])} now.")
        _note_cancelled(output, changed)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog='Example: cofounder orgs remove "The choir" bob')
def remove(
    organisation: Organisation, member: _Member, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None
) -> None:
    """Remove a member, or leave yourself. The open builds that they have started there are cancelled."""

    async def run(api: "ApiClient", output: "Output") -> None:
        removed = await api.remove_member(await resolve_organisation(api, organisation), member)
        output.print_result(removed, f"{removed['user']} is not a member any more.")
        _note_cancelled(output, removed)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog='Example: cofounder orgs move 9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11 "The choir"')
def move(
    project: Annotated[uuid.UUID, typer.Argument(metavar="PROJECT", help="The project's id.")],
    organisation: Organisation,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Move a project, with its builds and secrets, to another organisation. You are an owner of both."""

    async def run(api: "ApiClient", output: "Output") -> None:
        moved = await api.move_project(str(project), await resolve_organisation(api, organisation))
        output.print_result(moved, f"{moved['name']} belongs to organisation {moved['organisation_id']} now.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _note_cancelled(output: "Output", changed: dict[str, Any]) -> None:
    if builds := changed["cancelled_builds"]:
        output.note(f"Cancelled, because they can't steer them any more: {', '.join(builds)}")


def _with_article(role: str) -> str:
    return f"an {role}" if role == Role.OWNER else f"a {role}"
