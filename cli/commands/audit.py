"""`cofounder audit`: what operators did, and what was destroyed, from the database at DATABASE_URL."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.parameters import AsJson
from domain.audit import Action

if TYPE_CHECKING:  # the database layer takes a second to import
    from rich.console import Console

    from db.models import AuditEntry
    from db.transaction import Transaction

app = typer.Typer()

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


@app.command(epilog="Example: cofounder audit --since 2026-11-29 --action build.cancel")
def audit(
    since: Annotated[
        datetime | None, typer.Option("--since", formats=_FORMATS, help="Only since then, in UTC.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Only what concerns this user, or what they did.")
    ] = None,
    action: Annotated[Action | None, typer.Option("--action", help="Only this act.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The number of entries at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """For operators: list what operators did, and what destroyed something or gave a right, newest first.

    Entries are never changed. They hold ids and names of fields, and none of what founders write.
    """
    from cli.accounts import in_database
    from cli.output import Output
    from db.audit import AuditFilter, list_entries
    from services.audit import record
    from settings import load_settings

    only = AuditFilter(None if since is None else since.replace(tzinfo=UTC), user, action)

    async def run(tx: "Transaction") -> "list[AuditEntry]":
        entries = await list_entries(tx, only, limit)
        await record(tx, Action.AUDIT_READ)
        return entries

    entries = in_database(load_settings(), run)
    Output(as_json).print_result(
        {"entries": [_json(each) for each in entries]}, lambda console: _print(console, entries)
    )


def _json(entry: "AuditEntry") -> dict[str, Any]:
    ids = {name: getattr(entry, name) for name in ("org_id", "project_id", "build_id")}
    return {
        "id": entry.id,
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "how": entry.how,
        "credential_id": entry.credential_id,
        "action": entry.action,
        "user_id": entry.user_id,
        **{name: None if value is None else str(value) for name, value in ids.items()},
        "fields": entry.fields,
        "request_id": entry.request_id,
        "ip": entry.ip,
    }


def _print(console: "Console", entries: "list[AuditEntry]") -> None:
    from cli.output import print_table

    rows = []
    for entry in entries:
        ids = {name: getattr(entry, f"{name}_id") for name in ("user", "org", "project", "build")}
        fields = {name: ",".join(value) if isinstance(value, list) else value for name, value in entry.fields.items()}
        concerned = " ".join(f"{name}={value}" for name, value in {**ids, **fields}.items() if value is not None)
        who = entry.actor if entry.credential_id is None else f"{entry.actor} ({entry.credential_id})"
        rows.append([f"{entry.at:%Y-%m-%d %H:%M:%S}", who, entry.how, entry.action, concerned])
    if rows:
        print_table(console, ["UTC", "who", "by", "action", "concerns"], rows)
    else:
        console.print("No matching entries.")
