"""The reaper's look at sandboxes: end those that no open build, no preview and no push needs."""

import random
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from clients.build_workflows import BuildWorkflows
from clients.sandbox import ListedSandbox, Role, Sandboxes
from db.reaper import SandboxOwner, ended_before_recovery, sandbox_owners
from db.session import Sessions
from db.transaction import transaction
from domain.names import build_workflow_id, preview_workflow_id
from domain.push import LONGEST_PUSH
from domain.verdicts import SandboxEvidence, WorkflowFate, may_end_sandbox, needs_fates
from services.reap.look import Budget, PlannedAct, attempt, log

_PAGE_ROWS = 1000
"""Builds read in one query."""

_PUSH_OVERDUE = LONGEST_PUSH + timedelta(minutes=5)
"""The sandbox of a push that is older than this was left by a process that was killed."""


class SandboxReaper:
    """Ends sandboxes.

    `spare_younger_than`: leave sandboxes younger than this alone. The attempt that opened one may not have recorded it
    yet.
    """

    def __init__(
        self, sessions: Sessions, workflows: BuildWorkflows, sandboxes: Sandboxes, spare_younger_than: timedelta
    ) -> None:
        self._sessions = sessions
        self._workflows = workflows
        self._sandboxes = sandboxes
        self._spare_younger_than = spare_younger_than

    async def look(self, budget: Budget) -> int:
        """Look at each sandbox once, in a random order, and return how many were ended.

        Raises:
            CofounderError: the sandbox service does not answer.
        """
        ended = 0
        async for sandbox, build_id, evidence in self._questioned():
            if budget.is_spent:
                log.warning("the reaper leaves sandboxes to its next look")
                return ended
            end = self._end_if_unused(sandbox, build_id, evidence)
            ended += await attempt("end a sandbox", build_id, end)
        return ended

    async def plan(self) -> list[PlannedAct]:
        """What a look would do. Nothing is changed.

        Raises:
            CofounderError, RPCError: the sandbox service or Temporal does not answer.
        """
        planned = []
        async for sandbox, build_id, evidence in self._questioned():
            evidence = await self._with_fates(build_id, evidence)
            if may_end_sandbox(evidence):
                why = f"It is {_described(evidence)}; of build {build_id}."
                planned.append(PlannedAct("end sandbox", sandbox.id, why))
        return planned

    async def _questioned(self) -> AsyncIterator[tuple[ListedSandbox, uuid.UUID, SandboxEvidence]]:
        """The sandboxes that the rows do not say are needed, in a random order, with what the rows say."""
        listed = await self._sandboxes.list_all()
        before = datetime.now(UTC) - self._spare_younger_than
        since = {sandbox.id: sandbox.started_at for sandbox in listed}
        named = [(sandbox, _build_of(sandbox)) for sandbox in listed if sandbox.started_at < before]
        old = [(sandbox, build_id) for sandbox, build_id in named if build_id is not None]
        random.shuffle(old)
        for start in range(0, len(old), _PAGE_ROWS):
            page = old[start : start + _PAGE_ROWS]
            async with transaction(self._sessions) as tx:
                ids = {build_id for _, build_id in page}
                owners, lost = await sandbox_owners(tx, ids), await ended_before_recovery(tx, ids)
            for sandbox, build_id in page:
                evidence = replace(_evidence(sandbox, owners.get(build_id), since), is_lost=build_id in lost)
                if needs_fates(evidence) or may_end_sandbox(evidence):
                    yield sandbox, build_id, evidence

    async def _with_fates(self, build_id: uuid.UUID, evidence: SandboxEvidence) -> SandboxEvidence:
        """The evidence with what Temporal says, if the verdict depends on it."""
        if not needs_fates(evidence):
            return evidence
        return replace(
            evidence,
            build=await self._workflows.fate(build_workflow_id(build_id)),
            preview=await self._workflows.fate(preview_workflow_id(build_id)),
        )

    async def _end_if_unused(self, sandbox: ListedSandbox, build_id: uuid.UUID, evidence: SandboxEvidence) -> bool:
        if needs_fates(evidence):
            evidence = await self._with_fates(build_id, evidence)
            is_found = {evidence.build, evidence.preview} != {WorkflowFate.UNKNOWN}
            if not is_found and not evidence.is_lost:
                log.warning("the workflow of a closed build's sandbox is not found", build_id=sandbox.build_id)
        if not may_end_sandbox(evidence):
            return False
        await self._sandboxes.kill(sandbox.id)
        log.info(f"ended a sandbox that was {_described(evidence)}", build_id=sandbox.build_id, sandbox_id=sandbox.id)
        return True


def _described(evidence: SandboxEvidence) -> str:
    return "of a push" if evidence.is_of_push else "replaced" if evidence.is_build_open else "not released"


def _build_of(sandbox: ListedSandbox) -> uuid.UUID | None:
    try:
        return uuid.UUID(sandbox.build_id)
    except ValueError:
        return None


def _evidence(sandbox: ListedSandbox, owner: SandboxOwner | None, since: Mapping[str, datetime]) -> SandboxEvidence:
    """What the rows say. A build that is not in this database is another deployment's, under the same key.

    `since` has the start of each sandbox: a workspace older than the one that its open build works in was replaced by
    it, but not released. A newer one may be replacing it now.
    """
    if owner is None:
        return SandboxEvidence(is_ours=False, is_build_open=False, is_previewed=False, is_replaced=False, is_bound=True)
    current_since = since.get(owner.sandbox_id or "")
    is_older = current_since is not None and current_since > sandbox.started_at
    return SandboxEvidence(
        is_ours=True,
        is_build_open=owner.is_open,
        is_previewed=owner.is_previewed,
        is_replaced=sandbox.role == Role.WORKSPACE and is_older,
        is_bound=True,
        is_of_push=sandbox.role == Role.PUSH,
        is_overdue=sandbox.started_at < datetime.now(UTC) - _PUSH_OVERDUE,
    )
