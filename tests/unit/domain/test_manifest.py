"""Manifests: the same text for the same tree, and differences that people can read."""

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import archive, sandbox_manifest
from clients.archive import read_archive
from domain.errors import SnapshotFailed
from domain.manifest import (
    DIFFERENCES_SHOWN,
    LEFT_OUT,
    Entry,
    Kind,
    compare,
    digest,
    directory,
    link,
    parse_manifest,
    printable,
    render_manifest,
)


def file(path: str, content: bytes = b"x", mode: int = 0o644, ignored: bool = False) -> Entry:
    return Entry(path, Kind.FILE, mode, len(content), hashlib.sha256(content).hexdigest(), ignored)


NAMES = st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"0").decode("utf-8", "surrogateescape"))


@given(st.lists(NAMES, unique=True))
def test_a_manifest_is_the_same_text_whatever_the_order(names: list[str]) -> None:
    entries = [file(name) for name in names]
    text = render_manifest(entries)
    assert text == render_manifest(reversed(entries))
    assert text.isascii()
    assert sorted(parse_manifest(text), key=lambda entry: entry.path) == sorted(entries, key=lambda entry: entry.path)
    assert compare(entries, parse_manifest(text)) == []
    assert (digest(text) == digest("")) == (not names)


@pytest.mark.parametrize("line", ["{}", "[]", '["a","socket",420,1,""]', '["a","file","420",1,""]', "nonsense"])
def test_an_invalid_manifest_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_manifest(line)


def test_each_kind_of_difference_is_reported() -> None:
    stored = [file("content"), file("mode"), file("gone"), file("kind"), link("link", "a"), directory("dir", 0o755)]
    found = [
        file("content", b"y"),
        file("mode", mode=0o755),
        directory("kind", 0o755),
        link("link", "b"),
        directory("dir", 0o700),
        file("new"),
        file("cache", ignored=True),
        directory("another", 0o755),
    ]
    assert compare(stored, found) == [
        "content has other content",
        "dir has mode 700, not 755",
        "gone is missing",
        "kind is a dir, not a file",
        "link has other content",
        "mode has mode 755, not 644",
        "new was not there",
    ]


def test_many_differences_are_counted() -> None:
    told = compare([file(f"{number:03}") for number in range(100)], [])
    assert len(told) == DIFFERENCES_SHOWN + 1
    assert told[-1] == "and 80 more"


@given(NAMES)
def test_any_path_can_be_shown_and_stored(name: str) -> None:
    text = printable(name * 30)
    text.encode()
    assert "\0" not in text
    assert "\n" not in text
    assert len(text) <= 200


def found_in(root: Path) -> dict[str, Entry]:
    command = [sys.executable, "-IS", sandbox_manifest.__file__, "hash", str(root), *LEFT_OUT]
    output = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    return {entry.path: entry for entry in parse_manifest(output)}


def listed_in(root: Path) -> list[str]:
    command = [sys.executable, "-IS", sandbox_manifest.__file__, "list", str(root), *LEFT_OUT]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    return [path.decode("utf-8", "surrogateescape") for path in output.split(b"\0")[:-1]]


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


def write(root: Path, path: str, content: str = "x") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def test_what_git_ignores_is_left_out_below_certain_names_only(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, ".gitignore", "/node_modules/*\n.env\n__pycache__/\n/.cache/\n/dist/\n")
    kept = [".env", "build/a", "src/a.py", "dist/tracked", ".cache/kept"]
    left = ["node_modules/a/b", "src/__pycache__/a.pyc", "dist/made", ".cache/node_modules/a", "src/new/__pycache__/b"]
    for path in kept + left:
        write(tmp_path, path)
    git(tmp_path, "add", "-f", "dist/tracked", ".gitignore")
    (tmp_path / "elsewhere").symlink_to("/")
    os.mkfifo(tmp_path / "pipe")
    found = found_in(tmp_path)
    paths = [path for path in found if not path.startswith(".git/")]
    assert {*kept, "elsewhere", ".gitignore", ".git"} <= set(paths)
    assert not set(left) & set(paths)
    assert not {"pipe", "node_modules/a", "src/__pycache__"} & set(paths)
    assert (found[".env"].ignored, found[".cache/kept"].ignored, found["build/a"].ignored) == (True, True, False)
    assert found["elsewhere"] == link("elsewhere", "/")
    assert listed_in(tmp_path) == list(found)


def test_hashing_does_not_write_to_the_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "a")
    git(tmp_path, "add", "a")
    os.utime(tmp_path / "a", (1, 1))  # git's index is stale now; a refresh would rewrite it
    assert found_in(tmp_path) == found_in(tmp_path)


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
    assert entries == [file(name) for name in names]


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


def test_a_stored_line_is_short_and_has_no_flag() -> None:
    line = render_manifest([dataclasses.replace(file("a"), ignored=True)])
    assert json.loads(line) == ["a", "file", 0o644, 1, hashlib.sha256(b"x").hexdigest()]
