"""Runs the tool calls of a turn, and ends a phase if one of them made a commit."""

import asyncio
from collections.abc import Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.dispatch import DispatchActivities
    from domain.payloads import DispatchInput, DispatchResult, LoopState, RequestedCall, SnapshotReason
    from domain.status import Status
    from domain.worker_roles import WorkerRole

from workflows import policies
from workflows.projection import Projection
from workflows.queues import on_queue_of
from workflows.waiting import Waiting, best_effort
from workflows.workspace import Workspace


class ToolCalls:
    """Read-only calls run side by side, the others in order."""

    def __init__(
        self, build_id: str, state: LoopState, projection: Projection, workspace: Workspace, waiting: Waiting
    ) -> None:
        self._build_id = build_id
        self._state = state
        self._projection = projection
        self._workspace = workspace
        self._waiting = waiting

    async def run(self, calls: Sequence[RequestedCall]) -> list[DispatchResult]:
        """Run a turn's calls and return the results of those that could run."""
        results: list[DispatchResult] = []
        read_only: list[RequestedCall] = []
        for call in (call for call in calls if call.is_valid):
            if not call.mutating:
                read_only.append(call)
                continue
            results += await self._read(read_only)
            read_only = []
            await self._waiting.retry_with_help(self._workspace.replace_in_time, in_sandbox=True)
            self._workspace.note_change()
            results.append(await self._dispatch(call))
        results += await self._read(read_only)
        if any(result.lost for result in results):
            full = any(result.disk_full for result in results)
            why = "the sandbox's disk was full" if full else "the sandbox was lost"
            await self._waiting.resume_workspace(why, replace=full)
        if commits := [result.commit for result in results if result.commit]:
            await self._end_phase(commits)
        self._state.tool_calls += len(calls)
        return results

    async def _read(self, calls: Sequence[RequestedCall]) -> list[DispatchResult]:
        """Run calls side by side. Failed ones are retried one by one: people are asked one thing at a time."""
        if self._waiting.goes_on_waiting:
            return [await self._dispatch(call) for call in calls]
        outcomes = await asyncio.gather(*map(self._dispatch_once, calls), return_exceptions=True)
        results: list[DispatchResult] = []
        for call, result in zip(calls, outcomes, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, ActivityError):
                raise result
            results.append(await self._dispatch(call) if isinstance(result, BaseException) else result)
        return results

    async def _dispatch(self, call: RequestedCall) -> DispatchResult:
        return await self._waiting.retry_with_help(lambda: self._dispatch_once(call), in_sandbox=True)

    async def _dispatch_once(self, call: RequestedCall) -> DispatchResult:
        role = WorkerRole.BROWSER if call.in_browser else WorkerRole.BUILD
        return await workflow.execute_activity_method(
            DispatchActivities.dispatch_tool,
            DispatchInput(build_id=self._build_id, tool_use_id=call.tool_use_id, sandbox=self._workspace.sandbox),
            **on_queue_of(role, self._state, policies.TOOL),
            summary=call.summary,
        )

    async def _end_phase(self, commits: Sequence[str]) -> None:
        """A commit ends a phase, and a phase ends with a snapshot. If the snapshot fails, the next one covers it."""
        state = self._state
        state.phases += len(commits)
        snapshot = self._workspace.snapshot(
            SnapshotReason.PHASE, policies.SNAPSHOT_IF_POSSIBLE, phase=state.phases, commit=commits[-1]
        )
        await best_effort(snapshot)
        if state.status is Status.SCAFFOLD:
            await self._projection.become(Status.CODE)
