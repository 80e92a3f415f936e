"""A tar.gz streamed as a zip: every name, mode, link and empty directory arrives, with little memory."""

import asyncio
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from clients.zip_stream import as_zip
from domain.errors import SnapshotFailed

MTIME = 1_790_000_001


def _archive(*members: tuple[str | bytes, dict[str, Any], bytes], level: int = 1) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT, compresslevel=level) as archive:
        for name, attributes, content in members:
            text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
            member = tarfile.TarInfo(text)
            member.mtime = MTIME
            member.size = len(content)
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


async def _pieces(content: bytes, size: int = 1000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _zipped(content: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(b"".join([piece async for piece in as_zip(_pieces(content))])))


LONG = "deep/" * 60 + "file"
ODD = [" lead", "new\nline", "quote'\"", "back\\slash", "-rf", "ünï ✓", "a:b*c?"]


async def test_everything_arrives() -> None:
    big = bytes(range(256)) * 4000
    zipped = await _zipped(
        _archive(
            ("empty", {"type": tarfile.DIRTYPE, "mode": 0o750}, b""),
            ("run.sh", {"mode": 0o755}, b"#!/bin/sh\n"),
            ("nothing", {"mode": 0o600}, b""),
            ("big", {"mode": 0o644}, big),
            ("to", {"type": tarfile.SYMTYPE, "linkname": "../else/ünï", "mode": 0o777}, b""),
            (LONG, {}, b"deep"),
            *((name, {}, name.encode()) for name in ODD),
            (b"not-utf8-\xff\xfe", {}, b"raw"),
        )
    )
    assert zipped.testzip() is None
    found = {info.filename: info for info in zipped.infolist()}
    assert list(found) == ["empty/", "run.sh", "nothing", "big", "to", LONG, *ODD, "not-utf8-\u00a0■"]  # as cp437

    def mode(name: str) -> int:
        return found[name].external_attr >> 16

    assert (mode("empty/"), mode("run.sh"), mode("nothing")) == (
        stat.S_IFDIR | 0o750,
        stat.S_IFREG | 0o755,
        stat.S_IFREG | 0o600,
    )
    assert stat.S_ISLNK(mode("to"))
    assert zipped.read("to").decode() == "../else/ünï"
    assert (zipped.read("big"), zipped.read("nothing"), zipped.read(LONG)) == (big, b"", b"deep")
    assert all(zipped.read(name) == name.encode() for name in ODD)
    assert found["run.sh"].extra == struct.pack("<HHBl", 0x5455, 5, 1, MTIME)
    assert all(info.create_system == 3 for info in found.values())


async def test_empty_workspace() -> None:
    assert (await _zipped(_archive())).namelist() == []


async def test_more_members_than_the_small_fields_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.zip_stream._MAX_16", 10)  # the real limit is 65,535
    names = [str(number) for number in range(25)]
    zipped = await _zipped(_archive(*((name, {}, b"") for name in names)))
    assert zipped.namelist() == names


async def test_large_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.zip_stream._ZIP64_FROM", 100)
    zipped = await _zipped(_archive(("large", {}, b"x" * 1000), ("small", {}, b"y" * 10)))
    assert zipped.testzip() is None
    assert (zipped.read("large"), zipped.read("small")) == (b"x" * 1000, b"y" * 10)


async def test_what_expands_is_not_held() -> None:
    size = 32_000_000
    packed = _archive(("zeros", {}, b"\0" * size), level=9)
    tracemalloc.start()
    try:
        total = sum([len(piece) async for piece in as_zip(_pieces(packed, len(packed)))])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total < size / 100
    assert peak < size / 10


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b"])
async def test_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(SnapshotFailed, match="leads out"):
        await _zipped(_archive((name, {}, b"x")))


@pytest.mark.parametrize(
    "broken",
    [
        b"not an archive at all",
        b"",
        _archive(("pipe", {"type": tarfile.FIFOTYPE}, b"")),
        _archive(("whole", {}, bytes(range(256)) * 400), level=0)[:50_000],
    ],
)
async def test_broken_archive_is_reported(broken: bytes) -> None:
    with pytest.raises(SnapshotFailed):
        await _zipped(broken)


async def test_reader_that_leaves_closes_the_archive() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        packed = _archive(*((str(number), {}, bytes(range(256)) * 100) for number in range(200)), level=0)
        try:
            for start in range(0, len(packed), 10_000):
                yield packed[start : start + 10_000]
        finally:
            closed.set()

    zipped = as_zip(endless())
    assert (await anext(zipped)).startswith(b"PK")
    await zipped.aclose()
    assert closed.is_set()
