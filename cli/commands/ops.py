"""`cofounder ops …`: what operators see of the builds of all users."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.connection import with_api
from cli.exit_codes import DONE, NOT_DONE
from cli.parameters import ApiUrl, AsJson, parse_build_id
from domain.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    help="For operators: the builds of all users, what is stuck and why, what they spend, and what is away.",
)

Json = dict[str, Any]
T = TypeVar("T")

_PAGE = 500
"""The API's largest page of builds."""

Where = Annotated[
    str,
    typer.Option(
        "--where",
        metavar="CONDITIONS",
        help="Such as 'status=sleeping and plan=partner'. Fields: status, waiting_for, dependency, plan, model, user, "
        "version, older_than_seconds, open, closed_since. Several values: status=sleeping,waiting.",
    ),
]


def as_operator(run: "Callable[[ApiClient, Output], Awaitable[T]]", *, as_json: bool, api_url: str | None) -> T:
    """Run a command with the operators' token if there is one, or else with API_TOKEN, an operator's key.

    Raises:
        InvalidInput: the API knows no such address for this token: it is not an operator's.
    """
    from cli.api_client import ApiProblem

    async def explained(api: "ApiClient", output: "Output") -> T:
        try:
            return await run(api, output)
        except ApiProblem as error:
            if error.status == 404 and str(error).startswith("There is nothing at /v1/ops"):
                raise InvalidInput(
                    "The API shows this to operators alone. Set API_OPERATOR_TOKEN to the operators' token, or "
                    "API_TOKEN to an operator's key; for `cofounder up`: . .cofounder/up/env.sh"
                ) from None
            raise

    return with_api(explained, as_json=as_json, api_url=api_url, user=None, operator=True)


@app.command(epilog="Example: cofounder ops fleet")
def fleet(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Show how all builds are: how many of each status, what is spent today, what is away or switched off."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("fleet")
        output.print_result(found, lambda console: _print_fleet(console, found))

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops builds --where 'status=waiting and dependency=model' --sort -spent")
def builds(
    where: Where = "open=true",
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="KEY",
            help="created_at, since, spent, turn, wakes_at or last_event_at; with a minus the highest first.",
        ),
    ] = "-created_at",
    limit: Annotated[int, typer.Option("--limit", min=1, help="List at most this many.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="List all of them.")] = False,
    temporal: Annotated[bool, typer.Option("--temporal", help="Print the same query for Temporal's CLI.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """List the builds of all users that match; the open ones by default."""

    async def run(api: "ApiClient", output: "Output") -> None:
        wanted = None if everything else limit
        page = await api.read_ops("builds", where=where, sort=sort, limit=min(_PAGE, wanted or _PAGE))
        listed = page["builds"]
        while page["next_cursor"] and (wanted is None or len(listed) < wanted):
            size = _PAGE if wanted is None else min(_PAGE, wanted - len(listed))
            page = await api.read_ops("builds", where=where, sort=sort, limit=size, cursor=page["next_cursor"])
            listed += page["builds"]
        result = {**page, "builds": listed}

        def show(console: "Console") -> None:
            if temporal:
                _print_query(console, result)
                return
            if not listed:
                output.note("No builds match.")
                return
            _print_builds(console, listed)
            if result["total"] > len(listed):
                _print_remark(f"{result['total']} builds match: --limit {2 * limit}, or --all.")

        output.print_result(result, show)

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops stuck")
def stuck(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """List what makes no progress, why, and what to do. Exit code 1 if there is anything."""

    async def run(api: "ApiClient", output: "Output") -> bool:
        found = await api.read_ops("stuck")
        output.print_result(found, lambda console: _print_stuck(console, found))
        return bool(found["builds"] or found["others"])

    is_stuck = as_operator(run, as_json=as_json, api_url=api_url)
    raise typer.Exit(NOT_DONE if is_stuck else DONE)


@app.command(epilog="Example: cofounder ops show 1b4e28ba-2fa1-41d2-883f-0016d3cca427")
def show(
    build: Annotated[
        str, typer.Argument(metavar="BUILD", parser=parse_build_id, help="Its id; see `cofounder ops builds`.")
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Show one build of any user: row, workflow, sandbox, permit, snapshots, ledger and last events.

    The audit says who has read it.
    """

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops(f"builds/{build}")
        output.print_result(found, lambda console: _print_whole(console, found))

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops spend --by plan --from 2026-11-01 --to 2026-11-30")
def spend(
    by: Annotated[str, typer.Option("--by", metavar="user|plan|model|day", help="What a row is.")] = "user",
    first: Annotated[str | None, typer.Option("--from", metavar="DAY", help="UTC; today by default.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="UTC; today by default.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="The number of rows at most.")] = 50,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Sum up what was spent, beside what was spent a day in the week before: the most first."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("spend", **{"by": by, "from": first, "to": last, "limit": limit})
        output.print_result(found, lambda console: _print_spend(console, found))

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops checks")
def checks(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Make the checks of `cofounder doctor` that concern servers, from the API's machine. Exit code 1 if one fails."""

    async def run(api: "ApiClient", output: "Output") -> bool:
        found = await api.read_ops("checks")
        output.print_result(found, lambda console: _print_checks(console, found["checks"]))
        return all(each["state"] != "fail" for each in found["checks"])

    is_good = as_operator(run, as_json=as_json, api_url=api_url)
    raise typer.Exit(DONE if is_good else NOT_DONE)


# ---- what people see


def _money(amount: float) -> str:
    from domain.budget import dollars

    return dollars(round(amount))


def _waits(each: Json) -> str:
    return each["waiting_for"] or each["dependency"] or ""


def _print_fleet(console: "Console", found: Json) -> None:
    from cli.output import print_rows, print_table, table_time

    if found["builds"]:
        print_table(
            console,
            ("builds", "status", "waits for", "version", "the first since"),
            [
                (
                    str(each["count"]),
                    _status(each),
                    _waits(each),
                    each["version"] or "",
                    table_time(console, each["oldest_since"]),
                )
                for each in found["builds"]
            ],
        )
    else:
        console.print("No build is open, and none has ended today.")
    spent = found["spend_today"]
    limit = spent["limit_microdollars"]
    of_limit = "without a limit" if limit is None else f"of {_money(limit)}"
    reserved = _money(spent["reserved_microdollars"])
    [whole, *others] = found["permits"]
    quota = f"of {whole['quota']}" if whole["quota"] else "without a limit"
    by_role = ", ".join(f"{each['kind']} {each['used']}" for each in others)
    reaper = found["reaper"]
    states = {None: "unknown: no schedule, or Temporal does not answer", True: "paused", False: "runs"}
    rows: list[tuple[str, str]] = [
        ("turns", f"{found['turns_last_minute']} in the last minute"),
        ("today", f"{_money(spent['spent_microdollars'])} spent, {reserved} reserved, {of_limit}"),
        *((each["key"], _money(each["spent_microdollars"])) for each in (*spent["by_plan"], *spent["by_model"])),
        ("permits", f"{whole['used']} {quota}, {whole['queued']} queued{f' ({by_role})' if by_role else ''}"),
        *((each["model"], _rates(console, each)) for each in found["rates"]),
        *(
            (each["name"], f"{each['state'].replace('_', ' ')}, {each['builds']} builds wait: {each['detail'] or ''}")
            for each in found["dependencies"]
            if each["state"] != "up" or each["builds"]
        ),
        *(
            ("off", " ".join(filter(None, (each["scope"], each["key"], f"({each['by']}: {each['reason']})"))))
            for each in found["switches"]
        ),
        ("reaper", f"{states[reaper['paused']]}{': ' + reaper['note'] if reaper['paused'] and reaper['note'] else ''}"),
        *(("alert", each["alert"]) for each in reaper["steps"] if each["alert"]),
        ("processes", _processes(found["workers"])),
    ]
    print_rows(console, rows)


def _rates(console: "Console", rates: Json) -> str:
    """What is left of a model's limits."""
    from cli.output import table_time

    known = [
        f"{rates[name]:,.0f} {what}"
        for name, what in (
            ("requests_left", "requests"),
            ("input_left", "input tokens"),
            ("output_left", "output tokens"),
        )
        if rates[name] is not None
    ]
    left = f"{', '.join(known)} left" if known else "no limit is known"
    blocked = rates["blocked_until"]
    return left if blocked is None else f"{left}, refuses calls until {table_time(console, blocked)}"


def _processes(processes: list[Json]) -> str:
    from collections import Counter

    counts = Counter(f"{each['role']} {each['version']}" for each in processes)
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none was seen in the last two minutes"


def _status(each: Json) -> "Text":
    from cli.build_rows import status_text

    return status_text({**each, "waiting_for": None, "dependency": None})


def _print_builds(console: "Console", listed: list[Json]) -> None:
    from cli.output import print_table, table_time

    rows = [
        (
            each["id"],
            each["user_id"],
            each["plan"],
            _status(each),
            _waits(each),
            str(each["turn"]),
            _money(each["spent_microdollars"]),
            table_time(console, each["since"]),
            each["version"] or "",
            each["goal"],
        )
        for each in listed
    ]
    names = ("build", "user", "plan", "status", "waits for", "turn", "spent", "since", "version", "goal")
    print_table(console, names, rows)


def _print_query(console: "Console", result: Json) -> None:
    from cli.output import print_rows

    rows = [("query", result["temporal_query"]), ("command", result["temporal_command"])]
    if result["temporal_query_left_out"]:
        rows.append(("left out", ", ".join(result["temporal_query_left_out"])))
    print_rows(console, rows)


def _print_stuck(console: "Console", found: Json) -> None:
    from cli.feed_state import printable

    if not found["builds"] and not found["others"]:
        console.print("Everything makes progress.")
    for each in found["builds"]:
        build = each["build"]
        console.print(f"{build['id']}  {build['user_id']}  {build['status']}  turn {build['turn']}", style="bold")
        _print_reasons(console, each["why"])
        if build["temporal_url"]:
            console.print(f"  {printable(build['temporal_url'])}", style="dim")
    _print_reasons(console, found["others"])


def _print_reasons(console: "Console", reasons: list[Json]) -> None:
    from cli.feed_state import printable

    for why in reasons:
        console.print(f"  {why['kind'].replace('_', ' ')}: {printable(why['detail'])}")
        console.print(f"    → {printable(why['remedy'])}")


def _print_whole(console: "Console", found: Json) -> None:
    from cli.output import local_time, print_rows, print_table

    build, workflow, permit = found["build"], found["workflow"], found["permit"]
    rows: list[tuple[str, Any]] = [
        ("build", build["id"]),
        ("user", f"{build['user_id']} ({build['plan']})"),
        ("project", f"{build['project_id']} {build['project_name']}"),
        ("goal", build["goal"]),
        ("status", f"{build['status']} {_waits(build)}".strip()),
        ("why", build["reason"]),
        ("since", local_time(build["since"])),
        ("wakes at", build["wakes_at"] and local_time(build["wakes_at"])),
        ("turn", str(build["turn"])),
        ("spent", _money(build["spent_microdollars"])),
        ("model", build["model"]),
        ("version", build["version"]),
        ("sandbox", found["sandbox_id"]),
        ("preview", found["preview_url"]),
        ("permit", permit and f"{permit['role']}, {'held' if permit['held_since'] else 'queued'}"),
        ("temporal", build["temporal_url"]),
        ("wake", found["wake_command"] if build["closed_at"] is None else None),
    ]
    print_rows(console, ((name, value) for name, value in rows if value))
    if workflow is None:
        missing = "has no workflow" if found["temporal_answers"] else "not known: Temporal does not answer"
        print_rows(console, [("workflow", missing)])
    else:
        attempt = workflow["task_attempt"]
        failing = f", its task was attempted {attempt} times" if attempt > 1 else ""
        events = f"{workflow['history_events']} events"
        print_rows(console, [("workflow", f"{workflow['status']}, run {workflow['run_id']}, {events}{failing}")])
        for each in workflow["pending_activities"]:
            failure = f": {each['last_failure']}" if each["last_failure"] else ""
            print_rows(console, [("activity", f"{each['name']}, attempt {each['attempt']}{failure}")])
    _print_reasons(console, found["why"])
    if found["snapshots"]:
        print_rows(
            console, [("snapshots", ", ".join(f"{each['number']} ({each['state']})" for each in found["snapshots"]))]
        )
    for each in found["ledger"]:
        spent = _money(each["spent_microdollars"])
        kind = f"{each['kind']}, {each['state']}"
        print_rows(console, [("ledger", f"{each['calls']} calls of {each['model']} ({kind}): {spent}")])
    print_table(
        console,
        ("event", "turn", "at", "type", "data"),
        [
            (
                str(each["id"]),
                "" if each["turn"] is None else str(each["turn"]),
                each["created_at"][:19],
                each["type"],
                " ".join(f"{name}={value}" for name, value in each["data"].items()),
            )
            for each in reversed(found["events"])
        ],
    )


def _print_spend(console: "Console", found: Json) -> None:
    from cli.output import print_table

    if not found["rows"]:
        console.print(f"Nothing was spent from {found['from']} to {found['to']}.")
        return
    is_by_day = found["by"] == "day"
    print_table(
        console,
        ("spent", *(() if is_by_day else ("a day before",)), "calls", "in", "cached", "out", found["by"]),
        [
            (
                _money(each["spent_microdollars"]),
                *(() if is_by_day else (_money(each["before_microdollars"]),)),
                str(each["calls"]),
                str(each["input_tokens"] + each["cache_write_tokens"]),
                str(each["cache_read_tokens"]),
                str(each["output_tokens"]),
                each["key"],
            )
            for each in found["rows"]
        ],
    )


def _print_checks(console: "Console", results: list[Json]) -> None:
    from checks.check import CheckResult
    from cli.doctor.checklist import print_check_result

    for each in results:
        print_check_result(console, CheckResult(each["state"], each["detail"], each["remedy"], each["name"]))


def _print_remark(text: str) -> None:
    from cli.output import console_for_people

    console_for_people(stderr=True).print(text, style="dim")
