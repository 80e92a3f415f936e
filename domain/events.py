"""The events of a build's live feed: one model for each type, for those who write it and those who read it.

A model's docstring says what happened; its fields are the keys of `data`. A key that is not set is left out of the
stored event. To add an event, add a model here and append it to a feed; the API's description follows.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class BuildEvent(BaseModel):
    """What happened.

    Readers meet events of other versions: a key that is not known is ignored, and one that may be missing has a
    default. mypy checks the keys that producers set.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ClassVar[str]

    def to_data(self) -> dict[str, Any]:
        """The event's `data`, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


class BudgetFields(TypedDict, total=False):
    """The fields of a `BudgetShare`."""

    budget_percent: int
    budget_level: str


class BudgetShare(BuildEvent):
    """What some events also say of the day's budget; nothing on an unlimited plan."""

    budget_percent: int | None = Field(default=None, description="Used share of today's allowance, in percent.")
    budget_level: str | None = Field(default=None, description="green, yellow or red.")


class StatusEvent(BuildEvent):
    """The build's status; keys without a value are left out."""

    type = "status"
    status: str = Field(description="The new status.")
    waiting_for: str | None = Field(default=None, description="Who has to act.")
    dependency: str | None = Field(default=None, description="What a `waiting` build waits for.")
    reason: str | None = Field(default=None, description="Why, for the founder.")
    wakes_at: str | None = Field(default=None, description="When the build wakes by itself.")
    wake_command: str | None = Field(default=None, description="The command with which an operator wakes it.")

    def to_data(self) -> dict[str, Any]:
        """The event's `data`, as JSON, without nulls."""
        return self.model_dump(mode="json", exclude_none=True)


class ModelEvent(BuildEvent):
    """The build's model is chosen."""

    type = "model"
    model: str = Field(default="", description="The model's id.")
    label: str = Field(default="", description="For people; says so if it is the rehearsal model.")
    plan: str = Field(default="", description="The user's plan.")


class MessageEvent(BuildEvent):
    """The founder's message to the agent."""

    type = "message"
    number: int = Field(description="The build's own sequence of messages.")
    text: str = Field(description="What the founder wrote.")


class QuestionEvent(BuildEvent):
    """The agent needs the founder's help, or would like to know what they prefer."""

    type = "question"
    question_id: str = Field(description="The id to answer to.")
    problem: str = Field(description="What does not work, or what the agent asks.")
    tried: list[str] = Field(default=[], description="What the agent has tried.")
    options: list[str] = Field(default=[], description="Answers to choose from.")
    default: str | None = Field(
        default=None, description="The option with which the agent goes on; without it, the build waits for the answer."
    )


class AnswerEvent(BuildEvent):
    """The founder's message that answers a question."""

    type = "answer"
    number: int = Field(description="The build's own sequence of messages.")
    text: str = Field(description="What the founder wrote.")
    question_id: str | None = Field(default=None, description="The question that it answers.")


class RestoreTarget(BuildEvent):
    """A restore of the workspace. One of `snapshot` and `commit` is set."""

    number: int = Field(description="The build's own sequence of restores.")
    snapshot: int | None = Field(default=None, description="The number of the snapshot to restore.")
    commit: str | None = Field(default=None, description="The commit to restore.")


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
    number: int = Field(description="The build's own sequence of restores.")
    error: str | None = Field(default=None, description="Why, for the founder.")


class MessagesReadEvent(BuildEvent):
    """The turn's call sends these messages of the founder."""

    type = "messages_read"
    numbers: list[int] = Field(description="The messages' numbers.")


class MessageWithdrawnEvent(BuildEvent):
    """The founder has taken back a message that the agent had not read. It never reads it."""

    type = "message_withdrawn"
    number: int = Field(description="The message's number.")


class TurnStartedEvent(BuildEvent):
    """A turn's model call begins."""

    type = "turn_started"
    attempt: int = Field(default=1, description="Counts from 1.")


class NarrationEvent(BuildEvent):
    """A sentence of the model, and the attempt that streamed it."""

    type = "narration"
    text: str = Field(default="", description="The sentence.")
    claim: str | None = Field(default=None, description="Names the attempt.")


class TurnFailedEvent(BuildEvent):
    """Why the call failed; the turn is tried again, or the build waits for a person."""

    type = "turn_failed"
    error: str = Field(description="Why, for the founder.")


class TurnWithdrawnEvent(BuildEvent):
    """The narration of this attempt no longer counts; the turn is tried again."""

    type = "turn_withdrawn"
    claim: str | None = Field(default=None, description="Names the attempt.")


class TurnAnsweredEvent(BudgetShare):
    """The model has answered."""

    type = "turn_answered"
    tokens: dict[str, int] = Field(default={}, description="Tokens by class.")
    tool_calls: int = Field(default=0, description="How many tool calls it asks for.")
    stop_reason: str | None = Field(default=None, description="Why the answer ended.")
    estimated: bool = Field(default=False, description="The vendor named no tokens: these and the cost are estimates.")


class CompactedEvent(BuildEvent):
    """The conversation goes on from a summary, as it had become long."""

    type = "compacted"
    reason: str = Field(default="", description="Why, for the founder.")
    tokens_before: int = Field(default=0, description="How long the conversation was, in tokens.")
    summary: str = Field(default="", description="What the agent goes on from, together with its last turns.")


class ToolCallEvent(BuildEvent):
    """A tool call."""

    tool_use_id: str = Field(description="The call's id.")
    name: str = Field(default="", description="The tool.")
    summary: str = Field(default="", description="The call on one line.")


class ToolStartedEvent(ToolCallEvent):
    """A tool call begins."""

    type = "tool_started"


class ToolDoneEvent(ToolCallEvent):
    """A tool call has its result."""

    type = "tool_done"
    is_error: bool = Field(default=False, description="Whether it failed.")
    seconds: float = Field(default=0.0, description="How long its last attempt took.")


class PhaseCompletedEvent(BuildEvent):
    """A commit has ended a phase."""

    type = "phase_completed"
    phase: int = Field(default=0, description="Counts from 1.")
    commit: str | None = Field(default=None, description="The commit's hash.")
    title: str = Field(default="", description="The subject of the commit.")
    files: int | None = Field(
        default=None, description="How many files the phase has changed; missing, as the next two, if that is unknown."
    )
    additions: int | None = Field(default=None, description="Lines.")
    deletions: int | None = Field(default=None, description="Lines.")


class SnapshotStoredEvent(BuildEvent):
    """A snapshot of the workspace is stored and verified."""

    type = "snapshot_stored"
    number: int = Field(description="The build's own sequence of snapshots.")
    reason: str = Field(default="", description="Why it was taken.")
    bytes: int = Field(default=0, description="Size of the archive.")
    files: int = Field(default=0, description="How many files it holds.")


class SnapshotFailedEvent(BuildEvent):
    """A snapshot could not be stored; the next one makes up for it."""

    type = "snapshot_failed"
    number: int = Field(description="The build's own sequence of snapshots.")
    reason: str = Field(default="", description="Why it was to be taken.")
    error: str = Field(default="", description="Why it could not be stored.")


class GuardEvent(BuildEvent):
    """The agent repeats itself, has used up its tool calls, or has ended its turn before its plan was done."""

    type = "guard"
    text: str = Field(description="What happened, for the founder.")


class BudgetEvent(BudgetShare):
    """The day's budget runs low. With `alert`, a call would have exceeded the ceiling."""

    type = "budget"
    text: str = Field(description="What happened, for the founder.")
    alert: bool = Field(default=False, description="Whether the call was refused.")


class PlanEvent(BuildEvent):
    """The agent has ended its turn, and its plan was read. Without a story, there is no plan."""

    type = "plan"
    open: int = Field(default=0, description="How many of its stories are open.")
    done: int = Field(default=0, description="How many of its stories are done.")
    stories: list[str] = Field(default=[], description="The open stories, or the first of them.")


class GateStartedEvent(BuildEvent):
    """The evidence gate checks the product in a fresh sandbox."""

    type = "gate_started"
    number: int = Field(description="Counts the build's runs of the gate.")


class GateStepEvent(BuildEvent):
    """A step of the gate."""

    type = "gate_step"
    text: str = Field(description="The step, for the founder.")


class HostRefusedEvent(BuildEvent):
    """The sandbox was not let out to a host. Once for each host of a build."""

    type = "host_refused"
    host: str = Field(description="The host.")
    remedy: str = Field(default="", description="How the operator allows it.")


class ProductJudgedEvent(BuildEvent):
    """A model has compared the product with the brief, or the product was not judged. A passed product may have
    findings of it: they go back to the agent twice at most."""

    type = "product_judged"
    number: int = Field(description="Counts the build's runs of the gate.")
    model: str = Field(default="", description="The model that has judged, for people; empty if none was called.")
    findings: list[str] = Field(default=[], description="What was asked for and the product lacks or fakes.")
    returned: bool = Field(default=False, description="Whether the findings go back to the agent.")
    reason: str | None = Field(default=None, description="Why the product was not judged; null if it was.")


class GateBouncedEvent(BuildEvent):
    """The product has not passed."""

    type = "gate_bounced"
    number: int = Field(description="Counts the build's runs of the gate.")
    findings: list[str] = Field(default=[], description="What the gate holds against the product.")


class GatePassedEvent(BuildEvent):
    """The product has passed."""

    type = "gate_passed"
    number: int = Field(description="Counts the build's runs of the gate.")
    tests_run: int | None = Field(default=None, description="How many of the product's tests ran.")
    screenshots: dict[str, str] = Field(default={}, description="Key in the object store by viewport.")


class ResumedEvent(BuildEvent):
    """The build goes on after a wait or in another sandbox."""

    type = "resumed"
    reason: str = Field(default="", description="What ended the wait, or the sandbox.")
    continuing_from: str = Field(default="where it was", description="The last phase and turn that are done.")
    changes: list[str] = Field(default=[], description="What has changed in the workspace meanwhile.")


class PreviewEvent(BuildEvent):
    """The preview of the product."""

    type = "preview"
    state: str = Field(description="opening, open, closed or failed.")
    url: str | None = Field(default=None, description="Its address while it is open.")
    expires_at: str | None = Field(default=None, description="When it closes by itself.")
    reason: str | None = Field(default=None, description="Why it failed, was closed early, or still waits.")


class PushedEvent(BuildEvent):
    """The code was pushed to a git server."""

    type = "pushed"
    commit: str = Field(description="The commit that the branch is at now.")
    branch: str = Field(default="", description="The branch there.")
    repository: str = Field(default="", description="The server's name and the repository's path.")


class HookFailedEvent(BuildEvent):
    """What runs after a build has failed; the build is ready all the same."""

    type = "hook_failed"
    error: str = Field(description="What happened, for the founder.")


class ReadyEvent(BuildEvent):
    """The product is ready."""

    type = "ready"
    build_version: int = Field(description="The project's next integer.")
    preview_url: str | None = Field(default=None, description="The preview's address.")
    phases_completed: int = Field(default=0, description="How many phases the build took.")


def _leaves(model: type[BuildEvent]) -> list[type[BuildEvent]]:
    own = [model] if "type" in vars(model) else []
    return own + [leaf for child in model.__subclasses__() for leaf in _leaves(child)]


EVENTS: Mapping[str, type[BuildEvent]] = {model.type: model for model in _leaves(BuildEvent)}
"""The models by their type."""


def read_event(kind: str, data: Mapping[str, Any]) -> BuildEvent | None:
    """Read a stored event; None if this version does not know its type, or its data has another shape."""
    model = EVENTS.get(kind)
    if model is None:
        return None
    try:
        return model.model_validate(data)
    except ValidationError:
        return None
