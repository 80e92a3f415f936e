"""Inputs and results of workflows and activities: one frozen model in, one out.

Workflow history stores all of them, so they hold ids, counts and short summaries, never contents or secrets. New
fields have defaults, so that histories recorded before them still replay. Fields that were not set are not serialised
(see `clients/temporal.py`), which keeps a turn's share of history small.

Two ways to create a payload:

- The constructor sets every field that it is given, also to the field's default. Use it for values from settings or
  rows: they stay on the wire, so a later change of a default does not change builds that run.
- `sparse` leaves out what equals the default. Use it for the payloads of every turn.
"""

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from domain.budget import WindDown
from domain.build_settings import BuildSettings, without_bounds
from domain.notes import TurnNote
from domain.status import MAX_NIGHTS, Dependency, SleepPolicy, Status, WaitingFor


class Payload(BaseModel):
    """Frozen. Unknown fields are ignored on the wire: an older worker may read a newer payload.

    An alias is a field's JSON key in the histories of running builds, so it must not change; the field's name may.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    @classmethod
    def sparse(cls, **values: Any) -> Self:
        """Create a payload from the values that differ from their field's default; the others stay unset.

        Raises:
            TypeError: the payload has no such field.
            ValidationError: a value is invalid or missing.
        """
        defaults = _defaults_of(cls)
        if unknown := values.keys() - defaults.keys():
            raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return cls(**{name: value for name, value in values.items() if value != defaults[name]})


@cache
def _defaults_of(payload: type[Payload]) -> Mapping[str, object]:
    """The default of each field; `_REQUIRED` if it has none. Pydantic takes its time to find a default."""
    return {
        name: _REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in payload.model_fields.items()
    }


_REQUIRED = object()


def _read_unknown_as(fallback: StrEnum) -> BeforeValidator:
    """Read a value that a newer activity has added to the enum as this one.

    An older workflow would otherwise fail its task, again and again, until a newer worker takes it.
    """
    kind = type(fallback)

    def known(value: object) -> object:
        return fallback if isinstance(value, str) and value not in set(kind) else value

    return BeforeValidator(known)


class BuildRef(Payload):
    """Names a build."""

    build_id: str


# ---- the build workflow's input, and the state that it carries when it continues as new


class SandboxRef(Payload):
    """A sandbox as it was when an activity opened it. `boot` changes each time its processes are lost."""

    sandbox_id: str
    boot: str


@without_bounds
class BuildContext(BuildSettings, Payload):
    """What a build needs of its project and of the worker's settings, without texts: those are in the database.

    Created by the constructor, never `sparse`: a build keeps what it started with. A setting is declared again here
    only if its absence means something else than the setting's default, or if its JSON key is another one.
    """

    project_id: str
    user_id: str
    plan: str
    sleep_policy: SleepPolicy = SleepPolicy.SLEEP
    max_nights: int = MAX_NIGHTS
    tool_call_cap: int
    """The setting, or the plan's limit if it is unset."""
    gate_attempts: int
    sandbox_max_seconds: int | None = None
    """None, as in older builds: not checked."""
    tool_timeout_max_seconds: int = Field(default=0, alias="longest_call_seconds")
    wants_plan: bool = False
    """Whether the system prompt asks for a plan; False, as in older builds: the plan is not asked about."""


@without_bounds
class ChangedSettings(BuildSettings, Payload):
    """The settings that an operator has changed for a build that runs. What is not on the wire stays as it is."""

    version: int
    """Grows with every change."""

    @property
    def changes(self) -> dict[str, Any]:
        """The changed values by name."""
        return self.model_dump(include=self.model_fields_set - {"version"})


class PendingInput(Payload):
    """Input from the founder that the build has not acted on yet."""

    message: int = Field(default=0, alias="said")
    """Number of the last message, if no turn has read it; otherwise 0."""
    restore: int = 0
    """Number of the last requested restore, if it was not carried out; otherwise 0."""

    @property
    def is_pending(self) -> bool:
        """Whether there is any pending input."""
        return bool(self.message or self.restore)


class OutageState(Payload):
    """A wait for a dependency that has not ended yet."""

    dependency: Dependency
    before: Status
    """The build's status before it; the build takes it again afterwards."""
    since: datetime
    waits: int = 0
    """How often the build has waited since, each time longer."""
    paused: bool = False
    """Its sandbox was paused meanwhile."""
    awake_since: datetime | None = None
    """When its sandbox was last resumed during the outage."""


class LoopCounters(Payload):
    """What only the workflow counts, as it is before a turn. Stored with the turn, so that a build's state follows from
    its rows. The fields are those of `LoopState`; their JSON keys are short, because every turn has them in history."""

    tool_calls_allowed: int | None = Field(default=None, alias="allowed")
    """None: the setting."""
    steered: bool = False
    fruitless_turns: int = Field(default=0, alias="fruitless")
    refusals: int = 0
    silent_turns: int = Field(default=0, alias="silent")
    last_turn_given: bool = Field(default=False, alias="last")
    gates_since_person: int = Field(default=0, alias="gates")
    wind_down_turns: int | None = Field(default=None, alias="winds")
    last_wind_down: WindDown | None = Field(default=None, alias="wound")
    nights: int = 0
    plan_reminders: int = Field(default=0, alias="reminders")
    fewest_open: int | None = Field(default=None, alias="open")
    most_done: int = Field(default=0, alias="done")


class LoopState(BaseModel):
    """Everything that a build carries from one run of its workflow to the next. The workflow alone changes it."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    context: BuildContext | None = None
    sandbox: SandboxRef | None = None
    sandbox_opened_at: datetime | None = None
    status: Status = Status.QUEUED
    status_seq: int = 0
    turn: int = 0
    """The last turn that was started."""
    turn_pending: bool = False
    """The turn was started and not answered; it is tried again under the same number."""
    tool_calls: int = 0
    tool_calls_allowed: int = 0
    recent_calls: list[str] = Field(default_factory=list)
    steered: bool = False
    error_counts: dict[str, int] = Field(default_factory=dict, alias="errors")
    """How often each error has occurred since the last commit, by signature; see `domain/guards.py`."""
    fruitless_turns: int = Field(default=0, alias="fruitless")
    """Turns in a row without a usable answer."""
    refusals: int = 0
    """Answers in a row that a safety check has declined, since a person last let the build continue."""
    silent_turns: int = 0
    """Turns in a row in which the agent told its founder nothing."""
    last_turn_given: bool = False
    phases: int = 0
    snapshots: int = 0
    """Snapshot numbers assigned so far."""
    gates: int = 0
    gates_since_person: int = 0
    notes: list[TurnNote] = Field(default_factory=list)
    sent_notes: list[TurnNote] | None = None
    """The notes that the open turn began with, from its first call on: if it is asked again, it has the same ones."""
    outage: OutageState | None = None
    recovered: bool = False
    permit_free: bool = False
    paused: bool = False
    """Its sandbox is paused, and its permit given back or used by the gate's sandbox."""
    saved: bool = False
    """The last snapshot was stored, and the sandbox was not resumed since."""
    changed: bool = False
    """A call that may change the workspace has been made since the last snapshot."""
    wake: bool = False
    money_changed: bool = False
    admit: bool = False
    settings_changed: int = 0
    """The version of the build's settings that an operator has made last, as far as the build knows."""
    settings_taken: int = 0
    """The version that it has taken over."""
    finish: bool = False
    message_received: int = Field(default=0, alias="said")
    """Number of the founder's last message that the build was notified of."""
    message_read: int = Field(default=0, alias="read")
    """Number of the last message that a turn has read."""
    restore_requested: int = Field(default=0, alias="restore_asked")
    """Number of the founder's last restore request that the build was notified of."""
    restore_done: int = Field(default=0, alias="restored")
    """Number of the last restore that was carried out, or turned out to be impossible."""
    wind_down_turns: int | None = None
    """Turns left of a wind-down that the agent knows of, or will with the next message."""
    last_wind_down: WindDown | None = Field(default=None, alias="wound")
    nights: int = 0
    """Nights slept since a person last let the build continue."""
    plan_reminders: int = 0
    """How often the agent was told to go on with its plan since there was progress in it."""
    fewest_open: int | None = None
    """The fewest open stories that its plan has had; None if no plan has been read."""
    most_done: int = 0
    """The most stories of it that were done."""
    upgrade: bool = False
    """It was asked to move to the workers' new version. It does so in a wait, or before its next turn."""
    rest: "Rest | None" = None
    """The wait that the build is in, for a new run to go on waiting."""
    answered: "AnsweredTurn | None" = None
    """The turn whose answer the build acts on, for a new run to go on from there."""
    before_permit: Status | None = None
    """While it waits for a permit in the middle of its work: the status from before."""
    shown: "StatusChange | None" = None
    """At the end of a run: what people read of the build. The next run need not record it again."""

    @property
    def loaded_context(self) -> BuildContext:
        """The context; only after it was loaded."""
        assert self.context is not None, "the context is loaded first"
        return self.context

    @property
    def input_count(self) -> int:
        """Grows with every message and restore request of the founder."""
        return self.message_received + self.restore_requested

    @property
    def has_pending_input(self) -> bool:
        """Whether the founder has sent a message or requested a restore that the build has not acted on."""
        return self.message_received > self.message_read or self.has_pending_restore

    @property
    def has_pending_restore(self) -> bool:
        """Whether the workspace has to be restored before the next turn."""
        return self.restore_requested > self.restore_done

    @property
    def counters(self) -> LoopCounters:
        """What only the workflow counts."""
        values = {name: getattr(self, name) for name in LoopCounters.model_fields}
        if self.context is not None and self.tool_calls_allowed == self.context.tool_call_cap:
            values["tool_calls_allowed"] = None
        return LoopCounters.sparse(**values)

    def adopt(self, loaded: "LoopState") -> None:
        """Take over what the rows say, and keep what only signals have said."""
        for name in set(LoopState.model_fields) - _SIGNALLED:
            setattr(self, name, getattr(loaded, name))
        self.message_received = max(self.message_received, loaded.message_received)
        self.restore_requested = max(self.restore_requested, loaded.restore_requested)

    def note_received(self, pending: PendingInput) -> None:
        """Record the pending input that an activity has seen."""
        self.message_received = max(self.message_received, pending.message)
        self.restore_requested = max(self.restore_requested, pending.restore)


_SIGNALLED = frozenset(
    {
        *("wake", "money_changed", "admit", "finish", "recovered", "permit_free", "upgrade"),
        *("message_received", "restore_requested"),
    }
)
"""Fields of `LoopState` that signals set."""


class BuildInput(Payload):
    """Starts a build's workflow, or continues it as new."""

    build_id: str
    state: LoopState | None = None


# ---- activities


class ResolvedModel(Payload):
    """The model that a build uses, and the label under which people see it."""

    model: str
    label: str


class StatusChange(Payload):
    """A projection of the workflow's status. A lower `seq` than the row's changes nothing."""

    build_id: str
    seq: int
    status: Status
    waiting_for: WaitingFor | None = None
    reason: str | None = None
    wakes_at: datetime | None = None
    dependency: Dependency | None = None
    again: bool = False
    """The run goes on from rows and may repeat a status: the feed does not repeat the one that the row has."""

    @property
    def is_incomplete(self) -> bool:
        """Whether it does not say whom or what the build waits for. No row takes that."""
        of_person, of_dependency = self.status is Status.NEEDS_INPUT, self.status is Status.WAITING
        return (of_person and self.waiting_for is None) or (of_dependency and self.dependency is None)


class LoadedState(Payload):
    """What a build's rows say of its state: where a new run of its workflow goes on."""

    state: LoopState = Field(default_factory=LoopState)
    """Without a sandbox: that one has to be verified first."""
    ended: str | None = None
    """The `Status` in which the build has ended, if it has. Nothing is left to do then."""
    version: int | None = None
    """With `ready`."""
    reason: str | None = None
    """With `failed`: what the founder has read."""
    sandbox_id: str | None = None
    """The sandbox that the build's row names."""
    shown: str | None = None
    """The `Status` that the build's row has; None if the build has not begun. A string here, as is `ended`, so that an
    older worker can take one that is new to it."""
    asleep: bool = False
    """The build was asleep: its workspace is in a snapshot, and its sandbox is paused."""
    answered: bool = False
    """Its last turn has an answer, so what follows that turn is repeated first."""
    gates: int = 0
    """The number of its last run of the evidence gate."""
    lost_minutes: int | None = None
    """The database was restored: how much of the build's record was lost, and the agent has not been told."""


class OutageReport(Payload):
    """A build has met a dependency that does not answer."""

    dependency: Dependency
    detail: str = ""
    """The error, for operators."""


class DependencyRef(Payload):
    """Names a dependency."""

    dependency: Dependency


class DependencyReading(Payload):
    """What is known of a dependency."""

    is_down: bool = False
    """It is probed and did not answer the last probe, so an attempt would be in vain."""
    is_up: bool = False
    """It answered its last probe."""


class ProbeResult(Payload):
    """What a run of the prober did."""

    probed: int = 0
    answered: int = 0
    signalled: int = 0
    """Builds that were told to go on."""


class DeliveryRef(Payload):
    """A delivery to a webhook."""

    delivery_id: str
    due: datetime | None = None
    """The next attempt is not made before; None: at once."""


class DeliveryAttempt(Payload):
    """What came of one attempt. `retry_in_seconds`: None if the delivery has ended."""

    retry_in_seconds: int | None = None


class BulkRef(Payload):
    """An act on many builds. `batches`: after so many, its workflow continues as new."""

    run_id: str
    batches: int = 200


class BulkBatch(Payload):
    """What a batch did. `is_over`: no build is left, or an operator has stopped the run."""

    tried: int = 0
    is_over: bool = False


class ErasureRef(Payload):
    """An erasure."""

    erasure_id: str


class ErasureStep(Payload):
    """What a step of an erasure has left, to be looked at again after a while."""

    left: int = 0


class ExportRef(Payload):
    """An export that is written into the object store."""

    export_id: str


class ExportFailure(Payload):
    """Why an export was given up, for the user."""

    export_id: str
    problem: str


class OpenWorkspace(Payload):
    """Open a build's sandbox: adopt an existing one, or create one and restore the project's last snapshot."""

    build_id: str
    change: StatusChange | None = None
    """The status that the build takes with its workspace. Recorded with it, by a worker that knows this field."""


class OpenedWorkspace(Payload):
    """An open workspace. `restored_from` is the number of the snapshot that was restored, if any."""

    sandbox: SandboxRef
    restored_from: int | None = None
    opened_at: datetime | None = None
    """Since when it has run without a pause, by the clock of this build's workflow."""
    recorded: bool = False
    """The status of the request is in the build's row and feed."""


class SandboxInput(Payload):
    """Names a build's sandbox. `keep`: the one to keep when the build's sandboxes are released."""

    build_id: str
    sandbox_id: str
    keep: str | None = None
    keep_permit: bool = False
    """When it is paused: keep the permit for the gate's sandbox."""
    is_paused: bool = False
    """It is paused already: only see that nothing of the build runs."""


class ClaimPermit(Payload):
    """Take a permit for a build, or check its place in the queue. `role`: the sandbox that it is for."""

    build_id: str
    role: str = "workspace"
    anyway: bool = False
    """Take it even if none is free."""
    patience_seconds: int = 0
    """The next check may come this much later than usual, and the place in the queue is kept until then."""


class PermitClaim(Payload):
    """Whether a build holds a permit, and otherwise why not, for its founder."""

    held: bool
    reason: str | None = None
    refused: bool = False
    """The sandbox service has no room, whatever our own quota is."""


class ResumedWorkspace(Payload):
    """A workspace that was verified after a pause or a loss, and whether it had to be restored."""

    sandbox: SandboxRef
    restored: bool = False
    reapplied: bool = False
    """Edits that are not in a snapshot were applied to it again."""
    opened_at: datetime | None = None
    """As in `OpenedWorkspace`."""
    unchanged: bool = False
    """With `quiet`: there is nothing to tell the agent."""


class ResumeWorkspace(Payload):
    """Resume a paused sandbox and verify its files against the snapshot; restore them if they differ."""

    build_id: str
    sandbox_id: str
    cause: str
    """Why the build continues, for the founder and the agent, such as `a new day's budget`."""
    replace: bool = False
    """Restore into a fresh sandbox and release this one, whatever its state."""
    quiet: bool = False
    """Say nothing if the sandbox has run without a pause and the workspace is as it should be."""
    lost_minutes: int | None = None
    """Tell the agent how much of its record was lost; 0 if that is unknown."""


class ThinkInput(Payload):
    """Ask the model for a turn. `notes` go to the agent in this turn's user message."""

    build_id: str
    turn: int
    notes: list[TurnNote] = Field(default_factory=list)
    allow_calls: int = 0
    """With `CONTINUE_AFTER_CAP`: how many more tool calls the agent has. Unset otherwise."""
    refusals: int = 0
    """How many answers in a row a safety check has declined before this turn."""
    counters: LoopCounters = LoopCounters()
    """To be stored with the turn."""


class ThinkOutcome(StrEnum):
    """How a turn ended."""

    TOOL_USE = "tool_use"
    END_TURN = "end_turn"
    CONTINUE = "continue"
    """There is nothing to run and the turn is not over (cut off, paused or empty): ask again."""
    BUDGET = "budget"
    """No call was made: it could have exceeded the ceiling of the day's allowance."""
    BUSY = "busy"
    """No call was made: it may fit once the calls of the user's other builds are settled."""
    TOO_SMALL = "too_small"
    """No call was made: it could exceed the ceiling of a day on which nothing was spent."""
    ON_HOLD = "held"
    """No call was made: the account is suspended, or the kill switch is on."""
    REFUSED = "refused"
    """The model refused, or the context is full: a person decides."""


Outcome = Annotated[ThinkOutcome, _read_unknown_as(ThinkOutcome.ON_HOLD)]
"""An outcome that this version does not know: nothing was done that could be done twice, so the build waits."""

WaitsFor = Annotated[WaitingFor, _read_unknown_as(WaitingFor.OPERATOR)]

BLOCKED = frozenset({ThinkOutcome.BUDGET, ThinkOutcome.TOO_SMALL, ThinkOutcome.ON_HOLD})
"""No call was made, and none will be until something changes."""


class CheckBudget(Payload):
    """Ask whether a build may continue. `last_wind_down`: the wind-down that it has completed, if any."""

    build_id: str
    turn: int = 1
    last_wind_down: WindDown | None = Field(default=None, alias="wound")


class BudgetCheck(Payload):
    """Whether a build may continue: the fields of a `ThinkResult` that made no call. Amounts in µ$."""

    exhausted: bool
    outcome: Outcome | None = None
    """Why not: BUDGET, TOO_SMALL or ON_HOLD."""
    reason: str | None = None
    waiting_for: WaitsFor | None = None
    renews_on: date | None = None
    day: date | None = None
    """The UTC day that was checked."""
    spent: int = 0
    allowance: int | None = None
    service_limit: bool = False
    """As in a `ThinkResult`."""


class RequestedCall(Payload):
    """One tool call of a turn. Its JSON keys are short: history holds one of these for every call."""

    tool_use_id: str = Field(alias="id")
    signature: str = Field(alias="s")
    """Equal for equal calls, see `domain/guards.py`."""
    summary: str = Field(alias="t")
    """One line for the feed. In a history it is the tool's name alone: a command may hold a key."""
    mutating: bool = Field(default=True, alias="m")
    """Whether the call must run in order."""
    in_browser: bool = Field(default=False, alias="b")
    """Whether it looks at pages with Chromium."""
    is_valid: bool = Field(default=True, alias="ok")
    """False if the input did not match the tool's schema. Its error result is stored; there is nothing to dispatch."""


class ThinkResult(Payload):
    """A turn's answer, without its content."""

    outcome: Outcome
    calls: list[RequestedCall] = Field(default_factory=list)
    reason: str | None = None
    waiting_for: WaitsFor | None = None
    """With ON_HOLD."""
    renews_on: date | None = None
    """With TOO_SMALL: the day on which the next cycle begins."""
    wind_down: bool = False
    """The day's budget is nearly used up."""
    day: date | None = None
    """With `wind_down`, BUDGET and TOO_SMALL: the UTC day whose allowance it is."""
    spent: int | None = None
    allowance: int | None = None
    message_read: int = Field(default=0, alias="read")
    """Number of the last founder message that this turn has read."""
    declined: bool = False
    """With REFUSED: a safety check declined the answer, which is not in the conversation."""
    service_limit: bool = False
    """With BUDGET: not the user's budget is used up, but a limit of the service. `reason` names it."""
    silent: bool = False
    """The agent said nothing to its founder before its tool calls."""
    compact: bool = False
    """The conversation is long: sum it up before the next turn."""
    settings: int = 0
    """The version of the build's settings; 0 if none was changed since it began."""
    wait_seconds: int | None = None
    """With BUSY: the model's API takes no more calls for now; ask again after about this long."""
    unused: int = 0
    """How many answers this attempt has paid for and could not use, because the conversation was too long."""


# ---- where a run continues as new in the middle of something


class Rest(Payload):
    """A wait for budget or for a person, with the sandbox paused. A run may continue as new in it."""

    before: Status
    """The status that the build has afterwards."""
    over: bool = False
    """The wait is over, and the workspace has to be resumed."""
    notes: list[TurnNote] = Field(default_factory=list)
    """What the agent is told afterwards."""
    waiting_for: WaitsFor | None = None
    """The person, if it is a wait for one."""
    reason: str = ""
    """What that person reads."""
    input_beyond: int = 0
    """More input of the founder than this ends a wait for them."""
    stop: BudgetCheck | None = None
    """Why there is no budget, if it is a wait for that."""
    repeated: bool = False
    """The budget was checked again since the build stopped."""
    patient: bool = False
    """A request to finish does not end the wait."""


class TurnStep(StrEnum):
    """What a build does next about a turn that was answered."""

    CALLS = "calls"
    """Run the calls and judge their results. The results of those that have run are stored."""
    CAP = "cap"
    """Stop if the calls are used up."""
    SILENCE = "silence"
    """Remind an agent that says nothing."""
    ENDING = "ending"
    """Decide how the turn ends."""
    BUDGET = "budget"
    """Sum up the conversation and stop until there is budget."""
    STOP = "stop"
    PLAN = "plan"
    """Read the agent's plan, as it says that it has ended."""
    BLOCKER = "blocker"
    """The founder was asked about a blocker: check the product if they want it as it is."""
    GATE = "gate"
    """Check the product."""
    EVIDENCE = "evidence"
    """Collect the evidence for the snapshot that was taken."""
    COMPACT = "compact"
    """Sum up the conversation if it is long."""


class AnsweredTurn(BaseModel):
    """A turn that was answered, and what is left to do about it. The workflow alone changes it."""

    result: ThinkResult
    step: Annotated[TurnStep, _read_unknown_as(TurnStep.ENDING)] = TurnStep.CALLS
    wound_down: bool = False
    """The wind-down is complete."""
    finishing: bool = False
    """At the gate: the founder has asked to finish."""
    wants_plan: bool = False
    """At the evidence: a plan that is not done is a finding."""
    sandbox: SandboxRef | None = None
    """At the plan and the gate: the one that the agent has worked in. If there is another one after a wait, also in a
    new run, the agent has to see first what that has cost."""


for _model in (LoopState, BuildInput, LoadedState):
    _model.model_rebuild()  # their fields name models that are defined after them


class CompactConversation(Payload):
    """Sum up the conversation up to a few turns before this one, the last that was answered."""

    build_id: str
    turn: int
    winds_down: bool = False
    """The day's budget runs low, which is why."""


class CompactResult(Payload):
    """Whether the next turn begins a conversation that goes on from a summary."""

    opened: bool = False


class PreparedBuild(Payload):
    """What a build starts with, and whether its account's budget lets it start."""

    context: BuildContext
    budget: BudgetCheck


class ClaimSlot(BuildRef):
    """Take one of the user's slots for a build."""

    change: StatusChange | None = None
    """The status that the build takes with the slot. Recorded with it, by a worker that knows this field."""


class SlotClaim(Payload):
    """Whether a build may start; if not, how many of its user's builds run and how many are ahead in the queue."""

    claimed: bool
    running: int = 0
    ahead: int = 0
    recorded: bool = False
    """The status of the request is in the build's row and feed."""


class DispatchInput(Payload):
    """Run one tool call, or find out what happened to it."""

    build_id: str
    tool_use_id: str = Field(alias="id")
    sandbox: SandboxRef


class DispatchResult(Payload):
    """How a tool call ended. `commit` is the workspace's new HEAD if the call ended a phase."""

    is_error: bool = Field(default=False, alias="err")
    commit: str | None = None
    lost: bool = False
    """The sandbox was gone or had been restarted, so the outcome is unknown and the workspace has to be verified."""
    disk_full: bool = Field(default=False, alias="full")
    """With `lost`: the sandbox's disk is full, and only another sandbox helps."""
    error_signature: str | None = Field(default=None, alias="e")
    """With `is_error`: equal for equal errors, see `domain/guards.py`."""


class AskFounder(Payload):
    """Ask the founder about an error that keeps occurring, a call that the agent keeps repeating, or a blocker.

    `error` or `call` is its signature; the database has the details.
    """

    build_id: str
    question_id: str
    error: str | None = None
    call: str | None = None
    blocked_turn: int | None = None
    """The turn whose last message names a blocker; it is asked about then."""


class AskedFounder(PendingInput):
    """That a question was asked or, instead of a question, input that the founder has already sent."""

    reason: str = ""


class RestoreWorkspace(Payload):
    """Restore the workspace as a restore's row says."""

    build_id: str
    number: int
    sandbox_id: str


class RestoredWorkspace(Payload):
    """Whether the restore was done; if not, the row says why."""

    done: bool


class FinishRestore(Payload):
    """Record that a restore is done, with the numbers of the snapshots taken before and after it."""

    build_id: str
    number: int
    snapshot_before: int = Field(alias="kept_as")
    snapshot_after: int = Field(alias="stored_as")


class SnapshotReason(StrEnum):
    """Why a snapshot is taken."""

    PHASE = "phase"
    """A commit has ended a phase."""
    SLEEP = "sleep"
    WAIT = "wait"
    """The build waits for a person."""
    REPLACE = "replace"
    """The sandbox is replaced before its provider ends it."""
    RESTORED = "restored"
    """Edits were applied again after a restore."""
    BEFORE_RESTORE = "before_restore"
    """The founder has requested a restore: keep what it replaces."""
    RESTORE = "restore"
    """The workspace was restored as the founder requested."""
    GATE = "gate"
    END = "end"
    """The build failed or was cancelled."""


class TakeSnapshot(Payload):
    """Archive the workspace under a number that the workflow has assigned."""

    build_id: str
    sandbox_id: str
    number: int
    reason: str
    """A `SnapshotReason`. A string here, so that an older worker can take one for a reason that is new to it."""
    phase: int | None = None
    """With reason `phase`: the phase that this snapshot ends."""
    commit: str | None = None
    error: str | None = None
    """With `note_snapshot_failure`: why it was not taken, for the feed."""


class TakenSnapshot(Payload):
    """A stored and verified snapshot."""

    number: int
    files: int
    bytes: int
    commit: str | None = None
    rewritten: bool = False
    """Its git history does not descend from that of the snapshot before."""


class ReadPlan(Payload):
    """Read the agent's plan in its workspace, after a turn that the agent has ended."""

    build_id: str
    turn: int
    sandbox_id: str


class PlanReading(Payload):
    """How many stories of the plan are open and done; both are 0 if there is none."""

    open: int = 0
    done: int = 0
    blocked: bool = False
    """The turn's message names a blocker."""

    @property
    def is_done(self) -> bool:
        """Whether there is a plan, and all of it is done."""
        return self.done > 0 and self.open == 0


class RunGate(Payload):
    """Restore a snapshot into a fresh sandbox and check the product's evidence there."""

    build_id: str
    number: int
    snapshot_number: int
    wants_plan: bool = False
    """Whether a plan that is missing or not done is a finding."""
    turn: int = 0
    """The last turn before it."""


class GateResult(PendingInput):
    """How a gate ended. If the product passed, the gate's sandbox keeps running for the preview.

    Input that the founder sent meanwhile comes first: while any is pending, no product passes.
    """

    findings: int
    sandbox_id: str | None = None
    preview_url: str | None = None
    judged: bool = False
    """All findings are the judge's, which come back a bounded number of times. They are not counted with the others."""
    paid: bool = False
    """The judge's model was called."""

    @property
    def passed(self) -> bool:
        """Whether the product passed, so that the build is ready."""
        return not self.findings and not self.is_pending


class FinishBuild(Payload):
    """Close a build as ready."""

    build_id: str
    seq: int
    sandbox_id: str
    preview_url: str
    phases_completed: int
    snapshot_number: int


class FinishedBuild(Payload):
    """A ready build's version: the project's next integer."""

    build_version: int


# ---- previews


class PreviewInput(Payload):
    """Starts a preview. With a sandbox it takes over the gate's; without one it starts from the ready snapshot."""

    build_id: str
    seconds: int
    sandbox_id: str | None = None
    url: str | None = None
    seq: int = 0
    open_until: datetime | None = None
    """It is open already, until then: the run before this one had another version of the workers."""


class OpenedPreview(Payload):
    """A preview's sandbox, and the address at which its product answers."""

    sandbox_id: str
    url: str


class PreviewChange(Payload):
    """A projection of a preview's state; a lower `seq` than the row's changes nothing."""

    build_id: str
    seq: int
    state: str
    sandbox_id: str | None = None
    url: str | None = None
    expires_at: datetime | None = None
    reason: str | None = None


class ReapResult(Payload):
    """What the reaper did."""

    started: int = 0
    closed: int = 0
    cancelled: int = 0
    previews: int = 0
    """closed"""
    sandboxes: int = 0
    """ended"""
    uploads: int = 0
    """aborted"""
    objects: int = 0
    """that no snapshot needs, deleted"""
    admitted: int = 0
    nudged: int = 0
    permits: int = 0
    """given back for want of use, or counted because their sandbox runs"""
