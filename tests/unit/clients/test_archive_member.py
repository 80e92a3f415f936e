"""One file read out of a tar.gz stream, whatever else is in the archive."""

import random
import tarfile
from collections.abc import AsyncGenerator

import pytest

from clients import archive_member
from clients.archive_member import read_member
from domain.errors import Conflict, NotFound, SnapshotFailed
from tests.harness.stored_files import Member, make_archive

RAW = b"not-utf8-\xff".decode("utf-8", "surrogateescape")


def _archive(*members: Member) -> bytes:
    return make_archive(members)


async def _pieces(content: bytes, size: int = 1000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _read(archive: bytes, name: str, occurrence: int = 1) -> bytes:
    return b"".join([piece async for piece in read_member(_pieces(archive), name, occurrence)])


async def test_a_file_is_found_by_its_exact_name() -> None:
    big = random.Random(1).randbytes(700_000)
    archive = _archive(
        ("before", big, {}),
        ("../outside", b"traversal", {}),
        ("/etc/passwd", b"absolute", {}),
        ("twice", b"first", {}),
        ("twice", b"second", {}),
        (RAW, b"raw", {}),
        ("deep/" * 60 + "file", b"deep", {}),
        ("link", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("empty", b"", {}),
        ("folder", b"", {"type": tarfile.DIRTYPE}),
        ("big", big, {}),
    )
    assert await _read(archive, "before") == big
    assert await _read(archive, "../outside") == b"traversal"
    assert await _read(archive, "/etc/passwd") == b"absolute"
    assert [await _read(archive, "twice", number) for number in (1, 2)] == [b"first", b"second"]
    assert await _read(archive, RAW) == b"raw"
    assert await _read(archive, "deep/" * 60 + "file") == b"deep"
    assert await _read(archive, "link") == b"/etc/passwd"
    assert await _read(archive, "empty") == b""
    assert await _read(archive, "big") == big
    for missing in ("./before", "BEFORE", "outside", "passwd"):
        with pytest.raises(NotFound):
            await _read(archive, missing)
    with pytest.raises(NotFound):
        await _read(archive, "twice", 3)
    with pytest.raises(SnapshotFailed):
        await _read(archive, "folder")


async def test_a_broken_archive_is_an_error() -> None:
    archive = _archive(("a", b"x" * 10_000, {}), ("b", b"y", {}))
    for broken in (archive[:40], b"no archive", b""):
        with pytest.raises(SnapshotFailed):
            await _read(broken, "b")


async def test_what_expands_to_much_is_not_read_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_member, "PASSED_MOST", 2_000_000)
    archive = _archive(("zeros", bytes(3_000_000), {}), ("behind", b"x", {}))
    with pytest.raises(Conflict, match="Download the workspace"):
        await _read(archive, "behind")
    assert len(await _read(archive, "zeros")) == 3_000_000


async def test_the_rest_of_the_archive_is_not_read() -> None:
    archive = _archive(("first", b"x", {}), ("rest", random.Random(1).randbytes(3_000_000), {}))
    passed = 0

    async def counted() -> AsyncGenerator[bytes, None]:
        nonlocal passed
        async for piece in _pieces(archive, 50_000):
            passed += len(piece)
            yield piece

    assert b"".join([piece async for piece in read_member(counted(), "first")]) == b"x"
    assert passed < 500_000
