"""The bodies of requests and responses about acts on many builds."""

import uuid
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.schemas import Body
from db.bulk_runs import RunBuild
from domain.bulk import DEFAULT_RATE, MAX_RATE, BulkAct, BulkState, ItemState
from domain.fleet_filter import TEXT_MAX_CHARACTERS
from services.bulk import DryRun, Run

REASON_MAX_CHARACTERS = 500


class NewBulkRun(Body):
    """One act on all builds that a filter matches."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "act": "wake",
                    "where": "status=sleeping and plan=partner",
                    "rate_per_second": 20,
                    "reason": "The model answers again.",
                }
            ]
        }
    )

    act: BulkAct = Field(
        description="`suspend` suspends the accounts of the builds' users, each once; `unsuspend` lifts that."
    )
    where: str = Field(
        description="Which builds: conditions such as `status=sleeping and plan=partner`.",
        min_length=1,
        max_length=TEXT_MAX_CHARACTERS,
    )
    rate_per_second: int = Field(default=DEFAULT_RATE, description="Builds a second.", ge=1, le=MAX_RATE)
    reason: str = Field(description="Why, for other operators.", min_length=1, max_length=REASON_MAX_CHARACTERS)
    dry_run: bool = Field(default=False, description="Only say what would happen.")


class BulkRunOut(BaseModel):
    """An act on many builds, and how far it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BULK_RUN]})

    id: uuid.UUID
    act: str = Field(description="As in the request; a later version may know further acts.")
    where: str
    rate_per_second: int
    reason: str
    by: str = Field(description="A user's id, or `operator`; of a command, the name of the operating system's user.")
    state: BulkState
    stopped_by: str | None
    total: int = Field(description="Builds that the filter matched when the run was made.")
    pending: int = Field(description="Builds that are not reached yet.")
    done: int
    skipped: int = Field(description="Builds that the act did not fit any more.")
    failed: int = Field(description="Builds that could not be reached. Resuming the run tries them again.")
    created_at: datetime
    ended_at: datetime | None = Field(description="When it finished or was stopped.")

    @classmethod
    def of(cls, run: Run) -> Self:
        """From the rows."""
        row, counts = run.row, run.counts
        return cls(
            id=row.id,
            act=row.act,
            where=row.filter,
            rate_per_second=row.rate,
            reason=row.reason,
            by=run.by,
            state=BulkState(row.state),
            stopped_by=row.stopped_by,
            total=row.total,
            pending=counts.pending,
            done=counts.done,
            skipped=counts.skipped,
            failed=counts.failed,
            created_at=row.created_at,
            ended_at=row.ended_at,
        )


class BulkRunList(BaseModel):
    """A page of runs, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"runs": [examples.BULK_RUN], "next_cursor": None}]})

    runs: list[BulkRunOut]
    next_cursor: str | None = Field(description="The cursor of the next page; null on the last one.")


class BulkRunBuildOut(BaseModel):
    """A build of a run."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BULK_BUILD]})

    build_id: uuid.UUID
    user_id: str
    status: str = Field(description="The build's status now.")
    state: ItemState = Field(description="What the run has done to it.")
    why: str | None = Field(description="Why it was skipped, has failed, or is tried again.")
    at: datetime | None = Field(description="When the run tried it last.")

    @classmethod
    def of(cls, build: RunBuild) -> Self:
        """From the rows."""
        item = build.item
        return cls(
            build_id=item.build_id,
            user_id=build.user_id,
            status=build.status,
            state=ItemState(item.state),
            why=item.why,
            at=item.at,
        )


class BulkRunDetail(BulkRunOut):
    """A run with a page of its builds."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**examples.BULK_RUN, "builds": [examples.BULK_BUILD], "next_cursor": 100}]}
    )

    builds: list[BulkRunBuildOut]
    next_cursor: int | None = Field(description="The cursor of the next page of builds; null on the last one.")

    @classmethod
    def with_builds(cls, run: Run, builds: list[RunBuild], next_cursor: int | None) -> Self:
        """From the rows."""
        out = BulkRunOut.of(run).model_dump()
        return cls(**out, builds=[BulkRunBuildOut.of(each) for each in builds], next_cursor=next_cursor)


class ExpectedOut(BaseModel):
    """What a run would do to a build."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXPECTED]})

    build_id: uuid.UUID
    user_id: str
    status: str
    why_not: str | None = Field(description="Why the run would skip it; null if the act fits.")


class DryRunOut(BaseModel):
    """What a run would do. Nothing was written."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"count": 480, "fitting": 478, "sample": [examples.EXPECTED]}]}
    )

    count: int = Field(description="Builds that the filter matches.")
    fitting: int = Field(description="Those of them that the act fits now.")
    sample: list[ExpectedOut] = Field(description="The first of them.")

    @classmethod
    def of(cls, expected: DryRun) -> Self:
        """From what the service says."""
        return cls(
            count=expected.count,
            fitting=expected.fitting,
            sample=[ExpectedOut(**vars(each)) for each in expected.sample],
        )
