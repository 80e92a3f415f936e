"""The bodies of responses about the versions of projects."""

import uuid
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import StartOut
from db.models import GateRun, Preview
from db.versions import Version
from domain.screenshots import Screenshot, of_gate

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
