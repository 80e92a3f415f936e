"""Starts, signals and cancels the Temporal workflows of builds and previews, for the API, the reaper and the CLI."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.common.v1 import WorkflowExecution as ExecutionOfWorkflow
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest, SignalWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHistoryEventFilterType,
)
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from clients.model_call_history import ModelCallHistory, Progress
from clients.payload_codec import EncryptingCodec
from clients.search_attributes import register_search_attributes
from clients.temporal import ask, describe_namespace, workers_on
from domain.deployment import Namespace
from domain.errors import NotFound
from domain.names import (
    ADMIT,
    BUILD_FAILED,
    BUILD_PLAN,
    BUILD_PROJECT,
    BUILD_STATUS,
    BUILD_USER,
    BUILD_WORKFLOW,
    BULK_WORKFLOW,
    ERASURE_WORKFLOW,
    EXPORT_WORKFLOW,
    EXTEND,
    FINISH,
    FINISH_ACTIVITY,
    GO_ON,
    MESSAGE,
    MONEY,
    PERMIT,
    PREVIEW_WORKFLOW,
    RECLAIM,
    RECOVERED,
    RESTORE,
    SETTINGS,
    UPGRADE,
    WAKE,
    WEBHOOK_WORKFLOW,
    build_of_workflow,
    build_workflow_id,
    bulk_workflow_id,
    delivery_workflow_id,
    erasure_workflow_id,
    export_workflow_id,
    preview_workflow_id,
)
from domain.payload_keys import PayloadKeys
from domain.payloads import (
    BuildInput,
    BulkRef,
    DeliveryRef,
    ErasureRef,
    ExportRef,
    FinishBuild,
    PreviewInput,
)
from domain.recovery_plan import WorkflowRecord
from domain.status import Status
from domain.verdicts import WorkflowFate
from domain.versions import UNVERSIONED

_RPC_TIMEOUT = timedelta(seconds=10)
"""Short, because a person waits for the answer. The reaper repeats a request that did not get through."""

_KEY_BYTES = 64
"""Longest fairness key that Temporal accepts."""

_SUMMARY_BYTES = 200
"""Longest summary. Temporal refuses more than 400 bytes."""


_FATES = {
    WorkflowExecutionStatus.COMPLETED: WorkflowFate.COMPLETED,
    WorkflowExecutionStatus.FAILED: WorkflowFate.FAILED,
    WorkflowExecutionStatus.CANCELED: WorkflowFate.CANCELED,
    WorkflowExecutionStatus.TERMINATED: WorkflowFate.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT: WorkflowFate.TIMED_OUT,
}


_ENDED = "'Completed', 'Failed', 'Canceled', 'Terminated', 'TimedOut'"

_LIST_TIMEOUT = timedelta(seconds=30)
"""For one page of a listing, which no person waits for."""

_VERSION = SearchAttributeKey.for_keyword("TemporalWorkerDeploymentVersion")
"""Set by Temporal, as `deployment:version`."""

_PAGE = 1000
"""Workflows in one answer of a listing; the most that Temporal gives."""


@dataclass(frozen=True)
class ReadyResult:
    """What a build's workflow closed the build as ready with, and the version that it returned."""

    request: FinishBuild
    version: int


@dataclass(frozen=True)
class BuildToStart:
    """What a build's workflow is started with. Only `build_id` is an input; the rest labels it in Temporal."""

    build_id: uuid.UUID
    user_id: str
    project_id: uuid.UUID
    plan: str


@dataclass(frozen=True)
class WorkflowLabels:
    """What a build's workflow was started with, for people. Summaries of early versions name project and goal."""

    user_id: str
    project_id: str
    summary: str
    started_at: datetime


@dataclass(frozen=True)
class VersionedWorkflow:
    """An open workflow, and the version of the workers that it keeps to."""

    id: str
    kind: str
    version: str


class BuildWorkflows:
    """Talks to the workflows of builds and previews. A lazy client connects at the first call."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def start(self, build: BuildToStart) -> bool:
        """Start the build's workflow. Returns False if it was started before, even if it has ended since.

        Raises:
            RPCError: Temporal did not start it.
            Misconfigured: search attributes are missing, and this client may not register them.
        """
        try:
            return await self._start(build)
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            # In a new namespace, no worker may have registered the search attributes yet.
            await register_search_attributes(self._client)
            return await self._start(build)

    async def start_over(self, build: BuildToStart) -> None:
        """Start the build's workflow in the place of any other: it goes on from the build's rows.

        An open workflow is terminated in the same step, so at no moment the build seems to have ended.

        Raises:
            RPCError: Temporal did not start it.
        """
        await self._start(
            build,
            reuse=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            conflict=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
        )

    async def start_delivery(self, delivery_id: uuid.UUID) -> bool:
        """Start the workflow of a delivery to a webhook. Returns False if it runs already.

        Raises:
            RPCError: Temporal did not start it.
        """
        try:
            await self._client.start_workflow(
                WEBHOOK_WORKFLOW,
                DeliveryRef(delivery_id=str(delivery_id)),
                id=delivery_workflow_id(delivery_id),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def start_bulk(self, run_id: uuid.UUID, *, is_resumed: bool = False) -> bool:
        """Start the workflow of an act on many builds. Returns False if it runs already.

        Args:
            is_resumed: if it runs, tell it that its row says so again: it may be about to end.

        Raises:
            RPCError: Temporal did not start it.
        """
        try:
            await self._client.start_workflow(
                BULK_WORKFLOW,
                BulkRef(run_id=str(run_id)),
                id=bulk_workflow_id(run_id),
                task_queue=self._task_queue,
                start_signal=GO_ON if is_resumed else None,
                static_summary="an act of an operator on many builds",
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def start_erasure(self, erasure_id: uuid.UUID) -> None:
        """Start the workflow of an erasure, unless it runs already.

        Raises:
            RPCError: Temporal did not start it.
        """
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(
                ERASURE_WORKFLOW,
                ErasureRef(erasure_id=str(erasure_id)),
                id=erasure_workflow_id(erasure_id),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                rpc_timeout=_RPC_TIMEOUT,
            )

    async def start_export(self, export_id: uuid.UUID) -> None:
        """Start the workflow of an export, unless it runs already.

        Raises:
            RPCError: Temporal did not start it.
        """
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(
                EXPORT_WORKFLOW,
                ExportRef(export_id=str(export_id)),
                id=export_workflow_id(export_id),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                rpc_timeout=_RPC_TIMEOUT,
            )

    async def stop_export(self, export_id: uuid.UUID) -> bool:
        """Ask an export to stop. Returns whether its workflow still runs."""
        handle = self._client.get_workflow_handle(export_workflow_id(export_id))
        # Temporal accepts a second cancel even of a workflow that is closed, so that says nothing.
        with suppress(NotFound), _running(export_workflow_id(export_id)):
            if (await handle.describe(rpc_timeout=_RPC_TIMEOUT)).status is not WorkflowExecutionStatus.RUNNING:
                return False
            await handle.cancel(rpc_timeout=_RPC_TIMEOUT)
            return True
        return False

    async def cancel_preview(self, build_id: uuid.UUID) -> None:
        """Ask the build's preview to close.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        with _running(build_id):
            await self._client.get_workflow_handle(preview_workflow_id(build_id)).cancel(rpc_timeout=_RPC_TIMEOUT)

    async def executions_of(self, workflow_id: str) -> set[str]:
        """The ids of all runs of a workflow that Temporal still has.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        runs = set[str]()
        with _ignoring_missing():
            description = await self._client.get_workflow_handle(workflow_id).describe(rpc_timeout=_RPC_TIMEOUT)
            runs.add(description.run_id)
        query = f"WorkflowId = '{workflow_id}'"
        async for each in self._client.list_workflows(query, page_size=_PAGE, rpc_timeout=_LIST_TIMEOUT):
            runs.add(each.run_id)
        return runs

    async def delete_execution(self, workflow_id: str, run_id: str) -> None:
        """Have Temporal delete a run of a workflow with its history. It does so a little later.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        request = DeleteWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_execution=ExecutionOfWorkflow(workflow_id=workflow_id, run_id=run_id),
        )
        with _ignoring_missing():
            service = self._client.workflow_service
            await ask(lambda: service.delete_workflow_execution(request, timeout=_RPC_TIMEOUT))

    async def terminate(self, build_id: uuid.UUID, reason: str) -> None:
        """End the build's workflow without its cleanup.

        Raises:
            NotFound: it is closed, or was never started.
        """
        with _running(build_id):
            handle = self._client.get_workflow_handle(build_workflow_id(build_id))
            await handle.terminate(reason=reason, rpc_timeout=_RPC_TIMEOUT)

    async def _start(
        self,
        build: BuildToStart,
        *,
        reuse: WorkflowIDReusePolicy = WorkflowIDReusePolicy.REJECT_DUPLICATE,
        conflict: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.UNSPECIFIED,
    ) -> bool:
        user = self.payload_keys.label(build.user_id)
        try:
            await self._client.start_workflow(
                BUILD_WORKFLOW,
                BuildInput(build_id=str(build.build_id)),
                id=build_workflow_id(build.build_id),
                task_queue=self._task_queue,
                id_reuse_policy=reuse,
                id_conflict_policy=conflict,
                memo={"user": build.user_id, "project": str(build.project_id)},
                search_attributes=TypedSearchAttributes(
                    [
                        _keyword(BUILD_STATUS, Status.QUEUED),
                        _keyword(BUILD_USER, user),
                        _keyword(BUILD_PROJECT, str(build.project_id)),
                        _keyword(BUILD_PLAN, build.plan),
                    ]
                ),
                static_summary=_shorten(f"a build on the plan {build.plan}"),  # histories quote no founder
                priority=Priority(fairness_key=_fairness_key(user)),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def wake(self, build_id: uuid.UUID, request_id: str | None = None) -> None:
        """Tell the build to check again whether it can continue. Of several requests with the same id, it gets one.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        await self._signal_once(build_id, WAKE, request_id)

    async def finish(self, build_id: uuid.UUID, request_id: str | None = None) -> None:
        """Tell the build to have its product checked as it is, instead of going on, as `wake` does.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        await self._signal_once(build_id, FINISH, request_id)

    async def _signal_once(self, build_id: uuid.UUID, signal: str, request_id: str | None) -> None:
        """Send a signal without an argument."""
        if request_id is None:
            with _running(build_id):
                handle = self._client.get_workflow_handle(build_workflow_id(build_id))
                await handle.signal(signal, rpc_timeout=_RPC_TIMEOUT)
            return
        # The SDK's own call takes no request id.
        request = SignalWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_execution=ExecutionOfWorkflow(workflow_id=build_workflow_id(build_id)),
            signal_name=signal,
            identity=self._client.identity,
            request_id=request_id,
        )
        with _running(build_id):
            await self._client.workflow_service.signal_workflow_execution(request, retry=True, timeout=_RPC_TIMEOUT)

    async def signal_budget_changed(self, build_id: uuid.UUID) -> None:
        """Tell the build that its user's budget or standing has changed. This ends no wait for a person's decision.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        with _running(build_id):
            await self._client.get_workflow_handle(build_workflow_id(build_id)).signal(MONEY, rpc_timeout=_RPC_TIMEOUT)

    async def signal_recovered(self, build_id: uuid.UUID) -> None:
        """Tell the build that the dependency it waits for answers again.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        with _running(build_id):
            handle = self._client.get_workflow_handle(build_workflow_id(build_id))
            await handle.signal(RECOVERED, rpc_timeout=_RPC_TIMEOUT)

    async def admit(self, build_id: uuid.UUID) -> None:
        """Tell a queued build to look for a slot.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        with _running(build_id):
            await self._client.get_workflow_handle(build_workflow_id(build_id)).signal(ADMIT, rpc_timeout=_RPC_TIMEOUT)

    async def signal_permit(self, workflow_id: str) -> None:
        """Tell a build or a preview that a permit may be free.

        Raises:
            NotFound: the workflow is closed, or was never started.
        """
        with _running(workflow_id):
            await self._client.get_workflow_handle(workflow_id).signal(PERMIT, rpc_timeout=_RPC_TIMEOUT)

    async def reclaim_preview(self, build_id: uuid.UUID) -> None:
        """Tell a preview to close, since a build waits for its permit. `open_preview` opens it again.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        with _running(build_id):
            handle = self._client.get_workflow_handle(preview_workflow_id(build_id))
            await handle.signal(RECLAIM, rpc_timeout=_RPC_TIMEOUT)

    async def signal_message(self, build_id: uuid.UUID, number: int) -> None:
        """Tell the build that its founder has sent messages up to this number.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        await self._signal_number(build_id, MESSAGE, number)

    async def signal_restore(self, build_id: uuid.UUID, number: int) -> None:
        """Tell the build that its founder has asked for restores up to this number.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        await self._signal_number(build_id, RESTORE, number)

    async def signal_settings(self, build_id: uuid.UUID, version: int) -> None:
        """Tell the build that its settings were changed, up to this version of them.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        await self._signal_number(build_id, SETTINGS, version)

    async def _signal_number(self, build_id: uuid.UUID, signal: str, number: int) -> None:
        with _running(build_id):
            handle = self._client.get_workflow_handle(build_workflow_id(build_id))
            await handle.signal(signal, number, rpc_timeout=_RPC_TIMEOUT)

    async def cancel(self, build_id: uuid.UUID) -> None:
        """Ask the build to end; it cleans up first.

        Raises:
            NotFound: its workflow is closed, or was never started.
        """
        with _running(build_id):
            await self._client.get_workflow_handle(build_workflow_id(build_id)).cancel(rpc_timeout=_RPC_TIMEOUT)

    async def start_preview(self, request: PreviewInput) -> None:
        """Start the first preview of a build, unless it was started before.

        Raises:
            RPCError: Temporal did not start it.
        """
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(
                PREVIEW_WORKFLOW,
                request,
                id=preview_workflow_id(uuid.UUID(request.build_id)),
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary="keeps the product running",
                rpc_timeout=_RPC_TIMEOUT,
            )

    async def open_preview(self, build_id: uuid.UUID, seconds: int, seq: int = 0) -> None:
        """Keep the build's preview open for at least `seconds` from now; start it from the snapshot if it is closed.

        One call does both, so a preview that closes at this moment is not missed. `seq` is the sequence in the
        previews row; a new preview continues from it.
        """
        await self._client.start_workflow(
            PREVIEW_WORKFLOW,
            PreviewInput(build_id=str(build_id), seconds=seconds, seq=seq),
            id=preview_workflow_id(build_id),
            task_queue=self._task_queue,
            start_signal=EXTEND,
            start_signal_args=[seconds],
            rpc_timeout=_RPC_TIMEOUT,
        )

    async def describe(self, build_id: uuid.UUID) -> WorkflowExecutionDescription:
        """Ask Temporal about the build's latest run.

        Raises:
            NotFound: the workflow was never started, or is past the namespace's retention.
        """
        with _running(build_id):
            handle = self._client.get_workflow_handle(build_workflow_id(build_id))
            return await handle.describe(rpc_timeout=_RPC_TIMEOUT)

    async def fate(self, workflow_id: str) -> WorkflowFate:
        """Ask Temporal what has become of a workflow.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        try:
            description = await self._client.get_workflow_handle(workflow_id).describe(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return WorkflowFate.UNKNOWN
        if description.status is None:
            return WorkflowFate.OPEN
        return _FATES.get(description.status, WorkflowFate.OPEN)

    async def ended(self, kind: str, since: datetime | None = None) -> dict[uuid.UUID, WorkflowFate]:
        """List the workflows of builds or previews that have ended, by build: a call for each thousand of them.

        One that was reset or started again is listed although a later run is open, and one that ended just now may be
        missing: what ends a build asks `fate`.

        Args:
            kind: the workflow type.
            since: only those that ended after this time.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        query = f"WorkflowType = '{kind}' AND ExecutionStatus IN ({_ENDED})"
        if since is not None:
            query += f" AND CloseTime > '{since.astimezone(UTC).isoformat(timespec='seconds')}'"
        fates: dict[uuid.UUID, WorkflowFate] = {}
        async for execution in self._client.list_workflows(query, page_size=_PAGE, rpc_timeout=_LIST_TIMEOUT):
            build_id = build_of_workflow(execution.id)
            if build_id is not None and execution.status in _FATES:
                fates.setdefault(build_id, _FATES[execution.status])  # the latest comes first
        return fates

    async def running(self, kind: str, digits: str | None = None) -> set[uuid.UUID]:
        """List the builds whose workflow of this type is open: a call for each thousand of them.

        One that was started or continued as new just now may be missing.

        Args:
            kind: the workflow type.
            digits: only builds whose id begins with one of these.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        query = f"WorkflowType = '{kind}' AND ExecutionStatus = 'Running'"
        prefix = "preview" if kind == PREVIEW_WORKFLOW else "build"
        slices = [query] if digits is None else [f"{query} AND WorkflowId STARTS_WITH '{prefix}-{d}'" for d in digits]
        ids: set[uuid.UUID] = set()
        for each in slices:
            async for execution in self._client.list_workflows(each, page_size=_PAGE, rpc_timeout=_LIST_TIMEOUT):
                if (build_id := build_of_workflow(execution.id)) is not None:
                    ids.add(build_id)
        return ids

    async def versions(self, kind: str = BUILD_WORKFLOW) -> dict[uuid.UUID, str]:
        """The version of the workers that each open build or preview keeps to: a call for each thousand of them.

        It is `unversioned` if workers have none. One that was started or continued as new just now may be missing.

        Args:
            kind: the workflow type.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        query = f"WorkflowType = '{kind}' AND ExecutionStatus = 'Running'"
        found: dict[uuid.UUID, str] = {}
        async for execution in self._client.list_workflows(query, page_size=_PAGE, rpc_timeout=_LIST_TIMEOUT):
            if (build_id := build_of_workflow(execution.id)) is not None:
                found[build_id] = version_of(execution)
        return found

    async def elsewhere(self, version: str) -> list[VersionedWorkflow]:
        """List the open workflows that keep to another version than this one: a call for each thousand of all.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        kinds = f"'{BUILD_WORKFLOW}', '{PREVIEW_WORKFLOW}', '{WEBHOOK_WORKFLOW}', '{BULK_WORKFLOW}'"
        query = f"WorkflowType IN ({kinds}) AND ExecutionStatus = 'Running'"
        listed = self._client.list_workflows(query, page_size=_PAGE, rpc_timeout=_LIST_TIMEOUT)
        return [
            VersionedWorkflow(each.id, each.workflow_type, version_of(each))
            async for each in listed
            if version_of(each) != version
        ]

    async def count_without(self, patch_id: str, kind: str) -> int:
        """Count the open workflows of a type whose history has no marker of this patch.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        running = f"WorkflowType = '{kind}' AND ExecutionStatus = 'Running'"
        every = await self._client.count_workflows(running, rpc_timeout=_LIST_TIMEOUT)
        query = f"{running} AND TemporalChangeVersion = '{patch_id}'"
        return every.count - (await self._client.count_workflows(query, rpc_timeout=_LIST_TIMEOUT)).count

    async def ask_to_upgrade(self, workflow_id: str) -> None:
        """Tell a build or a delivery to move to the version that its workers are to have, also in a wait.

        Raises:
            NotFound: the workflow is closed, or was never started.
        """
        with _running(workflow_id):
            await self._client.get_workflow_handle(workflow_id).signal(UPGRADE, rpc_timeout=_RPC_TIMEOUT)

    async def records(self, kind: str) -> dict[str, WorkflowRecord]:
        """List the latest runs of all workflows of a type, by build: a call for each thousand of them.

        A workflow of a build without the label of a project was started by hand, and is left out.

        Raises:
            RPCError: Temporal does not answer, or refuses.
        """
        listed = self._client.list_workflows(f"WorkflowType = '{kind}'", page_size=_PAGE, rpc_timeout=_RPC_TIMEOUT)
        records: dict[str, WorkflowRecord] = {}
        async for execution in listed:
            build_id = build_of_workflow(execution.id)
            if build_id is None or (kind == BUILD_WORKFLOW and not _is_labelled(execution)):
                continue
            is_open = execution.status in (None, WorkflowExecutionStatus.RUNNING)
            status = execution.typed_search_attributes.get(SearchAttributeKey.for_keyword(BUILD_STATUS))
            fate = WorkflowFate.OPEN if is_open or execution.status not in _FATES else _FATES[execution.status]
            if is_open or str(build_id) not in records:  # of a chain, the open run counts; else the latest comes first
                records[str(build_id)] = WorkflowRecord(fate, status)
        return records

    async def labels(self, build_id: uuid.UUID) -> WorkflowLabels:
        """Read what the build's workflow was started with, for people.

        Raises:
            NotFound: Temporal has no such workflow.
        """
        description = await self.describe(build_id)
        memo = await description.memo()
        summary = await description.static_summary() or ""
        return WorkflowLabels(str(memo.get("user", "")), str(memo.get("project", "")), summary, description.start_time)

    async def progress(self, build_id: uuid.UUID, answered: int) -> Progress:
        """Read from the histories of a build's runs how far its conversation has come, and which calls they asked for.

        Args:
            build_id: the build.
            answered: the last turn that is answered in its rows. Runs that ended before that turn are not read; the one
                in which it was answered is, for what it asked for afterwards.

        Raises:
            RPCError: Temporal does not answer, or has no such workflow.
        """
        latest = earliest = await self._run_calls(build_id, None)
        while earliest.continues and earliest.first_turn >= answered:
            try:
                earliest = await self._run_calls(build_id, earliest.continues)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                break  # it has ended longer ago than the namespace keeps histories
            latest.add_earlier(earliest)
        description = await self.describe(build_id)
        return latest.progress(description.raw_description.pending_activities)

    async def _run_calls(self, build_id: uuid.UUID, run_id: str | None, after: int = 0) -> ModelCallHistory:
        """Read what a run, None for the latest, and those that it was reset from have asked for after an event."""
        history = ModelCallHistory(self._client.data_converter, after=after)
        handle = self._client.get_workflow_handle(build_workflow_id(build_id), run_id=run_id)
        async for event in handle.fetch_history_events(rpc_timeout=_RPC_TIMEOUT):
            await history.add(event)
        for base_run_id, event_id in history.resets:
            with _ignoring_missing():
                history.add_earlier(await self._run_calls(build_id, base_run_id, after=event_id))
        return history

    async def workers(self) -> tuple[str, ...]:
        """Identities of the workers that poll the task queue, or did so in the last minutes.

        Raises:
            RPCError: Temporal does not answer, or this client may not ask.
        """
        return tuple(await workers_on(self._client, self._task_queue))

    async def ready_result(self, build_id: uuid.UUID) -> ReadyResult | None:
        """Read from the history of the build's latest run what it was closed as ready with.

        Returns:
            None if the run did not end as ready.

        Raises:
            RPCError: Temporal does not answer, or has no such workflow.
        """
        handle = self._client.get_workflow_handle(build_workflow_id(build_id))
        request: FinishBuild | None = None
        async for event in handle.fetch_history_events(rpc_timeout=_RPC_TIMEOUT):
            if event.activity_task_scheduled_event_attributes.activity_type.name == FINISH_ACTIVITY:
                payloads = event.activity_task_scheduled_event_attributes.input.payloads
                [request] = await self._client.data_converter.decode(payloads, [FinishBuild])
            elif event.HasField("workflow_execution_completed_event_attributes") and request is not None:
                result = event.workflow_execution_completed_event_attributes.result.payloads
                [version] = await self._client.data_converter.decode(result, [int])
                return ReadyResult(request, version)
        return None

    async def failure_of(self, build_id: uuid.UUID) -> str | None:
        """Read why the build's latest run failed, in the words for its founder; None if it did not fail by itself.

        Raises:
            RPCError: Temporal does not answer, or has no such workflow.
        """
        handle = self._client.get_workflow_handle(build_workflow_id(build_id))
        closing = WorkflowHistoryEventFilterType.CLOSE_EVENT
        async for event in handle.fetch_history_events(event_filter_type=closing, rpc_timeout=_RPC_TIMEOUT):
            failure = event.workflow_execution_failed_event_attributes.failure
            if failure.application_failure_info.type == BUILD_FAILED:
                error = await self._client.data_converter.decode_failure(failure)
                return error.message if isinstance(error, ApplicationError) else str(error)
        return None

    @property
    def payload_keys(self) -> PayloadKeys:
        """The keys that the client encrypts and decrypts with."""
        codec = self._client.data_converter.payload_codec
        return codec.keys if isinstance(codec, EncryptingCodec) else PayloadKeys()

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt payloads; plain ones stay as they are.

        Raises:
            PayloadUnreadable: the key of one is not there, or it was changed.
        """
        return await (self._client.data_converter.payload_codec or EncryptingCodec(PayloadKeys())).decode(payloads)

    @property
    def namespace_name(self) -> str:
        """The name of the namespace that the client uses."""
        return self._client.namespace

    async def namespace(self) -> Namespace:
        """Ask Temporal which namespace the client uses.

        Raises:
            Misconfigured: there is no such namespace, or Temporal does not answer.
        """
        return await describe_namespace(self._client)

    async def is_reachable(self) -> bool:
        """Whether the Temporal server answers and is healthy."""
        try:
            return await self._client.service_client.check_health(timeout=timedelta(seconds=3))
        except (RPCError, RuntimeError):  # a lazy client raises RuntimeError if it can't connect
            return False


def version_of(execution: WorkflowExecution) -> str:
    """The version of the workers that a workflow keeps to; `unversioned` if it keeps to none."""
    stored = execution.typed_search_attributes.get(_VERSION)
    return stored.rpartition(":")[2] if stored else UNVERSIONED


def _is_labelled(execution: WorkflowExecution) -> bool:
    return bool(execution.typed_search_attributes.get(SearchAttributeKey.for_keyword(BUILD_PROJECT)))


def _keyword(name: str, value: str) -> SearchAttributePair[Any]:
    return SearchAttributePair(SearchAttributeKey.for_keyword(name), str(value))


def _fairness_key(user_id: str) -> str:
    """What Temporal's fairness knows a user by; the activities of a build inherit it."""
    return user_id if len(user_id.encode()) <= _KEY_BYTES else sha256(user_id.encode()).hexdigest()


def _shorten(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= _SUMMARY_BYTES else encoded[: _SUMMARY_BYTES - 3].decode(errors="ignore") + "…"


@contextmanager
def _ignoring_missing() -> Iterator[None]:
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


@contextmanager
def _running(build_id: uuid.UUID | str) -> Iterator[None]:
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise NotFound(f"The workflow of build {build_id} is not running.") from None
