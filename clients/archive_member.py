"""Reads one file out of a workspace's tar.gz while its bytes pass by. Nothing is unpacked on this machine."""

import contextlib
import tarfile
from collections.abc import AsyncGenerator, Iterator
from typing import IO

from clients.archive import open_archive
from clients.archive_stream import read_in_thread
from domain.errors import Conflict, NotFound, SnapshotFailed

PASSED_MOST = 2 * 1024**3
"""Look for a file in the first so many bytes of the unpacked archive. A small archive may expand to a lot."""

_BLOCK = 256 * 1024


async def read_member(
    archive: AsyncGenerator[bytes, None], name: str, occurrence: int = 1
) -> AsyncGenerator[bytes, None]:
    """The content of a file, or the target of a symbolic link, in pieces. Links are not followed.

    Args:
        archive: the tar.gz; it is closed at the end.
        name: the member's name, byte for byte (bytes that are not UTF-8 are surrogates). It is only compared.
        occurrence: which of the members of this name, from 1.

    Raises:
        NotFound: there is no such member.
        Conflict: it is too far inside of the archive.
        SnapshotFailed: the archive is broken.
    """
    async with contextlib.aclosing(
        read_in_thread(archive, lambda file: _content(file, name, occurrence, PASSED_MOST))
    ) as pieces:
        async for piece in pieces:
            yield piece


def _content(file: IO[bytes], name: str, occurrence: int, passed_most: int) -> Iterator[bytes]:
    try:
        with open_archive(file) as archive:
            member = _find(archive, name, occurrence, passed_most)
            if member.issym():
                yield member.linkname.encode("utf-8", "surrogateescape")
                return
            content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if content is None:
                raise SnapshotFailed(f"{name!r} is neither a file nor a link in the archive.")
            while block := content.read(_BLOCK):
                yield block
    except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
        raise SnapshotFailed(f"The archive can't be read: {error}") from error


def _find(archive: tarfile.TarFile, name: str, occurrence: int, passed_most: int) -> tarfile.TarInfo:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps every header that it has read
        if member.name == name:
            occurrence -= 1
            if occurrence == 0:
                return member
        if member.offset_data + member.size > passed_most:
            raise Conflict(
                f"This file is behind {passed_most // 1024**3} GB of other files of the snapshot, which is too far to "
                "read it alone. Download the workspace."
            )
    raise NotFound(f"The archive has no {name!r}.")
