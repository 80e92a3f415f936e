"""The kinds of lines in a build's live feed."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventType(StrEnum):
    """What happened. The keys of `data` stand behind each."""

    STATUS = "status"  # status, waiting_for, reason, wakes_at, wake_command
    MODEL = "model"  # model, label, plan
    MESSAGE = "message"  # number, text: what the founder said to the agent
    QUESTION = "question"  # question_id, problem, tried, options
    ANSWER = "answer"  # question_id, number, text: the message that answers it
    RESTORE_ASKED = "restore_asked"  # number, snapshot or commit: what the founder wants the workspace to be
    RESTORE_DONE = "restore_done"  # number, snapshot or commit, kept_as, stored_as: snapshots of before and after
    RESTORE_FAILED = "restore_failed"  # number, error
    MESSAGES_READ = "messages_read"  # numbers: these are part of what the turn's call sends
    TURN_STARTED = "turn_started"  # attempt
    NARRATION = "narration"  # text: a sentence that the model said; claim: the attempt that said it
    TURN_FAILED = "turn_failed"  # error: why the call failed; the turn is asked again, or a person is
    TURN_WITHDRAWN = "turn_withdrawn"  # claim: its lines no longer count, the turn is asked again
    TURN_ANSWERED = "turn_answered"  # tokens by class, tool_calls, stop_reason, budget_percent, budget_level
    TOOL_STARTED = "tool_started"  # tool_use_id, name, summary
    TOOL_DONE = "tool_done"  # tool_use_id, name, summary, is_error, seconds
    PHASE_COMPLETED = "phase_completed"  # phase, commit, title
    SNAPSHOT_STORED = "snapshot_stored"  # number, reason, bytes, files
    SNAPSHOT_FAILED = "snapshot_failed"  # number, reason, error
    GUARD = "guard"  # text
    BUDGET = "budget"  # text, budget_percent, budget_level, alert: a call was not made, since it would pass the ceiling
    GATE_STARTED = "gate_started"  # number
    GATE_STEP = "gate_step"  # text
    GATE_BOUNCED = "gate_bounced"  # number, findings
    GATE_PASSED = "gate_passed"  # number, tests_run, screenshots
    RESUMED = "resumed"  # reason, continuing_from, changes
    PREVIEW = "preview"  # state, url, expires_at
    HOOK_FAILED = "hook_failed"  # error
    READY = "ready"  # build_version, preview_url, phases_completed


@dataclass(frozen=True)
class NewEvent:
    """An event before it has an id."""

    type: EventType
    data: dict[str, Any] = field(default_factory=dict)
    turn: int | None = None
