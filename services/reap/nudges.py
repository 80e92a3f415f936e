"""The reaper's look at rows that workflows may not have heard of: starts, cancels, slots, budgets, founders' input."""

import random
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import builds, money, reaper, steering
from db.bulk_runs import running_runs
from db.models import Build
from db.session import Sessions
from db.transaction import transaction
from domain.errors import NotFound
from domain.payloads import PendingInput, ReapResult
from services.builds import start_workflow
from services.bulk import start_run
from services.erasure import start_unstarted
from services.notifications import repeat_budget_notification, repeat_input_notification
from services.reap.look import Budget, PlannedAct, attempt, log
from services.slots import nudge_queued_builds

_YOUNG = timedelta(seconds=15)
"""Leave younger rows alone: the API sends the signal right after it has committed the row."""

_MOST = 1000
"""Builds started or cancelled in one look."""

T = TypeVar("T")


class Nudges:
    """Repeats what a crash may have kept from a workflow. The row is the truth."""

    def __init__(self, sessions: Sessions, workflows: BuildWorkflows, *, autonomous_agent: bool = True) -> None:
        self._sessions = sessions
        self._workflows = workflows
        self._autonomous_agent = autonomous_agent

    async def look(self, budget: Budget) -> ReapResult:
        """Look at each kind of row once."""
        return ReapResult(
            started=await self._start_unstarted(budget)
            + await self._start_bulk_runs(budget)
            + await self._start_erasures(),
            cancelled=await self._repeat_cancels(budget),
            admitted=await self._nudge_queues(budget),
            nudged=await self._repeat_budget_notifications(budget) + await self._repeat_input_notifications(budget),
        )

    async def plan(self) -> list[PlannedAct]:
        """What a look would do. Nothing is changed."""
        before = datetime.now(UTC) - _YOUNG
        async with transaction(self._sessions) as tx:
            unstarted = await builds.unstarted_builds(tx, _MOST, before=before)
            cancelled = await reaper.builds_to_cancel(tx, before, _MOST)
            users = await reaper.users_with_free_slots(tx)
            budgets = await money.missed_notifications(tx, before, switched_on=self._autonomous_agent)
            inputs = await steering.missed_notifications(tx, before)
            runs = await running_runs(tx)
        return [
            *(PlannedAct("start build", str(each.id), "It has no workflow yet.") for each, _ in unstarted),
            *(PlannedAct("cancel build", str(each), "It was to be cancelled, and is open.") for each in cancelled),
            *(
                PlannedAct("look for a slot", each, "A build of this user waits for a slot that is free.")
                for each in users
            ),
            *(PlannedAct("notify build", str(each.build_id), "Its budget has changed.") for each in budgets),
            *(PlannedAct("notify build", str(each), "Its founder has sent something.") for each, _ in inputs),
            *(PlannedAct("start bulk run", str(each), "It runs, unless its workflow does already.") for each in runs),
        ]

    async def _start_unstarted(self, budget: Budget) -> int:
        """Start builds whose row was committed and whose workflow was not started, because of a crash in between."""
        async with transaction(self._sessions) as tx:
            unstarted = await builds.unstarted_builds(tx, _MOST, before=datetime.now(UTC) - _YOUNG)

        async def start(build: Build, plan: str) -> bool:
            await start_workflow(self._sessions, self._workflows, build, plan)
            return True

        started = 0
        for build, plan in unstarted:
            if budget.is_spent:
                break
            started += await attempt("start a build", build.id, start(build, plan))
        return started

    async def _start_bulk_runs(self, budget: Budget) -> int:
        """Start the workflows of bulk runs that are to be carried out and have none."""
        async with transaction(self._sessions) as tx:
            running = await running_runs(tx)
        started = 0
        for run_id in running:
            if budget.is_spent:
                break
            started += await start_run(self._sessions, self._workflows, run_id)
        return started

    async def _start_erasures(self) -> int:
        """Start erasures whose row was committed and whose workflow was not started."""
        try:
            return await start_unstarted(self._sessions, self._workflows)
        except (RPCError, RuntimeError) as error:
            log.warning("erasures were not started", error=error)
            return 0

    async def _repeat_cancels(self, budget: Budget) -> int:
        """Cancel builds again that are still open after a cancel: the request may be lost."""
        async with transaction(self._sessions) as tx:
            ids = await reaper.builds_to_cancel(tx, datetime.now(UTC) - _YOUNG, _MOST)

        async def cancel(build_id: uuid.UUID) -> bool:
            with suppress(NotFound):
                await self._workflows.cancel(build_id)
            return True

        cancelled = 0
        for build_id in ids:
            if budget.is_spent:
                break
            cancelled += await attempt("cancel a build", build_id, cancel(build_id))
        return cancelled

    async def _nudge_queues(self, budget: Budget) -> int:
        """Nudge queued builds whose slot is free: the worker that freed it may have died before it could."""
        async with transaction(self._sessions) as tx:
            users = await reaper.users_with_free_slots(tx)
        nudged = 0
        for user_id in _shuffled(users):
            if budget.is_spent:
                break
            nudged += await nudge_queued_builds(self._sessions, self._workflows, user_id)
        return nudged

    async def _repeat_budget_notifications(self, budget: Budget) -> int:
        """Notify builds that wait of a change of budget or standing that they have not received; and builds
        that the kill switch stopped, once it is off."""
        before = datetime.now(UTC) - _YOUNG
        async with transaction(self._sessions) as tx:
            missed = await money.missed_notifications(tx, before, switched_on=self._autonomous_agent)

        async def notify(each: money.MissedNotification) -> bool:
            await repeat_budget_notification(self._sessions, self._workflows, each)
            return True

        nudged = 0
        for each in _shuffled(missed):
            if budget.is_spent:
                break
            nudged += await attempt("notify a build of its budget", each.build_id, notify(each))
        return nudged

    async def _repeat_input_notifications(self, budget: Budget) -> int:
        """Notify builds once more of their founders' messages and restores: the process that stored them may have died
        before it sent the signal. A build that works sees them at its next turn anyway; one that waits would not.
        """
        async with transaction(self._sessions) as tx:
            missed = await steering.missed_notifications(tx, datetime.now(UTC) - _YOUNG)

        async def notify(build_id: uuid.UUID, pending: PendingInput) -> bool:
            await repeat_input_notification(self._sessions, self._workflows, build_id, pending)
            return True

        nudged = 0
        for build_id, pending in _shuffled(missed):
            if budget.is_spent:
                log.warning("the reaper leaves notifications to its next look", missed=len(missed))
                break
            nudged += await attempt("notify a build of input", build_id, notify(build_id, pending))
        return nudged


def _shuffled(items: Sequence[T]) -> list[T]:
    """In a random order, so that those that fail do not keep the others waiting look after look."""
    return random.sample(items, len(items))
