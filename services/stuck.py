"""What makes no progress, and why: builds by their rows and workflows, sandboxes, the reaper, workers."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from temporalio.service import RPCError

from clients.fleet_workflows import FleetWorkflows, WorkflowView
from clients.sandbox import ListedSandbox, Sandboxes
from db.fleet_builds import FleetBuild, doubtful_builds, find_fleet_builds
from db.operator_figures import reaper_steps, running_processes
from db.reaper import sandbox_owners
from db.session import Sessions
from db.transaction import Transaction, request_transaction
from domain.errors import CofounderError
from domain.formats import ALIVE_SECONDS
from domain.stuck import LATE, BuildFacts, StuckKind, Why, WorkflowFacts, find_reasons, is_suspicious
from services.fleet import ask_temporal

BUILDS_MAX = 500
"""So many builds that may be stuck are looked at, those first of which nothing was heard the longest."""

_ASKED_MAX = 100
"""So many workflows are described."""

_AT_ONCE = 10
_SANDBOXES_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StuckBuild:
    """A build that makes no progress, and why."""

    build: FleetBuild
    why: Sequence[Why]


@dataclass(frozen=True)
class Stuck:
    """All that makes no progress."""

    builds: Sequence[StuckBuild]
    others: Sequence[Why]


async def find_stuck(
    sessions: Sessions, workflows: FleetWorkflows, sandboxes: Sandboxes | None, now: datetime
) -> Stuck:
    """Find what makes no progress. `sessions` see every row; `sandboxes` is None if this process can't list them."""
    problems = await ask_temporal(workflows.with_problems())
    async with request_transaction(sessions) as tx:
        doubtful = await doubtful_builds(tx, now, BUILDS_MAX, list(problems or ()))
        steps = await reaper_steps(tx)
        processes = await running_processes(tx, ALIVE_SECONDS)
    asked = [build for build in doubtful if is_suspicious(build, now)][:_ASKED_MAX]
    views = {} if problems is None else await _describe(workflows, asked)
    reasons = {}
    for build in doubtful:
        build_id = uuid.UUID(build.build_id)
        view = views.get(build_id)
        facts = WorkflowFacts(
            problems=(problems or {}).get(build_id, view.problems if view is not None else ()),
            pending=() if view is None else view.pending,
        )
        if why := find_reasons(build, facts, now):
            reasons[build_id] = why
    others = [Why(StuckKind.REAPER, step.alert, "See: cofounder ops checks") for step in steps if step.alert]
    if not any(process.role == "worker" for process in processes):
        detail = "No worker was seen in the last two minutes, so no build makes progress."
        others.append(Why(StuckKind.NO_WORKER, detail, "Start a worker: python -m worker"))
    if problems is None:
        detail = "Temporal does not answer, so its part is missing here."
        others.append(Why(StuckKind.TEMPORAL, detail, "See: cofounder ops checks"))
    if sandboxes is not None:
        others += await _unused_sandboxes(sessions, sandboxes, now)
    async with request_transaction(sessions) as tx:
        builds = await find_fleet_builds(tx, list(reasons))
    return Stuck([StuckBuild(build, reasons[build.id]) for build in builds], others)


@dataclass(frozen=True)
class WorkflowAnswer:
    """A build's workflow, if there is one, and whether Temporal has answered."""

    workflow: WorkflowView | None
    is_known: bool


async def ask_for_workflow(workflows: FleetWorkflows, build_id: uuid.UUID) -> WorkflowAnswer:
    """Ask Temporal for a build's workflow."""

    async def describe() -> WorkflowAnswer:
        return WorkflowAnswer(await workflows.describe(build_id), is_known=True)

    return await ask_temporal(describe()) or WorkflowAnswer(None, is_known=False)


async def reasons_of(tx: Transaction, build_id: uuid.UUID, answer: WorkflowAnswer, now: datetime) -> list[Why]:
    """Why one build makes no progress; nothing if it does, or may wait, or has ended."""
    view = answer.workflow
    facts = WorkflowFacts() if view is None else WorkflowFacts(view.problems, view.pending)
    doubtful = await doubtful_builds(tx, now, 1, [build_id], only=build_id)
    return [why for build in doubtful for why in find_reasons(build, facts, now)]


async def _describe(workflows: FleetWorkflows, builds: Sequence[BuildFacts]) -> dict[uuid.UUID, WorkflowView]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def describe(build_id: uuid.UUID) -> WorkflowView | None:
        async with free:
            try:
                return await workflows.describe(build_id)
            except (RPCError, RuntimeError) as error:
                log.warning("a workflow can't be described", build_id=str(build_id), error=error)
                return None

    ids = [uuid.UUID(build.build_id) for build in builds]
    views = await ask_temporal(asyncio.gather(*(describe(build_id) for build_id in ids)))
    return {build_id: view for build_id, view in zip(ids, views or (), strict=False) if view is not None}


async def _unused_sandboxes(sessions: Sessions, sandboxes: Sandboxes, now: datetime) -> list[Why]:
    """Running sandboxes of builds that have ended and have no preview. The reaper ends them after a while."""
    try:
        async with asyncio.timeout(_SANDBOXES_SECONDS):
            listed = await sandboxes.list_all()
    except (CofounderError, TimeoutError) as error:
        log.warning("sandboxes can't be listed", error=error)
        return []
    old = {each: _build_of(each) for each in listed if each.state == "running" and now - each.started_at > LATE}
    async with request_transaction(sessions) as tx:
        owners = await sandbox_owners(tx, [build_id for build_id in old.values() if build_id is not None])
    found = []
    for sandbox, build_id in old.items():
        owner = None if build_id is None else owners.get(build_id)  # without one it is another deployment's
        if owner is not None and not owner.is_open and not owner.is_previewed:
            detail = f"The sandbox {sandbox.id} ({sandbox.role}) runs, and its build {build_id} has ended."
            remedy = "The reaper ends it. See whether that runs: cofounder ops checks"
            found.append(Why(StuckKind.SANDBOX_WITHOUT_BUILD, detail, remedy))
    return found


def _build_of(sandbox: ListedSandbox) -> uuid.UUID | None:
    try:
        return uuid.UUID(sandbox.build_id)
    except ValueError:
        return None
