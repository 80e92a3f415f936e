"""The bodies of responses about the files of a workspace. Paths and texts are the agent's: show them as text, never as
HTML. Bytes that are not UTF-8 are U+FFFD."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from db.models import Snapshot
from domain.manifest import Entry, Kind
from domain.workspace_files import LINK_TYPE, ShownContent, shown_path


class SnapshotFileOut(BaseModel):
    """A file or a symbolic link in a snapshot."""

    path: str = Field(description="Relative to the workspace.")
    kind: Literal["file", "link"]
    bytes: int = Field(description="The size; of a link, that of its target's path.")
    executable: bool
    sha256: str = Field(description="Of its content; of a link, of its target's path.")

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """The file of the manifest's entry."""
        return cls(
            path=shown_path(entry.path),
            kind="link" if entry.kind is Kind.LINK else "file",
            bytes=entry.size,
            executable=entry.kind is Kind.FILE and entry.mode & 0o111 != 0,
            sha256=entry.sha256,
        )


class SnapshotFileList(BaseModel):
    """Files of a snapshot, sorted by path."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "snapshot": 3,
                    "commit": examples.SNAPSHOT["commit"],
                    "stored_at": examples.SNAPSHOT["stored_at"],
                    "files": [examples.SNAPSHOT_FILE],
                    "next_after": None,
                }
            ]
        }
    )

    snapshot: int = Field(description="The snapshot's number, also if you have asked for the latest one.")
    commit: str | None
    stored_at: datetime | None
    files: list[SnapshotFileOut]
    next_after: int | None = Field(description="`after` of the next page; null on the last page.")

    @classmethod
    def of(cls, snapshot: Snapshot, files: list[SnapshotFileOut], next_after: int | None) -> Self:
        """The page of this snapshot."""
        return cls(
            snapshot=snapshot.number,
            commit=snapshot.commit,
            stored_at=snapshot.stored_at,
            files=files,
            next_after=next_after,
        )


class FileContentOut(SnapshotFileOut):
    """A file of a snapshot with its text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                examples.SNAPSHOT_FILE
                | {
                    "snapshot": 3,
                    "media_type": "text/plain",
                    "binary": False,
                    "text": "from fastapi import FastAPI\n",
                    "truncated": False,
                },
                examples.SNAPSHOT_FILE
                | {
                    "path": "static/logo.png",
                    "snapshot": 3,
                    "media_type": "image/png",
                    "binary": True,
                    "text": None,
                    "truncated": False,
                },
            ]
        }
    )

    snapshot: int
    media_type: str = Field(
        description="image/png, image/jpeg, image/gif or image/webp, by the file's content; otherwise text/plain, "
        "application/octet-stream, or inode/symlink."
    )
    binary: bool
    text: str | None = Field(description="The text, of a link the path of its target; null if it is binary.")
    truncated: bool = Field(description="Whether only the first megabyte is in `text`.")

    @classmethod
    def with_content(cls, snapshot: Snapshot, entry: Entry, shown: ShownContent) -> Self:
        """The file of the manifest's entry with what is shown of it."""
        return cls(
            **SnapshotFileOut.of(entry).model_dump(),
            snapshot=snapshot.number,
            media_type=LINK_TYPE if entry.kind is Kind.LINK else shown.media_type,
            binary=shown.text is None,
            text=shown.text,
            truncated=shown.truncated,
        )
