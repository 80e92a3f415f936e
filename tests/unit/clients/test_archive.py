"""Archives of workspaces: read entry by entry, and refused if they hold what no workspace has."""

import hashlib
import io
import os
import tarfile

import pytest

from clients import archive
from clients.archive import read_archive
from domain.errors import SnapshotFailed
from domain.manifest import Entry, Kind


def tar_of(*members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.GNU_FORMAT) -> io.BytesIO:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=kind, encoding="utf-8", errors="surrogateescape") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    raw.seek(0)
    return raw


def member(name: str, kind: bytes = tarfile.REGTYPE, **changes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o644
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def test_hostile_names_are_recorded_as_they_are() -> None:
    names = ["../../etc/passwd", "/etc/shadow", "a" * 5000, "b\udcff", "new\nline"]
    entries = read_archive(tar_of(*((member(name), b"x") for name in names)))
    digest = hashlib.sha256(b"x").hexdigest()
    assert entries == [Entry(name, Kind.FILE, 0o644, 1, digest) for name in names]


@pytest.mark.parametrize(
    "odd",
    [
        member("hard", tarfile.LNKTYPE, linkname="a"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
        member("sparse", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda info: info.name,
)
def test_an_archive_of_other_things_is_refused(odd: tarfile.TarInfo) -> None:
    with pytest.raises((SnapshotFailed, tarfile.TarError)):
        read_archive(tar_of((member("a"), b"x"), (odd, b"")))


def test_a_name_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "NAME_MAX", 1000)
    with pytest.raises(tarfile.TarError, match="too long"):
        read_archive(tar_of((member("a" * 2000), b"x")))


def test_a_cut_archive_is_refused() -> None:
    whole = tar_of((member("a"), os.urandom(100_000))).getvalue()
    with pytest.raises((SnapshotFailed, tarfile.TarError, EOFError)):
        read_archive(io.BytesIO(whole[: len(whole) // 2]))
