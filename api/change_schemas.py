"""The bodies of responses about what phases have changed. Titles, paths and patches are the agent's: show them as text,
never as HTML."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.conversation_schemas import PhaseOut
from domain.workspace_diff import FileDiff, WorkspaceDiff
from services.phase_diffs import ChangedPhase

_CHANGE: dict[str, Any] = {
    "path": "app/main.py",
    "old_path": None,
    "status": "modified",
    "additions": 1,
    "deletions": 1,
    "binary": False,
    "patch": "diff --git a/app/main.py b/app/main.py\n--- a/app/main.py\n+++ b/app/main.py\n@@ -1,1 +1,1 @@\n-a\n+b\n",
    "truncated": False,
}
_DIFF: dict[str, Any] = {
    "base": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "commit": examples.SNAPSHOT["commit"],
    "files": 1,
    "additions": 1,
    "deletions": 1,
    "truncated": False,
    "changes": [_CHANGE],
}


class ChangedPhaseOut(PhaseOut):
    """A phase that a commit has ended, and how much it has changed."""

    seconds: float = Field(description="How long it took; sleeps do not count.")
    snapshot: int | None = Field(description="The number of its snapshot; null if that is not stored any more.")
    files: int | None = Field(
        description="How many files it has changed; null, as the next two, if its changes were not stored."
    )
    additions: int | None = Field(description="Lines.")
    deletions: int | None = Field(description="Lines.")

    @classmethod
    def of(cls, changed: ChangedPhase) -> Self:
        """The phase as it is shown."""
        phase, diff = changed.phase, changed.diff
        return cls(
            number=phase.number,
            title=phase.title,
            commit=phase.commit,
            turn=phase.turn,
            ended_at=phase.ended_at,
            seconds=changed.seconds,
            snapshot=changed.snapshot,
            files=None if diff is None else diff.files,
            additions=None if diff is None else diff.additions,
            deletions=None if diff is None else diff.deletions,
        )


class PhaseList(BaseModel):
    """The phases of a build that have ended, in order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "phases": [
                        {
                            "number": 1,
                            "title": "A page with a waitlist",
                            "commit": examples.SNAPSHOT["commit"],
                            "turn": 12,
                            "ended_at": "2026-11-24T12:09:00Z",
                            "seconds": 540.0,
                            "snapshot": 3,
                            "files": 6,
                            "additions": 120,
                            "deletions": 14,
                        }
                    ]
                }
            ]
        }
    )

    phases: list[ChangedPhaseOut]


class FileChangeOut(BaseModel):
    """A file that was changed."""

    path: str = Field(description="Relative to the workspace.")
    old_path: str | None = Field(description="The path before, if it was renamed or copied.")
    status: Literal["added", "modified", "deleted", "renamed", "copied", "type_changed"]
    additions: int = Field(description="Lines.")
    deletions: int = Field(description="Lines.")
    binary: bool
    patch: str | None = Field(description="Its part of git's unified diff; null if it is binary or left out.")
    truncated: bool = Field(description="Whether the patch is cut after some lines, or left out, because of its size.")

    @classmethod
    def of(cls, change: FileDiff) -> Self:
        """The change as it is shown."""
        return cls.model_validate(change.model_dump())


class DiffOut(BaseModel):
    """What was changed from one commit to another. All patches together have at most 512 KB, one at most 100 KB."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DIFF]})

    base: str | None = Field(description="The commit before; null if the workspace was empty.")
    commit: str
    files: int = Field(description="How many files were changed; `changes` has at most 2,000 of them.")
    additions: int = Field(description="Lines in all files.")
    deletions: int = Field(description="Lines in all files.")
    truncated: bool = Field(description="Whether a file is missing, or a part of a patch.")
    changes: list[FileChangeOut]

    @staticmethod
    def values(diff: WorkspaceDiff) -> dict[str, Any]:
        """The fields of the diff."""
        return {
            "base": diff.base,
            "commit": diff.commit,
            "files": diff.files,
            "additions": diff.additions,
            "deletions": diff.deletions,
            "truncated": diff.truncated,
            "changes": [FileChangeOut.of(change) for change in diff.changes],
        }


class PhaseDiffOut(DiffOut):
    """What a phase has changed."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DIFF | {"phase": 2}]})

    phase: int


class BuildDiffOut(DiffOut):
    """What a build has changed since it began, up to the end of its last phase."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DIFF | {"base": None, "up_to_phase": 4}]})

    up_to_phase: int = Field(description="The last phase whose changes are included.")
