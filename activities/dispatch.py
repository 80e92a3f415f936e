"""Tool calls: run once each, and each with exactly one result, whatever happens in between."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic
from typing import Any, Protocol

import structlog
from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from clients.browser import Browser, PageFailed
from clients.sandbox import CallOutcome, Sandbox, Sandboxes
from clients.sandbox_runner import WORKSPACE
from clients.shielded import to_the_end
from db import tool_calls
from db.models import ToolCall
from db.session import Sessions
from db.tool_calls import StoredCall
from db.transaction import Executor, autocommit, transaction
from domain.answer import input_of
from domain.errors import CofounderError, InvalidInput, InvalidToolInput, SandboxFull, SandboxGone, StaleClaim
from domain.events import EventType, NewEvent
from domain.guards import error_signature
from domain.payloads import DispatchInput, DispatchResult
from domain.product import PRODUCT_FILE, parse_product_manifest
from domain.tool_output import ImageRef, command_text, parse_stored_blocks, render_result, result_text, shown
from domain.tools import (
    BASH_TIMEOUT_DEFAULT_SECONDS,
    TakeScreenshotInput,
    ToolInput,
    check_tool_input,
    command_of,
    is_mutating,
)

FILE_SECONDS = 60
"""How long write_file and edit_file may take."""

PAGE_ANSWER_SECONDS = 15.0
DEFAULT_PORT = 8000
"""Where a product is looked for that does not declare its port yet."""

COMMIT_DIGITS = 12

UNKNOWN = (
    "The outcome of this call is unknown: {why}. It was not run again. Look at the state of the workspace before you "
    "repeat it; processes that you had started have ended."
)
NOT_RUN = "This call was not run: {why}. Processes that you had started have ended. Look at the workspace, then repeat."
CANCELLED = "The founder cancelled the build during this call, and its processes were ended."
CANCELLED_BUT = (
    "The founder cancelled the build during this call. Its processes could not be ended; they may still run."
)
_NOT_THE_CALLS_FAULT = (UNKNOWN.partition(":")[0], NOT_RUN.partition(":")[0], CANCELLED.partition(",")[0])

_log = structlog.get_logger(__name__)


class Images(Protocol):
    """Where screenshots are kept, by the SHA-256 of their bytes."""

    async def put_image(self, sha256_hex: str, webp: bytes) -> None:
        """Keep the image; again is fine."""
        ...


@dataclass(frozen=True)
class _Outcome:
    """What is stored of a call, and what the workflow hears."""

    content: Sequence[str | ImageRef]
    is_error: bool = False
    commit: str | None = None
    lost: bool = False
    full: bool = False
    """With `lost`: the sandbox's disk is full."""


@dataclass(frozen=True)
class _Intent:
    """A call that this attempt holds. `again`: an earlier attempt had begun it in the same boot of the same sandbox."""

    call: StoredCall
    input: ToolInput
    claim: uuid.UUID
    again: bool
    began: float = field(default_factory=monotonic)

    @property
    def command(self) -> str | None:
        """What bash runs for it, where its tool is a command."""
        return command_of(self.call.name, self.input)


class DispatchActivities:
    """`dispatch_tool`, with its clients. `secrets` are values that no result may show."""

    def __init__(
        self,
        sessions: Sessions,
        sandboxes: Sandboxes,
        browser: Browser,
        images: Images,
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

        A cancelled build ends the call's processes; a worker that shuts down leaves them running, and the next attempt
        attaches to them.

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
                return await self._store(request, intent, outcome)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is not None and details.cancel_requested and not details.worker_shutdown:
                await to_the_end(self._end(request))
            raise

    # ---- the row

    async def _intend(self, request: DispatchInput) -> DispatchResult | _Intent:
        """Take the call's row for this attempt, and say so before anything is done; or find its result."""
        build_id, claim = uuid.UUID(request.build_id), uuid.uuid4()
        async with transaction(self._sessions) as session:
            call, spoken = await tool_calls.call_to_run(session, build_id, request.tool_use_id)
            same_boot = (call.sandbox_id, call.boot) == (request.sandbox.sandbox_id, request.sandbox.boot)
            if call.state == "done":
                # Lost with another sandbox than this one: the workflow knows, as it has opened this one since.
                return _result_of(call, lost=call.lost and same_boot)
            begun = call.state == "intended"
            # The workflow has opened another sandbox since, or this one anew, and verified the workspace.
            unknown = begun and not same_boot and is_mutating(call.name)
            said = {"tool_use_id": call.tool_use_id, "name": call.name, "summary": call.summary}
            started = [] if begun else [NewEvent(EventType.TOOL_STARTED, said, turn=call.turn)]
            await tool_calls.take_call(session, call, claim, None if unknown else request.sandbox, started)
            problem: str | None = None
            try:
                checked = check_tool_input(call.name, input_of(parse_stored_blocks(spoken), request.tool_use_id))
            except InvalidToolInput as error:
                problem = str(error)
            if unknown:
                problem = UNKNOWN.format(why="the sandbox was restarted or replaced while it ran")
            if problem is not None:
                await _write(session, call, claim, _Outcome([problem], is_error=True, lost=unknown), monotonic())
                return _result(True, None)
        return _Intent(call, checked, claim, again=begun)

    async def _store(self, request: DispatchInput, intent: _Intent, outcome: _Outcome) -> DispatchResult:
        """Write the result, if this attempt still holds the call. If another has finished it, that one's counts."""
        build_id = uuid.UUID(request.build_id)
        try:
            async with autocommit(self._sessions) as session:
                await _write(session, intent.call, intent.claim, outcome, intent.began)
        except StaleClaim:
            async with transaction(self._sessions) as session:
                call, _ = await tool_calls.call_to_run(session, build_id, request.tool_use_id)
            if call.state != "done":
                raise
            return _result_of(call, lost=call.lost)
        error = None
        if outcome.is_error and not outcome.lost:
            error = error_of(intent.call, render_result(intent.call.tool_use_id, outcome.content, is_error=True))
        return _result(outcome.is_error, outcome.commit, outcome.lost, outcome.full, error)

    # ---- the act

    async def _act(self, request: DispatchInput, intent: _Intent) -> _Outcome:
        try:
            sandbox = await self._sandboxes.connect(request.sandbox.sandbox_id)
        except SandboxGone:
            return _lost("the sandbox is gone", ran=intent.again and is_mutating(intent.call.name))
        try:
            if isinstance(intent.input, TakeScreenshotInput):
                return await self._take_screenshots(sandbox, intent.input)
            if is_mutating(intent.call.name):
                return await self._run_once(sandbox, request, intent)
            answer = await sandbox.query(intent.call.name, intent.input.model_dump())
            return _Outcome([shown(answer.text, self._secrets)], answer.is_error)
        except SandboxGone:
            return _lost("the sandbox was lost", ran=is_mutating(intent.call.name))
        except SandboxFull:
            # Where the call cannot be claimed there, it did not begin.
            return _lost("the sandbox's disk is full", ran=intent.again, full=True)

    async def _run_once(self, sandbox: Sandbox, request: DispatchInput, intent: _Intent) -> _Outcome:
        """Start the call inside the sandbox, or attach to it there."""
        timeout = self._timeout(intent)
        tool, wanted = intent.call.name, intent.input.model_dump()
        if intent.command is not None:
            tool, wanted = "bash", {"command": intent.command}
        ran = await sandbox.call(
            intent.call.tool_use_id,
            tool,
            wanted,
            timeout_seconds=timeout,
            boot=request.sandbox.boot,
        )
        if ran.state == "not_run":
            return _lost("the sandbox was restarted", ran=intent.again)
        if ran.state == "lost":
            return _lost(shown(ran.text, self._secrets), ran=True)
        return _Outcome(
            [self._told(intent, ran, timeout)], ran.is_error, commit=ran.commit[:COMMIT_DIGITS] if ran.commit else None
        )

    def _told(self, intent: _Intent, ran: CallOutcome, timeout: float) -> str:
        """What the agent is told of a call that ran."""
        if ran.ended:
            return CANCELLED
        if intent.command is None:
            return shown(ran.text, self._secrets)
        return command_text(
            head=ran.text,
            tail=ran.tail,
            output_bytes=ran.output_bytes,
            output_path=ran.output_path,
            exit_code=ran.exit_code,
            timed_out_after=timeout if ran.timed_out else None,
            secrets=self._secrets,
        )

    def _timeout(self, intent: _Intent) -> float:
        if intent.command is None:
            return FILE_SECONDS
        asked: int | None = intent.input.model_dump().get("timeout_seconds")
        return min(asked or BASH_TIMEOUT_DEFAULT_SECONDS, self._bash_timeout_max_seconds)

    async def _end(self, request: DispatchInput) -> None:
        """The founder cancelled: end what runs, and give the call its result, whoever held it."""
        claim, began = uuid.uuid4(), monotonic()
        async with heartbeating():
            async with transaction(self._sessions) as session:
                call, _ = await tool_calls.call_to_run(session, uuid.UUID(request.build_id), request.tool_use_id)
                if call.state == "done":
                    return
                await tool_calls.claim_call(session, call, claim)
            told = CANCELLED
            if call.state == "intended" and is_mutating(call.name):
                try:
                    sandbox = await self._sandboxes.connect(request.sandbox.sandbox_id)
                    await sandbox.end_call(call.tool_use_id)
                except SandboxGone:
                    pass
                except CofounderError as error:
                    _log.warning("could not end a cancelled call", tool_use_id=request.tool_use_id, error=str(error))
                    told = CANCELLED_BUT
            async with autocommit(self._sessions) as session:
                await _write(session, call, claim, _Outcome([told], is_error=True), began)

    async def _take_screenshots(self, sandbox: Sandbox, asked: TakeScreenshotInput) -> _Outcome:
        port = await _product_port(sandbox)
        answer = await sandbox.http_get(port, asked.path, PAGE_ANSWER_SECONDS)
        if answer is None:
            return _Outcome(
                [
                    f"No server answers on port {port} of the sandbox, the port that {PRODUCT_FILE} names (8000 where "
                    "it names none). Start the product in the background with bash, then take the screenshot."
                ],
                is_error=True,
            )
        try:
            pictures = await self._browser.screenshots(sandbox.url(port) + asked.path)
        except PageFailed as error:
            return _Outcome([shown(str(error), self._secrets)], is_error=True)
        content: list[str | ImageRef] = []
        for picture in pictures:
            name = sha256(picture.webp).hexdigest()
            await self._images.put_image(name, picture.webp)
            content.append(ImageRef(name))
        sizes = " and ".join(f"{picture.viewport} {picture.width}x{picture.height}" for picture in pictures)
        return _Outcome([*content, f"{asked.path} on port {port}: {sizes}; HTTP status {pictures[0].http_status}."])


async def _write(session: Executor, call: StoredCall, claim: uuid.UUID, outcome: _Outcome, began: float) -> None:
    """Write the result, if the claim still holds.

    Raises:
        StaleClaim: it does not; nothing is written.
    """
    done = {
        "tool_use_id": call.tool_use_id,
        "name": call.name,
        "summary": call.summary,
        "is_error": outcome.is_error,
        "seconds": round(monotonic() - began, 2),
    }
    await tool_calls.store_result(
        session,
        call,
        claim,
        result=render_result(call.tool_use_id, outcome.content, outcome.is_error),
        is_error=outcome.is_error,
        lost=outcome.lost,
        commit=outcome.commit,
        event=NewEvent(EventType.TOOL_DONE, done, turn=call.turn),
    )


async def _product_port(sandbox: Sandbox) -> int:
    try:
        text = (await sandbox.read(f"{WORKSPACE}/{PRODUCT_FILE}")).decode("utf-8", "replace")
        return parse_product_manifest(text).port
    except (FileNotFoundError, InvalidInput):
        return DEFAULT_PORT


def _lost(why: str, *, ran: bool, full: bool = False) -> _Outcome:
    told = UNKNOWN if ran else NOT_RUN
    return _Outcome([told.format(why=why)], is_error=True, lost=True, full=full)


def error_of(call: StoredCall | ToolCall, result: str) -> str | None:
    """The signature of the error that a call ended in; None where it was lost, or ended from outside."""
    text = result_text(result)
    return None if text.startswith(_NOT_THE_CALLS_FAULT) else error_signature(call.name, call.summary, text)


def _result_of(call: StoredCall, *, lost: bool) -> DispatchResult:
    """What the workflow hears of a call that has its result."""
    error = error_of(call, call.result) if call.is_error and not call.lost and call.result else None
    return _result(call.is_error, call.commit, lost, error=error)


def _result(
    is_error: bool | None, commit: str | None, lost: bool = False, full: bool = False, error: str | None = None
) -> DispatchResult:
    """Only what differs from the default is set: it stands in history for every call."""
    fields: dict[str, Any] = {}
    if is_error:
        fields["is_error"] = True
    if commit:
        fields["commit"] = commit
    if lost:
        fields["lost"] = True
    if full:
        fields["disk_full"] = True
    if error:
        fields["error_signature"] = error
    return DispatchResult.model_validate(fields)
