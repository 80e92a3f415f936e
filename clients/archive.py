"""Archives of a workspace. GNU tar makes and unpacks them inside the sandbox; here they are only read as a stream.

This machine never writes any part of an archive, so a member's name can do no harm here.
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
from clients.cancellation import run_to_completion
from clients.sandbox import CommandOutput, Sandbox
from clients.sandbox_runner import JOURNAL, WORKSPACE
from clients.workspace_lock import WorkspaceLock
from domain.errors import Misconfigured, SandboxFull, SnapshotFailed
from domain.manifest import LEFT_OUT, Entry, Kind, directory, link, parse_manifest

ARCHIVES = f"{JOURNAL}/archives"
"""Folder of archives on their way to or from the object store. It is outside the workspace."""

PACK_SECONDS = 600.0
"""Seconds that packing, unpacking or hashing a workspace may take."""

ENTRIES_MAX = 1_000_000
"""Do not archive a workspace with more files than this: its manifest would not fit in memory."""

NAME_MAX = 1024 * 1024
"""Bytes that a long name in an archive may have."""

ARCHIVE_MAX_BYTES = 5 * 1024**3
"""Do not store a larger archive."""

MANIFEST_MAX_BYTES = 300_000_000
"""Read no larger manifest. A manifest has about 150 bytes per file."""

_SCRIPT_SOURCE = inspect.getsource(sandbox_manifest)
_SCRIPT = f"{JOURNAL}/manifest_{hashlib.sha256(_SCRIPT_SOURCE.encode()).hexdigest()[:12]}.py"
_RECEIVED_ARCHIVE = f"{ARCHIVES}/restore.tar.gz"
_PIECES_QUEUED_MAX = 4
_HASH_BLOCK_BYTES = 1024 * 1024
_GZIP_BLOCK_BYTES = 16 * 1024
_RESULT = "cofounder-result"


@dataclass(frozen=True)
class PackedArchive:
    """An archive inside the sandbox. `commit` is the workspace's HEAD, `subject` the first line of its message."""

    path: str
    bytes: int
    sha256: str
    commit: str | None
    subject: str


async def pack(sandbox: Sandbox, name: str) -> PackedArchive:
    """Archive the workspace to a file beside it. Call `discard` afterwards.

    A file that vanishes or changes while it is read is not an error: a server that the agent started may be writing.

    Raises:
        SnapshotFailed: tar failed; the message quotes it.
    """
    path, names = f"{ARCHIVES}/{name}.tar.gz", f"{ARCHIVES}/{name}.list"
    listing = shlex.join(["python3", "-IS", _SCRIPT, "list", WORKSPACE, *LEFT_OUT])
    # tar exits with 1 if a file changed while it was read. Hard links become files: each path stands for itself.
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
        raise SnapshotFailed(f"The workspace could not be archived: {_error_text(output)}")
    size, sha256, commit, subject = result.groups()
    if int(size) > ARCHIVE_MAX_BYTES:
        raise SnapshotFailed(f"The workspace's archive would have {int(size) // 10**6:,} MB, which is too large.")
    return PackedArchive(path, int(size), sha256, None if commit == "-" else commit, subject)


CHECK_SECONDS = 120
"""Seconds that each part of the check of an archived repository may take. A larger repository is not checked."""


@dataclass(frozen=True)
class RepositoryCheck:
    """What the check of an archived repository says. `rewritten`: its HEAD does not descend from the earlier commit."""

    rewritten: bool
    checked: bool
    """False if there is no repository, or if it is too large to be checked in time."""


async def check_repository(sandbox: Sandbox, packed: PackedArchive, earlier: str | None) -> RepositoryCheck:
    """Check that the archived repository is as whole as the workspace's, from the archive itself.

    A repository that changes while it is archived can lack objects: names are listed first, and `git gc` replaces
    files. One that the agent itself has broken is archived as it is.

    Args:
        earlier: the commit from which HEAD should descend, if there is one.

    Raises:
        SnapshotFailed: objects are missing that the workspace has. Another archive may be whole.
    """
    command = f"""
check={ARCHIVES}/check
rm -rf $check && mkdir -p $check || exit 90
found=no fsck=skipped line=same
timeout {CHECK_SECONDS} tar --extract --gzip --file={packed.path} --directory=$check --no-same-owner \
  --delay-directory-restore .git 2>/dev/null
[ $? -eq 124 ] || [ ! -f $check/.git/HEAD ] || found=yes
examine() {{
  GIT_OPTIONAL_LOCKS=0 timeout {CHECK_SECONDS} git -c safe.directory='*' --git-dir="$1" fsck --connectivity-only \
    --no-dangling --no-progress >$check/lines 2>&1
  code=$?
  sed "s#$1##g" $check/lines | sort -u >"$2"
  return $code
}}
if [ $found = yes ]; then
  examine $check/.git $check/archived
  case $? in
    0) fsck=whole ;;
    124) ;;
    *) examine {WORKSPACE}/.git $check/present
       [ -z "$(comm -23 $check/archived $check/present)" ] && fsck=broken || fsck=torn ;;
  esac
fi
earlier={shlex.quote(earlier or "")}
if [ -n "$earlier" ]; then
  there=$check/.git
  [ $found = yes ] || there={WORKSPACE}/.git
  timeout {CHECK_SECONDS} git -c safe.directory='*' --git-dir=$there merge-base --is-ancestor "$earlier" HEAD \
    2>/dev/null
  case $? in 0|124) ;; *) line=rewritten ;; esac
fi
if [ $fsck = torn ]; then comm -23 $check/archived $check/present | head -n 3 >&2; fi
rm -rf $check
echo
echo {_RESULT} $fsck $line
"""
    output = await _run(sandbox, command)
    result = re.search(rf"^{_RESULT} (whole|broken|torn|skipped) (same|rewritten)$", output.stdout, re.M)
    _check_space(output)
    if output.exit_code != 0 or result is None:
        raise SnapshotFailed(f"The archived repository could not be checked: {_error_text(output)}")
    if result[1] == "torn":
        raise SnapshotFailed(
            "The workspace's git repository changed while it was archived, so that objects are missing: "
            f"{_error_text(output)}"
        )
    return RepositoryCheck(result[2] == "rewritten", result[1] != "skipped")


async def discard(sandbox: Sandbox) -> None:
    """Remove archives from the sandbox. A failure is only logged, because the next archive removes them as well."""

    async def remove() -> None:
        await sandbox.run(f"rm -rf {ARCHIVES}", timeout_seconds=60, cwd="/")

    await run_to_completion(remove())


async def send(sandbox: Sandbox, pieces: AsyncIterable[bytes]) -> None:
    """Upload an archive to the sandbox, beside the workspace, for `unpack`."""
    await sandbox.write(_RECEIVED_ARCHIVE, pieces)


async def unpack(sandbox: Sandbox, lock: WorkspaceLock | None = None) -> None:
    """Replace the workspace by the content of the archive that was sent, then remove the archive.

    Raises:
        SnapshotFailed: it can't be unpacked; the message quotes tar.
        StaleClaim: a later attempt has the workspace lock; nothing was changed.
    """
    command = f"""
set -e
if [ -L {WORKSPACE} ] || [ ! -d {WORKSPACE} ]; then rm -rf {WORKSPACE}; mkdir -p {WORKSPACE}; fi
find {WORKSPACE} -mindepth 1 -type d ! -perm -u+rwx -exec chmod u+rwx {{}} \\; 2>/dev/null || true
find {WORKSPACE} -mindepth 1 -delete
tar --extract --gzip --file={_RECEIVED_ARCHIVE} --directory={WORKSPACE} --preserve-permissions --no-same-owner \
  --delay-directory-restore
rm -rf {ARCHIVES}
"""
    output = await _run(sandbox, command if lock is None else lock.guarded(command))
    if lock is not None:
        lock.check(output)
    _check_space(output)
    if output.exit_code != 0:
        raise SnapshotFailed(f"The archive could not be unpacked: {_error_text(output)}")


async def found_manifest(sandbox: Sandbox) -> list[Entry]:
    """The manifest of the workspace as it is now, hashed inside the sandbox.

    Raises:
        SnapshotFailed: the workspace could not be read.
    """
    path = f"{ARCHIVES}/found.jsonl"
    listing = shlex.join(["python3", "-IS", _SCRIPT, "hash", WORKSPACE, *LEFT_OUT])
    output = await _with_script(sandbox, f"mkdir -p {ARCHIVES} && {listing} >{path}")
    if output.exit_code != 0:
        raise SnapshotFailed(f"The workspace could not be hashed: {_error_text(output)}")
    try:
        content = await read_bounded(sandbox, path, MANIFEST_MAX_BYTES)
        await sandbox.run(f"rm -f {path}", timeout_seconds=60, cwd="/")
        # In a thread: a manifest of a million files takes many seconds, and heartbeats go on meanwhile.
        return await asyncio.to_thread(lambda: parse_manifest(content.decode("ascii")))
    except (FileNotFoundError, ValueError) as error:
        raise SnapshotFailed(f"The workspace's hashes could not be read: {error}") from error


async def _with_script(sandbox: Sandbox, command: str) -> CommandOutput:
    await sandbox.write(_SCRIPT, _SCRIPT_SOURCE)
    output = await _run(sandbox, command)
    if "python3: command not found" in output.stderr:
        raise Misconfigured("The sandbox has no python3. Choose a template that has it (E2B_TEMPLATE).")
    return output


async def _run(sandbox: Sandbox, command: str) -> CommandOutput:
    """Run the command, and keep only the end of its errors: tar prints a line for every file that it can't read."""
    errors = f"{JOURNAL}/errors"
    bounded = f"({command}\n) 2>{errors}; code=$?; tail --bytes=2000 {errors} >&2; exit $code"
    return await sandbox.run(bounded, timeout_seconds=PACK_SECONDS, cwd="/")


async def read_bounded(sandbox: Sandbox, path: str, limit: int) -> bytes:
    """Read a file of the sandbox, `limit` bytes at most: a file that the agent can write may have any size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is larger.
    """
    content = await read_beginning(sandbox, path, limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} is larger than {limit:,} bytes")
    return content


async def read_beginning(sandbox: Sandbox, path: str, limit: int) -> bytes:
    """Read the first `limit` bytes of a file of the sandbox.

    Raises:
        FileNotFoundError: no such file.
        InvalidInput: not a regular file.
    """
    content = bytearray()
    async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", sandbox.stream(path))) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) >= limit:
                break
    return bytes(content[:limit])


def _check_space(output: CommandOutput) -> None:
    if output.exit_code != 0 and os.strerror(errno.ENOSPC) in output.stderr:
        raise SandboxFull("The sandbox's disk is full, so there is no room for an archive of the workspace.")


def _error_text(output: CommandOutput) -> str:
    return (output.stderr.strip() or output.stdout.strip())[-500:] or f"exit code {output.exit_code}"


class ArchiveReader:
    """Hashes the members of an archive while its bytes pass by, in a thread of its own, with bounded memory.

    async with ArchiveReader() as reader:
        await reader.feed(piece)  # for each piece
        entries = await reader.entries()
    """

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES_QUEUED_MAX)
        # Its own thread: it waits for pieces, and in a shared pool it could block the tasks that feed them.
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
            self._reading.exception()  # retrieved, so that asyncio does not log it: the block's own error is raised
        self._thread.shutdown(wait=False)

    async def feed(self, piece: bytes) -> None:
        """Pass on the archive's next bytes; waits while the thread is behind."""
        await self._pieces.put(piece)

    async def entries(self) -> list[Entry]:
        """The entries of the archive. Call this after its last piece.

        Raises:
            SnapshotFailed: it is not a complete archive of files, links and directories.
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
    """The reading end, as a file for `tarfile`. Only the thread calls its methods."""

    def __init__(self, pieces: asyncio.Queue[bytes | None], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces = pieces
        self._loop = loop
        self._buffer = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and not self._ended:
            self._receive()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def drain(self) -> None:
        self._buffer.clear()
        while not self._ended:
            self._receive()
            self._buffer.clear()

    def _receive(self) -> None:
        piece = asyncio.run_coroutine_threadsafe(self._pieces.get(), self._loop).result()
        if piece is None:
            self._ended = True
        else:
            self._buffer += piece


class _Header(tarfile.TarInfo):
    """A header whose long name can't fill the memory: the sandbox's tar is not trusted."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE, tarfile.SYMTYPE) and header.size > NAME_MAX:
            raise tarfile.ReadError("a name is too long")
        return header


class _GunzipReader:
    """The tar inside a tar.gz as a file. Unpacks no more than is read, because a small piece may expand to a lot."""

    def __init__(self, compressed: "_Incoming | IO[bytes]") -> None:
        self._compressed = compressed
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._buffer = b""

    def read(self, size: int) -> bytes:
        while not self._gzip.eof:
            try:
                data = self._gzip.decompress(self._buffer, size)
            except zlib.error as error:
                raise tarfile.ReadError(str(error)) from error
            self._buffer = self._gzip.unconsumed_tail
            if data:
                return data
            if not self._buffer and not self._gzip.eof:
                self._buffer = self._compressed.read(_GZIP_BLOCK_BYTES)
                if not self._buffer:
                    raise tarfile.ReadError("it ends before it is complete")
        return b""


def open_archive(file: "_Incoming | IO[bytes]") -> tarfile.TarFile:
    """Open a gzipped tar file that can be read once, from front to back.

    Bytes of names that are not UTF-8 become surrogates.
    """
    return tarfile.open(
        fileobj=cast("IO[bytes]", _GunzipReader(file)),
        mode="r|",
        bufsize=_GZIP_BLOCK_BYTES,  # small: tarfile copies its buffer at every header
        encoding="utf-8",
        errors="surrogateescape",
        tarinfo=_Header,
    )


def read_archive(file: "_Incoming | IO[bytes]") -> list[Entry]:
    """The entries of a gzipped tar file, read once from front to back.

    Raises:
        SnapshotFailed: a member is neither file, link nor directory.
        tarfile.TarError, OSError, EOFError: the file is broken.
    """
    entries: list[Entry] = []
    with open_archive(file) as archive:
        while (member := archive.next()) is not None:
            entries.append(_entry(archive, member))
            archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps every header that it has read
            if len(entries) > ENTRIES_MAX:
                raise SnapshotFailed(f"The workspace has more than {ENTRIES_MAX:,} files.")
    return entries


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    mode = member.mode & 0o7777
    if member.isdir():
        return directory(member.name, mode)
    if member.issym():
        return link(member.name, member.linkname)
    # A sparse file only claims its size, and reading its holes could take for ever.
    content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None:
        raise SnapshotFailed("The archive contains something that is neither a file, a link nor a directory.")
    digest, size = hashlib.sha256(), 0
    while block := content.read(_HASH_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
    if size != member.size:
        raise SnapshotFailed("The archive ends in the middle of a file.")
    return Entry(member.name, Kind.FILE, mode, size, digest.hexdigest())
