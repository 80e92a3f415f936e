"""The bodies of responses about lists of projects, and about their versions."""

import uuid
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.schemas import (
    BudgetOut,
    LastVersion,
    Narration,
    NextCursor,
    ProjectStatus,
    QuestionOut,
    QueuePlace,
    StartOut,
)
from db.latest_builds import LatestBuild as ReadLatestBuild
from db.models import GateRun, Preview
from db.projects import VersionedProject
from db.versions import Version
from domain.budget import Level
from domain.screenshots import Screenshot, of_gate
from domain.status import Dependency, Status, WaitingFor

_BUILD_ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"

VERSION: dict[str, Any] = {
    "version": 3,
    "is_current": True,
    "build_id": _BUILD_ID,
    "goal": "Add a reminder before something spoils.",
    "started_by": "ada",
    "started_from": {"build_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "snapshot": 9, "version": 1},
    "created_at": "2026-11-24T12:00:00Z",
    "ready_at": "2026-11-24T12:21:30Z",
    "phases": 4,
    "tests": 14,
    "poster": f"/v1/builds/{_BUILD_ID}/screenshots/gate-2-desktop",
    "preview": {"state": "closed", "url": None, "expires_at": None},
    "snapshot": 7,
    "downloads": [
        {"format": "tar.gz", "path": f"/v1/builds/{_BUILD_ID}/snapshots/7/archive", "bytes": 48_213},
        {"format": "zip", "path": f"/v1/builds/{_BUILD_ID}/snapshots/7/archive?format=zip", "bytes": None},
    ],
}


LISTED: dict[str, Any] = examples.PROJECT | {
    "latest_build": {
        "id": _BUILD_ID,
        "goal": "Show what spoils first.",
        "started_by": "ada",
        "status": "code",
        "waiting_for": None,
        "dependency": None,
        "reason": None,
        "wakes_at": None,
        "question": None,
        "narration": "The list is sorted now. I run the tests.",
        "turn": 41,
        "phases_completed": 2,
        "queue_place": None,
        "percent": 64,
        "level": "yellow",
        "build_version": None,
        "last_event_id": 212,
        "created_at": "2026-11-25T09:00:00Z",
        "started_at": "2026-11-25T09:00:01Z",
        "closed_at": None,
    },
    "latest_version": VERSION,
    "poster": VERSION["poster"],
}


class PreviewState(BaseModel):
    """Whether a version's product runs."""

    state: str = Field(description="opening, open, closed or failed.")
    url: str | None
    expires_at: datetime | None

    @classmethod
    def of(cls, preview: Preview) -> Self:
        """The state in the row."""
        return cls(state=preview.state, url=preview.url, expires_at=preview.expires_at)


class Download(BaseModel):
    """An archive of a version's workspace, and its path in this API."""

    format: str
    path: str
    bytes: int | None = Field(description="Null if it is made while it is downloaded.")


class VersionOut(BaseModel):
    """A version of a project: what one of its ready builds has made. Versions are never overwritten."""

    version: int
    is_current: bool = Field(
        description="Whether it is the newest: a build begins with it unless it is told otherwise."
    )
    build_id: uuid.UUID
    goal: str
    started_by: str
    started_from: StartOut | None = Field(description="What its build began with; null: an empty workspace.")
    created_at: datetime = Field(description="When its build was started.")
    ready_at: datetime | None
    phases: int
    tests: int | None = Field(description="How many of the product's tests have run when it was checked.")
    poster: str | None = Field(description="The path of a screenshot in this API.")
    preview: PreviewState | None
    snapshot: int | None = Field(description="The number of its build's snapshot with it; null if none is stored.")
    downloads: list[Download]

    @classmethod
    def of(cls, read: Version, newest: int) -> Self:
        """The version as the API shows it. `newest`: the project's newest version."""
        row = read.build
        assert row.build_version is not None
        return cls(
            version=row.build_version,
            is_current=row.build_version == newest,
            build_id=row.id,
            goal=row.goal,
            started_by=row.user_id,
            started_from=StartOut.of(row, read.start_version),
            created_at=row.created_at,
            ready_at=row.closed_at,
            phases=row.phases_completed,
            tests=None if read.gate is None else read.gate.tests_run,
            poster=None if read.gate is None else poster_of(read.gate),
            preview=None if read.preview is None else PreviewState.of(read.preview),
            snapshot=None if read.snapshot is None else read.snapshot.number,
            downloads=_downloads(read),
        )


class VersionList(BaseModel):
    """A project's versions, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"versions": [VERSION], "next_before": None}]})

    versions: list[VersionOut]
    next_before: int | None = Field(description="`before` of the next page; null on the last page.")


class LatestBuild(BaseModel):
    """A project's newest build, as far as a list of projects shows it. `GET /v1/builds/{id}` has all of it."""

    id: uuid.UUID
    goal: str
    started_by: str
    status: Status
    waiting_for: WaitingFor | None
    dependency: Dependency | None
    reason: str | None
    wakes_at: datetime | None
    question: QuestionOut | None = Field(description="Its question to the founder, while it waits for the answer.")
    narration: Narration
    turn: int
    phases_completed: int
    queue_place: QueuePlace
    percent: int | None = Field(
        description="How much of today's allowance its user has used; null once it has ended, and for an unlimited "
        "plan."
    )
    level: Level | None = Field(description="Of the allowance; null once it has ended.")
    build_version: int | None
    last_event_id: int
    created_at: datetime
    started_at: datetime | None
    closed_at: datetime | None

    @classmethod
    def of(
        cls, latest: ReadLatestBuild, budget: BudgetOut | None, narration: str | None, queue_place: int | None
    ) -> Self:
        """The build of the row. `budget`: its user's, if it is open."""
        others = {
            "started_by": latest.build.user_id,
            "question": None if latest.question is None else QuestionOut.of(latest.question),
            "narration": narration,
            "turn": latest.turn,
            "queue_place": queue_place,
            "percent": None if budget is None else budget.percent,
            "level": None if budget is None else budget.level,
        }
        columns = {name: getattr(latest.build, name) for name in cls.model_fields if name not in others}
        return cls.model_validate(columns | others)


class ListedProject(BaseModel):
    """A project without its documents."""

    id: uuid.UUID
    organisation_id: uuid.UUID
    name: str
    status: ProjectStatus
    last_build_version: LastVersion
    brief_version: int | None
    interview_version: int | None
    created_at: datetime
    archived_at: datetime | None
    latest_build: LatestBuild | None
    latest_version: VersionOut | None = Field(description="What its last ready build has made.")
    poster: str | None = Field(
        description="The path of a screenshot in this API: of the latest version, or else of the latest build."
    )

    @classmethod
    def of(
        cls, versioned: VersionedProject, latest: LatestBuild | None, version: VersionOut | None, poster: str | None
    ) -> Self:
        """The project with the versions of its documents, and what else the list says of it."""
        row = versioned.project
        return cls(
            id=row.id,
            organisation_id=row.org_id,
            name=row.name,
            status=row.status,
            last_build_version=row.last_build_version,
            brief_version=versioned.brief_version,
            interview_version=versioned.interview_version,
            created_at=row.created_at,
            archived_at=row.archived_at,
            latest_build=latest,
            latest_version=version,
            poster=poster,
        )


class ProjectList(BaseModel):
    """Projects, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"projects": [LISTED], "next_cursor": None}]})

    projects: list[ListedProject]
    next_cursor: NextCursor


def poster_of(gate: GateRun) -> str | None:
    """The path of the gate's first screenshot; None if it has none."""
    taken: list[Screenshot] = of_gate(gate.number, gate.screenshots, gate.ended_at or gate.started_at)
    return f"/v1/builds/{gate.build_id}/screenshots/{taken[0].id}" if taken else None


def _downloads(read: Version) -> list[Download]:
    if read.snapshot is None:
        return []
    path = f"/v1/builds/{read.build.id}/snapshots/{read.snapshot.number}/archive"
    return [
        Download(format="tar.gz", path=path, bytes=read.snapshot.archive_bytes),
        Download(format="zip", path=f"{path}?format=zip", bytes=None),
    ]
