"""The bodies of responses to operators about all builds."""

import uuid
from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from checks.check import CheckResult
from clients.fleet_workflows import ReaperSchedule, WorkflowView
from db.fleet_build import WholeBuild
from db.fleet_builds import FleetBuild
from db.operator_figures import Spend, SpendBy, Spent
from domain.names import wake_command
from domain.status import Dependency, Status, WaitingFor
from domain.stuck import StuckKind, Why
from domain.switches import SwitchScope
from services.fleet import Fleet
from services.stuck import WorkflowAnswer

Version = Field(description="The version of the workers that run it; null: none, or Temporal does not answer.")


class BuildGroupOut(BaseModel):
    """Builds that have the same status, wait for the same, and are run by the same version."""

    status: Status
    waiting_for: WaitingFor | None
    dependency: Dependency | None
    version: str | None = Version
    count: int
    oldest_since: datetime = Field(description="Since when the first of them has its status.")


class SpentOut(BaseModel):
    """What was spent under a name."""

    key: str
    spent_microdollars: int

    @classmethod
    def of(cls, spent: Spent) -> Self:
        """The sum."""
        return cls(key=spent.key, spent_microdollars=spent.spent)


class SpentTodayOut(BaseModel):
    """What all users together spend on this UTC day."""

    spent_microdollars: int
    reserved_microdollars: int = Field(description="For calls in progress.")
    limit_microdollars: int | None = Field(description="Null: there is no limit.")
    by_plan: list[SpentOut]
    by_model: list[SpentOut]


class PermitUseOut(BaseModel):
    """Permits to have sandboxes running."""

    kind: str = Field(description="`all`, or what the sandboxes are for: workspace, gate, preview, push.")
    used: int
    quota: int | None = Field(description="Only of `all`; null: no limit.")
    queued: int


class RatesOut(BaseModel):
    """What is left of a model's limits for the next seconds. Below 0 after a call that was larger."""

    model: str
    requests_left: float | None = Field(description="Null: no limit is known.")
    input_left: float | None = Field(description="Tokens.")
    output_left: float | None = Field(description="Tokens.")
    blocked_until: datetime | None = Field(description="The API refuses calls until then.")


class DependencyState(StrEnum):
    """Whether something that builds depend on answers."""

    UP = "up"
    DOWN = "down"
    HALF_OPEN = "half_open"
    """It answers again, and builds continue a few at a time."""


class ProcessRole(StrEnum):
    """What a process of Cofounder does."""

    WORKER = "worker"
    API = "api"


class DependencyOut(BaseModel):
    """What builds can wait for."""

    name: Dependency
    state: DependencyState = Field(description="half_open: it answers again, and builds continue a few at a time.")
    since: datetime | None = Field(description="Null: it has never been away.")
    next_probe_at: datetime | None
    detail: str | None = Field(description="The last error.")
    builds: int = Field(description="Builds that wait for it.")


class FleetSwitchOut(BaseModel):
    """Builds that are switched off."""

    scope: SwitchScope
    key: str | None
    off_since: datetime
    reason: str
    by: str


class ReaperStepOut(BaseModel):
    """A step of the reaper."""

    step: str
    at: datetime | None = Field(description="How far it has come, if it goes through something.")
    alert: str | None = Field(description="What an operator must look at.")
    alert_at: datetime | None


class ReaperStateOut(BaseModel):
    """The reaper, which repairs what crashes leave behind."""

    paused: bool | None = Field(description="Null: it has no schedule, or Temporal does not answer.")
    note: str | None
    last_run_at: datetime | None
    steps: list[ReaperStepOut]


class ProcessOut(BaseModel):
    """A process that was seen in the last two minutes."""

    role: ProcessRole
    version: str
    seen_at: datetime


class FleetOut(BaseModel):
    """All builds and what they depend on, at one moment."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FLEET]})

    at: datetime
    builds: list[BuildGroupOut] = Field(description="The open builds, and those that ended on this UTC day.")
    turns_last_minute: int
    spend_today: SpentTodayOut
    permits: list[PermitUseOut]
    rates: list[RatesOut]
    dependencies: list[DependencyOut]
    switches: list[FleetSwitchOut]
    reaper: ReaperStateOut
    workers: list[ProcessOut] = Field(description="Workers and APIs.")

    @classmethod
    def of(cls, fleet: Fleet, reaper: ReaperSchedule | None, quota: int | None) -> Self:
        """What the database and Temporal know. `quota`: of permits."""
        away = {row.name: row for row in fleet.away}
        spent, permits = fleet.spent_today, fleet.permits
        used, queued = (sum(getattr(each, name) for each in permits) for name in ("used", "queued"))
        return cls(
            at=fleet.at,
            builds=[
                BuildGroupOut(
                    status=Status(group.status),
                    waiting_for=None if group.waiting_for is None else WaitingFor(group.waiting_for),
                    dependency=None if group.dependency is None else Dependency(group.dependency),
                    version=group.version,
                    count=group.count,
                    oldest_since=group.oldest_since,
                )
                for group in fleet.groups
            ],
            turns_last_minute=fleet.turns_last_minute,
            spend_today=SpentTodayOut(
                spent_microdollars=spent.fleet.spent,
                reserved_microdollars=spent.fleet.reserved,
                limit_microdollars=spent.limit,
                by_plan=[SpentOut.of(each) for each in spent.by_plan],
                by_model=[SpentOut.of(each) for each in spent.by_model],
            ),
            permits=[
                PermitUseOut(kind="all", used=used, quota=quota or None, queued=queued),
                *(PermitUseOut(kind=each.role, used=each.used, quota=None, queued=each.queued) for each in permits),
            ],
            rates=[
                RatesOut(
                    model=each.model,
                    requests_left=each.requests_left,
                    input_left=each.input_left,
                    output_left=each.output_left,
                    blocked_until=each.blocked_until,
                )
                for each in fleet.rates
            ],
            dependencies=[
                DependencyOut(
                    name=name,
                    state=DependencyState.UP if (row := away.get(name)) is None else DependencyState(row.state),
                    since=None if row is None else row.since,
                    next_probe_at=None if row is None else row.next_probe_at,
                    detail=None if row is None else row.detail,
                    builds=fleet.waiting.get(name, 0),
                )
                for name in Dependency
            ],
            switches=[
                FleetSwitchOut(
                    scope=SwitchScope(each.scope),
                    key=each.key or None,
                    off_since=each.off_since,
                    reason=each.reason,
                    by=each.by,
                )
                for each in fleet.switches
            ],
            reaper=ReaperStateOut(
                paused=None if reaper is None else reaper.paused,
                note=None if reaper is None else reaper.note,
                last_run_at=None if reaper is None else reaper.last_run_at,
                steps=[
                    ReaperStepOut(step=each.step, at=each.at, alert=each.alert, alert_at=each.alert_at)
                    for each in fleet.reaper_steps
                ],
            ),
            workers=[
                ProcessOut(role=ProcessRole(each.role), version=each.version, seen_at=each.seen_at)
                for each in fleet.processes
            ],
        )


class FleetBuildOut(BaseModel):
    """A build in the list of all users' builds."""

    id: uuid.UUID
    user_id: str
    plan: str
    project_id: uuid.UUID
    project_name: str
    goal: str = Field(description="Its beginning.")
    status: Status
    waiting_for: WaitingFor | None
    dependency: Dependency | None
    reason: str | None
    turn: int
    spent_microdollars: int
    model: str | None
    version: str | None = Version
    since: datetime = Field(description="Since when it has its status.")
    wakes_at: datetime | None
    last_event_at: datetime | None
    created_at: datetime
    closed_at: datetime | None
    temporal_url: str | None = Field(description="Its workflow in Temporal's UI; null without TEMPORAL_UI_URL.")

    @classmethod
    def of(cls, build: FleetBuild, version: str | None, temporal_url: str | None) -> Self:
        """The build's row, with what Temporal knows."""
        return cls(
            id=build.id,
            user_id=build.user_id,
            plan=build.plan,
            project_id=build.project_id,
            project_name=build.project_name,
            goal=build.goal,
            status=Status(build.status),
            waiting_for=None if build.waiting_for is None else WaitingFor(build.waiting_for),
            dependency=None if build.dependency is None else Dependency(build.dependency),
            reason=build.reason,
            turn=build.turn,
            spent_microdollars=build.spent,
            model=build.model,
            version=version,
            since=build.since,
            wakes_at=build.wakes_at,
            last_event_at=build.last_event_at,
            created_at=build.created_at,
            closed_at=build.closed_at,
            temporal_url=temporal_url,
        )


class FleetBuildList(BaseModel):
    """A page of all users' builds that match a filter."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FLEET_BUILDS]})

    builds: list[FleetBuildOut]
    next_cursor: str | None
    total: int = Field(description="The number of builds that match.")
    where: str = Field(description="The filter as text, for `where` and for `cofounder ops … --where`.")
    temporal_query: str = Field(description="The same filter for Temporal.")
    temporal_query_left_out: list[str] = Field(
        description="Fields of the filter that Temporal can't compare, so that its query matches more."
    )
    temporal_command: str = Field(description="Lists the same workflows on the command line.")


class WhyOut(BaseModel):
    """Why something makes no progress, and what to do."""

    kind: StuckKind
    detail: str
    remedy: str

    @classmethod
    def of(cls, why: Why) -> Self:
        """The reason."""
        return cls(kind=why.kind, detail=why.detail, remedy=why.remedy)


class StuckBuildOut(BaseModel):
    """A build that makes no progress."""

    build: FleetBuildOut
    why: list[WhyOut]


class StuckOut(BaseModel):
    """What makes no progress: builds, and what concerns no single one."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STUCK]})

    builds: list[StuckBuildOut]
    others: list[WhyOut]


class SpendRow(BaseModel):
    """The calls and their cost under a key: a user, a plan, a model or a day."""

    key: str
    calls: int
    input_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    output_tokens: int
    spent_microdollars: int
    before_microdollars: float = Field(
        description="What was spent a day in the seven days before, on average; 0 if the rows are days."
    )


class SpendOut(BaseModel):
    """What was spent in some UTC days."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SPEND]}, populate_by_name=True)

    by: SpendBy
    first: date = Field(serialization_alias="from")
    last: date = Field(serialization_alias="to")
    rows: list[SpendRow] = Field(description="The most first; days in their order.")

    @classmethod
    def of(cls, by: SpendBy, first: date, last: date, spending: Sequence[Spend]) -> Self:
        """The sums."""
        rows = [
            SpendRow(
                key=each.key,
                calls=each.calls,
                input_tokens=each.input_tokens,
                cache_write_tokens=each.cache_write_tokens,
                cache_read_tokens=each.cache_read_tokens,
                output_tokens=each.output_tokens,
                spent_microdollars=each.spent,
                before_microdollars=each.before,
            )
            for each in spending
        ]
        return cls(by=by, first=first, last=last, rows=rows)


class PendingActivityOut(BaseModel):
    """An activity of a build's workflow that has not ended."""

    name: str
    attempt: int
    last_failure: str | None


class WorkflowOut(BaseModel):
    """The latest run of a build's workflow."""

    status: str
    run_id: str
    history_events: int
    started_at: datetime
    closed_at: datetime | None
    version: str | None = Version
    task_attempt: int = Field(description="Of the workflow task that is pending; above 1 it has failed before.")
    problems: list[str] = Field(description="What Temporal reports of tasks that fail again and again.")
    pending_activities: list[PendingActivityOut]
    url: str | None

    @classmethod
    def of(cls, view: WorkflowView, url: str | None) -> Self:
        """What Temporal says."""
        return cls(
            status=view.status,
            run_id=view.run_id,
            history_events=view.history_events,
            started_at=view.started_at,
            closed_at=view.closed_at,
            version=view.version,
            task_attempt=view.task_attempt,
            problems=list(view.problems),
            pending_activities=[
                PendingActivityOut(name=each.name, attempt=each.attempt, last_failure=each.last_failure)
                for each in view.pending
            ],
            url=url,
        )


class HeldPermitOut(BaseModel):
    """A build's permit to have a sandbox running, or its place in the queue for one."""

    role: str
    queued_at: datetime
    held_since: datetime | None = Field(description="Null while it is queued.")


class FleetSnapshotOut(BaseModel):
    """A snapshot of a build."""

    number: int
    state: str
    reason: str
    archive_bytes: int | None
    commit: str | None
    created_at: datetime
    stored_at: datetime | None


class LedgerSumOut(BaseModel):
    """The calls of one kind and state with a model."""

    model: str
    kind: str
    state: str
    calls: int
    spent_microdollars: int


class FleetEventOut(BaseModel):
    """An event of a build."""

    id: int
    type: str
    turn: int | None
    data: dict[str, Any]
    created_at: datetime


class WholeBuildOut(BaseModel):
    """One build: its row, its workflow, sandbox, permit, snapshots, ledger and last events."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WHOLE_BUILD]})

    build: FleetBuildOut
    why: list[WhyOut] = Field(description="Why it makes no progress; empty if it does, or may wait.")
    workflow: WorkflowOut | None = Field(description="Null: there is none, or Temporal does not answer.")
    temporal_answers: bool
    sandbox_id: str | None
    preview_url: str | None
    permit: HeldPermitOut | None
    snapshots: list[FleetSnapshotOut] = Field(description="The newest first.")
    ledger: list[LedgerSumOut]
    events: list[FleetEventOut] = Field(description="The last ones, the newest first.")
    wake_command: str = Field(description="Wakes it with Temporal's CLI.")

    @classmethod
    def of(cls, whole: WholeBuild, answer: WorkflowAnswer, why: Sequence[Why], temporal_url: str | None) -> Self:
        """The build's rows and what Temporal says."""
        view, permit = answer.workflow, whole.permit
        return cls(
            build=FleetBuildOut.of(whole.build, None if view is None else view.version, temporal_url),
            why=[WhyOut.of(each) for each in why],
            workflow=None if view is None else WorkflowOut.of(view, temporal_url),
            temporal_answers=answer.is_known,
            sandbox_id=whole.row.sandbox_id,
            preview_url=whole.row.preview_url,
            permit=None
            if permit is None
            else HeldPermitOut(role=permit.role, queued_at=permit.queued_at, held_since=permit.held_since),
            snapshots=[
                FleetSnapshotOut(
                    number=each.number,
                    state=each.state,
                    reason=each.reason,
                    archive_bytes=each.archive_bytes,
                    commit=each.commit,
                    created_at=each.created_at,
                    stored_at=each.stored_at,
                )
                for each in whole.snapshots
            ],
            ledger=[
                LedgerSumOut(
                    model=each.model, kind=each.kind, state=each.state, calls=each.calls, spent_microdollars=each.cost
                )
                for each in whole.ledger
            ],
            events=[
                FleetEventOut(id=each.id, type=each.type, turn=each.turn, data=each.data, created_at=each.created_at)
                for each in whole.events
            ],
            wake_command=wake_command(whole.build.id),
        )


class CheckOut(BaseModel):
    """The result of a check of a server, made on the API's machine."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str | None


class CheckList(BaseModel):
    """What `cofounder doctor` checks of servers."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHECKS]})

    checks: list[CheckOut]

    @classmethod
    def of(cls, results: Sequence[CheckResult]) -> Self:
        """The results."""
        return cls(
            checks=[
                CheckOut(name=each.name, state=each.state, detail=each.detail, remedy=each.remedy) for each in results
            ]
        )
