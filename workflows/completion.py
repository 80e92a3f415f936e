"""The end of a build: ready, with its product handed to the preview, or cancelled or failed, with its work kept."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.lifecycle import LifecycleActivities
    from domain.names import BUILD_FAILED, PREVIEW_WORKFLOW, preview_workflow_id
    from domain.outage import SAVE_WITHIN
    from domain.payloads import (
        BuildRef,
        ClaimPermit,
        FinishBuild,
        GateResult,
        LoadedState,
        LoopState,
        PreviewInput,
        SnapshotReason,
    )
    from domain.status import Status

from workflows import patches, policies
from workflows.failures import database_was_away, end_if_cancelled, outage_of, reason_of, rows_moved
from workflows.outage import Outage
from workflows.permits import claim_permit
from workflows.projection import Projection
from workflows.waiting import best_effort, note_failure
from workflows.workspace import Workspace

_STARTS = 10
"""A last step that the database does not let succeed is started this many times."""


class Completion:
    """Both ends release the sandbox, and both run to completion even if the build is cancelled meanwhile."""

    def __init__(
        self, build_id: str, state: LoopState, projection: Projection, workspace: Workspace, outage: Outage
    ) -> None:
        self._build = BuildRef(build_id=build_id)
        self._state = state
        self._projection = projection
        self._workspace = workspace
        self._outage = outage

    async def finish(self, evidence: GateResult) -> int:
        """Hand the gate's sandbox to the preview, close the build as ready and run the post-build hook.

        Returns:
            The version of the product.
        """
        sandbox_id, url = evidence.sandbox_id or "", evidence.preview_url or ""
        await self._start_preview(sandbox_id, url)
        finished = await workflow.execute_activity_method(
            LifecycleActivities.finish_build,
            FinishBuild(
                build_id=self._build.build_id,
                seq=self._projection.take(Status.READY),
                sandbox_id=sandbox_id,
                preview_url=url,
                phases_completed=self._state.phases,
                snapshot_number=self._state.snapshots,
            ),
            **policies.DATABASE,
            summary="ready",
        )
        self._projection.show_ready()
        await self._run_hook()
        await best_effort(self._workspace.release(keep=sandbox_id))
        return finished.build_version

    async def close(self, error: BaseException) -> NoReturn:
        """Snapshot the workspace, release the sandbox, and end as cancelled or failed.

        Raises:
            ApplicationError: the build failed; the message is what the founder reads.
            CancelledError: the build was cancelled.
        """
        cancelled = is_cancelled_exception(error)
        reason = None if cancelled else reason_of(error)
        deadline = workflow.now() + SAVE_WITHIN
        if self._workspace.is_open and not self._workspace.is_saved:
            await self._save(self._snapshot, deadline)
        await self._save(self._release, deadline)
        try:
            await self._projection.become(Status.CANCELLED if cancelled else Status.FAILED, reason=reason)
        except ActivityError as moved:
            if rows_moved(moved) is None:
                raise  # otherwise the row says already how the build has ended
        if cancelled:
            raise asyncio.CancelledError
        raise ApplicationError(reason or "The build failed.", type=BUILD_FAILED, non_retryable=True)

    def repeat(self, ended: LoadedState) -> int:
        """End as the build's rows say that it has ended.

        Returns:
            The version of the product.

        Raises:
            ApplicationError: the build failed or was cancelled.
            CancelledError: it was cancelled, and so was this run.
        """
        if ended.ended == Status.READY and ended.version is not None:
            self._projection.follow(Status.READY)
            return ended.version
        if ended.ended == Status.CANCELLED:
            end_if_cancelled()
            raise ApplicationError("The build was cancelled.", type="BuildCancelled", non_retryable=True)
        raise ApplicationError(ended.reason or "The build failed.", type=BUILD_FAILED, non_retryable=True)

    async def _snapshot(self) -> None:
        if self._workspace.is_paused:
            await best_effort(self._take_permit())
        await self._workspace.snapshot(SnapshotReason.END, policies.SNAPSHOT_AT_END)

    async def _release(self) -> None:
        """Release the sandboxes. If that fails until the deadline, the reaper releases them."""
        await self._workspace.release(options=policies.SANDBOX)

    async def _save(self, step: Callable[[], Awaitable[None]], deadline: datetime) -> None:
        """Do a step whose failure stops nothing. If a dependency is away, wait for it until the deadline. If the
        database was away, start over: its own steps have waited until it was back."""
        starts = 0
        while True:
            try:
                return await step()
            except ActivityError as error:
                dependency = outage_of(error)
                is_late = workflow.now() >= deadline
                if dependency is not None and not is_late and workflow.patched(patches.OUTAGES.id):
                    await self._outage.wait_to_save(dependency, reason_of(error), deadline)
                    continue
                starts += 1
                may_start_over = database_was_away(error) and not is_late and starts < _STARTS
                if not may_start_over or not workflow.patched(patches.SAVES.id):
                    return note_failure(error)

    async def _take_permit(self) -> None:
        """Take a permit, even if none is free, to save what is in a paused sandbox: the end of a build can't wait."""
        await claim_permit(ClaimPermit(build_id=self._build.build_id, anyway=True))

    async def _start_preview(self, sandbox_id: str, url: str) -> None:
        build_id = self._build.build_id
        seconds = self._state.loaded_context.preview_seconds
        request = PreviewInput(build_id=build_id, seconds=seconds, sandbox_id=sandbox_id, url=url)
        if workflow.patched(patches.PREVIEW_ONCE.id):
            await workflow.execute_activity_method(
                LifecycleActivities.start_preview, request, **policies.DATABASE, summary="start the preview"
            )
            return
        await workflow.start_child_workflow(
            PREVIEW_WORKFLOW,
            request,
            id=preview_workflow_id(build_id),
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary="keeps the product running",
        )

    async def _run_hook_once(self, options: policies.Options) -> None:
        await workflow.execute_activity_method(
            LifecycleActivities.run_post_build_hook, self._build, **options, summary="after the build"
        )

    async def _run_hook(self) -> None:
        """Run the post-build hook; its failure is only reported."""
        try:
            await self._run_hook_once(policies.HOOK)
        except ActivityError as error:
            if database_was_away(error) and workflow.patched(patches.OUTAGES.id):
                return await self._run_hook_once(policies.DATABASE)
            await workflow.execute_activity_method(
                LifecycleActivities.note_hook_failure,
                self._build,
                **policies.DATABASE,
                summary="after the build: failed",
            )
