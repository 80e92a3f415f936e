"""The kinds of lines in a build's live feed."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventType(StrEnum):
    """What happened. `data` names the keys of an event's data, `means` explains what its name does not."""

    data: str
    means: str

    def __new__(cls, value: str, data: str = "", means: str = "") -> "EventType":
        member = str.__new__(cls, value)
        member._value_, member.data, member.means = value, data, means
        return member

    STATUS = (
        "status",
        "status, waiting_for, reason, wakes_at, wake_command",
        "the build's status; keys without a value are left out",
    )
    MODEL = "model", "model, label, plan"
    MESSAGE = "message", "number, text", "the founder's message to the agent"
    QUESTION = "question", "question_id, problem, tried, options"
    ANSWER = "answer", "question_id, number, text", "the message that answers it"
    RESTORE_ASKED = "restore_asked", "number, snapshot or commit", "what the founder wants the workspace to be"
    RESTORE_DONE = (
        "restore_done",
        "number, snapshot or commit, kept_as, stored_as",
        "the snapshots taken before and after it",
    )
    RESTORE_FAILED = "restore_failed", "number, error"
    MESSAGES_READ = "messages_read", "numbers", "the turn's call sends these messages"
    TURN_STARTED = "turn_started", "attempt"
    NARRATION = "narration", "text, claim", "a sentence of the model, and the attempt that streamed it"
    TURN_FAILED = (
        "turn_failed",
        "error",
        "why the call failed; the turn is tried again, or the build waits for a person",
    )
    TURN_WITHDRAWN = (
        "turn_withdrawn",
        "claim",
        "the narration of this attempt no longer counts; the turn is tried again",
    )
    TURN_ANSWERED = (
        "turn_answered",
        "tokens, tool_calls, stop_reason, budget_percent, budget_level",
        "tokens by class; no budget on an unlimited plan",
    )
    TOOL_STARTED = "tool_started", "tool_use_id, name, summary"
    TOOL_DONE = "tool_done", "tool_use_id, name, summary, is_error, seconds"
    PHASE_COMPLETED = "phase_completed", "phase, commit, title"
    SNAPSHOT_STORED = "snapshot_stored", "number, reason, bytes, files"
    SNAPSHOT_FAILED = "snapshot_failed", "number, reason, error"
    GUARD = "guard", "text", "the agent repeats itself, or has used up its tool calls"
    BUDGET = (
        "budget",
        "text, budget_percent, budget_level, alert",
        "with `alert`, a call would have exceeded the ceiling",
    )
    GATE_STARTED = "gate_started", "number"
    GATE_STEP = "gate_step", "text"
    GATE_BOUNCED = "gate_bounced", "number, findings"
    GATE_PASSED = "gate_passed", "number, tests_run, screenshots"
    RESUMED = "resumed", "reason, continuing_from, changes"
    PREVIEW = "preview", "state, url, expires_at, reason"
    HOOK_FAILED = "hook_failed", "error"
    READY = "ready", "build_version, preview_url, phases_completed"


@dataclass(frozen=True)
class NewEvent:
    """An event before it has an id."""

    type: EventType
    data: dict[str, Any] = field(default_factory=dict)
    turn: int | None = None
