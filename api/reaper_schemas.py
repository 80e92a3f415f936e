"""The bodies of requests and responses about the reaper."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.bulk_schemas import REASON_MAX_CHARACTERS
from api.ops_schemas import ReaperStateOut, ReaperStepOut
from api.schemas import Body
from clients.fleet_workflows import ReaperSchedule
from db.models import ReaperStep
from services.reap.plan import StepPlan

SHOWN = 100
"""Acts of a step that a plan shows."""


class ReaperPause(Body):
    """Why the reaper is paused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The sandbox service lists too little."}]})

    reason: str = Field(description="Why, for other operators.", min_length=1, max_length=REASON_MAX_CHARACTERS)


class ReaperOut(ReaperStateOut):
    """The reaper, which repairs what crashes leave behind."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REAPER]})

    @classmethod
    def of(cls, schedule: ReaperSchedule | None, steps: Sequence[ReaperStep]) -> Self:
        """From the schedule in Temporal and the steps' rows."""
        return cls(
            paused=None if schedule is None else schedule.paused,
            note=None if schedule is None else schedule.note,
            last_run_at=None if schedule is None else schedule.last_run_at,
            steps=[
                ReaperStepOut(step=each.step, at=each.at, alert=each.alert, alert_at=each.alert_at) for each in steps
            ],
        )


class PlannedActOut(BaseModel):
    """What the reaper would do to something."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PLANNED_ACT]})

    act: str = Field(description="Such as `close build`, `end sandbox` or `delete object`; `stop`: nothing, with why.")
    id: str = Field(description="Of a build, a sandbox or a user, or a key of the object store.")
    why: str


class StepPlanOut(BaseModel):
    """What a step of the reaper would do."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STEP_PLAN]})

    step: str = Field(description="`builds`, `sandboxes`, `store` or `nudges`.")
    count: int
    acts: list[PlannedActOut] = Field(description=f"The first {SHOWN} of them.")
    problem: str | None = Field(description="Why this could not be found out; null if it could.")


class ReaperPlan(BaseModel):
    """What a run of the reaper would do now."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"at": "2026-11-24T12:00:00Z", "steps": [examples.STEP_PLAN]}]}
    )

    at: datetime
    steps: list[StepPlanOut]

    @classmethod
    def of(cls, at: datetime, steps: list[StepPlan]) -> Self:
        """From what the looks say."""
        return cls(
            at=at,
            steps=[
                StepPlanOut(
                    step=each.step,
                    count=len(each.acts),
                    acts=[PlannedActOut(**vars(act)) for act in each.acts[:SHOWN]],
                    problem=each.problem,
                )
                for each in steps
            ],
        )
