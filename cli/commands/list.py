"""`cofounder list`: builds and projects."""

import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User
from domain.status import Status

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_PAGE = 100
"""The API's largest page."""

Json = dict[str, Any]


@app.command(name="list", epilog="Example: cofounder list --open --status sleeping")
def list_(
    status: Annotated[
        list[Status] | None,
        typer.Option(
            "--status", metavar="STATUS", help=f"Only builds with this status: {', '.join(Status)}. Repeatable."
        ),
    ] = None,
    project: Annotated[uuid.UUID | None, typer.Option("--project", help="Only builds of this project.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only builds that have not ended.")] = False,
    projects: Annotated[bool, typer.Option("--projects", help="List projects instead of builds.")] = False,
    archived: Annotated[bool, typer.Option("--archived", help="With --projects: those that are archived.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="List at most this many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all of them.")] = False,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Continue from the `next_cursor` of an earlier --json.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List the builds of your projects, newest first, or the projects: yours, and those of your organisations."""
    if projects and (status or project or only_open):
        raise typer.BadParameter("--status, --project and --open filter builds. Leave them out with --projects.")

    if archived and not projects:
        raise typer.BadParameter("--archived needs --projects.")

    async def run(api: "ApiClient", output: "Output") -> None:
        async def builds_page(size: int, after: str | None) -> Json:
            statuses = [str(each) for each in status or ()]
            return await api.list_builds(
                statuses=statuses,
                project_id=None if project is None else str(project),
                only_open=only_open,
                limit=size,
                cursor=after,
            )

        async def projects_page(size: int, after: str | None) -> Json:
            return await api.list_projects(archived=archived, limit=size, cursor=after)

        organisations = await _organisation_names(api) if projects and not output.as_json else {}
        count = None if everything else limit
        kind, page = ("projects", projects_page) if projects else ("builds", builds_page)
        result = await _read_pages(page, kind, count, cursor)

        def show(console: "Console") -> None:
            if projects:
                _print_projects(console, result[kind], organisations)
            else:
                _print_builds(console, result[kind])

        output.print_result(result, show)
        if not output.as_json and result["next_cursor"] is not None:
            _print_remark(f"There are more: --limit {2 * limit}, or --all.")
        elif not output.as_json and not result[kind]:
            remark = "No matching builds." if status or project or only_open else f"No {kind}."
            _print_remark(f"{remark} Start a build: cofounder build --idea …")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


async def _organisation_names(api: "ApiClient") -> dict[str, str]:
    """The names of the user's organisations by id; none if the key may not read them, or the API is an older one."""
    from cli.api_client import ApiProblem

    try:
        listed = (await api.list_organisations())["organisations"]
    except ApiProblem:
        return {}
    return {each["id"]: each["name"] for each in listed}


async def _read_pages(
    page: Callable[[int, str | None], Awaitable[Json]], kind: str, count: int | None, cursor: str | None
) -> Json:
    """Read pages until there are `count` items (None: all of them). Returns them as one page."""
    items: list[Any] = []
    while True:
        size = _PAGE if count is None else min(_PAGE, count - len(items))
        result = await page(size, cursor)
        items += result[kind]
        cursor = result["next_cursor"]
        if cursor is None or not result[kind] or (count is not None and len(items) >= count):
            return {kind: items, "next_cursor": cursor}


def _print_builds(console: "Console", builds: list[Json]) -> None:
    from cli.build_rows import status_text
    from cli.output import budget_text, print_table, table_time

    with_budget = any(build.get("budget") for build in builds)
    with_users = len({build.get("started_by") for build in builds}) > 1
    names = ["build", "status", "began", *(["by"] if with_users else []), *(["budget"] if with_budget else []), "goal"]
    rows = []
    for build in builds:
        budget = build.get("budget") or {}
        budget_cell = [budget_text(budget["percent"], budget.get("level")) if budget else ""] if with_budget else []
        user_cell = [build["started_by"]] if with_users else []
        began = table_time(console, build["created_at"])
        rows.append([build["id"], status_text(build), began, *user_cell, *budget_cell, build["goal"]])
    if rows:
        print_table(console, names, rows)


def _print_projects(console: "Console", projects: list[Json], organisations: dict[str, str]) -> None:
    """Print the projects, with the names of their organisations if the user has several."""
    from cli.output import print_table, table_time

    with_organisation = len(organisations) > 1
    rows = []
    for each in projects:
        of_organisation = [organisations.get(each["organisation_id"], "")] if with_organisation else []
        made = table_time(console, each["created_at"])
        rows.append([each["id"], str(each["last_build_version"]), made, *of_organisation, each["name"]])
    if rows:
        names = ["project", "version", "made", *(["organisation"] if with_organisation else []), "name"]
        print_table(console, names, rows)


def _print_remark(text: str) -> None:
    """Print a remark on standard error, since standard output carries data."""
    from cli.output import console_for_people

    console_for_people(stderr=True).print(text, style="dim")
