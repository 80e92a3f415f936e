"""`cofounder payload-keys …`: the keys that encrypt what Temporal stores, in the database at DATABASE_URL."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import AsJson

if TYPE_CHECKING:  # the database layer takes a second to import
    from datetime import datetime

    from db.models import PayloadKey
    from db.transaction import Transaction

app = typer.Typer(
    no_args_is_help=True, help="List and retire the keys that encrypt what Temporal stores (see docs/data.md)."
)


@app.command(name="list", epilog="Example: cofounder payload-keys list")
def list_(as_json: AsJson = False) -> None:
    """List the ids of the keys that have encrypted something, and whether PAYLOAD_KEY here has them."""
    from cli.accounts import in_database
    from cli.output import Output, print_rows
    from clients.temporal import payload_keys
    from db.payload_keys import list_keys
    from settings import load_settings

    ours = payload_keys().check_values

    async def run(tx: "Transaction") -> "list[PayloadKey]":
        return await list_keys(tx)

    listed = in_database(load_settings(), run)
    document = [
        {
            "id": key.id,
            "used_since": key.used_since.isoformat(),
            "retired_at": None if key.retired_at is None else key.retired_at.isoformat(),
            "is_here": ours.get(key.id) == key.check_value,
        }
        for key in listed
    ]
    rows = [
        (
            key.id,
            f"since {key.used_since:%Y-%m-%d}, "
            + ("retired" if key.retired_at else "here" if ours.get(key.id) == key.check_value else "not here"),
        )
        for key in listed
    ]
    Output(as_json).print_result(
        {"keys": document},
        lambda console: print_rows(console, rows) if rows else console.print("Nothing has been encrypted yet."),
    )


@app.command(epilog="Example: cofounder payload-keys retire 2026-01")
def retire(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id in PAYLOAD_KEY.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also if open workflows may need it, because the key is lost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let processes start without a key. What it has encrypted can't be read any more, so first let every workflow that
    it was used for end, and wait for the namespace's retention after that."""
    from cli.accounts import in_database
    from cli.output import Output
    from clients.temporal import payload_keys
    from db.payload_keys import list_keys, retire_key
    from domain.audit import Action
    from domain.errors import Conflict, NotFound
    from services.audit import record
    from settings import load_settings

    if payload_keys().writes == key_id:
        raise Conflict(
            f"{key_id} is the first key of PAYLOAD_KEY, which encrypts. Put a newer one in front of it first."
        )

    async def last_change(tx: "Transaction") -> "datetime | None":
        return max((key.used_since for key in await list_keys(tx) if key.id != key_id), default=None)

    settings = load_settings()
    if not force and (needing := asyncio.run(_open_since_before(in_database(settings, last_change)))):
        raise Conflict(
            f"{needing} open workflows may have been written with {key_id}: without it they can't go on. Wait until "
            "they have ended or continued in a new run. If the key is lost, use --force."
        )

    async def run(tx: "Transaction") -> None:
        if not await retire_key(tx, key_id):
            raise NotFound(f"No key {key_id} is in use. `cofounder payload-keys list` shows those that are.")
        await record(tx, Action.PAYLOAD_KEY_RETIRE, key_id=key_id)

    in_database(settings, run)
    Output(as_json).print_result({"id": key_id}, f"{key_id} is retired. Take it out of PAYLOAD_KEY.")


async def _open_since_before(moment: "datetime | None") -> int:
    """Count the open workflows that began before this moment; all open ones for None."""
    from datetime import UTC

    from clients.temporal import connect_temporal

    query = "ExecutionStatus = 'Running'"
    if moment is not None:
        query += f" AND StartTime < '{moment.astimezone(UTC).isoformat(timespec='seconds')}'"
    return (await (await connect_temporal()).count_workflows(query)).count
