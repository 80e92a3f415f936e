"""Outcomes of tool calls: whether a call ran, the text for the agent, the result for the workflow. Pure functions.

A call has exactly one outcome. If it can't be known whether a call took effect, the agent is told so, and it is not
run again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clients.browser import PageFailed
from clients.sandbox import CallOutcome
from db.models import ToolCall
from db.tool_calls import StoredCall
from domain.answer import input_of
from domain.egress import refusal_note, refused_hosts
from domain.errors import InvalidToolInput
from domain.events import ToolDoneEvent, ToolStartedEvent
from domain.guards import error_signature
from domain.page_view import FailedRequest, PageView
from domain.payloads import DispatchResult, SandboxRef
from domain.product import PRODUCT_FILE
from domain.prompt import NOTES_FILE
from domain.question import MAX_OPEN_QUESTIONS, AskedQuestion
from domain.sent_tools import tools_of
from domain.tool_output import ImageRef, command_text, displayable, parse_stored_blocks, render_result, result_text
from domain.tools import ToolInput, is_mutating

COMMIT_DIGITS = 12
"""Digits of a commit's hash that the row and the workflow get."""

_UNKNOWN = (
    "The outcome of this call is unknown: {why}. It was not run again. Look at the state of the workspace before you "
    "repeat it; processes that you had started have ended."
)
_INTERRUPTED = (
    "The outcome of this call is unknown: Cofounder was interrupted while its steps were done. They were not done "
    "again, because they may have changed the product's data. Your server still runs. Look at the page without steps "
    "before you repeat them."
)
_NOT_RUN = (
    "This call was not run: {why}. Processes that you had started have ended. Look at the workspace, then repeat."
)
_CANCELLED = "The founder cancelled the build during this call, and its processes were ended."
_CANCELLED_BUT_RUNNING = (
    "The founder cancelled the build during this call. Its processes could not be ended; they may still run."
)
_NOT_THE_CALLS_FAULT = (_UNKNOWN.partition(":")[0], _NOT_RUN.partition(":")[0], _CANCELLED.partition(",")[0])
"""How the results begin of calls that something else ended. They are not errors of the call itself."""


@dataclass(frozen=True)
class ToolOutcome:
    """The outcome of a call, as it is stored and as the workflow gets it."""

    content: Sequence[str | ImageRef]
    """The result that the agent reads."""
    is_error: bool = False
    commit: str | None = None
    """The workspace's new HEAD, if the call made a commit."""
    lost: bool = False
    """The sandbox was lost or restarted, so the workspace has to be verified."""
    disk_full: bool = False
    """With `lost`: the sandbox's disk is full."""
    question: AskedQuestion | None = None
    """Stored with the result: what the call asks the founder."""
    refused_hosts: Sequence[str] = ()
    """Hosts that the sandbox was not let out to."""


# ---- before a call is run


def is_same_boot(call: StoredCall, sandbox: SandboxRef) -> bool:
    """Whether the call's last attempt was made in this boot of this sandbox."""
    return (call.sandbox_id, call.boot) == (sandbox.sandbox_id, sandbox.boot)


def may_have_run_elsewhere(call: StoredCall, sandbox: SandboxRef) -> bool:
    """Whether an attempt began the call in another sandbox or boot, where it may have changed something.

    The workflow has since opened another sandbox, or this one again, and verified its workspace.
    """
    return call.state == "intended" and not is_same_boot(call, sandbox) and is_mutating(call.name)


def read_input(call: StoredCall, answer: str) -> ToolInput | ToolOutcome:
    """The call's input, from the stored answer that asked for it; if it does not fit the schema that the model was
    given, the outcome that says so."""
    try:
        return tools_of(call.tools).check(call.name, input_of(parse_stored_blocks(answer), call.tool_use_id))
    except InvalidToolInput as error:
        return ToolOutcome([str(error)], is_error=True)


# ---- outcomes


def lost_call(why: str, *, ran: bool, disk_full: bool = False) -> ToolOutcome:
    """The call's sandbox was lost. `ran`: the call may have begun there, so its outcome is unknown."""
    text = _UNKNOWN if ran else _NOT_RUN
    return ToolOutcome([text.format(why=why)], is_error=True, lost=True, disk_full=disk_full)


def interrupted_call() -> ToolOutcome:
    """An earlier attempt began the call, which acts on the product and leaves no trace by which it could be found."""
    return ToolOutcome([_INTERRUPTED], is_error=True)


def cancelled_call(*, still_runs: bool) -> ToolOutcome:
    """The founder cancelled the build while the call ran. `still_runs`: its processes could not be ended."""
    return ToolOutcome([_CANCELLED_BUT_RUNNING if still_runs else _CANCELLED], is_error=True)


def journaled_call(
    run: CallOutcome, *, is_command: bool, is_retry: bool, timeout_seconds: float, secrets: Iterable[str]
) -> ToolOutcome:
    """The outcome of a call that the sandbox was asked to run. `is_retry`: an earlier attempt had asked it, too."""
    secrets = list(secrets)
    if run.state == "not_run":
        return lost_call("the sandbox was restarted", ran=is_retry)
    if run.state == "lost":
        return lost_call(displayable(run.text, secrets), ran=True)
    hosts = refused_hosts(run.refused_hosts)
    if run.ended:
        text = _CANCELLED
    elif is_command:
        text = command_text(
            head=run.text,
            tail=run.tail,
            output_bytes=run.output_bytes,
            output_path=run.output_path,
            exit_code=run.exit_code,
            timed_out_after=timeout_seconds if run.timed_out else None,
            memory=None if run.memory_peak is None else (run.memory_peak, run.memory_limit),
            secrets=secrets,
        )
        if hosts:
            text = f"{text}\n{displayable(refusal_note(hosts), secrets)}"
    else:
        text = displayable(run.text, secrets)
    commit = run.commit[:COMMIT_DIGITS] if run.commit else None
    return ToolOutcome([text], run.is_error, commit, refused_hosts=[displayable(host, secrets) for host in hosts])


def asked_founder(question: str, options: Sequence[str], default: str, *, open_questions: int) -> ToolOutcome:
    """The agent asks its founder. `open_questions`: how many it has asked that have no answer yet."""
    if open_questions >= MAX_OPEN_QUESTIONS:
        text = (
            f"This was not asked: {open_questions} of your questions have no answer yet, and more would not be read. "
            f"Go on with your default ({default}), and write down in {NOTES_FILE} that you chose it."
        )
        return ToolOutcome([text], is_error=True)
    text = (
        f"Asked. Go on now with your default: {default}. Write down in {NOTES_FILE} that you chose it. If the founder "
        "answers, the answer reaches you as a message; do not wait for it."
    )
    return ToolOutcome([text], question=AskedQuestion(question, tuple(options), default))


def no_server(port: int) -> ToolOutcome:
    """There is nothing to take a screenshot of."""
    text = (
        f"No server answers on port {port} of the sandbox, the port that {PRODUCT_FILE} names (8000 where it names "
        "none). Start the product in the background with bash, then look again."
    )
    return ToolOutcome([text], is_error=True)


def screenshots_taken(path: str, port: int, shots: Sequence[PageView], images: Sequence[ImageRef]) -> ToolOutcome:
    """The screenshots, stored under these references, with a line that says what they show."""
    sizes = " and ".join(f"{shot.viewport} {shot.width}x{shot.height}" for shot in shots)
    lines = [f"{path} on port {port}: {sizes}; HTTP status {shots[0].http_status}."]
    for shot in shots:
        if problems := _problems(shot):
            lines += [f"On {shot.viewport}:", *problems]
    return ToolOutcome([*images, "\n".join(lines)])


def page_not_shown(error: PageFailed) -> ToolOutcome:
    """The browser could not show the page; says what to do."""
    text = (
        f"{error} See whether the server answers (curl -i) and what its log says, and whether a script of the page "
        "never ends or leads away."
    )
    return ToolOutcome([text], is_error=True)


def page_seen(path: str, port: int, view: PageView, image: ImageRef) -> ToolOutcome:
    """A page with its picture, stored under this reference, and all that the browser noticed."""
    lines = [view.failed_step] if view.failed_step else []
    lines.append(
        f"{path} on port {port}, {view.viewport} {view.width}x{view.height}, HTTP status {view.http_status}, "
        f"title {view.title!r}."
    )
    if view.path != path:
        lines.append(f"The browser is at {view.path} now.")
    lines += [f"{note}" for note in view.notes]
    lines += _problems(view) or ["No console errors, no failed requests."]
    lines.append(f"Visible text:\n{view.text.strip()}" if view.text.strip() else "There is no visible text.")
    return ToolOutcome([image, "\n".join(lines)], is_error=bool(view.failed_step))


def _problems(view: PageView) -> list[str]:
    """What is wrong with a page, a few lines each; empty if nothing is."""
    lines = []
    if view.console_errors:
        lines.append("Console errors:\n" + "\n".join(f"- {error}" for error in view.console_errors))
    if view.failed_requests:
        lines.append("Failed requests:\n" + "\n".join(f"- {_failed(request)}" for request in view.failed_requests))
    if view.broken_images:
        lines.append(f"Broken images: {', '.join(view.broken_images)}")
    if view.overflow_px:
        lines.append(
            f"The page is {view.overflow_px} px wider than the screen: {view.overflow_cause or 'see the picture'}."
        )
    return lines


def _failed(request: FailedRequest) -> str:
    where = " (another server, which this browser may not reach; a visitor's may)" if request.is_elsewhere else ""
    return f"{request.kind} {request.address}: {request.reason}{where}"


# ---- what the feed and the workflow hear


def started_event(call: StoredCall) -> ToolStartedEvent:
    """The first attempt is about to run the call."""
    return ToolStartedEvent(tool_use_id=call.tool_use_id, name=call.name, summary=call.summary)


def done_event(call: StoredCall, outcome: ToolOutcome, seconds: float) -> ToolDoneEvent:
    """The call has its result. `seconds`: how long its last attempt took."""
    return ToolDoneEvent(
        tool_use_id=call.tool_use_id,
        name=call.name,
        summary=call.summary,
        is_error=outcome.is_error,
        seconds=round(seconds, 2),
    )


def new_result(call: StoredCall, outcome: ToolOutcome) -> DispatchResult:
    """The workflow's result of a call that this attempt has run."""
    error = None
    if outcome.is_error and not outcome.lost:
        error = error_of(call, render_result(call.tool_use_id, outcome.content, is_error=True))
    return DispatchResult.sparse(
        is_error=outcome.is_error,
        commit=outcome.commit,
        lost=outcome.lost,
        disk_full=outcome.disk_full,
        error_signature=error,
    )


def refused_result() -> DispatchResult:
    """The workflow's result of a call that was not run. Never `lost`: the workspace was verified since."""
    return DispatchResult(is_error=True)


def stored_result(call: StoredCall, *, lost: bool) -> DispatchResult:
    """The workflow's result of a call whose outcome is stored."""
    error = error_of(call, call.result) if call.is_error and not call.lost and call.result else None
    return DispatchResult.sparse(is_error=bool(call.is_error), commit=call.commit, lost=lost, error_signature=error)


def error_of(call: StoredCall | ToolCall, result: str) -> str | None:
    """The signature of the error that the call ended in; None if the call was lost, not run or cancelled."""
    text = result_text(result)
    return None if text.startswith(_NOT_THE_CALLS_FAULT) else error_signature(call.name, call.summary, text)
