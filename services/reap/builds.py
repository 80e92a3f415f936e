"""The reaper's look at builds and previews: close the rows of those whose workflow Temporal lists as ended.

No call is made for each open build. A look lists what has ended since the last one. At times a sixteenth of the rows is
compared with a list of what runs, so that each row is compared once an hour. Only what has ended or is not found is
asked about by itself.
"""

import asyncio
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clients.build_workflows import BuildWorkflows
from clients.sandbox_runner import WORKSPACE
from db import previews, reaper
from db.dangling_work import close_dangling_work
from db.deployment import count_started
from db.feed import append_events
from db.models import Preview
from db.reaper import StartedBuild
from db.session import Sessions
from db.transaction import transaction
from domain.events import PreviewEvent
from domain.names import BUILD_WORKFLOW, PREVIEW_WORKFLOW, build_workflow_id, preview_workflow_id
from domain.payloads import ReapResult
from domain.verdicts import (
    SLICES,
    BuildEvidence,
    BuildVerdict,
    WorkflowFate,
    closes_too_many,
    due_slices,
    judge_build,
    may_close_preview,
    most_closed,
)
from services.completion import close_stopped, project_ready
from services.reap.look import AT_ONCE, PlannedAct, attempt, log

STEP = "builds"
COMPARED = "builds, compared"

_LAG = timedelta(minutes=10)
"""A listing may miss what began or ended less than this ago."""

_ASKED = 200
"""Ask about at most this many builds by themselves in a look, or as many as it may close."""


_ACTS = {
    BuildVerdict.CLOSE: "close build",
    BuildVerdict.PROJECT: "close build as ready",
    BuildVerdict.MARK: "mark build as lost",
}
"""What a plan calls the verdicts that change a row."""


@dataclass(frozen=True)
class Findings:
    """What a look found out: the builds in question with their fates, and those that certainly run."""

    open_builds: int
    suspects: list[StartedBuild]
    fates: Mapping[uuid.UUID, WorkflowFate]
    running: list[StartedBuild]


class BuildReaper:
    """Judges builds and previews by what Temporal lists."""

    def __init__(self, sessions: Sessions, workflows: BuildWorkflows) -> None:
        self._sessions = sessions
        self._workflows = workflows

    async def look(self) -> ReapResult:
        """Look once.

        Raises:
            RPCError: Temporal does not answer.
        """
        now = datetime.now(UTC)
        async with transaction(self._sessions) as tx:
            cursor, compared_at = await reaper.read_cursor(tx, STEP), await reaper.read_cursor(tx, COMPARED)
        # Without a cursor nothing tells what has ended since, so all is compared.
        since = None if cursor is None else cursor - _LAG
        digits = due_slices(None if cursor is None else compared_at, now)
        closed, has_stopped = await self._look_at_builds(now, since, digits)
        closed_previews = await self._look_at_previews(since, digits)
        if not has_stopped:
            async with transaction(self._sessions) as tx:
                await reaper.move_cursor(tx, STEP, now)
                await reaper.move_cursor(tx, COMPARED, now)
        return ReapResult(closed=closed, previews=closed_previews)

    async def plan(self) -> list[PlannedAct]:
        """What a look would do that compares all rows. Nothing is changed.

        Raises:
            RPCError: Temporal does not answer.
        """
        now = datetime.now(UTC)
        found = await self._find(now, None, SLICES)
        planned = []
        for build in found.suspects:
            verdict, fate = self._judge(build, found.fates), found.fates.get(build.id, WorkflowFate.UNKNOWN)
            if verdict in _ACTS:
                planned.append(PlannedAct(_ACTS[verdict], str(build.id), f"Its workflow: {fate}."))
        closing = [each for each in planned if each.act in (_ACTS[BuildVerdict.CLOSE], _ACTS[BuildVerdict.PROJECT])]
        if closes_too_many(len(closing), found.open_builds):
            planned = [each for each in planned if each not in closing]
            planned.append(PlannedAct("stop", "", _too_many(len(closing), found.open_builds)))
        rows, lost = await self._suspected_previews(None, SLICES)
        for row in rows:
            fate = await self._workflows.fate(preview_workflow_id(row.build_id))
            if may_close_preview(fate, is_lost=row.build_id in lost):
                planned.append(PlannedAct("close preview", str(row.build_id), f"Its workflow: {fate}."))
        return planned

    # ---- builds

    async def _look_at_builds(self, now: datetime, since: datetime | None, digits: str) -> tuple[int, bool]:
        """Return how many builds were closed, and whether the look stopped because it would be too many."""
        found = await self._find(now, since, digits)
        verdicts = {build: self._judge(build, found.fates) for build in found.suspects}

        def judged(*wanted: BuildVerdict) -> list[StartedBuild]:
            return [build for build, verdict in verdicts.items() if verdict in wanted]

        found_again = [*judged(BuildVerdict.UNMARK), *(build for build in found.running if build.is_marked)]
        await self._note_lost(judged(BuildVerdict.MARK), found_again)
        closing = judged(BuildVerdict.CLOSE, BuildVerdict.PROJECT)
        if closes_too_many(len(closing), found.open_builds):
            await self._stop(len(closing), found.open_builds)
            return 0, True
        closed = 0
        for build in closing:
            closed += await attempt("close a build", build.id, self._close(build.id, found.fates[build.id]))
        async with transaction(self._sessions) as tx:
            await reaper.record_alert(tx, STEP, None)
        return closed, False

    @staticmethod
    def _judge(build: StartedBuild, fates: Mapping[uuid.UUID, WorkflowFate]) -> BuildVerdict:
        fate = fates.get(build.id, WorkflowFate.UNKNOWN)
        return judge_build(BuildEvidence(is_open=True, is_marked=build.is_marked, is_bound=True, fate=fate))

    async def _find(self, now: datetime, since: datetime | None, digits: str) -> Findings:
        """Compare the rows that are due with what runs, and all open rows with what has ended lately."""
        # The rows first: a build that is started meanwhile is not missed in what is listed afterwards.
        async with transaction(self._sessions) as tx:
            open_builds = await count_started(tx)
            rows = await reaper.started_builds(tx, digits=digits) if digits else []
        listed = await self._workflows.running(BUILD_WORKFLOW, _sliced(digits)) if rows else set()
        suspects = {build for build in rows if build.id not in listed and build.started_at < now - _LAG}
        ended = {} if since is None else await self._workflows.ended(BUILD_WORKFLOW, since)
        async with transaction(self._sessions) as tx:
            suspects |= set(await reaper.started_builds(tx, among=ended)) if ended else set()
        if len(suspects) > self._most_asked(open_builds):
            # Many were reset or started again, or many have ended: the later runs tell.
            running = await self._workflows.running(BUILD_WORKFLOW)
            suspects = {build for build in suspects if build.id not in running}
            ended = await self._workflows.ended(BUILD_WORKFLOW)
        return await self._ask(open_builds, list(suspects), ended, [build for build in rows if build.id in listed])

    async def _ask(
        self,
        open_builds: int,
        suspects: list[StartedBuild],
        listed: Mapping[uuid.UUID, WorkflowFate],
        running: list[StartedBuild],
    ) -> Findings:
        """Ask about each suspect, or if they are too many, about those that are listed as ended.

        If even those are too many, they are not asked about: none of them is closed then.
        """
        most = self._most_asked(open_builds)
        asked = suspects if len(suspects) <= most else [build for build in suspects if build.id in listed]
        if len(asked) > most:
            return Findings(open_builds, suspects, listed, running)
        limit = asyncio.Semaphore(AT_ONCE)

        async def ask(build: StartedBuild) -> WorkflowFate:
            async with limit:
                return await self._workflows.fate(build_workflow_id(build.id))

        fates = await asyncio.gather(*map(ask, asked))
        known = {build.id: fate for build, fate in zip(asked, fates, strict=True)}
        return Findings(open_builds, suspects, known, running)

    @staticmethod
    def _most_asked(open_builds: int) -> int:
        return max(_ASKED, most_closed(open_builds))

    async def _note_lost(self, lost: list[StartedBuild], found_again: list[StartedBuild]) -> None:
        async with transaction(self._sessions) as tx:
            if lost:
                await reaper.mark_lost(tx, [build.id for build in lost])
            if found_again:
                await reaper.unmark_lost(tx, [build.id for build in found_again])
            marked = await reaper.count_lost(tx)
            alert = (
                f"{marked} open builds have no workflow in this namespace. They are left as they are. Check that "
                "TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and DATABASE_URL belong together; if the workflows are lost, run "
                "`cofounder recover --temporal`."
            )
            await reaper.record_alert(tx, COMPARED, alert if marked else None)
        if lost:
            log.error(alert, newly_marked=[str(build.id) for build in lost[:20]])

    async def _stop(self, closing: int, open_builds: int) -> None:
        alert = _too_many(closing, open_builds)
        log.error(alert)
        async with transaction(self._sessions) as tx:
            await reaper.record_alert(tx, STEP, alert)

    async def _close(self, build_id: uuid.UUID, fate: WorkflowFate) -> bool:
        if fate is WorkflowFate.COMPLETED:
            return await self._project(build_id)
        return await close_stopped(self._sessions, self._workflows, build_id, fate)

    async def _project(self, build_id: uuid.UUID) -> bool:
        """Write to the row what the completed workflow closed the build with: the row is older than its end."""
        result = await self._workflows.ready_result(build_id)
        if result is None:
            log.error("an open build's workflow completed without a result", build_id=str(build_id))
            return False
        async with transaction(self._sessions) as tx:
            await close_dangling_work(tx, build_id)
        if not await project_ready(self._sessions, result.request, result.version, WORKSPACE):
            return False
        log.warning("a build is ready as its workflow says, not as its row said", build_id=str(build_id))
        return True

    # ---- previews

    async def _look_at_previews(self, since: datetime | None, digits: str) -> int:
        """Close the rows of previews whose workflow Temporal lists as ended without having closed them itself."""
        suspects, lost = await self._suspected_previews(since, digits)
        closed = 0
        for row in suspects:
            close = self._close_preview(row, is_lost=row.build_id in lost)
            closed += await attempt("close a preview", row.build_id, close)
        return closed

    async def _suspected_previews(self, since: datetime | None, digits: str) -> tuple[list[Preview], set[uuid.UUID]]:
        """Open previews that are not listed as running, in a random order, and those whose build is lost."""
        ended = {} if since is None else await self._workflows.ended(PREVIEW_WORKFLOW, since)
        async with transaction(self._sessions) as tx:
            rows = await reaper.open_previews(tx, ended, digits)
            lost = await reaper.ended_before_recovery(tx, [row.build_id for row in rows])
        running = await self._workflows.running(PREVIEW_WORKFLOW, _sliced(digits)) if rows and digits else set()
        suspects = [row for row in rows if row.build_id not in running]
        return random.sample(suspects, min(len(suspects), _ASKED)), lost

    async def _close_preview(self, row: Preview, *, is_lost: bool) -> bool:
        fate = await self._workflows.fate(preview_workflow_id(row.build_id))
        if not may_close_preview(fate, is_lost=is_lost):
            if fate is WorkflowFate.UNKNOWN:
                log.warning("an open preview's workflow is not found", build_id=str(row.build_id))
            return False
        async with transaction(self._sessions) as tx:
            if not await previews.close_preview(tx, row):
                return False
            await append_events(
                tx, row.build_id, [PreviewEvent(state="closed", url=None, expires_at=None, reason=None)]
            )
        return True


def _too_many(closing: int, open_builds: int) -> str:
    return (
        f"{closing} of {open_builds} open builds would be closed at once, so none is. Check that TEMPORAL_ADDRESS, "
        "TEMPORAL_NAMESPACE and DATABASE_URL belong together. If the database was put back, run `cofounder recover "
        "--after-restore`. If the workflows were terminated, run `cofounder recover --temporal`: the builds go on. "
        "Cancel those that are to end. Both show first what they would do (`--dry-run`)."
    )


def _sliced(digits: str) -> str | None:
    """None for all digits: then one listing does for them."""
    return digits if len(digits) < len(SLICES) else None
