"""Runs of the evidence gate: claiming one, and recording its sandbox and its result."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from db.models import GateRun
from db.transaction import Transaction
from domain.errors import StaleClaim


async def lock_run(tx: Transaction, build_id: uuid.UUID, number: int) -> GateRun | None:
    """Return the run's row, if it exists, locked until the transaction ends."""
    return await tx.session.get(GateRun, (build_id, number), with_for_update=True)


async def lock_claimed_run(tx: Transaction, build_id: uuid.UUID, number: int, claim: uuid.UUID) -> GateRun:
    """Return the run's row, locked until the transaction ends.

    Raises:
        StaleClaim: another attempt has claimed it, or deleted it.
    """
    run = await lock_run(tx, build_id, number)
    if run is None or run.claim != claim:
        raise StaleClaim(f"Another attempt runs evidence gate {number} now.")
    return run


async def insert_run(tx: Transaction, build_id: uuid.UUID, number: int, snapshot_number: int, claim: uuid.UUID) -> bool:
    """Insert the run's row with this claim. Return False if an earlier attempt has inserted it."""
    inserted = await tx.session.scalar(
        insert(GateRun)
        .values(build_id=build_id, number=number, snapshot_number=snapshot_number, claim=claim)
        .on_conflict_do_nothing(index_elements=["build_id", "number"])
        .returning(GateRun.number)
    )
    return inserted is not None


async def claim_run(tx: Transaction, build_id: uuid.UUID, number: int, claim: uuid.UUID) -> GateRun:
    """Take the run's row from the attempt that holds it, and return it locked.

    Raises:
        NoResultFound: there is no such row.
    """
    run = await tx.session.get_one(GateRun, (build_id, number), with_for_update=True)
    run.claim = claim
    return run


async def delete_run(tx: Transaction, run: GateRun) -> None:
    """Delete the run's row: the gate does not take place."""
    await tx.session.delete(run)


async def record_sandbox(tx: Transaction, build_id: uuid.UUID, number: int, claim: uuid.UUID, sandbox_id: str) -> None:
    """Name the run's sandbox in its row.

    Raises:
        StaleClaim: another attempt has claimed the row, or deleted it.
    """
    (await lock_claimed_run(tx, build_id, number, claim)).sandbox_id = sandbox_id


async def record_result(
    tx: Transaction,
    run: GateRun,
    findings: Sequence[str],
    tests_run: int,
    screenshots: Mapping[str, str],
    outputs: Mapping[str, str],
) -> None:
    """Write the result of a locked run.

    Args:
        screenshots: the object store's keys by viewport.
        outputs: what the findings could quote only in part, by step. A run without findings keeps none.
    """
    run.findings, run.tests_run, run.screenshots = list(findings), tests_run, dict(screenshots)
    if findings and outputs:
        run.outputs = dict(outputs)
    run.ended_at = func.now()
    await tx.session.flush()


async def outputs_of_last_run(tx: Transaction, build_id: uuid.UUID) -> tuple[int, dict[str, str]]:
    """Return the number of the build's last run, and the outputs that it kept; 0 without a run."""
    row = (
        await tx.session.execute(
            select(GateRun.number, GateRun.outputs)
            .where(GateRun.build_id == build_id)
            .order_by(GateRun.number.desc())
            .limit(1)
        )
    ).first()
    return (0, {}) if row is None else (row.number, row.outputs or {})


async def claim_judge(tx: Transaction, run: GateRun, claim: uuid.UUID, run_id: str) -> None:
    """Note in a locked run which attempt calls the judge: the claim of its call, and the workflow's run."""
    run.judge_claim, run.judge_run_id = claim, run_id
    await tx.session.flush()


async def lock_run_of_judge(tx: Transaction, build_id: uuid.UUID, number: int, claim: uuid.UUID) -> GateRun:
    """Return the run whose judge was called with this claim, locked until the transaction ends.

    Raises:
        StaleClaim: another attempt has called the judge since, or the run was deleted.
    """
    run = await lock_run(tx, build_id, number)
    if run is None or run.judge_claim != claim or run.judgement is not None:
        raise StaleClaim(f"Another attempt has called the judge of evidence gate {number}.")
    return run


async def record_judgement(tx: Transaction, run: GateRun, judgement: dict[str, Any]) -> None:
    """Write how the judge's part of a locked run ended. It stays as it is."""
    run.judgement = judgement
    await tx.session.flush()


async def count_returned(tx: Transaction, build_id: uuid.UUID) -> int:
    """How often the judge's findings have gone back to the build's agent."""
    returned = select(func.count()).where(GateRun.build_id == build_id, GateRun.judgement["returned"].as_boolean())
    return int(await tx.session.scalar(returned) or 0)


async def list_runs_with_screenshots(
    tx: Transaction, build_id: uuid.UUID, number: int | None = None
) -> Sequence[GateRun]:
    """Return the build's ended runs that have taken screenshots; only the one with this number if one is named."""
    query = select(GateRun).where(
        GateRun.build_id == build_id, GateRun.screenshots != {}, GateRun.ended_at.is_not(None)
    )
    if number is not None:
        query = query.where(GateRun.number == number)
    return (await tx.session.scalars(query)).all()


async def find_screenshots(tx: Transaction, build_id: uuid.UUID) -> dict[str, str]:
    """Return the S3 keys of the last gate run's screenshots by viewport; empty if no gate run took any."""
    keys = await tx.session.scalar(
        select(GateRun.screenshots)
        .where(GateRun.build_id == build_id, GateRun.screenshots != {})
        .order_by(GateRun.number.desc())
        .limit(1)
    )
    return keys or {}
