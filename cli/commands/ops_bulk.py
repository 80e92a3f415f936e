"""`cofounder ops wake|cancel|finish|suspend|unsuspend` and `cofounder ops bulk …`: acts on many builds."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.ops import Where, as_operator
from cli.parameters import ApiUrl, AsJson
from domain.bulk import DEFAULT_RATE, MAX_RATE

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

acts = typer.Typer()
"""Commands of `cofounder ops` itself."""

app = typer.Typer(no_args_is_help=True, help="Acts on many builds: how far they are; stop and resume them.")

Json = dict[str, Any]

_LOOK_SECONDS = 1.0

_Rate = Annotated[int, typer.Option("--rate", min=1, max=MAX_RATE, help="Builds a second.")]
_Reason = Annotated[str, typer.Option("--reason", help="Why, for other operators.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, only what would happen is shown.")]
_Run = Annotated[str, typer.Argument(metavar="RUN", help="Its id; see `cofounder ops bulk list`.")]


@acts.command(
    epilog="Example: cofounder ops wake --where 'status=sleeping and plan=partner' --reason 'model is back' --yes"
)
def wake(
    where: Where,
    reason: _Reason,
    rate: _Rate = DEFAULT_RATE,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Make all builds that match and sleep or wait check again whether they can continue."""
    _act("wake", where, reason, rate, is_wanted=yes and not dry_run, as_json=as_json, api_url=api_url)


@acts.command(epilog="Example: cofounder ops cancel --where 'user=ada and open=true' --reason 'asked for it' --yes")
def cancel(
    where: Where,
    reason: _Reason,
    rate: _Rate = DEFAULT_RATE,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Cancel all open builds that match. Their workspaces are kept as snapshots."""
    _act("cancel", where, reason, rate, is_wanted=yes and not dry_run, as_json=as_json, api_url=api_url)


@acts.command(epilog="Example: cofounder ops finish --where 'plan=partner and open=true' --reason 'it ends' --yes")
def finish(
    where: Where,
    reason: _Reason,
    rate: _Rate = DEFAULT_RATE,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Have the products of all open builds that match checked as they are. They become ready if they pass."""
    _act("finish", where, reason, rate, is_wanted=yes and not dry_run, as_json=as_json, api_url=api_url)


@acts.command(epilog="Example: cofounder ops suspend --where 'user=mallory and open=true' --reason abuse --yes")
def suspend(
    where: Where,
    reason: _Reason,
    rate: _Rate = DEFAULT_RATE,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Suspend the accounts of the users of all builds that match. `cofounder ops unsuspend` ends that."""
    _act("suspend", where, reason, rate, is_wanted=yes and not dry_run, as_json=as_json, api_url=api_url)


@acts.command(epilog="Example: cofounder ops unsuspend --where 'plan=partner' --reason 'a mistake' --yes")
def unsuspend(
    where: Where,
    reason: _Reason,
    rate: _Rate = DEFAULT_RATE,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Lift the suspension of the users of all builds that match. Builds that have ended count too."""
    _act("unsuspend", where, reason, rate, is_wanted=yes and not dry_run, as_json=as_json, api_url=api_url)


@app.command(name="list", epilog="Example: cofounder ops bulk list")
def list_(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """List acts on many builds, the newest first."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("bulk", limit=50)
        output.print_result(found, lambda console: _print_runs(console, found["runs"]))

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops bulk show 5b0e8a52-3f0c-4d55-9a31-6a2f4b1c7d10 --state failed")
def show(
    run_id: _Run,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", help="Only builds in it: pending, done, skipped, failed."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait until it has finished or is stopped.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Show how far an act on many builds is, and its builds."""

    async def run(api: "ApiClient", output: "Output") -> None:
        if follow:
            await _follow(api, output, run_id)
        found = await api.read_ops(f"bulk/{run_id}", state=state, limit=100)
        output.print_result(found, lambda console: _print_run(console, found))

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops bulk stop 5b0e8a52-3f0c-4d55-9a31-6a2f4b1c7d10")
def stop(run_id: _Run, as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Let an act on many builds go to no further build. What was done stays done."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.write_ops("POST", f"bulk/{run_id}/stop")
        output.print_result(found, f"Stopped. {_counts(found)}. To go on: cofounder ops bulk resume {run_id}")

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops bulk resume 5b0e8a52-3f0c-4d55-9a31-6a2f4b1c7d10")
def resume(run_id: _Run, as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Let an act on many builds go on, and try again what has failed."""

    async def run(api: "ApiClient", output: "Output") -> None:
        await api.write_ops("POST", f"bulk/{run_id}/resume")
        found = await _follow(api, output, run_id)
        output.print_result(found, f"{found['state'].capitalize()}. {_counts(found)}.")

    as_operator(run, as_json=as_json, api_url=api_url)


def _act(act: str, where: str, reason: str, rate: int, *, is_wanted: bool, as_json: bool, api_url: str | None) -> None:
    async def run(api: "ApiClient", output: "Output") -> None:
        body = {"act": act, "where": where, "rate_per_second": rate, "reason": reason}
        expected = await api.write_ops("POST", "bulk", {**body, "dry_run": True})
        if not is_wanted:
            output.print_result(expected, lambda console: _print_expected(console, act, expected))
            return
        output.note(f"{expected['count']} builds match; {expected['fitting']} can be reached now.")
        made = await api.create_bulk_run(body)
        found = await _follow(api, output, made["id"])
        output.print_result(found, f"{found['state'].capitalize()}. {_counts(found)}.")

    as_operator(run, as_json=as_json, api_url=api_url)


async def _follow(api: "ApiClient", output: "Output", run_id: str) -> Json:
    """Wait until a run does not run any more. An interruption leaves it running."""
    last = ""
    try:
        while True:
            found = await api.read_ops(f"bulk/{run_id}", limit=1)
            if (now := _counts(found)) != last:
                output.note(now)
                last = now
            if found["state"] != "running":
                return found
            await asyncio.sleep(_LOOK_SECONDS)
    except asyncio.CancelledError:
        output.note(
            f"The run goes on. To follow it: cofounder ops bulk show {run_id} --follow. "
            f"To stop it: cofounder ops bulk stop {run_id}"
        )
        raise


def _counts(run: Json) -> str:
    reached = f"{run['done']} of {run['total']} done, {run['skipped']} skipped, {run['failed']} failed"
    return f"{reached}, {run['pending']} left" if run["pending"] else reached


def _print_expected(console: "Console", act: str, expected: Json) -> None:
    from cli.output import print_table

    console.print(
        f"{expected['count']} builds match. `{act}` is possible for {expected['fitting']} of them now. Nothing was "
        "changed; add --yes to do it.",
        markup=False,
    )
    if expected["sample"]:
        rows = [
            (each["build_id"], each["user_id"], each["status"], each["why_not"] or act) for each in expected["sample"]
        ]
        print_table(console, ("build", "user", "status", "what happens"), rows)


def _print_runs(console: "Console", runs: list[Json]) -> None:
    from cli.output import print_table, table_time

    if not runs:
        console.print("There was no act on many builds yet.")
        return
    rows = [
        (
            each["id"],
            each["act"],
            each["state"],
            _counts(each),
            each["by"],
            table_time(console, each["created_at"]),
            each["where"],
            each["reason"],
        )
        for each in runs
    ]
    print_table(console, ("run", "act", "state", "builds", "by", "since", "where", "why"), rows)


def _print_run(console: "Console", run: Json) -> None:
    from cli.output import local_time, print_rows, print_table

    rows = {
        "run": run["id"],
        "act": f"{run['act']} where {run['where']}",
        "why": f"{run['reason']} ({run['by']}, {local_time(run['created_at'])})",
        "state": run["state"] + (f" by {run['stopped_by']}" if run["stopped_by"] else ""),
        "builds": f"{_counts(run)}, {run['rate_per_second']} a second",
    }
    print_rows(console, rows.items())
    if run["builds"]:
        builds = [
            (each["build_id"], each["user_id"], each["status"], each["state"], each["why"] or "")
            for each in run["builds"]
        ]
        print_table(console, ("build", "user", "status", "run", "why"), builds)
    if run["next_cursor"] is not None:
        console.print(f"Only the first {len(run['builds'])} are shown; --json has the cursor of the next ones.")
