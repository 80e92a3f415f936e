"""What Temporal knows of all builds, for operators, and the pause of the reaper."""

import asyncio
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from clients.build_workflows import version_of
from clients.payload_codec import EncryptingCodec
from domain.errors import NotFound, PayloadUnreadable
from domain.names import (
    BUILD_WORKFLOW,
    REAPER_ID,
    REPORTED_PROBLEMS,
    WORKER_VERSION,
    build_of_workflow,
    build_workflow_id,
)
from domain.stuck import PendingActivity
from domain.versions import UNVERSIONED

_RPC_TIMEOUT = timedelta(seconds=5)
"""An operator waits for the answer."""

_PAGE = 1000
_IDS_IN_QUERY = 100

_PROBLEMS = SearchAttributeKey.for_keyword_list(REPORTED_PROBLEMS)


@dataclass(frozen=True)
class ReaperSchedule:
    """The schedule that starts the reaper."""

    paused: bool
    note: str | None
    """What was said of it when it was paused or resumed last."""
    last_run_at: datetime | None


@dataclass(frozen=True)
class WorkflowView:
    """A build's workflow, its latest run."""

    status: str
    run_id: str
    history_events: int
    started_at: datetime
    closed_at: datetime | None
    version: str | None
    task_attempt: int
    """Of the workflow task that is pending; 0 if none is. Above 1 it has failed before."""
    problems: Sequence[str]
    """What Temporal reports of tasks that fail again and again."""
    pending: Sequence[PendingActivity]


class FleetWorkflows:
    """Reads the workflows of all builds, and pauses the reaper."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def namespace(self) -> str:
        """The name of the namespace."""
        return self._client.namespace

    async def reaper(self) -> ReaperSchedule | None:
        """Read the reaper's schedule; None if no worker has made it yet.

        Raises:
            RPCError, RuntimeError: Temporal does not answer, or refuses.
        """
        try:
            handle = self._client.get_schedule_handle(REAPER_ID)
            description = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        state, recent = description.schedule.state, description.info.recent_actions
        note = await self._read_note(state.note) if state.note else None
        return ReaperSchedule(state.paused, note, recent[-1].started_at if recent else None)

    async def pause_reaper(self, note: str) -> None:
        """Let the reaper's schedule start no more runs. A run that has begun ends by itself, within seconds.

        Raises:
            NotFound: no worker has made the schedule yet.
            RPCError, RuntimeError: Temporal does not answer, or refuses.
        """
        with _scheduled():
            note = await self._note_to_store(note)
            await self._client.get_schedule_handle(REAPER_ID).pause(note=note, rpc_timeout=_RPC_TIMEOUT)

    async def resume_reaper(self, note: str) -> None:
        """Let the reaper's schedule start runs again.

        Raises:
            NotFound, RPCError, RuntimeError: as `pause_reaper`.
        """
        with _scheduled():
            note = await self._note_to_store(note)
            await self._client.get_schedule_handle(REAPER_ID).unpause(note=note, rpc_timeout=_RPC_TIMEOUT)

    async def _note_to_store(self, note: str) -> str:
        """The note, encrypted if payloads are: Temporal has notes as plain strings."""
        codec = self._client.data_converter.payload_codec
        return await codec.encode_text(note) if isinstance(codec, EncryptingCodec) else note

    async def _read_note(self, note: str) -> str:
        codec = self._client.data_converter.payload_codec
        try:
            return await codec.decode_text(note) if isinstance(codec, EncryptingCodec) else note
        except PayloadUnreadable as problem:
            return str(problem)

    async def with_problems(self) -> dict[uuid.UUID, Sequence[str]]:
        """The open builds whose workflow tasks fail again and again, each with what Temporal reports.

        Raises:
            RPCError, RuntimeError: Temporal does not answer, or refuses.
        """
        query = f'WorkflowType = "{BUILD_WORKFLOW}" AND ExecutionStatus = "Running" AND {REPORTED_PROBLEMS} IS NOT NULL'
        found: dict[uuid.UUID, Sequence[str]] = {}
        try:
            async for execution in self._client.list_workflows(query, page_size=_PAGE, rpc_timeout=_RPC_TIMEOUT):
                if (build_id := build_of_workflow(execution.id)) is not None:
                    found[build_id] = execution.typed_search_attributes.get(_PROBLEMS) or ()
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:  # an older server, which does not report them
                raise
        return found

    async def describe(self, build_id: uuid.UUID) -> WorkflowView | None:
        """Read how a build's workflow is; None if there is none.

        Raises:
            RPCError, RuntimeError: Temporal does not answer, or refuses.
        """
        try:
            handle = self._client.get_workflow_handle(build_workflow_id(build_id))
            found = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        raw = found.raw_description
        return WorkflowView(
            status="unknown" if found.status is None else found.status.name.lower(),
            run_id=found.run_id,
            history_events=found.history_length,
            started_at=found.start_time,
            closed_at=found.close_time,
            version=None if (version := version_of(found)) == UNVERSIONED else version,
            task_attempt=raw.pending_workflow_task.attempt,
            problems=found.typed_search_attributes.get(_PROBLEMS) or (),
            pending=[
                PendingActivity(
                    each.activity_type.name,
                    each.attempt,
                    await self._text_of(each.last_failure),
                    each.activity_options.task_queue.name,
                    _waits_since(each),
                )
                for each in raw.pending_activities
            ],
        )

    async def _text_of(self, failure: Failure) -> str | None:
        """The text of an error, which is encrypted if PAYLOAD_KEY is set; None if there is no error."""
        if not failure.HasField("encoded_attributes"):
            return failure.message or None
        try:
            return str(await self._client.data_converter.decode_failure(failure))
        except PayloadUnreadable as problem:
            return str(problem)

    async def open_versions(self) -> dict[uuid.UUID, str]:
        """By which version of the workers each open build is run. Builds of workers without versions are left out.

        Raises:
            RPCError, RuntimeError: Temporal does not answer, or refuses.
        """
        return await self._versions(f'ExecutionStatus = "Running" AND {WORKER_VERSION} IS NOT NULL')

    async def versions_of(self, build_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
        """By which version of the workers these builds are or were run last; as `open_versions`."""
        ids, found = list(build_ids), dict[uuid.UUID, str]()
        pieces = [ids[start : start + _IDS_IN_QUERY] for start in range(0, len(ids), _IDS_IN_QUERY)]
        lists = [", ".join(f'"{build_workflow_id(build_id)}"' for build_id in piece) for piece in pieces]
        queries = [f"WorkflowId IN ({listed}) AND {WORKER_VERSION} IS NOT NULL" for listed in lists]
        for versions in await asyncio.gather(*(self._versions(query) for query in queries)):
            found |= versions
        return found

    async def builds_of_versions(self, versions: Collection[str]) -> set[uuid.UUID]:
        """The open builds that workers of one of these versions run. `unversioned`: of workers without versions.

        Raises:
            RPCError, RuntimeError: Temporal does not answer, or refuses.
        """
        found = await self._versions('ExecutionStatus = "Running"')
        return {build_id for build_id, version in found.items() if version in versions}

    async def _versions(self, query: str) -> dict[uuid.UUID, str]:
        found: dict[uuid.UUID, str] = {}
        listed = self._client.list_workflows(
            f'WorkflowType = "{BUILD_WORKFLOW}" AND {query}', page_size=_PAGE, rpc_timeout=_RPC_TIMEOUT
        )
        async for execution in listed:
            if (build_id := build_of_workflow(execution.id)) is not None:
                found.setdefault(build_id, version_of(execution))  # the latest run comes first
        return found


def _waits_since(activity: PendingActivityInfo) -> datetime | None:
    """When the activity was or will be given to workers; None if one of them runs it."""
    if activity.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
        return None
    return activity.scheduled_time.ToDatetime(UTC)


@contextmanager
def _scheduled() -> Iterator[None]:
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise NotFound("The reaper has no schedule yet: a worker makes it when it starts. Start one.") from None
