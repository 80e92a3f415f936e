"""An operator's recovery: take stock, plan, carry the plan out at a rate. Each of them can be repeated."""

import asyncio
import hashlib
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from clients.build_workflows import BuildToStart, BuildWorkflows, ReadyResult
from clients.model_call_history import Progress
from clients.object_store import ObjectStore
from clients.sandbox import Role, Sandboxes
from db import deployment, previews, reaper, recovery
from db.builds import load_build, mark_started
from db.dangling_work import close_dangling_work
from db.feed import append_events
from db.models import Preview
from db.recovery import ImportedSnapshot, OpenBuild
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX, has_snapshot, mark_deleted, mark_final, superfluous_snapshots
from db.transaction import Transaction, transaction
from domain.errors import CofounderError, Misconfigured, NotFound
from domain.events import PreviewEvent
from domain.lost_calls import TURN, LostCall, lost_calls
from domain.manifest import digest, parse_manifest
from domain.names import BUILD_WORKFLOW, PREVIEW_WORKFLOW
from domain.payloads import PreviewInput
from domain.recovery_plan import (
    BuildRow,
    Inventory,
    PlannedStep,
    PreviewRow,
    RecoveryPlan,
    Step,
    WorkflowRecord,
    plan_after_restore,
    plan_for_lost_namespace,
)
from domain.status import Status
from domain.verdicts import WorkflowFate
from services.completion import close_stopped, project_ready
from services.deployment import is_bound_here, note_payload_keys, rebind, require_payload_keys
from services.generation import trust_rows

IMPORTED = 5
"""Snapshots of a build that are imported at most, the newest ones."""

_IMPORTING = frozenset({Step.START, Step.RESTART, Step.PROJECT, Step.CLOSE, Step.IMPORT, Step.REBUILD, Step.END_ORPHAN})
"""The steps that write rows of snapshots which only the store knows."""

_OF_WORKFLOWS = (Role.WORKSPACE, Role.GATE, Role.PREVIEW)
"""What the workflows of a build and of its preview release. The reaper ends what a push has left."""

_AT_ONCE = 20
"""Histories that are read at the same time."""

_ROW_WAS_LOST = (
    "Cofounder's database was restored from a backup that is older than this build, so its record is gone. Start the "
    "build again."
)

_MANIFEST_BYTES = 64 * 1024 * 1024

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Deployment:
    """The servers that a recovery brings together."""

    sessions: Sessions
    workflows: BuildWorkflows
    sandboxes: Sandboxes
    store: ObjectStore
    workspace_path: str
    """Where a product is in its sandbox, for the rows of rebuilt builds."""
    snapshots_kept: int
    """Snapshots that stay of a build, the newest ones; as many as its workers keep."""


@dataclass(frozen=True)
class Stock:
    """An inventory with the rows that the plan's steps need."""

    inventory: Inventory
    plan: RecoveryPlan
    builds: Mapping[str, BuildToStart]
    previews: Mapping[str, Preview]
    put_back_to: datetime | None = None
    """The moment of the last event in the database."""


async def take_stock(where: Deployment, *, after_restore: bool) -> Stock:
    """Look at rows, workflows and the object store, and plan. Nothing is changed.

    Raises:
        LostPayloadKey: PAYLOAD_KEY lacks a key that builds have used, and that was not retired.
        CofounderError, RPCError: a server does not answer.
    """
    await require_payload_keys(where.sessions, where.workflows.payload_keys)
    async with transaction(where.sessions) as tx:
        rows = await recovery.open_builds(tx)
        preview_rows = await reaper.open_previews(tx, (), "0123456789abcdef")
        bound = await deployment.read_binding(tx)
        put_back_to = await recovery.last_event_at(tx)
        has_snapshots = await recovery.has_stored_snapshots(tx)
    workflows = await where.workflows.records(BUILD_WORKFLOW)
    known = {str(each.build.id) for each in rows}
    others = [uuid.UUID(build_id) for build_id in workflows if build_id not in known]
    async with transaction(where.sessions) as tx:
        closed = await recovery.known_builds(tx, others)
        without_product = await recovery.ready_without_product(tx) if after_restore else set()
    with_sandbox = await _closed_with_sandbox(where)
    elsewhere = None
    if bound is not None and not await is_bound_here(where.sessions, where.workflows):
        elsewhere = f"{bound.namespace.name} at {bound.namespace.address}"
    inventory = Inventory(
        now=datetime.now(UTC),
        builds=tuple(
            BuildRow(str(each.build.id), Status(each.build.status), each.build.started_at is not None) for each in rows
        ),
        previews=tuple(PreviewRow(str(row.build_id), row.expires_at) for row in preview_rows),
        workflows=workflows,
        preview_workflows={
            build_id: record.fate for build_id, record in (await where.workflows.records(PREVIEW_WORKFLOW)).items()
        },
        workers=await where.workflows.workers(),
        elsewhere=elsewhere,
        is_store_empty=has_snapshots and not await where.store.keys(SNAPSHOTS_PREFIX, limit=1),
        closed=frozenset(str(build_id) for build_id in closed),
        without_product=frozenset(str(build_id) for build_id in without_product),
        with_sandbox=frozenset(str(build_id) for build_id in with_sandbox),
        ahead=await _turns_ahead(where, rows, workflows) if after_restore else {},
    )
    return Stock(
        inventory,
        plan_after_restore(inventory) if after_restore else plan_for_lost_namespace(inventory),
        {
            str(each.build.id): BuildToStart(each.build.id, each.build.user_id, each.build.project_id, each.plan)
            for each in rows
        },
        {str(row.build_id): row for row in preview_rows},
        put_back_to,
    )


async def _closed_with_sandbox(where: Deployment) -> set[uuid.UUID]:
    """Closed builds of this database that have a sandbox of their own or of their preview."""
    ids = set()
    for sandbox in await where.sandboxes.list_all():
        with suppress(ValueError):
            if sandbox.role in _OF_WORKFLOWS:
                ids.add(uuid.UUID(sandbox.build_id))
    async with transaction(where.sessions) as tx:
        owners = await reaper.sandbox_owners(tx, ids)
    return {build_id for build_id, owner in owners.items() if not owner.is_open}


async def _turns_ahead(
    where: Deployment, rows: Sequence[OpenBuild], workflows: Mapping[str, WorkflowRecord]
) -> dict[str, int]:
    """By how many turns workflows have come further than the rows, a turn that was being asked for included."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def turns_ahead(build_id: uuid.UUID, answered: int) -> int:
        async with limit:
            progress = await where.workflows.progress(build_id, answered)
            async with transaction(where.sessions) as tx:
                lost = await _lost_calls(tx, build_id, progress)
            is_calling = any(call.kind == TURN and call.turn > progress.turn for call in lost)
            return progress.turn - answered + is_calling

    running = [
        (each.build.id, each.answered)
        for each in rows
        if (record := workflows.get(str(each.build.id))) is not None and record.fate is WorkflowFate.OPEN
    ]
    ahead = await asyncio.gather(*(turns_ahead(*each) for each in running))
    return {str(build_id): turns for (build_id, _), turns in zip(running, ahead, strict=True) if turns > 0}


async def carry_out(
    where: Deployment, stock: Stock, *, rate: float, after_restore: bool, report: Callable[[PlannedStep, str], None]
) -> int:
    """Carry a plan out, at most `rate` steps a second. A step that fails does not stop the others.

    If none fails, the reaper takes workflows of ended builds that it does not find as lost from now on.

    Args:
        where: the servers.
        stock: as `take_stock` returned it.
        rate: steps a second.
        after_restore: import snapshots that rows do not know, first.
        report: is called after each step; its text is empty, or says why the step failed.

    Returns:
        How many steps have failed. A repeat of the command tries them again.
    """
    await note_payload_keys(where.sessions, where.workflows.payload_keys)
    if not await is_bound_here(where.sessions, where.workflows):
        await rebind(where.sessions, await where.workflows.namespace())
    if after_restore:
        async with transaction(where.sessions) as tx:
            await recovery.skip_events(tx)
    steps = _Steps(where, stock, after_restore=after_restore)
    failed = 0
    for planned in stock.plan.steps:
        async with _at_rate(rate):
            try:
                await steps.do(planned)
            except (CofounderError, RPCError, SQLAlchemyError, OSError) as error:
                failed += 1
                report(planned, (str(error).splitlines() or [type(error).__name__])[0])
            else:
                report(planned, "")
    if failed:
        return failed
    async with transaction(where.sessions) as tx:
        await reaper.note_recovery(tx)
    if after_restore:
        await trust_rows(where.sessions, where.store)
    return 0


class _Steps:
    """What each step of a plan does."""

    def __init__(self, where: Deployment, stock: Stock, *, after_restore: bool) -> None:
        self._where = where
        self._stock = stock
        self._after_restore = after_restore
        self._doers: dict[Step, Callable[[str], Awaitable[None]]] = {
            Step.START: self._start,
            Step.RESTART: self._restart,
            Step.PROJECT: self._project,
            Step.CLOSE: self._close,
            Step.IMPORT: self._import_product,
            Step.REBUILD: self._rebuild,
            Step.END_ORPHAN: self._end_orphan,
            Step.OPEN_PREVIEW: self._open_preview,
            Step.CLOSE_PREVIEW: self._close_preview,
            Step.END_SANDBOXES: self._end_sandboxes,
        }

    async def do(self, planned: PlannedStep) -> None:
        """Do a step.

        Raises:
            CofounderError, RPCError, SQLAlchemyError, OSError: it failed.
        """
        await self._doers[planned.step](planned.build_id)
        if planned.step in _IMPORTING:
            await self._cut_snapshots(uuid.UUID(planned.build_id))

    async def _cut_snapshots(self, build_id: uuid.UUID) -> None:
        """Let the newest snapshots stay, now that those from the store have rows and the final one is marked."""
        async with transaction(self._where.sessions) as tx:
            await mark_deleted(tx, await superfluous_snapshots(tx, build_id, self._where.snapshots_kept))

    async def _start(self, build_id: str) -> None:
        if self._after_restore:
            await self._catch_up(uuid.UUID(build_id), None)
        await self._where.workflows.start(self._stock.builds[build_id])
        async with transaction(self._where.sessions) as tx:
            await mark_started(tx, uuid.UUID(build_id))

    async def _restart(self, build_id: str) -> None:
        progress = await self._progress(uuid.UUID(build_id))
        await self._catch_up(uuid.UUID(build_id), progress)
        await self._where.workflows.start_over(self._stock.builds[build_id])

    async def _rebuild(self, build_id: str) -> None:
        """Write the row of a ready build from what its workflow returned and the store has."""
        identifier, where = uuid.UUID(build_id), self._where
        await self._result(identifier)  # so that no row is written without it
        row = await self._lost_row(identifier)
        async with transaction(where.sessions) as tx:
            await recovery.insert_lost_row(tx, row, Status.CHECKS, None)
        await self._project(build_id)

    async def _project(self, build_id: str) -> None:
        """Close a row as ready, as its workflow has closed it."""
        identifier, where = uuid.UUID(build_id), self._where
        result = await self._result(identifier)
        await self._catch_up(identifier, await self._progress(identifier), told=False)
        async with transaction(where.sessions) as tx:
            await close_dangling_work(tx, identifier)
        await project_ready(where.sessions, result.request, result.version, where.workspace_path)

    async def _close(self, build_id: str) -> None:
        """Close a row as failed or cancelled, as its workflow has ended. Its last snapshots are kept."""
        identifier, where = uuid.UUID(build_id), self._where
        await self._catch_up(identifier, await self._progress(identifier), told=False)
        await close_stopped(where.sessions, where.workflows, identifier, self._stock.inventory.workflows[build_id].fate)

    async def _import_product(self, build_id: str) -> None:
        """Let the rows of a ready build name its final snapshot."""
        identifier, where = uuid.UUID(build_id), self._where
        result = await self._result(identifier)
        await self._catch_up(identifier, await self._progress(identifier), told=False)
        number = result.request.snapshot_number
        async with transaction(where.sessions) as tx:
            if await has_snapshot(tx, identifier, number):
                await mark_final(tx, identifier, number)
            else:
                _log.error("the object store has no final snapshot of a ready build", build_id=build_id, number=number)

    async def _progress(self, build_id: uuid.UUID) -> Progress:
        async with transaction(self._where.sessions) as tx:
            answered = (await recovery.known_calls(tx, build_id)).answered
        return await self._where.workflows.progress(build_id, answered)

    async def _result(self, build_id: uuid.UUID) -> ReadyResult:
        result = await self._where.workflows.ready_result(build_id)
        if result is None:
            raise NotFound(f"Temporal has no result of build {build_id}.")
        return result

    async def _lost_row(self, build_id: uuid.UUID) -> recovery.LostRow:
        """The row of a build from the labels of its workflow. Only early versions' workflows name project and goal."""
        labels = await self._where.workflows.labels(build_id)
        name, has_goal, goal = labels.summary.partition(": ")
        return recovery.LostRow(
            build_id,
            labels.user_id,
            uuid.UUID(labels.project_id),
            (name if has_goal else "") or "Recovered",
            goal or "Recovered after a restore of the database.",
            labels.started_at,
        )

    async def _end_orphan(self, build_id: str) -> None:
        """End the workflow and the sandboxes of a build that has no row. Its founder starts it again.

        Its row comes first. If the rest fails, the workflow ends when it sees that row, and the reaper ends sandboxes.
        """
        identifier, workflows = uuid.UUID(build_id), self._where.workflows
        await self._catch_up(
            identifier, await self._progress(identifier), told=False, lost=await self._lost_row(identifier)
        )
        with suppress(NotFound):  # it may have ended meanwhile
            await workflows.terminate(identifier, "its row was lost with a restore of the database")
        await self._kill(build_id, *Role)

    async def _open_preview(self, build_id: str) -> None:
        """Start the preview's workflow; it takes over the sandbox that still runs, or starts the product again.

        A closed build without a workflow may not have released its workspace.
        """
        row, inventory = self._stock.previews[build_id], self._stock.inventory
        assert row.expires_at is not None, "a preview without an end is closed"
        if build_id in inventory.with_sandbox and build_id not in inventory.workflows:
            await self._kill(build_id, Role.WORKSPACE)
        seconds = max(1, math.ceil((row.expires_at - datetime.now(UTC)).total_seconds()))
        await self._where.workflows.start_preview(
            PreviewInput(build_id=build_id, seconds=seconds, sandbox_id=row.sandbox_id, url=row.url, seq=row.seq)
        )

    async def _end_sandboxes(self, build_id: str) -> None:
        await self._kill(build_id, *_OF_WORKFLOWS)

    async def _close_preview(self, build_id: str) -> None:
        await self._kill(build_id, Role.PREVIEW, Role.GATE)
        row = self._stock.previews[build_id]
        async with transaction(self._where.sessions) as tx:
            if await previews.close_preview(tx, row):
                event = PreviewEvent(state="closed", url=None, expires_at=None, reason=None)
                await append_events(tx, row.build_id, [event])

    async def _kill(self, build_id: str, *roles: Role) -> None:
        for role in roles:
            for sandbox_id in await self._where.sandboxes.find(build_id, role):
                await self._where.sandboxes.kill(sandbox_id)

    async def _catch_up(
        self,
        build_id: uuid.UUID,
        progress: Progress | None,
        *,
        told: bool = True,
        lost: recovery.LostRow | None = None,
    ) -> None:
        """Write to a build's rows what other servers know of the lost time.

        Args:
            build_id: the build.
            progress: how far its workflow had come; None if that is unknown.
            told: its agent goes on, and has to be told what it does not remember.
            lost: its row, if it has none. It is closed.
        """
        where, now = self._where, datetime.now(UTC)
        imported = [snapshot async for snapshot in self._unknown_snapshots(build_id)]
        async with transaction(where.sessions) as tx:
            if lost is not None:
                await recovery.insert_lost_row(tx, lost, Status.FAILED, _ROW_WAS_LOST)
            build = await load_build(tx, build_id)
            for snapshot in imported:
                await recovery.import_snapshot(tx, build, snapshot)
            calls = [] if progress is None else await _lost_calls(tx, build_id, progress)
            cost = await recovery.book_lost_calls(tx, build, calls, now.date())
            since = self._stock.put_back_to or now
            minutes = math.ceil((now - since).total_seconds() / 60) if told and (calls or imported) else None
            await recovery.note_loss(tx, build_id, minutes)
        _log.info("caught up", build_id=str(build_id), snapshots=len(imported), calls=len(calls), cost=cost)

    async def _unknown_snapshots(self, build_id: uuid.UUID) -> AsyncIterator[ImportedSnapshot]:
        """The build's snapshots in the object store that are newer than those that rows name, the newest last."""
        store = self._where.store
        async with transaction(self._where.sessions) as tx:
            stored = await recovery.stored_snapshots(tx, build_id)
        highest = max((snapshot.number for snapshot in stored), default=0)
        written = {each.key: each.written_at for each in await store.objects(f"{SNAPSHOTS_PREFIX}{build_id}/")}
        archives: dict[int, str] = {}  # the last attempt at a number counts
        for key in sorted(written, key=lambda key: written[key]):
            name = key.rpartition("/")[2]
            digits = name.partition("-")[0]
            if not name.endswith(_ARCHIVE) or not digits.isdecimal() or int(digits) <= highest:
                continue
            if key.removesuffix(_ARCHIVE) + _MANIFEST in written:
                archives[int(digits)] = key
        for number in sorted(archives)[-IMPORTED:]:
            key = archives[number]
            manifest_key = key.removesuffix(_ARCHIVE) + _MANIFEST
            try:
                manifest = (await store.get(manifest_key, _MANIFEST_BYTES)).decode("ascii")
                files = len(parse_manifest(manifest))
            except ValueError as error:
                _log.warning("a manifest can't be read, so its snapshot is not imported", key=key, error=error)
                continue
            hashed, size = hashlib.sha256(), 0
            async for piece in store.stream(key):
                hashed.update(piece)
                size += len(piece)
            yield ImportedSnapshot(
                number, key, manifest_key, size, hashed.hexdigest(), digest(manifest), files, written[key]
            )


_ARCHIVE = ".tar.gz"
_MANIFEST = ".manifest.jsonl"


async def _lost_calls(tx: Transaction, build_id: uuid.UUID, progress: Progress) -> list[LostCall]:
    known = await recovery.known_calls(tx, build_id)
    return lost_calls(progress.asked, known.calls, answered=known.answered, progress=progress.turn)


@asynccontextmanager
async def _at_rate(rate: float) -> AsyncIterator[None]:
    """Let the block and the wait after it take at least the time of one step."""
    if rate <= 0:
        raise Misconfigured("The rate has to be more than 0 steps a second.")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    yield
    await asyncio.sleep(max(0.0, begun + 1 / rate - loop.time()))
