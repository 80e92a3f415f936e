"""Archives of a workspace: made and unpacked by GNU tar inside the sandbox, read here only as a stream.

Nothing of an archive is ever written on this machine, so no member's name can do harm here.
"""

import asyncio
import contextlib
import errno
import hashlib
import inspect
import os
import re
import shlex
import tarfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self, cast

from clients import sandbox_manifest
from clients.sandbox import CommandOutput, Sandbox
from clients.sandbox_runner import JOURNAL, WORKSPACE
from clients.shielded import to_the_end
from clients.workspace_lock import WorkspaceLock
from domain.errors import Misconfigured, SandboxFull, SnapshotFailed
from domain.manifest import LEFT_OUT, Entry, Kind, directory, link, parse_manifest

ARCHIVES = f"{JOURNAL}/archives"
"""Where archives are while they come and go: outside the workspace."""

PACK_SECONDS = 600.0
"""How long tar may take to make, unpack or hash a workspace."""

ENTRIES_MAX = 1_000_000
"""A workspace with more files than this is not archived: its manifest would not fit in memory."""

NAME_MAX = 1024 * 1024

ARCHIVE_MAX_BYTES = 5 * 1024**3
"""A larger archive is not stored."""

MANIFEST_MAX_BYTES = 300_000_000
"""The largest manifest that is read; it has about 150 bytes a file."""

_SCRIPT_SOURCE = inspect.getsource(sandbox_manifest)
_SCRIPT = f"{JOURNAL}/manifest_{hashlib.sha256(_SCRIPT_SOURCE.encode()).hexdigest()[:12]}.py"
_ARRIVED = f"{ARCHIVES}/restore.tar.gz"
_QUEUED_PIECES = 4
_HASHED_AT_ONCE = 1024 * 1024
_UNPACKED_AT_ONCE = 16 * 1024
_RESULT = "cofounder-result"


@dataclass(frozen=True)
class PackedArchive:
    """An archive inside the sandbox. `commit` is the workspace's HEAD, `subject` that commit's first line."""

    path: str
    bytes: int
    sha256: str
    commit: str | None
    subject: str


async def pack(sandbox: Sandbox, name: str) -> PackedArchive:
    """Archive the workspace to a file beside it. `discard` it afterwards.

    What vanishes or changes while it is read is no error: a server of the agent's may be writing.

    Raises:
        SnapshotFailed: tar failed; says what tar said.
    """
    path, names = f"{ARCHIVES}/{name}.tar.gz", f"{ARCHIVES}/{name}.list"
    listing = shlex.join(["python3", "-IS", _SCRIPT, "list", WORKSPACE, *LEFT_OUT])
    # tar: 1 means that a file changed while it was read. Hard links become files: each path stands for itself.
    command = f"""
rm -rf {ARCHIVES} && mkdir -p {ARCHIVES} {WORKSPACE} && {listing} >{names} || exit 90
tar --create --file=- --directory={WORKSPACE} --no-recursion --format=gnu --numeric-owner --owner=0 --group=0 \
  --hard-dereference --ignore-failed-read --warning=no-file-changed --null --verbatim-files-from --files-from={names} \
  | gzip -1 >{path}
ends=("${{PIPESTATUS[@]}}")
[ "${{ends[0]}}" -le 1 ] && [ "${{ends[1]}}" -eq 0 ] || exit 91
rm -f {names}
echo
echo {_RESULT} "$(stat --format=%s {path})" "$(sha256sum <{path} | cut -d' ' -f1)" \
  "$(git -C {WORKSPACE} rev-parse --quiet --verify HEAD 2>/dev/null || echo -)" \
  "$(git -C {WORKSPACE} log -1 --format=%s HEAD 2>/dev/null)"
"""
    output = await _with_script(sandbox, command)
    result = re.search(rf"^{_RESULT} (\d+) ([0-9a-f]{{64}}) ([0-9a-f]{{40,64}}|-) (.*)$", output.stdout, re.M)
    _check_space(output)
    if output.exit_code != 0 or result is None:
        raise SnapshotFailed(f"The workspace could not be archived: {_said(output)}")
    size, sha256, commit, subject = result.groups()
    if int(size) > ARCHIVE_MAX_BYTES:
        raise SnapshotFailed(f"The workspace's archive would have {int(size) // 10**6:,} MB, which is too much.")
    return PackedArchive(path, int(size), sha256, None if commit == "-" else commit, subject)


async def discard(sandbox: Sandbox) -> None:
    """Remove archives from the sandbox. Failures are logged: the next archive makes room, too."""

    async def remove() -> None:
        await sandbox.run(f"rm -rf {ARCHIVES}", timeout_seconds=60, cwd="/")

    await to_the_end(remove())


async def send(sandbox: Sandbox, pieces: AsyncIterable[bytes]) -> None:
    """Bring an archive into the sandbox, beside the workspace, for `unpack`."""
    await sandbox.write(_ARRIVED, pieces)


async def unpack(sandbox: Sandbox, lock: WorkspaceLock | None = None) -> None:
    """Replace the workspace by what the archive holds that was sent; it is removed afterwards.

    Raises:
        SnapshotFailed: it can't be unpacked; says what tar said.
        StaleClaim: the workspace was to be held, and is held by a later attempt; nothing was changed.
    """
    command = f"""
set -e
if [ -L {WORKSPACE} ] || [ ! -d {WORKSPACE} ]; then rm -rf {WORKSPACE}; mkdir -p {WORKSPACE}; fi
find {WORKSPACE} -mindepth 1 -type d ! -perm -u+rwx -exec chmod u+rwx {{}} \\; 2>/dev/null || true
find {WORKSPACE} -mindepth 1 -delete
tar --extract --gzip --file={_ARRIVED} --directory={WORKSPACE} --preserve-permissions --no-same-owner \
  --delay-directory-restore
rm -rf {ARCHIVES}
"""
    output = await _run(sandbox, command if lock is None else lock.guarded(command))
    if lock is not None:
        lock.check(output)
    _check_space(output)
    if output.exit_code != 0:
        raise SnapshotFailed(f"The archive could not be unpacked: {_said(output)}")


async def found_manifest(sandbox: Sandbox) -> list[Entry]:
    """What the workspace holds now, hashed inside the sandbox.

    Raises:
        SnapshotFailed: it could not be read.
    """
    path = f"{ARCHIVES}/found.jsonl"
    listing = shlex.join(["python3", "-IS", _SCRIPT, "hash", WORKSPACE, *LEFT_OUT])
    output = await _with_script(sandbox, f"mkdir -p {ARCHIVES} && {listing} >{path}")
    if output.exit_code != 0:
        raise SnapshotFailed(f"The workspace could not be hashed: {_said(output)}")
    try:
        content = await read_bounded(sandbox, path, MANIFEST_MAX_BYTES)
        await sandbox.run(f"rm -f {path}", timeout_seconds=60, cwd="/")
        return parse_manifest(content.decode("ascii"))
    except (FileNotFoundError, ValueError) as error:
        raise SnapshotFailed(f"The workspace's hashes could not be read: {error}") from error


async def _with_script(sandbox: Sandbox, command: str) -> CommandOutput:
    await sandbox.write(_SCRIPT, _SCRIPT_SOURCE)
    output = await _run(sandbox, command)
    if "python3: command not found" in output.stderr:
        raise Misconfigured("The sandbox has no python3. Choose a template that has it (E2B_TEMPLATE).")
    return output


async def _run(sandbox: Sandbox, command: str) -> CommandOutput:
    """Run it, with no more than the end of its errors: tar says a line for every file that it can't read."""
    errors = f"{JOURNAL}/errors"
    bounded = f"({command}\n) 2>{errors}; code=$?; tail --bytes=2000 {errors} >&2; exit $code"
    return await sandbox.run(bounded, timeout_seconds=PACK_SECONDS, cwd="/")


async def read_bounded(sandbox: Sandbox, path: str, limit: int) -> bytes:
    """A file of the sandbox that may have `limit` bytes at most: what the agent can write may be of any size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it has more.
    """
    content = bytearray()
    async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", sandbox.stream(path))) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) > limit:
                raise ValueError(f"{path} is larger than {limit:,} bytes")
    return bytes(content)


def _check_space(output: CommandOutput) -> None:
    if output.exit_code != 0 and os.strerror(errno.ENOSPC) in output.stderr:
        raise SandboxFull("The sandbox's disk is full: there is no room for an archive of the workspace in it.")


def _said(output: CommandOutput) -> str:
    return (output.stderr.strip() or output.stdout.strip())[-500:] or f"exit code {output.exit_code}"


class ArchiveReader:
    """Hashes what an archive holds while its bytes pass by, in a thread of its own, with bounded memory.

    async with ArchiveReader() as reader:
        await reader.feed(piece)  # for each piece
        entries = await reader.entries()
    """

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED_PIECES)
        # Its own thread: it waits for pieces, and in a shared pool it could lock up those who bring them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._reading: asyncio.Future[list[Entry]]
        self._ended = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._reading = loop.run_in_executor(self._thread, self._read, _Incoming(self._pieces, loop))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._ended:
            while not self._pieces.empty():
                self._pieces.get_nowait()
            self._pieces.put_nowait(None)
            await asyncio.wait({self._reading})
            self._reading.exception()  # looked at: what ended the block is the news
        self._thread.shutdown(wait=False)

    async def feed(self, piece: bytes) -> None:
        """The archive's next bytes; waits while the thread is behind."""
        await self._pieces.put(piece)

    async def entries(self) -> list[Entry]:
        """What the archive holds, after its last piece.

        Raises:
            SnapshotFailed: it is not a whole archive of files, links and directories.
        """
        await self._pieces.put(None)
        self._ended = True
        return await self._reading

    def _read(self, incoming: "_Incoming") -> list[Entry]:
        try:
            return read_archive(incoming)
        except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
            raise SnapshotFailed(f"The archive can't be read: {error}") from error
        finally:
            incoming.drain()


class _Incoming:
    """The reading end, as a file for `tarfile`; its methods are called in the thread only."""

    def __init__(self, pieces: asyncio.Queue[bytes | None], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces = pieces
        self._loop = loop
        self._held = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._held) < size and not self._ended:
            self._take()
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def drain(self) -> None:
        self._held.clear()
        while not self._ended:
            self._take()
            self._held.clear()

    def _take(self) -> None:
        piece = asyncio.run_coroutine_threadsafe(self._pieces.get(), self._loop).result()
        if piece is None:
            self._ended = True
        else:
            self._held += piece


class _Header(tarfile.TarInfo):
    """A header whose long name can't fill the memory: the sandbox's tar is not ours to trust."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE, tarfile.SYMTYPE) and header.size > NAME_MAX:
            raise tarfile.ReadError("a name is too long")
        return header


class _Gunzipped:
    """The tar inside a tar.gz as a file, no more of it in memory than is asked for: a little may expand to a lot."""

    def __init__(self, packed: "_Incoming | IO[bytes]") -> None:
        self._packed = packed
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._held = b""

    def read(self, size: int) -> bytes:
        while not self._gzip.eof:
            try:
                plain = self._gzip.decompress(self._held, size)
            except zlib.error as error:
                raise tarfile.ReadError(str(error)) from error
            self._held = self._gzip.unconsumed_tail
            if plain:
                return plain
            if not self._held and not self._gzip.eof:
                self._held = self._packed.read(_UNPACKED_AT_ONCE)
                if not self._held:
                    raise tarfile.ReadError("it ends too early")
        return b""


def open_archive(file: "_Incoming | IO[bytes]") -> tarfile.TarFile:
    """A gzipped tar file, to be read once from front to back. Bytes of names that are not UTF-8 become surrogates."""
    return tarfile.open(
        fileobj=cast("IO[bytes]", _Gunzipped(file)),
        mode="r|",
        bufsize=_UNPACKED_AT_ONCE,  # small: tarfile copies what it holds at every header
        encoding="utf-8",
        errors="surrogateescape",
        tarinfo=_Header,
    )


def read_archive(file: "_Incoming | IO[bytes]") -> list[Entry]:
    """The entries of a gzipped tar file, read once from front to back.

    Raises:
        SnapshotFailed: a member is neither file, link nor directory.
        tarfile.TarError, OSError, EOFError: it is broken.
    """
    entries: list[Entry] = []
    with open_archive(file) as archive:
        while (member := archive.next()) is not None:
            entries.append(_entry(archive, member))
            archive.members = []  # type: ignore[attr-defined]  # else it keeps every header that it has read
            if len(entries) > ENTRIES_MAX:
                raise SnapshotFailed(f"The workspace has more than {ENTRIES_MAX:,} files.")
    return entries


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    mode = member.mode & 0o7777
    if member.isdir():
        return directory(member.name, mode)
    if member.issym():
        return link(member.name, member.linkname)
    # The size of a sparse file is only claimed, and reading what is not there could take for ever.
    content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None:
        raise SnapshotFailed("The archive holds something that is neither a file, a link nor a directory.")
    hashed, size = hashlib.sha256(), 0
    while block := content.read(_HASHED_AT_ONCE):
        hashed.update(block)
        size += len(block)
    if size != member.size:
        raise SnapshotFailed("The archive ends in the middle of a file.")
    return Entry(member.name, Kind.FILE, mode, size, hashed.hexdigest())
