"""`cofounder projects …`: rename, archive, un-archive and delete projects."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    help="Rename, archive and delete projects. `cofounder list --projects` lists them.",
)

_Project = Annotated[uuid.UUID, typer.Argument(metavar="PROJECT", help="The project's id.")]

_ID = "9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11"


@app.command(epilog=f'Example: cofounder projects rename {_ID} "Pantry Pal"')
def rename(
    project: _Project,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it from now on.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Give a project another name."""
    _change(project, {"name": name}, "Project {id} is called {name} now.", as_json, api_url, user)


@app.command(epilog=f"Example: cofounder projects archive {_ID}")
def archive(project: _Project, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Leave a project out of the list of projects. It keeps all that it has, and no build of it is started."""
    sentence = "{name} is archived. To build it again: cofounder projects unarchive {id}"
    _change(project, {"archived": True}, sentence, as_json, api_url, user)


@app.command(epilog=f"Example: cofounder projects unarchive {_ID}")
def unarchive(project: _Project, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Show an archived project in the list of projects again."""
    _change(project, {"archived": False}, "{name} is not archived any more.", as_json, api_url, user)


@app.command(epilog=f'Example: cofounder projects delete {_ID} --name "Pantry Pal"')
def delete(
    project: _Project,
    name: Annotated[str, typer.Option("--name", help="The project's name, to confirm that you mean this one.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Delete a project for good, with its builds, snapshots and conversations. Nothing of it can be brought back."""

    async def run(api: "ApiClient", output: "Output") -> None:
        erasure = await api.erase_project(str(project), name)
        output.print_result(
            erasure, f"{name} is being deleted. To see how far it is: cofounder erasures show {erasure['id']}"
        )

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _change(
    project: uuid.UUID, changes: dict[str, Any], sentence: str, as_json: bool, api_url: str | None, user: str | None
) -> None:
    async def run(api: "ApiClient", output: "Output") -> None:
        changed = await api.change_project(str(project), changes)
        output.print_result(changed, sentence.format(id=changed["id"], name=changed["name"]))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
