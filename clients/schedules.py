"""The schedules of a deployment in Temporal: what starts the reaper and the prober, and how often."""

import asyncio
import uuid
from datetime import timedelta

import structlog
from temporalio.api.enums.v1 import ScheduleOverlapPolicy as ScheduleOverlapPolicyValue
from temporalio.api.schedule.v1 import IntervalSpec
from temporalio.api.schedule.v1 import Schedule as ScheduleMessage
from temporalio.api.schedule.v1 import ScheduleSpec as ScheduleSpecMessage
from temporalio.api.workflowservice.v1 import UpdateScheduleRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)
from temporalio.service import RPCError

from domain.errors import Misconfigured
from domain.names import PROBER_ID, PROBER_WORKFLOW, REAPER_ID, REAPER_WORKFLOW

_RPC_TIMEOUT = timedelta(seconds=8)

_REAPER_TIMEOUT = timedelta(minutes=20)
"""A run of the reaper takes seconds; four steps that all fail twice take 16 minutes."""

_PROBER_TIMEOUT = timedelta(minutes=1)
"""A run of the prober takes seconds."""

_LOOKS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds after a change to look whether the server has applied it."""

_log = structlog.get_logger(__name__)


async def schedule_reaper(client: Client, task_queue: str, every: timedelta) -> None:
    """Create or update the reaper's schedule. A schedule that an operator has paused stays paused.

    A run that no worker takes ends by itself, so that it does not keep later ones from starting.

    Raises:
        Misconfigured: this client may not do so, or Temporal does not answer.
    """
    action = ScheduleActionStartWorkflow(
        REAPER_WORKFLOW, id=REAPER_ID, task_queue=task_queue, execution_timeout=_REAPER_TIMEOUT
    )
    await _keep_schedule(client, action, every)


async def schedule_prober(client: Client, task_queue: str, every: timedelta) -> None:
    """Create or update the prober's schedule, as `schedule_reaper` does.

    Raises:
        Misconfigured: this client may not do so, or Temporal does not answer.
    """
    action = ScheduleActionStartWorkflow(
        PROBER_WORKFLOW, id=PROBER_ID, task_queue=task_queue, execution_timeout=_PROBER_TIMEOUT
    )
    await _keep_schedule(client, action, every)


async def _keep_schedule(client: Client, action: ScheduleActionStartWorkflow, every: timedelta) -> None:
    schedule = Schedule(
        action=action,
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    try:
        try:
            await client.create_schedule(action.id, schedule, rpc_timeout=_RPC_TIMEOUT)
        except ScheduleAlreadyRunningError:
            await _change_schedule(client, action, every)
    except RPCError as error:
        raise Misconfigured(
            f"The schedule {action.id} could not be made in Temporal's namespace {client.namespace} ({error.message}). "
            "Check that Temporal runs and that its key may write there."
        ) from error


async def _change_schedule(client: Client, action: ScheduleActionStartWorkflow, every: timedelta) -> None:
    """Change what a schedule starts and how often. What an operator changes at the same time stays.

    The server silently drops a change whose conflict token is out of date, and applies others a moment after it has
    answered. So this looks until the change is there. The SDK's own update sends no token: it would undo a pause.
    """
    for seconds in (*_LOOKS, 0):
        there = (await client.get_schedule_handle(action.id).describe(rpc_timeout=_RPC_TIMEOUT)).raw_description
        changed = _changed(there.schedule, action, every)
        if changed == there.schedule:
            return
        request = UpdateScheduleRequest(
            namespace=client.namespace,
            schedule_id=action.id,
            schedule=changed,
            conflict_token=there.conflict_token,
            identity=client.identity,
            request_id=str(uuid.uuid4()),
        )
        await client.workflow_service.update_schedule(request, retry=True, timeout=_RPC_TIMEOUT)
        await asyncio.sleep(seconds)
    _log.warning("others change a schedule at the same time; the last of them counts", schedule_id=action.id)


def _changed(there: ScheduleMessage, action: ScheduleActionStartWorkflow, every: timedelta) -> ScheduleMessage:
    """The same schedule, which starts this workflow that often. What it says beyond that stays, a pause for one."""
    changed = ScheduleMessage()
    changed.CopyFrom(there)
    started = changed.action.start_workflow
    started.workflow_id, started.workflow_type.name = action.id, action.workflow
    started.task_queue.name = action.task_queue
    assert action.execution_timeout is not None
    started.workflow_execution_timeout.FromTimedelta(action.execution_timeout)
    changed.policies.overlap_policy = ScheduleOverlapPolicyValue.SCHEDULE_OVERLAP_POLICY_SKIP
    interval = IntervalSpec()
    interval.interval.FromTimedelta(every)
    if list(changed.spec.interval) != [interval] or changed.spec.structured_calendar:
        changed.spec.CopyFrom(ScheduleSpecMessage(interval=[interval]))  # an operator's calendar, too
    return changed
