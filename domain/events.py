"""The events of a build's live feed: one model for each type, for those who write it and those who read it.

A model's docstring says what happened; its fields are the keys of `data`. A key that is not set is left out of the
stored event. To add an event, add a model here and append it to a feed; the API's description follows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class BuildEvent(BaseModel):
    """What happened. Events of older versions may lack keys or have more; those that are not known are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ClassVar[str]

    def stored(self) -> dict[str, Any]:
        """The event's `data`, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


class BudgetShare(BuildEvent):
    """What some events also say of the day's budget; nothing on an unlimited plan."""

    budget_percent: int | None = Field(default=None, description="Used share of today's allowance, in percent.")
    budget_level: str | None = Field(default=None, description="green, yellow or red.")


class StatusEvent(BuildEvent):
    """The build's status; keys without a value are left out."""

    type = "status"
    status: str
    waiting_for: str | None = Field(default=None, description="Who has to act.")
    reason: str | None = None
    wakes_at: str | None = Field(default=None, description="When the build wakes by itself.")
    wake_command: str | None = Field(default=None, description="The command with which an operator wakes it.")


class ModelEvent(BuildEvent):
    """The build's model is chosen."""

    type = "model"
    model: str = ""
    label: str = Field(default="", description="For people; says so if it is the rehearsal model.")
    plan: str = ""


class MessageEvent(BuildEvent):
    """The founder's message to the agent."""

    type = "message"
    number: int
    text: str


class QuestionEvent(BuildEvent):
    """The agent needs the founder's help."""

    type = "question"
    question_id: str
    problem: str
    tried: list[str] = Field(default=[], description="What the agent has tried.")
    options: list[str] = []


class AnswerEvent(BuildEvent):
    """The founder's message that answers a question."""

    type = "answer"
    number: int
    text: str
    question_id: str | None = None


class RestoreTarget(BuildEvent):
    """A restore of the workspace. One of `snapshot` and `commit` is set."""

    number: int
    snapshot: int | None = None
    commit: str | None = None


class RestoreAskedEvent(RestoreTarget):
    """What the founder wants the workspace to be."""

    type = "restore_asked"


class RestoreDoneEvent(RestoreTarget):
    """The workspace is restored."""

    type = "restore_done"
    kept_as: int | None = Field(default=None, description="Snapshot taken before it.")
    stored_as: int | None = Field(default=None, description="Snapshot taken after it.")


class RestoreFailedEvent(BuildEvent):
    """The workspace is as it was."""

    type = "restore_failed"
    number: int
    error: str | None = None


class MessagesReadEvent(BuildEvent):
    """The turn's call sends these messages of the founder."""

    type = "messages_read"
    numbers: list[int]


class TurnStartedEvent(BuildEvent):
    """A turn's model call begins."""

    type = "turn_started"
    attempt: int = 1


class NarrationEvent(BuildEvent):
    """A sentence of the model, and the attempt that streamed it."""

    type = "narration"
    text: str = ""
    claim: str | None = None


class TurnFailedEvent(BuildEvent):
    """Why the call failed; the turn is tried again, or the build waits for a person."""

    type = "turn_failed"
    error: str


class TurnWithdrawnEvent(BuildEvent):
    """The narration of this attempt no longer counts; the turn is tried again."""

    type = "turn_withdrawn"
    claim: str | None = None


class TurnAnsweredEvent(BudgetShare):
    """The model has answered."""

    type = "turn_answered"
    tokens: dict[str, int] = Field(default={}, description="Tokens by class.")
    tool_calls: int = 0
    stop_reason: str | None = None


class ToolCallEvent(BuildEvent):
    """A tool call."""

    tool_use_id: str
    name: str = ""
    summary: str = ""


class ToolStartedEvent(ToolCallEvent):
    """A tool call begins."""

    type = "tool_started"


class ToolDoneEvent(ToolCallEvent):
    """A tool call has its result."""

    type = "tool_done"
    is_error: bool = False
    seconds: float = 0.0


class PhaseCompletedEvent(BuildEvent):
    """A commit has ended a phase."""

    type = "phase_completed"
    phase: int = 0
    commit: str | None = None
    title: str = ""


class SnapshotStoredEvent(BuildEvent):
    """A snapshot of the workspace is stored and verified."""

    type = "snapshot_stored"
    number: int
    reason: str = ""
    bytes: int = 0
    files: int = 0


class SnapshotFailedEvent(BuildEvent):
    """A snapshot could not be stored; the next one makes up for it."""

    type = "snapshot_failed"
    number: int
    reason: str = ""
    error: str = ""


class GuardEvent(BuildEvent):
    """The agent repeats itself, or has used up its tool calls."""

    type = "guard"
    text: str


class BudgetEvent(BudgetShare):
    """The day's budget runs low. With `alert`, a call would have exceeded the ceiling."""

    type = "budget"
    text: str
    alert: bool = False


class GateStartedEvent(BuildEvent):
    """The evidence gate checks the product in a fresh sandbox."""

    type = "gate_started"
    number: int


class GateStepEvent(BuildEvent):
    """A step of the gate."""

    type = "gate_step"
    text: str


class GateBouncedEvent(BuildEvent):
    """The product has not passed."""

    type = "gate_bounced"
    number: int
    findings: list[str] = []


class GatePassedEvent(BuildEvent):
    """The product has passed."""

    type = "gate_passed"
    number: int
    tests_run: int | None = None
    screenshots: dict[str, str] = Field(default={}, description="Key in the object store by viewport.")


class ResumedEvent(BuildEvent):
    """The build goes on after a wait or in another sandbox."""

    type = "resumed"
    reason: str = ""
    continuing_from: str = "where it was"
    changes: list[str] = Field(default=[], description="What has changed in the workspace meanwhile.")


class PreviewEvent(BuildEvent):
    """The preview of the product."""

    type = "preview"
    state: str
    url: str | None = None
    expires_at: str | None = None
    reason: str | None = None


class HookFailedEvent(BuildEvent):
    """What runs after a build has failed; the build is ready all the same."""

    type = "hook_failed"
    error: str


class ReadyEvent(BuildEvent):
    """The product is ready."""

    type = "ready"
    build_version: int
    preview_url: str | None = None
    phases_completed: int = 0


def _leaves(model: type[BuildEvent]) -> list[type[BuildEvent]]:
    own = [model] if "type" in vars(model) else []
    return own + [leaf for child in model.__subclasses__() for leaf in _leaves(child)]


EVENTS: Mapping[str, type[BuildEvent]] = {model.type: model for model in _leaves(BuildEvent)}
"""The models by their type."""


@dataclass(frozen=True)
class NewEvent:
    """An event before it has an id."""

    event: BuildEvent
    turn: int | None = None

    @property
    def type(self) -> str:
        """The event's type."""
        return self.event.type

    @property
    def data(self) -> dict[str, Any]:
        """The event's data, as it is stored."""
        return self.event.stored()


def read_event(kind: str, data: Mapping[str, Any]) -> BuildEvent | None:
    """Read a stored event; None if this version does not know its type, or its data has another shape."""
    model = EVENTS.get(kind)
    if model is None:
        return None
    try:
        return model.model_validate(data)
    except ValidationError:
        return None
