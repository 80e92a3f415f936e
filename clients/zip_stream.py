"""Turns a workspace's tar.gz into a zip while its bytes pass by. Neither is ever whole in memory or on a disk here.

Python's `zipfile` can't keep names that are not UTF-8, and keeps an object for every member. This module writes the
part of PKWARE's APPNOTE that every program reads: deflate with data descriptors, Zip64 if sizes need it, and Info-ZIP's
Unix attributes for modes and symbolic links.
"""

import contextlib
import stat
import struct
import tarfile
import zlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from clients.archive import open_archive
from clients.archive_stream import read_in_thread
from domain.errors import SnapshotFailed

_BLOCK = 256 * 1024
_PIECE = 64 * 1024

_STORED, _DEFLATED = 0, 8
_UTF8, _DESCRIPTOR = 0x800, 0x8
_UNIX = 3 << 8
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_FROM = _MAX_32 - 2**24
"""Files of this size (in bytes) get the large fields: deflate makes incompressible content a little larger."""


async def as_zip(archive: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The content of a tar.gz as a zip, in pieces. Closes the tar.gz at the end.

    Raises:
        SnapshotFailed: it is not a complete archive of files, links and directories below one folder.
    """
    async with contextlib.aclosing(read_in_thread(archive, lambda file: _in_pieces(zip_of(file)))) as pieces:
        async for piece in pieces:
            yield piece


def _in_pieces(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer parts, because each part costs a change of threads."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def zip_of(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a tar.gz as a zip, part by part. Reads the file once, from front to back.

    Raises:
        SnapshotFailed: it is broken, or contains something that a zip can't contain.
    """
    written = 0
    directory = bytearray()
    members = 0
    try:
        with open_archive(file) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps every header that it has read
                entry = _Entry.of(member, written)
                for part in _entry_parts(archive, member, entry):
                    written += len(part)
                    yield part
                directory += entry.directory_record()
                members += 1
    except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
        raise SnapshotFailed(f"The archive can't be read: {error}") from error
    yield bytes(directory)
    yield _end(members, len(directory), written)


def _entry_parts(archive: tarfile.TarFile, member: tarfile.TarInfo, entry: "_Entry") -> Iterator[bytes]:
    if entry.method == _STORED:
        content = entry.link_target
        entry.crc, entry.size, entry.compressed = zlib.crc32(content), len(content), len(content)
        yield entry.header() + content
        return
    file = archive.extractfile(member)
    assert file is not None, "only files are deflated"
    yield entry.header()
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    while block := file.read(_BLOCK):
        entry.crc = zlib.crc32(block, entry.crc)
        entry.size += len(block)
        part = deflate.compress(block)
        entry.compressed += len(part)
        yield part
    part = deflate.flush()
    entry.compressed += len(part)
    if entry.size != member.size:
        raise SnapshotFailed("The archive ends in the middle of a file.")
    yield part + entry.descriptor()


@dataclass
class _Entry:
    """One member. `crc`, `size` and `compressed` are known once its content has passed."""

    name: bytes
    mode: int
    mtime: int
    method: int
    link_target: bytes
    is_large: bool
    offset: int
    crc: int = 0
    size: int = 0
    compressed: int = 0

    @classmethod
    def of(cls, member: tarfile.TarInfo, offset: int) -> "_Entry":
        """Make the entry of a tar member.

        Raises:
            SnapshotFailed: it is neither a file, a link nor a directory, or its name leads out of the workspace.
        """
        name = member.name.encode("utf-8", "surrogateescape")
        target = b""
        if member.isdir():
            kind, method, name = stat.S_IFDIR, _STORED, name.rstrip(b"/") + b"/"
        elif member.issym():
            kind, method, target = stat.S_IFLNK, _STORED, member.linkname.encode("utf-8", "surrogateescape")
        elif member.isreg() and not member.issparse():
            kind, method = stat.S_IFREG, _DEFLATED
        else:
            raise SnapshotFailed("The archive contains something that is neither a file, a link nor a directory.")
        if name.startswith(b"/") or b".." in name.split(b"/") or len(name) > _MAX_16:
            raise SnapshotFailed("The archive contains a name that leads out of the workspace.")
        mode = kind | (0o777 if target else member.mode & 0o7777)
        return cls(name, mode, int(member.mtime), method, target, member.size >= _ZIP64_FROM, offset)

    def header(self) -> bytes:
        """The local header, before the content."""
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) if self.is_large else b""
        sizes = (_MAX_32, _MAX_32) if self.is_large else (self.compressed, self.size)
        return self._record(b"PK\x03\x04", b"", sizes, extra + self._time_extra(), b"")

    def descriptor(self) -> bytes:
        """The data descriptor, after deflated content."""
        return struct.pack("<4sLQQ" if self.is_large else "<4sLLL", b"PK\x07\x08", self.crc, self.compressed, self.size)

    def directory_record(self) -> bytes:
        """The entry's record in the central directory."""
        large = [value for value in (self.size, self.compressed) if self.is_large]
        large += [self.offset] if self.offset >= _MAX_32 else []
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        sizes = (_MAX_32, _MAX_32) if self.is_large else (self.compressed, self.size)
        attributes = self.mode << 16 | (0x10 if stat.S_ISDIR(self.mode) else 0)
        location = struct.pack("<HHHLL", 0, 0, 0, attributes, min(self.offset, _MAX_32))
        return self._record(b"PK\x01\x02", struct.pack("<H", _UNIX | 45), sizes, extra + self._time_extra(), location)

    def _record(self, signature: bytes, made_by: bytes, sizes: tuple[int, int], extra: bytes, location: bytes) -> bytes:
        flags = _DESCRIPTOR if self.method == _DEFLATED else 0
        with contextlib.suppress(UnicodeDecodeError):
            self.name.decode()
            flags |= _UTF8
        at = datetime.fromtimestamp(min(max(self.mtime, 315_532_800), 4_354_819_198), UTC)  # 1980 to 2107
        dos_time = at.hour << 11 | at.minute << 5 | at.second // 2
        dos_date = (at.year - 1980) << 9 | at.month << 5 | at.day
        version_needed = 45 if self.is_large else 20
        fields = (version_needed, flags, self.method, dos_time, dos_date, self.crc, *sizes, len(self.name), len(extra))
        return signature + made_by + struct.pack("<HHHHHLLLHH", *fields) + location + self.name + extra

    def _time_extra(self) -> bytes:
        """Info-ZIP's extended timestamp: the regular one has neither a time zone nor odd seconds."""
        in_range = -(2**31) <= self.mtime < 2**31
        return struct.pack("<HHBl", 0x5455, 5, 1, self.mtime) if in_range else b""


def _end(members: int, directory_bytes: int, offset: int) -> bytes:
    large = b""
    if members >= _MAX_16 or directory_bytes >= _MAX_32 or offset >= _MAX_32:
        fields = (b"PK\x06\x06", 44, _UNIX | 45, 45, 0, 0, members, members, directory_bytes, offset)
        large = struct.pack("<4sQHHLLQQQQ", *fields)
        large += struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + directory_bytes, 1)
    member_count = min(members, _MAX_16)
    sizes = (min(directory_bytes, _MAX_32), min(offset, _MAX_32))
    return large + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, member_count, member_count, *sizes, 0)
