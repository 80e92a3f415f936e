"""`cofounder recover`: let builds go on after Temporal's namespace was lost, or the database was put back."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import AsJson

if TYPE_CHECKING:  # slow to import, and `--help` does not need them
    from cli.output import Output
    from services.recovery import Stock
    from settings import Settings

app = typer.Typer()


@app.command(epilog="Example: cofounder recover --temporal --dry-run")
def recover(
    temporal: Annotated[
        bool, typer.Option("--temporal", help="Temporal's namespace is new or empty: start the open builds there.")
    ] = False,
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore", help="The database was restored from a backup; Temporal and the object store were not."
        ),
    ] = False,
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=1000, help="Builds a second.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Carry the plan out even if there are doubts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take stock of rows, workflows, sandboxes and snapshots, print a plan, and carry it out.

    Uses DATABASE_URL, the object store, the sandbox service and Temporal directly. Stop the workers first. It can be
    repeated.
    """
    import asyncio
    import sys

    import structlog

    from cli.output import Output
    from domain.errors import InvalidInput
    from settings import load_settings

    if temporal == after_restore:
        raise InvalidInput("Say what was lost: --temporal or --after-restore.")
    settings = load_settings()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for scripts
    asyncio.run(_run(settings, Output(as_json), after_restore, rate, dry_run, yes))


async def _run(
    settings: "Settings", output: "Output", after_restore: bool, rate: float, dry_run: bool, yes: bool
) -> None:
    from cli.operator import operator_author
    from clients.build_workflows import BuildWorkflows
    from clients.object_store import ObjectStore, store_config
    from clients.sandbox import Sandboxes, sandbox_config
    from clients.sandbox_runner import WORKSPACE
    from clients.temporal import connect_temporal
    from db.session import open_sessions
    from db.transaction import transaction
    from domain.audit import Action
    from domain.errors import Refused
    from services.audit import record
    from services.recovery import Deployment, carry_out, take_stock

    client = await connect_temporal()
    sandboxes = Sandboxes(sandbox_config(settings))
    try:
        async with (
            open_sessions(settings.database_url, pool_size=4) as sessions,
            ObjectStore(store_config(settings)) as store,
        ):
            workflows = BuildWorkflows(client, settings.temporal_task_queue)
            where = Deployment(sessions, workflows, sandboxes, store, WORKSPACE, settings.snapshots_kept)
            stock = await take_stock(where, after_restore=after_restore)
            for planned in stock.plan.steps:
                output.note(f"{planned.step.replace('_', ' ')} {planned.build_id}: {planned.why}")
            for doubt in stock.plan.doubts:
                output.note(f"Doubt: {doubt}")
            failed = 0
            if not dry_run:
                if stock.plan.doubts and not yes:
                    raise Refused("Nothing was changed. Read the doubts above; if the plan is right, add --yes.")
                async with transaction(sessions.by(operator_author())) as tx:
                    await record(tx, Action.RECOVER, steps=len(stock.plan.steps), after_restore=int(after_restore))
                failed = await carry_out(
                    where,
                    stock,
                    rate=rate,
                    after_restore=after_restore,
                    report=lambda planned, error: output.note(f"{planned.build_id}: {error}") if error else None,
                )
            _print(output, stock, dry_run=dry_run, failed=failed)
    finally:
        await sandboxes.close()
    if failed:
        raise Refused(f"{failed} steps failed. Run the command again: it does what is left.")


def _print(output: "Output", stock: "Stock", *, dry_run: bool, failed: int) -> None:
    counts: dict[str, int] = {}
    for planned in stock.plan.steps:
        counts[planned.step] = counts.get(planned.step, 0) + 1
    listed = ", ".join(f"{count} x {step.replace('_', ' ')}" for step, count in counts.items()) or "nothing to do"
    text = f"Plan: {listed}. Nothing was changed." if dry_run else f"Done: {listed}."
    output.print_result(
        {"steps": counts, "doubts": list(stock.plan.doubts), "failed": failed, "changed": not dry_run}, text
    )
