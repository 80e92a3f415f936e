"""Tool calls: each is run once and gets exactly one result, whatever happens in between.

An attempt claims the call's row before it acts, and stores the outcome only while it holds the claim. What an outcome
is, `activities/tool_outcome.py` decides.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic

import structlog
from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.tool_outcome import (
    ToolOutcome,
    asked_founder,
    cancelled_call,
    done_event,
    interrupted_call,
    is_same_boot,
    journaled_call,
    lost_call,
    may_have_run_elsewhere,
    new_result,
    read_input,
    refused_result,
    started_event,
    stored_result,
)
from activities.worker_tools import WORKER_TOOLS, ToolContext, read_image
from clients.browser import Browser
from clients.cancellation import run_to_completion
from clients.sandbox import Sandbox, Sandboxes
from db import steering, tool_calls
from db.refused_hosts import announce_refused_hosts
from db.session import Sessions
from db.tool_calls import StoredCall
from db.transaction import Transaction, autocommit, transaction
from domain.errors import CofounderError, SandboxFull, SandboxGone, StaleClaim
from domain.payloads import DispatchInput, DispatchResult
from domain.product_secrets import stand_ins
from domain.tool_output import displayable, render_result
from domain.tools import BASH_TIMEOUT_DEFAULT_SECONDS, TOOLS, AskFounderInput, RunsIn, Tool, ToolInput, is_mutating
from observing.activity_traces import note_tool_call
from services.images import ImageStore, keep_image

FILE_SECONDS = 60
"""How long write_file and edit_file may take."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Intent:
    """A call that this attempt has claimed and is about to run."""

    call: StoredCall
    input: ToolInput
    claim: uuid.UUID
    is_retry: bool
    """An earlier attempt began it; if it is mutating, in this boot of this sandbox, where it may still run."""
    started: float = field(default_factory=monotonic)

    @property
    def tool(self) -> Tool:
        """The tool's entry. Its input was checked, so there is one."""
        return TOOLS[self.call.name]

    @property
    def command(self) -> str | None:
        """What bash runs for it, if its tool is a command."""
        return None if self.tool.command is None else self.tool.command(self.input)


class DispatchActivities:
    """`dispatch_tool`, with its clients. `secrets` are values that no result may show."""

    def __init__(
        self,
        sessions: Sessions,
        sandboxes: Sandboxes,
        browser: Browser,
        images: ImageStore,
        *,
        bash_timeout_max_seconds: int,
        secrets: Sequence[str] = (),
    ) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._browser = browser
        self._images = images
        self._bash_timeout_max_seconds = bash_timeout_max_seconds
        self._secrets = secrets

    @activity.defn
    @application_errors
    async def dispatch_tool(self, request: DispatchInput) -> DispatchResult:
        """Run a tool call, or find what became of it.

        If the build is cancelled, the call's processes are ended. If the worker shuts down, they go on, and the next
        attempt attaches to them.

        Raises:
            SandboxUnavailable: the sandbox service fails; worth another attempt.
            StaleClaim: another attempt has taken the call and not finished it yet.
        """
        try:
            async with heartbeating():
                intent = await self._intend(request)
                if isinstance(intent, DispatchResult):
                    return intent
                await crash_point("dispatch.intended")
                outcome = await self._act(request, intent)
                await crash_point("dispatch.acted")
                await self._announce_refused(request, intent, outcome.refused_hosts)
                return await self._store(request, intent, outcome)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is not None and details.cancel_requested and not details.worker_shutdown:
                await run_to_completion(self._end(request))
            raise

    # ---- the row

    async def _intend(self, request: DispatchInput) -> DispatchResult | _Intent:
        """Claim the call's row and announce the call before it is run; or find its result, if it is not to be run."""
        build_id, claim = uuid.UUID(request.build_id), uuid.uuid4()
        async with autocommit(self._sessions) as tx:
            begun = await tool_calls.begin_call(tx, build_id, request.tool_use_id, claim, request.sandbox)
        if begun is not None:
            call, answer = begun
            note_tool_call(call.name, call.tool_use_id, call.turn)
            checked = read_input(call, answer)
            if isinstance(checked, ToolOutcome):
                async with autocommit(self._sessions) as tx:
                    await _write(tx, call, claim, checked, monotonic())
                return refused_result()
            return _Intent(call, checked, claim, is_retry=False)
        return await self._intend_again(request, build_id, claim)

    async def _intend_again(
        self, request: DispatchInput, build_id: uuid.UUID, claim: uuid.UUID
    ) -> DispatchResult | _Intent:
        """Claim a call that an earlier attempt has claimed, or find its result."""
        async with transaction(self._sessions) as tx:
            call, answer = await tool_calls.call_to_run(tx, build_id, request.tool_use_id)
            note_tool_call(call.name, call.tool_use_id, call.turn)
            if call.state == "done":
                # If it was lost with another sandbox, the workflow knows: it has opened this one since.
                return stored_result(call, lost=call.lost and is_same_boot(call, request.sandbox))
            is_retry = call.state == "intended"
            elsewhere = may_have_run_elsewhere(call, request.sandbox)
            events = [] if is_retry else [started_event(call)]
            await tool_calls.take_call(tx, call, claim, None if elsewhere else request.sandbox, events)
            checked = read_input(call, answer)
            if elsewhere and not isinstance(checked, ToolOutcome):  # one that can't be read has not run
                checked = lost_call("the sandbox was restarted or replaced while it ran", ran=True)
            if isinstance(checked, ToolOutcome):
                await _write(tx, call, claim, checked, monotonic())
                return refused_result()
        return _Intent(call, checked, claim, is_retry)

    async def _store(self, request: DispatchInput, intent: _Intent, outcome: ToolOutcome) -> DispatchResult:
        """Write the result, if this attempt still holds the claim. If another has finished the call, its result
        counts."""
        build_id = uuid.UUID(request.build_id)
        begin = autocommit if outcome.question is None else transaction
        try:
            async with begin(self._sessions) as tx:
                await _write(tx, intent.call, intent.claim, outcome, intent.started)
                if outcome.question is not None:
                    await steering.add_agent_question(tx, build_id, request.tool_use_id, outcome.question)
        except StaleClaim:
            async with transaction(self._sessions) as tx:
                call, _ = await tool_calls.call_to_run(tx, build_id, request.tool_use_id)
            if call.state != "done":
                raise
            return stored_result(call, lost=call.lost)
        return new_result(intent.call, outcome)

    async def _announce_refused(self, request: DispatchInput, intent: _Intent, hosts: Sequence[str]) -> None:
        """Tell the founder of hosts that the sandbox was refused. Before the result, after which no attempt acts."""
        if hosts:
            async with transaction(self._sessions) as tx:
                await announce_refused_hosts(tx, uuid.UUID(request.build_id), hosts, turn=intent.call.turn)

    async def _end(self, request: DispatchInput) -> None:
        """The founder cancelled: end what runs, and give the call its result, whichever attempt held it."""
        claim, started = uuid.uuid4(), monotonic()
        async with heartbeating():
            async with transaction(self._sessions) as tx:
                call, _ = await tool_calls.call_to_run(tx, uuid.UUID(request.build_id), request.tool_use_id)
                if call.state == "done":
                    return
                await tool_calls.claim_call(tx, call, claim)
            still_runs = False
            if call.state == "intended" and _runs_in_sandbox(call.name):
                try:
                    sandbox = await self._sandboxes.connect(request.sandbox.sandbox_id)
                    await sandbox.end_call(call.tool_use_id)
                except SandboxGone:
                    pass
                except CofounderError as error:
                    _log.warning("could not end a cancelled call", tool_use_id=request.tool_use_id, error=error)
                    still_runs = True
            async with autocommit(self._sessions) as tx:
                await _write(tx, call, claim, cancelled_call(still_runs=still_runs), started)

    # ---- the act

    async def _act(self, request: DispatchInput, intent: _Intent) -> ToolOutcome:
        if isinstance(intent.input, AskFounderInput):
            return await self._ask(uuid.UUID(request.build_id), intent.input)
        try:
            sandbox = await self._sandboxes.connect(request.sandbox.sandbox_id)
        except SandboxGone:
            return lost_call("the sandbox is gone", ran=intent.is_retry and intent.tool.mutating)
        try:
            if intent.tool.runs_in is RunsIn.WORKER:
                return await self._run_in_worker(sandbox, request, intent)
            if intent.tool.mutating:
                return await self._run_once(sandbox, request, intent)
            answer = await sandbox.query(intent.call.name, intent.input.model_dump())
            if answer.image is not None:
                context = self._context(sandbox, request)
                return await read_image(context, intent.input.model_dump()["file_path"], answer.image)
            return ToolOutcome([displayable(answer.text, self._secrets)], answer.is_error)
        except SandboxGone:
            return lost_call("the sandbox was lost", ran=intent.tool.mutating)
        except SandboxFull:
            # The sandbox had no room to claim the call, so this attempt did not begin it.
            return lost_call("the sandbox's disk is full", ran=intent.is_retry, disk_full=True)

    async def _ask(self, build_id: uuid.UUID, asked: AskFounderInput) -> ToolOutcome:
        """The founder's question, without secrets. It is stored with the result."""
        async with transaction(self._sessions) as tx:
            count = len(await steering.open_agent_questions(tx, [build_id]))
        question, default, *options = (
            displayable(text, self._secrets) for text in (asked.question, asked.default, *asked.options)
        )
        return asked_founder(question, options, default, open_questions=count)

    def _context(self, sandbox: Sandbox, request: DispatchInput) -> ToolContext:
        keep = partial(keep_image, self._sessions, self._images, uuid.UUID(request.build_id))
        return ToolContext(sandbox, self._browser, keep)

    async def _run_in_worker(self, sandbox: Sandbox, request: DispatchInput, intent: _Intent) -> ToolOutcome:
        if intent.is_retry and intent.tool.acts is not None and intent.tool.acts(intent.input):
            return interrupted_call()
        outcome = await WORKER_TOOLS[intent.tool.name](self._context(sandbox, request), intent.input)
        content = [displayable(part, self._secrets) if isinstance(part, str) else part for part in outcome.content]
        return replace(outcome, content=content)

    async def _run_once(self, sandbox: Sandbox, request: DispatchInput, intent: _Intent) -> ToolOutcome:
        """Start the call inside the sandbox, or attach to it if it was started there before."""
        timeout_seconds = self._timeout_seconds(intent)
        tool, tool_input = intent.call.name, intent.input.model_dump()
        if intent.command is not None:
            tool, tool_input = "bash", {"command": intent.command}
        run = await sandbox.call(
            intent.call.tool_use_id,
            tool,
            tool_input,
            timeout_seconds=timeout_seconds,
            boot=request.sandbox.boot,
            env=None if intent.command is None else stand_ins(intent.call.secret_names),
        )
        return journaled_call(
            run,
            is_command=intent.command is not None,
            is_retry=intent.is_retry,
            timeout_seconds=timeout_seconds,
            secrets=self._secrets,
        )

    def _timeout_seconds(self, intent: _Intent) -> float:
        if intent.command is None:
            return FILE_SECONDS
        requested: int | None = intent.input.model_dump().get("timeout_ms")
        seconds = BASH_TIMEOUT_DEFAULT_SECONDS if requested is None else requested / 1000
        return min(seconds, self._bash_timeout_max_seconds)


def _runs_in_sandbox(name: str) -> bool:
    """Whether a call of this tool may be running as a process of the sandbox."""
    return is_mutating(name) and (name not in TOOLS or TOOLS[name].runs_in is not RunsIn.WORKER)


async def _write(tx: Transaction, call: StoredCall, claim: uuid.UUID, outcome: ToolOutcome, started: float) -> None:
    """Write the result, if the claim still holds.

    Raises:
        StaleClaim: it does not; nothing is written.
    """
    await tool_calls.store_result(
        tx,
        call,
        claim,
        result=render_result(call.tool_use_id, outcome.content, outcome.is_error),
        is_error=outcome.is_error,
        lost=outcome.lost,
        commit=outcome.commit,
        event=done_event(call, outcome, monotonic() - started),
    )
