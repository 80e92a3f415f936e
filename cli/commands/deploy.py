"""`cofounder deploy …`: move builds from one version of the workers to another, through Temporal."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import AsJson

if TYPE_CHECKING:  # slow to import, and `--help` does not need them
    from collections.abc import Awaitable, Callable

    from rich.console import Console

    from clients.build_workflows import BuildWorkflows
    from clients.deployments import Deployments, DeploymentState
    from services.settle import Progress
    from settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Move builds between versions of the workers (TEMPORAL_WORKER_BUILD_ID) while they run.",
)

_Version = Annotated[str, typer.Argument(metavar="VERSION", help="A worker's TEMPORAL_WORKER_BUILD_ID.")]


@app.command(epilog="Example: cofounder deploy status")
def status(as_json: AsJson = False) -> None:
    """Show the versions of the workers, and how many builds keep to each."""
    from collections import Counter

    from cli.output import Output
    from domain.names import BUILD_WORKFLOW
    from domain.versions import UNVERSIONED

    async def run(deployments: "Deployments", workflows: "BuildWorkflows") -> None:
        state = await deployments.read()
        elsewhere = await workflows.elsewhere("")
        builds = Counter(each.version for each in elsewhere if each.kind == BUILD_WORKFLOW)
        others = Counter(each.version for each in elsewhere if each.kind != BUILD_WORKFLOW)
        states = {each.build_id: str(each.state) for each in state.versions}
        versions = [*states, *sorted({*builds, *others} - {*states})]
        document = {
            "deployment": deployments.name,
            "current": state.current or UNVERSIONED,
            "ramp_percent": state.ramp_percent,
            "versions": [
                {"version": each, "state": states.get(each), "builds": builds[each], "others": others[each]}
                for each in versions
            ],
        }
        Output(as_json).print_result(document, lambda console: _print(console, state, versions, builds, others))

    _with_temporal(run)


def _print(
    console: "Console",
    state: "DeploymentState",
    versions: list[str],
    builds: "dict[str, int]",
    others: "dict[str, int]",
) -> None:
    from cli.output import print_table
    from domain.versions import UNVERSIONED

    states = {each.build_id: str(each.state) for each in state.versions}
    if state.current is None:
        states[UNVERSIONED] = "current"
        if UNVERSIONED not in versions:
            versions = [UNVERSIONED, *versions]
    rows = [[each, states.get(each, "unknown"), str(builds[each]), str(others[each])] for each in versions]
    print_table(console, ["version", "state", "builds", "previews and deliveries"], rows)
    if state.ramp_percent:
        console.print(f"The ramping version gets {state.ramp_percent:g} % of the new work.")


@app.command(name="set-current", epilog="Example: cofounder deploy set-current 2026-12-01")
def set_current(
    version: _Version,
    without_workers: Annotated[
        bool, typer.Option("--without-workers", help="Although none of its workers has asked for work yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give new builds to this version; those that run move to it between two turns.

    `unversioned` stands for workers without a version. To roll back, name the version from before.
    """
    from cli.output import Output
    from domain.versions import UNVERSIONED

    async def run(deployments: "Deployments", _: "BuildWorkflows") -> None:
        target = None if version == UNVERSIONED else version
        await deployments.set_current(target, without_workers=without_workers)

    _with_temporal(run)
    _record("current")
    Output(as_json).print_result(
        {"current": version}, f"New work goes to {version}. Move what waits: cofounder deploy settle --to {version}"
    )


@app.command(epilog="Example: cofounder deploy ramp 2026-12-01 --percent 10")
def ramp(
    version: _Version,
    percent: Annotated[float, typer.Option("--percent", min=0, max=100, help="Of the builds; 0 ends the ramp.")],
    as_json: AsJson = False,
) -> None:
    """Give a part of the builds to a version, to try it out. Builds that run move to it, too."""
    from cli.output import Output

    async def run(deployments: "Deployments", _: "BuildWorkflows") -> None:
        await deployments.set_ramping(version if percent else None, percent)

    _with_temporal(run)
    _record("ramp")
    Output(as_json).print_result(
        {"ramping": version if percent else None, "percent": percent},
        f"{version} gets {percent:g} % of the builds." if percent else "The ramp is over.",
    )


@app.command(epilog="Example: cofounder deploy settle --to 2026-12-01 --rate 20")
def settle(
    to: Annotated[str, typer.Option("--to", metavar="VERSION", help="The current version.")],
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=1000, help="Builds a second.")] = 20,
    previews: Annotated[bool, typer.Option(help="Wait for previews, too: they move once they are open.")] = True,
    as_json: AsJson = False,
) -> None:
    """Move all builds to the current version, those that sleep or wait too, and wait until none is left elsewhere.

    No sandbox is resumed by it. Then stop the workers of the other versions. The records of versions that Temporal
    calls drained are deleted; it notices some minutes later, so run it again. It can be stopped and repeated.
    """
    from cli.output import Output
    from services.settle import settle as settle_builds

    output = Output(as_json)
    shown: list[Progress] = []

    def report(left: "Progress") -> None:
        if shown[-1:] != [left]:
            shown.append(left)
            where = ", ".join(f"{count} on {version}" for version, count in left.by_version.items())
            output.note(f"{left.builds} to move, {left.previews} previews{f' ({where})' if where else ''}")

    async def run(deployments: "Deployments", workflows: "BuildWorkflows") -> None:
        settled = await settle_builds(deployments, workflows, to, rate=rate, report=report, previews=previews)
        deleted = f" Deleted the records of {', '.join(settled.deleted)}." if settled.deleted else ""
        output.print_result(
            {"version": to, "left": settled.left.by_version, "deleted": settled.deleted},
            f"All builds are on {to}.{deleted}",
        )

    _with_temporal(run)


@app.command(epilog="Example: cofounder deploy patches")
def patches(as_json: AsJson = False) -> None:
    """Count the open runs that hold up each patch of the workflows: they began before it and lack its marker."""
    from cli.output import Output, print_table
    from workflows.patches import EVERY_PATCH

    async def run(_: "Deployments", workflows: "BuildWorkflows") -> None:
        rows = []
        for patch in EVERY_PATCH:
            rows.append(
                {
                    "patch": patch.id,
                    "since": patch.since.isoformat(),
                    "dropped_in": patch.dropped_in,
                    "open_without": await workflows.count_without(patch.id, patch.workflow),
                }
            )
        cells = [[str(value) for value in row.values()] for row in rows]
        names = ["patch", "since", "may be dropped in", "open runs without it"]
        Output(as_json).print_result(rows, lambda console: print_table(console, names, cells))

    _with_temporal(run)


def _record(what: str) -> None:
    """Record in the audit that an operator changes the deployment."""
    from cli.accounts import in_database
    from db.transaction import Transaction
    from domain.audit import Action
    from services.audit import record
    from settings import load_settings

    async def run(tx: Transaction) -> None:
        await record(tx, Action.DEPLOYMENT_CHANGE, changed=[what])

    in_database(load_settings(), run)


def _with_temporal(run: "Callable[[Deployments, BuildWorkflows], Awaitable[None]]") -> None:
    """Run with clients of the namespace that the environment names.

    Raises:
        Unreachable: Temporal does not answer.
    """
    import asyncio

    from temporalio.service import RPCError

    from cli.exit_codes import Unreachable
    from clients.build_workflows import BuildWorkflows
    from clients.deployments import Deployments
    from clients.temporal import connect_temporal
    from settings import load_settings

    async def connected(settings: "Settings") -> None:
        client = await connect_temporal()
        deployments = Deployments(client, settings.temporal_deployment_name)
        try:
            await run(deployments, BuildWorkflows(client, settings.temporal_task_queue))
        except RPCError as error:
            raise Unreachable(f"Temporal does not answer ({error.message}). Try again.") from error

    asyncio.run(connected(load_settings()))
