"""`cofounder ops switch`, `ops limits` and `ops audit`: over the API, so that an operator's key is enough.

`cofounder switch`, `limits` and `audit` do the same in the database, for when no API runs.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.ops import as_operator
from cli.parameters import ApiUrl, AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

acts = typer.Typer()
"""Commands of `cofounder ops` itself."""

switch = typer.Typer(no_args_is_help=True, help="Switch builds off and on at once.")

limits = typer.Typer(no_args_is_help=True, help="Limit what all builds together spend in a UTC day.")

Json = dict[str, Any]

_User = Annotated[str | None, typer.Option("--user", help="Only builds of this user.")]
_Plan = Annotated[str | None, typer.Option("--plan", help="Only builds on this plan.")]
_Model = Annotated[str | None, typer.Option("--model", help="Only builds with this model.")]


@switch.command(epilog='Example: cofounder ops switch off --user ada --reason "spends ninety times as much as usual"')
def off(
    reason: Annotated[str, typer.Option("--reason", help="Why, for other operators.")],
    user: _User = None,
    plan: _Plan = None,
    model: _Model = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Let builds make no more model calls, and start no new ones. Their work is kept, and they wait."""
    from cli.operations import parse_scope, what

    scope, key = parse_scope(user, plan, model)

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.write_ops("PUT", "switches", {"scope": scope, "key": key or None, "reason": reason})
        note = f"Off: {what(scope, key)}. Builds stop before their next model call; a call in progress ends first."
        output.print_result(found, note)

    as_operator(run, as_json=as_json, api_url=api_url)


@switch.command(epilog="Example: cofounder ops switch on --user ada")
def on(
    user: _User = None, plan: _Plan = None, model: _Model = None, as_json: AsJson = False, api_url: ApiUrl = None
) -> None:
    """Switch builds on again, and notify those that wait."""
    from cli.operations import parse_scope, what

    scope, key = parse_scope(user, plan, model)

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.write_ops("DELETE", "switches", scope=scope, key=key)
        before = "" if found["was_off"] else " It was not off."
        output.print_result(found, f"On: {what(scope, key)}.{before} Builds that wait are notified.")

    as_operator(run, as_json=as_json, api_url=api_url)


@switch.command(name="list", epilog="Example: cofounder ops switch list")
def list_switches(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Show what is off, since when, and why."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("switches")
        output.print_result(found, lambda console: _print_switches(console, found))

    as_operator(run, as_json=as_json, api_url=api_url)


@limits.command(name="set", epilog="Example: cofounder ops limits set fleet_day 200")
def set_limit(
    name: Annotated[str, typer.Argument(metavar="NAME", help="fleet_day: dollars a UTC day, all builds together.")],
    value: Annotated[str, typer.Argument(metavar="AMOUNT", help="In dollars, e.g. 200; `none` removes the limit.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Set a limit. It holds at once; builds that sleep because of it are notified."""
    from cli.operations import parse_limit
    from domain.errors import InvalidInput
    from domain.limits import LimitName

    if name not in list(LimitName):
        raise InvalidInput(f"There is no limit {name}. The limits are: {', '.join(LimitName)}.")
    amount = parse_limit(value)

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.write_ops("PUT", f"limits/{name}", {"value_microdollars": amount})
        output.print_result(found, lambda console: _print_limits(console, [found]))

    as_operator(run, as_json=as_json, api_url=api_url)


@limits.command(name="list", epilog="Example: cofounder ops limits list")
def list_limits(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Show the limits, and how much of them is used today."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("limits")
        output.print_result(found, lambda console: _print_limits(console, found["limits"]))

    as_operator(run, as_json=as_json, api_url=api_url)


@acts.command(epilog="Example: cofounder ops audit --user ada --limit 50")
def audit(
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only since then, e.g. 2026-11-29.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Only what concerns this user, or what they did.")
    ] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this act, e.g. build.cancel.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="The number of entries at most.")] = 50,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """List what operators did, and what was destroyed or gave a right, newest first."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("audit", since=since, user=user, action=action, limit=limit)
        output.print_result(found, lambda console: _print_audit(console, found["entries"]))

    as_operator(run, as_json=as_json, api_url=api_url)


def _print_switches(console: "Console", found: Json) -> None:
    from cli.operations import what
    from cli.output import local_time, print_rows

    if not found["autonomous_agent"]:
        console.print("AUTONOMOUS_AGENT is false: all builds are off, whatever the switches say.")
    if not found["off"]:
        console.print("Everything is on.")
    rows = [
        (
            what(each["scope"], each["key"] or ""),
            f"off since {local_time(each['off_since'])} by {each['by']}: {each['reason']}",
        )
        for each in found["off"]
    ]
    print_rows(console, rows)


def _print_limits(console: "Console", found: list[Json]) -> None:
    from cli.output import print_rows
    from domain.budget import dollars

    for each in found:
        value = each["value_microdollars"]
        rows = [
            (each["name"], "no limit" if value is None else f"{dollars(value)} a day, all builds together"),
            ("spent", f"{dollars(each['spent_microdollars'])} today"),
            ("reserved", f"{dollars(each['reserved_microdollars'])} for calls in progress"),
        ]
        print_rows(console, rows)


def _print_audit(console: "Console", entries: list[Json]) -> None:
    from cli.output import local_time, print_table

    if not entries:
        console.print("No matching entries.")
        return
    rows = []
    for entry in entries:
        ids = {name: entry[f"{name}_id"] for name in ("user", "org", "project", "build")}
        fields = {
            name: ",".join(value) if isinstance(value, list) else value for name, value in entry["fields"].items()
        }
        concerned = " ".join(f"{name}={value}" for name, value in {**ids, **fields}.items() if value is not None)
        who = entry["actor"] if entry["credential_id"] is None else f"{entry['actor']} ({entry['credential_id']})"
        rows.append([local_time(entry["at"]), who, entry["how"], entry["action"], concerned])
    print_table(console, ["when", "who", "by", "action", "concerns"], rows)
