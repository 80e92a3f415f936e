"""Runs inside a sandbox, with its python3 (3.9 or later) and only the standard library.

`clients/sandbox.py` uploads this file's source and starts it with one of

    start CALL_ID BOOT WAIT     run a mutating call once, or attach to it; wait up to WAIT seconds for its outcome
    end CALL_ID                 end a call's processes; if it has not started yet, it never will
    query                       run a read-only tool
    serve                       do all of these for lines of JSON on the standard input, until they end

and reads one line of JSON from its standard output, or one for each line that it sends. Python takes longer to start
than most calls to run, so `serve` saves most of their cost. If it fails, the others do the same.

A call is claimed by an atomic `mkdir` in the journal, which is outside the workspace. The process that wins the claim
forks a *keeper*: a process in its own session, without the caller's pipes, that runs the call and records the outcome.
So a caller that is gone does not end the call, and a background child does not block the caller.

    JOURNAL/calls/CALL_ID/keeper    the process that runs it: boot, pid, start time of the pid
                          before    the workspace's HEAD before a command, as JSON
                          ending    `end` was asked for, so a SIGTERM to the keeper comes from there
                          output    stdout and stderr of a command, all of it
                          outcome   JSON, written by rename

The agent's processes run as the same user and could tamper with all this, but they would deceive only their own build.
They do so by accident: `pkill python3` and `kill $PPID` are meant for something else. So these processes have a name of
their own and ignore signals that they were not announced.
"""

# Importing pathlib, contextlib, subprocess or typing would cost milliseconds per tool call, and so would re, json and
# signal: together they take as long as the start of Python itself.
# ruff: noqa: PTH102, PTH103, PTH104, PTH108, PTH110, PTH112, PTH113, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208, SIM105
from __future__ import annotations

import errno
import os
import select
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    import signal
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, NoReturn

    Function = Callable[["Folders", dict[str, Any]], str]
    """A tool: gets the input as JSON, and returns the text for the agent."""
else:
    import _signal as signal  # the same functions, with plain numbers instead of enums

WORKSPACE = "/home/user/project"
JOURNAL = "/home/user/.cofounder"
LOCK = "lock"
"""File in the journal. A command that changes the workspace as a whole locks it."""
HOLDER = "holder"
"""File in the journal with the fencing token of the attempt that may do so; see `clients/workspace_lock.py`."""

CALL_ID_LENGTH = 128
INPUT_VARIABLE = "COFOUNDER_INPUT"
"""Has the input as JSON; if it is empty, `start` reads JOURNAL/inputs/CALL_ID.json."""

MARK_VARIABLE = "COFOUNDER_CALL"
"""Set to the call's id in every process that a command starts, so that the processes can be found."""

REFUSED_HOSTS_VARIABLE = "SANDBOX_REFUSED_HOSTS_URL"
"""Has the URL that tells which hosts the sandbox was refused; unset where that is unknown (see `domain/egress.py`)."""

MEMORY_EVENTS = ("/run/memory.events", "/sys/fs/cgroup/memory.events", "/proc/vmstat")
"""Files with a line `oom_kill N`: how many processes were ended for want of memory. The local sandbox's own comes
first: there /proc/vmstat counts the whole machine's."""

MEMORY_LIMITS = ("/run/memory.max", "/sys/fs/cgroup/memory.max")
"""Files with the most bytes of memory that the sandbox may use. Without one of them it is the machine's memory."""

HEAD_BYTES = TAIL_BYTES = 12_000
"""Bytes at either end of a command's output that are in the answer. The rest stays in the journal."""

COMMAND_BYTES = 130_000
"""The longest command. Linux starts no process with an argument of 128 KiB."""

OUTPUT_LIMIT_BYTES = 100_000_000
"""End a command that prints more than this, because it would fill the disk."""

TERM_SECONDS = 2.0
"""Seconds between SIGTERM and SIGKILL."""

PROCESS_NAME = "cofounder"
"""What `pkill` and `killall` compare a name with; these processes would be `python3` otherwise, as many a server is."""

ADOPT_AFTER_SECONDS = 0.1
"""Seconds after which a command is a long one, whose orphans its keeper adopts."""

WAKE_SECONDS = 2.0
"""Seconds after which a keeper that was stopped is woken."""

SERVE_SECONDS = 300.0
"""Seconds without a request after which `serve` ends."""

CLAIM_SECONDS = 5.0
"""Seconds after which a claim without a keeper counts as lost."""

READ_LINES = 2000
READ_BYTES = 60_000
LINE_CHARACTERS = 2000
GLOB_PATHS = 500
GREP_MATCHES = 200
GREP_LINE_CHARACTERS = 300
GREP_BYTES = 30_000
GREP_FILE_BYTES = 5_000_000
TEXT_BYTES = 20_000_000
"""The largest file that edit_file changes, and that read_file decodes as a whole, in bytes."""
SIMILAR_PATHS = 3
IMAGE_BYTES = 10_000_000
_IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
SEARCH_SECONDS = 15

GIT_ENVIRONMENT = {
    "GIT_CONFIG_COUNT": "4",
    "GIT_CONFIG_KEY_0": "gc.auto",
    "GIT_CONFIG_VALUE_0": "0",
    "GIT_CONFIG_KEY_1": "maintenance.auto",
    "GIT_CONFIG_VALUE_1": "false",
    "GIT_CONFIG_KEY_2": "user.name",
    "GIT_CONFIG_VALUE_2": "Cofounder agent",
    "GIT_CONFIG_KEY_3": "user.email",
    "GIT_CONFIG_VALUE_3": "agent@cofounder.invalid",
}
"""Git's configuration for every command, which leaves the repository's own alone. Git packs nothing by itself: a pack
that is made while the workspace is archived takes the place of objects that were listed. Commits have an author also if
a scaffold has replaced `.git`. An option `-c` still wins."""

IGNORED = {".git", "node_modules", ".venv", "__pycache__"}
"""Folders that glob and grep do not enter."""


class ToolError(Exception):
    """The tool can't do what the agent asked for; the message is for the agent."""


class Folders:
    """The folders of the workspace and the journal. Tests use other ones than WORKSPACE and JOURNAL."""

    def __init__(self, workspace: str, journal: str) -> None:
        self.workspace = workspace
        self.journal = journal

    def call(self, call_id: str) -> str:
        return os.path.join(self.journal, "calls", call_id)


def main(arguments: list[str], workspace: str = WORKSPACE, journal: str = JOURNAL) -> NoReturn:
    """Do what the arguments say, print the answer and end the process."""
    _protect()
    folders = Folders(workspace, journal)
    input_text = os.environ.pop(INPUT_VARIABLE, "")
    try:
        if arguments[0] == "serve":
            Server(folders).serve()
        answer = answer_to(folders, arguments, input_text)
    except OSError as error:
        answer = _unwritable(error)
    # A newline first: a login profile may have printed half a line.
    os.write(1, b"\n" + render_json(answer).encode() + b"\n")
    os._exit(0)  # Python would take a millisecond to clean up


def answer_to(folders: Folders, words: list[str], input_text: str) -> dict[str, Any]:
    """Do what the words say, and wait for it."""
    if words[0] == "start":
        return start(folders, words[1], words[2], float(words[3]), input_text)
    if words[0] == "end":
        return end(folders, words[1])
    return query(folders, parse_json(input_text))


def _unwritable(error: OSError) -> dict[str, Any]:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return {"state": "lost", "is_error": True, "text": f"the journal cannot be written: {error}", "full": full}


def is_call_id(text: str) -> bool:
    """Whether the text has up to 128 letters, digits, _ and -, and nothing else."""
    plain = text.replace("_", "a").replace("-", "a")
    return len(text) <= CALL_ID_LENGTH and plain.isascii() and plain.isalnum()


# ---- JSON


class _DecoderSettings:
    """The settings of `json`'s decoder, for its part that is written in C."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = parse_constant = float
    parse_int = int


def parse_json(text: str) -> Any:
    """Like `json.loads`, which is only imported for unusual input.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        from _json import make_scanner

        value, end = make_scanner(_DecoderSettings)(text, 0)  # type: ignore[arg-type]  # it only reads these attributes
        if end == len(text):
            return value
    except Exception:
        pass  # not JSON, or this Python has another scanner
    import json

    return json.loads(text)


def render_json(value: Any) -> str:
    """Like `json.dumps`, which is only imported for unusual values."""
    try:
        from _json import encode_basestring_ascii, make_encoder

        quote = encode_basestring_ascii
        encode = make_encoder(None, quote, quote, None, ": ", ", ", False, False, True)
        return "".join(encode(value, 0))
    except Exception:
        import json

        return json.dumps(value)


# ---- identity of processes


def _protect() -> None:
    """Take a name of our own, and block the signals with which a command may mean other processes."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(PROCESS_NAME)
    except OSError:
        pass
    signal.pthread_sigmask(signal.SIG_BLOCK, _meant_for_others())


def _meant_for_others() -> set[int]:
    return {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}


def boot_of(boot_id: str, stat_line: str) -> str:
    """The id of a boot: the kernel's (/proc/sys/kernel/random/boot_id) and the first process's (/proc/1/stat)."""
    return f"{boot_id.strip()}:{_start_time(stat_line)}"


def this_boot() -> str:
    """The id of the boot in which this process runs."""
    return boot_of(_read_text("/proc/sys/kernel/random/boot_id"), _read_text("/proc/1/stat"))


def _start_time(stat_line: str) -> str:
    # Field 22. The second field, the name, may contain anything up to the last parenthesis.
    return stat_line.rpartition(")")[2].split()[19]


def _parent_and_session(stat_line: str) -> tuple[int, int]:
    fields = stat_line.rpartition(")")[2].split()
    return int(fields[1]), int(fields[3])


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _write_whole(path: str, text: str) -> None:
    """Write by rename, so that readers see all of the text or nothing."""
    unfinished = f"{path}.{os.getpid()}"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(unfinished, path)


# ---- calls


def start(folders: Folders, call_id: str, boot: str, wait: float, input_text: str) -> dict[str, Any]:
    """Claim and run the call, or attach to it. `state` in the answer is done, running, lost or not_run."""
    until = time.monotonic() + wait
    pipe = _begin(folders, call_id, boot, input_text, {})
    if isinstance(pipe, dict):
        return pipe
    if pipe is not None:
        while time.monotonic() < until and not select.select([pipe], [], [], min(WAKE_SECONDS, wait))[0]:
            _living_keeper(folders.call(call_id))  # wakes it; its end closes the pipe
        os.close(pipe)
    return _attach(folders, call_id, until)


def _begin(
    folders: Folders, call_id: str, boot: str, input_text: str, environment: dict[str, str]
) -> dict[str, Any] | int | None:
    """Claim the call and start its keeper.

    Returns:
        The end of a pipe that reads as closed once the keeper has ended; None if the call was claimed before; the
        answer if there is nothing to wait for.
    """
    if not is_call_id(call_id):
        return {"state": "lost", "is_error": True, "text": "the call's id is not valid"}
    folder = folders.call(call_id)
    if boot not in ("-", this_boot()) and not os.path.isdir(folder):
        return {"state": "not_run"}
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    try:
        os.mkdir(folder)
    except FileExistsError:
        return None
    try:
        envelope = parse_json(input_text or _read_text(os.path.join(folders.journal, "inputs", call_id + ".json")))
    except (OSError, ValueError) as error:
        _record(folder, {"is_error": True, "text": f"The call's input could not be read: {error}"})
        return _answer(folder)
    return _fork_keeper(folders, folder, call_id, envelope, environment)


def end(folders: Folders, call_id: str) -> dict[str, Any]:
    """End the call's processes and wait for its outcome. A call that has not started never will."""
    folder = folders.call(call_id)
    os.makedirs(folder, exist_ok=True)
    keeper = _living_keeper(folder)
    if keeper is None and not _has_outcome(folder):
        # Claimed a moment ago, or lost. If its keeper still comes, it finds this outcome and starts nothing.
        _record(folder, {"is_error": True, "ended": True, "text": ""})
        keeper = _living_keeper(folder)
    if keeper is not None:
        _touch(os.path.join(folder, "ending"))
        try:
            os.kill(keeper, signal.SIGTERM)
        except ProcessLookupError:
            pass
        until = time.monotonic() + 4 * TERM_SECONDS
        while _living_keeper(folder) is not None and time.monotonic() < until:
            time.sleep(0.02)
    end_processes(call_id, 0)
    return {"state": "done"}


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def _attach(folders: Folders, call_id: str, until: float) -> dict[str, Any]:
    folder = folders.call(call_id)
    pause = 0.01
    attached_at = time.monotonic()
    while not _has_outcome(folder):
        now = time.monotonic()
        if _living_keeper(folder) is None and not _has_outcome(folder):
            had_keeper = os.path.exists(os.path.join(folder, "keeper"))
            if had_keeper and _ran_in(this_boot(), folder):
                _record_ended_keeper(folders, call_id)
                continue
            if had_keeper or now - attached_at > CLAIM_SECONDS:
                return {"state": "lost", "is_error": True, "text": "its process vanished without an outcome"}
        if now >= until:
            return {"state": "running"}
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)
    return _answer(folder)


def _has_outcome(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "outcome"))


def _living_keeper(folder: str) -> int | None:
    """The keeper's pid if it is alive, and still the process that wrote the keeper file. Wakes one that was stopped."""
    try:
        boot, pid, started = _read_text(os.path.join(folder, "keeper")).split()
        line = _read_text(f"/proc/{pid}/stat")
    except (OSError, ValueError):
        return None
    state = line.rpartition(")")[2].split()[0]
    if started != _start_time(line) or boot != this_boot() or state == "Z":
        return None
    if state == "T":
        _signal(int(pid), signal.SIGCONT)
    return int(pid)


def _ran_in(boot: str, folder: str) -> bool:
    """Whether the call's keeper was started in this boot."""
    try:
        return _read_text(os.path.join(folder, "keeper")).split()[:1] == [boot]
    except OSError:
        return False


def _record_ended_keeper(folders: Folders, call_id: str) -> None:
    """Write the outcome of a call whose keeper was killed, most often by the call's own command, and end the rest of
    it. The sandbox itself is in order."""
    folder = folders.call(call_id)
    end_processes(call_id, 0)
    if not os.path.exists(os.path.join(folder, "before")):
        text = "This call did not finish: a process of the sandbox ended the one that ran it. Look at the file, end "
        text += "what sends signals to other processes, and repeat the call."
        _record(folder, {"is_error": True, "text": text})
        return
    outcome: dict[str, Any] = {"is_error": True, "text": "\n[" + ENDED_SUPERVISOR + "]"}
    try:
        outcome["output_bytes"] = os.stat(os.path.join(folder, "output")).st_size
        before, moves_before = parse_json(_read_text(os.path.join(folder, "before")))
        outcome.update(new_commit(folders.workspace, before, moves_before))
    except (OSError, ValueError):
        pass
    _record(folder, outcome)


ENDED_SUPERVISOR = (
    "your command ended its own supervisor, so the rest of the command was ended too. To end a process, use its "
    "process id, such as the one that you keep with `echo $! > server.pid` when you start a server. Not $PPID, and not "
    "every process of a name or a user"
)
"""For a command that killed its keeper."""

SIGNALLED_SUPERVISOR = (
    "your command sent a signal to its own supervisor, which ignored it. To end a process, use its process id, such as "
    "the one that you keep with `echo $! > server.pid` when you start a server. Not $PPID, and not every process of a "
    "name or a user"
)
"""For a command that sent its keeper another signal."""


def _record(folder: str, outcome: dict[str, Any]) -> None:
    """Write the outcome, unless there is one already: the first one counts."""
    unfinished = os.path.join(folder, f"outcome.{os.getpid()}")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(render_json(outcome))
    try:
        os.link(unfinished, os.path.join(folder, "outcome"))
    except FileExistsError:
        pass
    os.unlink(unfinished)


def _answer(folder: str) -> dict[str, Any]:
    """The recorded outcome with the head and tail of the output."""
    outcome: dict[str, Any] = {"state": "done", **parse_json(_read_text(os.path.join(folder, "outcome")))}
    outcome["seconds"] = _seconds(folder)
    path = os.path.join(folder, "output")
    if not os.path.exists(path):
        return outcome
    with open(path, "rb") as file:
        # The size at the end of the call: a server left in the background may still print.
        size = min(os.fstat(file.fileno()).st_size, outcome.get("output_bytes") or 0)
        head = file.read(min(size, HEAD_BYTES + TAIL_BYTES))
        tail = b""
        if size > len(head):
            head = head[:HEAD_BYTES]
            file.seek(size - TAIL_BYTES)
            tail = file.read(TAIL_BYTES)
    message = outcome.get("text", "")
    shown, end = _whole_characters(head), _whole_characters(tail)
    outcome["text"] = shown if tail else _with_remark(shown, message)
    outcome["tail"] = _with_remark(end, message) if tail else ""
    outcome["output_path"] = path
    return outcome


def _with_remark(output: str, remark: str) -> str:
    return output + (remark.lstrip("\n") if not output or output.endswith("\n") else remark)


def _seconds(folder: str) -> float:
    """How long the call ran, by the times of the files that its keeper wrote at its beginning and end."""
    try:
        begun, ended = (os.stat(os.path.join(folder, name)).st_mtime for name in ("keeper", "outcome"))
    except OSError:
        return 0.0
    return max(0.0, ended - begun)


def _whole_characters(data: bytes) -> str:
    """Decode the data without the broken characters that a cut leaves at either end."""
    begin = 0
    while begin < min(3, len(data)) and data[begin] & 0xC0 == 0x80:
        begin += 1
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            data = data[:-back] if back < length else data
            break
        if byte < 0x80:
            break
    return data[begin:].decode("utf-8", "replace")


# ---- many requests


class Server:
    """Answers requests from the standard input on the standard output, a line each, until it closes.

    A request is `{"number": N, "words": [...], "input": "...", "env": {...}}`, its answer `{"number": N, "answer":
    {...}}`. A call's keeper is a child of this process. All else that may take time has a process of its own. If
    anything is unusual, this process ends without an answer: the client then starts the runner for each request.
    """

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.source = _file_version()
        self.polled = select.poll()
        self.received = b""
        self.calls: dict[int, tuple[str, str, float]] = {}
        """By the end of its keeper's pipe: the request's number, the call's id, and until when it is waited for."""
        self.others: dict[int, tuple[str, list[bytes]]] = {}
        """By the end of a pipe from the process that answers: the request's number, and what it has written."""
        self.used_at = time.monotonic()

    def serve(self) -> NoReturn:
        _write_all(1, b"\n")  # a login profile may have printed half a line
        self.polled.register(0, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in self.polled.poll(self._pause() * 1000)]
            self._reap()
            for descriptor in ready:
                if descriptor == 0:
                    self._receive()
                elif descriptor in self.calls:
                    self._end_call(descriptor)
                else:
                    self._read_other(descriptor)
            now = time.monotonic()
            for descriptor, (_, call_id, until) in list(self.calls.items()):
                if now >= until:
                    self._forget_call(descriptor, {"state": "running"})
                else:
                    _living_keeper(self.folders.call(call_id))  # wakes it
            if not self.calls and not self.others and now - self.used_at > SERVE_SECONDS:
                os._exit(0)

    def _pause(self) -> float:
        if not self.calls:
            return SERVE_SECONDS / 2
        return max(0.01, min(WAKE_SECONDS, *(until - time.monotonic() for _, _, until in self.calls.values())))

    def _receive(self) -> None:
        data = os.read(0, 1 << 16)
        if not data:
            os._exit(0)
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            self._begin(parse_json(line.decode()))

    def _begin(self, request: dict[str, Any]) -> None:
        self.used_at = time.monotonic()
        if _file_version() != self.source:
            os._exit(0)  # another runner has taken this one's place
        number, words = request["number"], request["words"]
        pipe: dict[str, Any] | int | None = None
        if words[0] == "start":
            try:
                pipe = _begin(self.folders, words[1], words[2], request["input"], request["env"])
            except OSError as error:
                pipe = _unwritable(error)
        if isinstance(pipe, dict):
            self._send(number, pipe)
        elif pipe is not None:
            self.calls[pipe] = (number, words[1], time.monotonic() + float(words[3]))
            self.polled.register(pipe, select.POLLIN)
        else:
            self._fork(number, words, request["input"])

    def _fork(self, number: str, words: list[str], input_text: str) -> None:
        """Let a process of its own answer."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                try:
                    answer = answer_to(self.folders, words, input_text)
                except OSError as error:
                    answer = _unwritable(error)
                _write_all(writing, render_json(answer).encode())
            finally:
                os._exit(0)
        os.close(writing)
        self.others[reading] = (number, [])
        self.polled.register(reading, select.POLLIN)

    def _end_call(self, descriptor: int) -> None:
        """The call's keeper has ended."""
        number, call_id, until = self.calls[descriptor]
        folder = self.folders.call(call_id)
        if _has_outcome(folder):
            answer = _answer(folder)
            self._forget_call(descriptor, answer)
            if answer["seconds"] >= ADOPT_AFTER_SECONDS:
                _import_ctypes()  # the keepers to come inherit it
        else:
            self._forget_call(descriptor, None)
            self._fork(number, ["start", call_id, "-", str(max(0.0, until - time.monotonic()))], "")

    def _forget_call(self, descriptor: int, answer: dict[str, Any] | None) -> None:
        number, _, _ = self.calls.pop(descriptor)
        self._close(descriptor)
        if answer is not None:
            self._send(number, answer)

    def _read_other(self, descriptor: int) -> None:
        number, parts = self.others[descriptor]
        data = os.read(descriptor, 1 << 16)
        if data:
            parts.append(data)
            return
        del self.others[descriptor]
        self._close(descriptor)
        if not parts:
            os._exit(1)  # it has failed
        self._send(number, parse_json(b"".join(parts).decode()))

    def _close(self, descriptor: int) -> None:
        self.polled.unregister(descriptor)
        os.close(descriptor)

    def _send(self, number: str, answer: dict[str, Any]) -> None:
        _write_all(1, render_json({"number": number, "answer": answer}).encode() + b"\n")

    def _reap(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _file_version() -> tuple[int, int, int] | None:
    """Differs once this file has been replaced."""
    try:
        status = os.stat(__file__)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


# ---- the keeper


def _fork_keeper(
    folders: Folders, folder: str, call_id: str, envelope: dict[str, Any], environment: dict[str, str]
) -> int:
    """Start the keeper, with more variables. Returns the end of a pipe that reads as closed once the keeper has ended.

    The keeper is a child of this process. This process may end long before it, or just after it.
    """
    # Block the signals before the keeper exists, so that it can't die of one that it does not handle yet.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_meant_for_others(), signal.SIGCHLD})
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            os.environ.update(environment)
            _keep(folders, folder, call_id, envelope)
        finally:
            os._exit(0)
    os.close(writing)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return reading


def _keep(folders: Folders, folder: str, call_id: str, envelope: dict[str, Any]) -> None:
    """Be the keeper: run the call and record its outcome."""
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        _write_whole(
            os.path.join(folder, "keeper"),
            f"{this_boot()} {os.getpid()} {_start_time(_read_text('/proc/self/stat'))}",
        )
        if _has_outcome(folder):
            return  # ended before it began
        try:
            os.unlink(os.path.join(folders.journal, "inputs", call_id + ".json"))
        except FileNotFoundError:
            pass
        tool, tool_input = envelope["tool"], envelope["input"]
        try:
            if tool == "bash":
                outcome = run_command(folders, folder, call_id, tool_input["command"], float(envelope["timeout"]))
            else:
                outcome = {"text": apply_change(folders, tool, tool_input)}
        except ToolError as error:
            outcome = {"is_error": True, "text": str(error)}
        except OSError as error:
            outcome = {"is_error": True, "text": f"It failed: {error.strerror or error}."}
        _record(folder, outcome)
    except Exception as error:
        _record(folder, {"is_error": True, "text": f"The runner failed: {error!r}"})


def run_command(folders: Folders, folder: str, call_id: str, command: str, timeout: float) -> dict[str, Any]:
    """Run bash and wait for it, but not for processes that it leaves in the background."""
    if "\0" in command:
        raise ToolError("The command has a NUL character. Leave it out; printf and python3 write one as \\0.")
    if len(_encoded(command)) > COMMAND_BYTES:
        raise ToolError(
            f"The command has more than {COMMAND_BYTES} bytes, which Linux does not start. Write what it holds with "
            "write_file, and run that file."
        )
    deadline = time.monotonic() + timeout
    head_before, moves_before = head_commit(folders.workspace), _head_moves_size(folders.workspace)
    _write_whole(os.path.join(folder, "before"), render_json([head_before, moves_before]))
    path = os.path.join(folder, "output")
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        bash = _start_bash(folders.workspace, call_id, command, output)
    except OSError as error:
        return {"is_error": True, "text": f"bash could not be started: {error}"}
    finally:
        os.close(output)
    outcome: dict[str, Any] = {}
    status = None
    adopting = was_signalled = False
    kills_before = _out_of_memory_kills()
    while status is None:
        seconds_left = deadline - time.monotonic()
        if seconds_left <= 0:
            outcome["timed_out"] = True
        elif os.stat(path).st_size > OUTPUT_LIMIT_BYTES:
            size = f"{OUTPUT_LIMIT_BYTES // 1_000_000} MB"
            outcome["text"] = f"\n[its output passed {size}; its processes were ended. Print less, such as with head]"
        else:
            received = signal.sigtimedwait(
                {signal.SIGCHLD, *_meant_for_others()}, min(seconds_left, 0.5 if adopting else ADOPT_AFTER_SECONDS)
            )
            if received is None and not adopting:
                adopting = _adopt_orphans()
            if received is None or received.si_signo == signal.SIGCHLD:
                status = _reap_bash(bash)
                continue
            if not os.path.exists(os.path.join(folder, "ending")):
                was_signalled = True
                continue
            outcome["ended"] = True
        outcome["is_error"] = True
        end_processes(call_id, bash)
        status = _reap_bash(bash)
        break
    outcome["output_bytes"] = os.stat(path).st_size
    if refused := _refused_hosts(deadline - timeout):
        outcome["refused_hosts"] = refused
    if status is not None:
        outcome["exit_code"] = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if outcome.get("exit_code") != 0:
        outcome["is_error"] = True
    if was_signalled and "ended" not in outcome:
        outcome["text"] = f"{outcome.get('text', '')}\n[{SIGNALLED_SUPERVISOR}]"
    if "exit_code" in outcome and "ended" not in outcome and _out_of_memory_kills() > kills_before:
        outcome.update(memory_peak=_memory_peak(), memory_limit=_memory_limit())
    outcome.update(new_commit(folders.workspace, head_before, moves_before))
    return outcome


def _refused_hosts(since: float) -> object:
    """What the sandbox tells of the hosts that it has refused since then; None if it does not tell."""
    authority, _, path = os.environ.get(REFUSED_HOSTS_VARIABLE, "").removeprefix("http://").partition("/")
    if not path:
        return None
    import _socket  # socket takes longer to import than bash to start

    host, _, port = authority.partition(":")
    answer = b""
    try:
        connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            connection.settimeout(1)
            connection.connect((host, int(port)))
            connection.sendall(f"GET /{path}?since={since:.3f} HTTP/1.0\r\n\r\n".encode())
            while part := connection.recv(65536):
                answer += part
        finally:
            connection.close()
        return parse_json(answer.partition(b"\r\n\r\n")[2].decode())
    except (OSError, ValueError):  # then the output says what it says
        return None


def _out_of_memory_kills() -> int:
    """How many processes were ended for want of memory so far, by the first of the files that says so."""
    for path in MEMORY_EVENTS:
        try:
            for line in _read_text(path).splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        except (OSError, ValueError):
            continue
    return 0


def _memory_peak() -> int:
    """The most memory, in bytes, that one process of the command has used."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _memory_limit() -> int:
    """The most memory, in bytes, that all processes together may use; 0 if it is unknown."""
    for path in MEMORY_LIMITS:
        try:
            return int(_read_text(path))
        except (OSError, ValueError):  # no such file, or it says `max`
            continue
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _start_bash(workspace: str, call_id: str, command: str, output: int) -> int:
    os.makedirs(workspace, exist_ok=True)
    os.chdir(workspace)
    environment = {**os.environ, **GIT_ENVIRONMENT, MARK_VARIABLE: call_id, "PWD": workspace}
    environment.pop("OLDPWD", None)
    # Not with a fork, which would copy this process first.
    return os.posix_spawn(
        "/bin/bash",
        ["bash", "-c", command],
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
        setsid=True,
        setsigmask=(),
        # Python ignores these signals, and an ignored signal stays ignored across exec.
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )


def _reap_bash(bash: int) -> int | None:
    """Bash's status once it has ended, otherwise None. Also reaps other children, which were adopted."""
    status = None
    while True:
        try:
            pid, child_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == bash:
            status = child_status


def _adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends, so that a timeout ends them. For long commands only."""
    if (ctypes := _import_ctypes()) is not None:
        try:
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        except Exception:
            pass  # without this, the mark still finds processes
    return True


def _import_ctypes() -> Any:
    """The module, or None where Python has none. Importing it takes longer than bash takes to start."""
    try:
        import ctypes
    except Exception:
        return None
    return ctypes


def end_processes(call_id: str, bash: int) -> None:
    """Send SIGTERM, then SIGKILL, to all processes of the call: those with its mark, in bash's session, or descended
    from the keeper."""
    until = time.monotonic() + TERM_SECONDS
    pids = _processes_of(call_id, bash)
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    while pids and time.monotonic() < until:
        time.sleep(0.02)
        _reap_others(bash)
        pids = _processes_of(call_id, bash)
    for _ in range(200):
        if not pids:
            return
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.005)
        _reap_others(bash)
        pids = _processes_of(call_id, bash)


def _reap_others(bash: int) -> None:
    """Reap children that have ended, but leave bash for `_reap_bash`."""
    while True:
        try:
            child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if child is None or child.si_pid == bash:
            return
        os.waitpid(child.si_pid, os.WNOHANG)


def _processes_of(call_id: str, bash: int) -> list[int]:
    me = os.getpid()
    mark = (f"\0{MARK_VARIABLE}={call_id}\0").encode()
    parents: dict[int, int] = {}
    pids: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (1, me):
            continue
        pid = int(name)
        try:
            line = _read_text(f"/proc/{name}/stat")
            if line.rpartition(")")[2].split()[0] in "ZX":
                continue
            parents[pid], session = _parent_and_session(line)
            if bash and session == bash:
                pids.add(pid)
                continue
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in b"\0" + file.read():
                    pids.add(pid)
        except OSError:
            continue  # ended meanwhile, or not readable for this user
    if bash:
        has_grown = True
        while has_grown:
            children = {pid for pid, parent in parents.items() if parent == me or parent in pids} - pids
            pids |= children
            has_grown = bool(children)
    return sorted(pids)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


# ---- commits


def head_commit(workspace: str) -> str | None:
    """The commit that HEAD names, or None. Read from the files, because a process for it costs milliseconds."""
    try:
        head = _read_text(os.path.join(workspace, ".git", "HEAD")).strip()
    except OSError:
        # No repository yet, or `.git` is a file (a worktree): only git knows.
        return _git(workspace, "rev-parse", "--verify", "--quiet", "HEAD") or None if _has_git(workspace) else None
    if not head.startswith("ref: "):
        return head or None
    try:
        return _commit_of(os.path.join(workspace, ".git"), head[5:])
    except OSError:
        return _git(workspace, "rev-parse", "--verify", "--quiet", "HEAD") or None


_OTHER_REFS = ("reftable", "commondir")
"""Where one of these is, refs are not files of this folder."""


def _commit_of(git: str, ref: str) -> str | None:
    """The commit of a ref; None if it has none, as before a repository's first commit.

    Raises:
        OSError: only git knows.
    """
    try:
        return _read_text(os.path.join(git, ref)).strip() or None
    except FileNotFoundError:
        if any(os.path.lexists(os.path.join(git, name)) for name in _OTHER_REFS):
            raise
    try:
        with open(os.path.join(git, "packed-refs"), encoding="utf-8", errors="replace") as file:
            for line in file:
                commit, _, name = line.rstrip("\n").partition(" ")
                if name == ref:
                    return commit
    except FileNotFoundError:
        pass
    return None


def new_commit(workspace: str, before: str | None, moves_before: int) -> dict[str, Any]:
    """`commit` and `subject` if HEAD has moved to a commit that was made since, and was not merely checked out."""
    now = head_commit(workspace)
    if now is None or now == before:
        return {}
    moves = _head_moves(workspace, moves_before)
    if moves and not any(move.startswith(_MAKES_COMMITS) for move in moves):
        return {}
    words = ["rev-list", "--max-count=1", "--format=%s", now]
    if before is not None:
        words.append("^" + before)
    lines = _git(workspace, *words).splitlines()  # "commit <hash>", then the subject
    if not lines and before is not None and not _git(workspace, "cat-file", "-t", before):
        lines = _git(workspace, *words[:-1]).splitlines()  # another repository has taken the place of the earlier one
    if not lines:
        return {}  # an ancestor of the earlier HEAD
    return {"commit": now, "subject": lines[1] if len(lines) > 1 else ""}


_MAKES_COMMITS = ("commit", "merge", "cherry-pick", "revert", "rebase", "pull", "am")


def _head_moves_size(workspace: str) -> int:
    try:
        return os.stat(os.path.join(workspace, ".git", "logs", "HEAD")).st_size
    except OSError:
        return 0


def _head_moves(workspace: str, after: int) -> list[str]:
    """HEAD's moves after the first `after` bytes of its reflog, such as `commit: Add a`; empty if git keeps none."""
    try:
        with open(os.path.join(workspace, ".git", "logs", "HEAD"), "rb") as file:
            file.seek(after)
            lines = file.read(1_000_000).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line.partition("\t")[2] for line in lines]


def _has_git(workspace: str) -> bool:
    return os.path.lexists(os.path.join(workspace, ".git"))


def _git(workspace: str, *words: str) -> str:
    """What git prints; empty if it fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            signal.alarm(10)
            os.execvp("git", ["git", "-C", workspace, *words])
        finally:
            os._exit(127)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as file:
        text = file.read(10_000)
    try:
        status = os.waitpid(child, 0)[1]
    except ChildProcessError:
        return ""
    return text.strip() if status == 0 else ""


# ---- files


def resolve(folders: Folders, path: str, writing: bool = False) -> str:
    """The real path inside the workspace, with every symbolic link followed.

    Raises:
        ToolError: the path leads out of the workspace, or is in `.git` and would be written.
    """
    if "\0" in path:
        raise ToolError("The path has a NUL character. Leave it out.")
    root = os.path.realpath(folders.workspace)
    real = os.path.realpath(os.path.join(root, path))
    if real != root and not real.startswith(root + "/"):
        raise ToolError(
            f"{path} is outside the workspace. Paths are relative to {root} and stay in it; bash reaches other folders."
        )
    if writing and ".git" in (part.lower() for part in os.path.relpath(real, root).split("/")):
        raise ToolError(f"{path} is in .git, which only git may write. Use git commands.")
    return real


def _open_regular(real: str, display_path: str) -> int:
    try:
        # NONBLOCK: opening a named pipe must not hang.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ToolError(f"{display_path} does not exist. List what there is with glob, such as **/*.py.") from None
    except NotADirectoryError:
        raise ToolError(f"{display_path} does not exist: a folder on the way is a file.") from None
    except OSError as error:
        raise ToolError(f"{display_path} cannot be read: {error.strerror}. Look at it with ls -l in bash.") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise ToolError(_not_a_file(display_path, mode))
    return descriptor


def _not_a_file(display_path: str, mode: int) -> str:
    if stat.S_ISDIR(mode):
        inside = display_path.rstrip("/") + "/*"
        return f"{display_path} is a directory. Give a file's path; glob with {inside} lists what is in it."
    return f"{display_path} is not a regular file but a device, a pipe or a socket. Use bash for it."


def _replace(real: str, display_path: str, data: bytes) -> None:
    """Replace the file's content atomically. An existing file keeps its mode."""
    try:
        existing = os.stat(real)
    except FileNotFoundError:
        existing = None
    except NotADirectoryError:
        raise ToolError(
            f"{display_path}: a folder on the way is a file. Choose another path, or move that file first."
        ) from None
    except OSError as error:
        raise ToolError(f"{display_path} cannot be written: {error.strerror}. Choose another path.") from None
    if existing is not None and not stat.S_ISREG(existing.st_mode):
        raise ToolError(_not_a_file(display_path, existing.st_mode))
    folder, name = os.path.split(real)
    os.makedirs(folder, exist_ok=True)
    unfinished = os.path.join(folder, f".{name[:60]}.{os.getpid()}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if existing is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(existing.st_mode))
            file.write(data)
        os.rename(unfinished, real)
    except BaseException:
        os.unlink(unfinished)
        raise


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ToolError(
            "The text has a lone surrogate, which no file can hold as UTF-8. Write the character itself, or its escape "
            "sequence in the file's own language."
        ) from None


_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_LINE_ENDS = {"\r\n": "CRLF", "\r": "CR"}


class TextFile:
    """The content of a text file, with what is needed to write it back as it was."""

    def __init__(self, text: str, codec: str = "utf-8", mark: bytes = b"", errors: str = "strict") -> None:
        self.text = text
        self.codec = codec
        self.mark = mark
        self.errors = errors
        crlf = text.count("\r\n")
        counts = {"\n": text.count("\n") - crlf, "\r\n": crlf, "\r": text.count("\r") - crlf}
        self.line_end = max(counts, key=lambda end: counts[end])
        """The commonest one of the file."""
        self.is_mixed = sum(map(bool, counts.values())) > 1

    def encode(self, text: str, display_path: str) -> bytes:
        """The bytes of the file with another text.

        Raises:
            ToolError: the file's encoding lacks a character.
        """
        try:
            return self.mark + text.encode(self.codec, self.errors)
        except UnicodeEncodeError as error:
            if self.codec != "latin-1":
                return _encoded(text)  # raises
            lacking = error.object[error.start : error.end][:20]
            raise ToolError(
                f"{display_path} is not UTF-8. It was read as Latin-1, which lacks {lacking!r}, so nothing was "
                "changed. Convert it first with bash (iconv -f ISO-8859-1 -t UTF-8), or do without that character."
            ) from None

    @property
    def peculiarities(self) -> str:
        """What differs from UTF-8 with LF, for the agent; empty if nothing does."""
        found = []
        if self.codec != "utf-8":
            found.append(f"encoding {self.codec.upper()}")
        elif self.errors != "strict":
            found.append("bytes that are not UTF-8")
        if self.mark:
            found.append("a byte order mark")
        if self.is_mixed:
            found.append("mixed line ends")
        elif self.line_end != "\n":
            found.append(f"{_LINE_ENDS[self.line_end]} line ends")
        return ", ".join(found)


def decode_file(data: bytes, display_path: str) -> TextFile:
    """Decode UTF-8, UTF-16 or UTF-32 with a byte order mark, or else Latin-1.

    Raises:
        ToolError: it is binary.
    """
    binary = f"{display_path} is a binary file ({len(data)} bytes). Look at it with bash, such as file or xxd."
    for mark, codec in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return TextFile(data[len(mark) :].decode(codec), codec, mark)
            except UnicodeDecodeError:
                break
    if b"\0" in data[:8192]:
        raise ToolError(binary)
    try:
        return TextFile(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "surrogateescape")
    if any("\x80" <= character < "\udc80" or character > "\udcff" for character in text):
        return TextFile(text, errors="surrogateescape")  # UTF-8 with some broken bytes, which stay as they are
    return TextFile(data.decode("latin-1"), "latin-1")


def apply_change(folders: Folders, tool: str, tool_input: dict[str, Any]) -> str:
    """Run a mutating tool of `CHANGES`. Returns what was done, for the agent."""
    return _function_of(CHANGES, tool)(folders, tool_input)


def _function_of(table: Mapping[str, Function], tool: str) -> Function:
    if tool not in table:
        raise ToolError(f"There is no tool named {tool}.")
    return table[tool]


def reapply(folders: Folders, tool_input: dict[str, Any]) -> str:
    """Apply recorded edits in order up to the first that does not fit, if `holder` has the workspace lock.

    The agent has no such tool. The answer is JSON: `held`, the number of edits `applied`, and the `problem` of the next
    one.
    """
    import fcntl

    with open(os.path.join(folders.journal, LOCK), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _read_text(os.path.join(folders.journal, HOLDER)) != tool_input["holder"]:
            return render_json({"held": False})
        applied, problem = 0, ""
        for edit in tool_input["edits"]:
            try:
                apply_change(folders, edit["tool"], edit["input"])
            except ToolError as error:
                problem = str(error)
                break
            applied += 1
    return render_json({"held": True, "applied": applied, "problem": problem})


def write_file(folders: Folders, tool_input: dict[str, Any]) -> str:
    """Write the file. Returns what was written, for the agent."""
    path, content = tool_input["file_path"], tool_input["content"]
    real = resolve(folders, path, writing=True)
    data = _encoded(content)
    existed = os.path.exists(real)
    before = _peculiarities_before(real) if existed else ""
    _replace(real, path, data)
    lines = content.count("\n") + (bool(content) and not content.endswith("\n"))
    written = f"{'Replaced' if existed else 'Created'} {path}: {len(data)} bytes, {lines} lines."
    if before and before != TextFile(content).peculiarities:
        written += f" It had {before} before; now it is UTF-8 as you wrote it. edit_file would have kept that."
    return written


def _peculiarities_before(real: str) -> str:
    try:
        with os.fdopen(_open_regular(real, real), "rb") as file:
            return decode_file(file.read(TEXT_BYTES), real).peculiarities
    except (ToolError, OSError):
        return ""


def edit_file(folders: Folders, tool_input: dict[str, Any]) -> str:
    """Replace a piece of the file. Returns what was replaced, for the agent."""
    path, old, new = tool_input["file_path"], tool_input["old_string"], tool_input["new_string"]
    real = resolve(folders, path, writing=True)
    with os.fdopen(_open_regular(real, path), "rb") as file:
        if os.fstat(file.fileno()).st_size > TEXT_BYTES:
            raise ToolError(
                f"{path} has more than {TEXT_BYTES // 1_000_000} MB. Change it with a command, such as sed."
            )
        content = decode_file(file.read(), path)
    _encoded(old), _encoded(new)
    spans = _occurrences(content.text, old)
    if not spans:
        raise ToolError(f"old_string does not occur in {path}. {_why_not(content.text, old)}")
    if len(spans) > 1 and not tool_input.get("replace_all"):
        lines = ", ".join(str(content.text.count("\n", 0, start) + 1) for start, _ in spans[:10])
        lines += ", …" if len(spans) > 10 else ""
        raise ToolError(
            f"old_string occurs {len(spans)} times in {path} (lines {lines}). Give more of the text around the one "
            "that you mean, or set replace_all."
        )
    if old == new:
        raise ToolError("old_string and new_string are equal; nothing was changed. Give the text as it should become.")
    pieces, at = [], 0
    for start, end in spans:
        pieces += [content.text[at:start], _with_line_ends(new, content, start, end)]
        at = end
    _replace(real, path, content.encode("".join([*pieces, content.text[at:]]), path))
    kept = f" Kept: {content.peculiarities}." if content.peculiarities else ""
    return f"Replaced {len(spans)} {'occurrence' if len(spans) == 1 else 'occurrences'} in {path}.{kept}"


def _occurrences(text: str, old: str) -> list[tuple[int, int]]:
    """Where `old` begins and ends in the text. Each line end of it stands for any."""
    if "\r" in text:
        import re

        lines = old.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [match.span() for match in re.finditer("(?:\r\n|\n|\r)".join(map(re.escape, lines)), text)]
    spans, at = [], text.find(old)
    while at >= 0:
        spans.append((at, at + len(old)))
        at = text.find(old, at + len(old))
    return spans


def _with_line_ends(new: str, content: TextFile, start: int, end: int) -> str:
    """The new text with the line ends of the piece that it replaces, or those around it."""
    if "\r" not in content.text:
        return new
    piece = content.text[start:end] + content.text[end : end + LINE_CHARACTERS]
    at = min((piece.find(mark) for mark in "\r\n" if mark in piece), default=-1)
    line_end = content.line_end if at < 0 else "\r\n" if piece.startswith("\r\n", at) else piece[at]
    return line_end.join(new.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def _why_not(text: str, old: str) -> str:
    """What to do about a text that does not occur."""
    import re

    if re.match(r"\s*\d+\t", old) and re.sub(r"(?m)^\s*\d+\t", "", old) in text:
        return "It begins with a line number of read_file: leave out the numbers and the tab behind them."
    words = old.split()
    if words and (found := re.search(r"\s+".join(map(re.escape, words[:400])), text)):
        line = text.count("\n", 0, found.start()) + 1
        return (
            f"In line {line} it occurs with other white space: read that line again and copy its indentation exactly."
        )
    if words and (found := re.search(r"\s+".join(map(re.escape, words[:400])), text, re.IGNORECASE)):
        return f"In line {text.count(chr(10), 0, found.start()) + 1} it occurs with other capital letters."
    first = max(old.splitlines(), key=len, default="").strip()
    if first and first in text and first != old:
        line = text.count("\n", 0, text.index(first)) + 1
        return f"Only a part of it does, in line {line}. Read the file from there and copy the text exactly."
    return "Read the file and copy the text exactly, without the line numbers."


CHANGES: Mapping[str, Function] = {"write_file": write_file, "edit_file": edit_file, "reapply": reapply}
"""The tools that change something, apart from commands, by name. Each call runs once, in its own keeper."""


# ---- read-only tools


def query(folders: Folders, envelope: dict[str, Any]) -> dict[str, Any]:
    """The answer of a read-only tool: `text` and `is_error`; `image` is the path of a file that the client shows."""
    tool, tool_input = envelope["tool"], envelope["input"]

    def too_slow(*_: object) -> NoReturn:
        raise ToolError(f"It took longer than {SEARCH_SECONDS} s and was given up. Narrow it down.")

    # The regular expression engine checks for signals while it backtracks.
    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SEARCH_SECONDS)
    try:
        if tool == "read_file" and (image := image_file(folders, tool_input)):
            return {"text": "", "is_error": False, "image": image}
        return {"text": run_query(folders, tool, tool_input), "is_error": False}
    except ToolError as error:
        return {"text": str(error), "is_error": True}
    except OSError as error:
        return {"text": f"It failed: {error.strerror or error}.", "is_error": True}
    finally:
        signal.alarm(0)


def run_query(folders: Folders, tool: str, tool_input: dict[str, Any]) -> str:
    """Run a read-only tool of `QUERIES`. Returns its text for the agent."""
    return _function_of(QUERIES, tool)(folders, tool_input)


def image_file(folders: Folders, tool_input: dict[str, Any]) -> str | None:
    """The real path of the file if it is an image; None for other files, and for one that can't be read.

    Raises:
        ToolError: it can't be shown like this.
    """
    path = tool_input["file_path"]
    try:
        real = resolve(folders, path)
        descriptor = _open_regular(real, path)
    except ToolError:
        return None  # `read_file` says why
    with os.fdopen(descriptor, "rb") as file:
        start, size = file.read(12), os.fstat(descriptor).st_size
    if not start.startswith(_IMAGE_SIGNATURES) and not (start.startswith(b"RIFF") and start[8:] == b"WEBP"):
        return None
    if tool_input.get("view_range") is not None:
        raise ToolError(f"{path} is an image, which has no lines. Leave out view_range to look at it.")
    if size > IMAGE_BYTES:
        raise ToolError(
            f"{path} is an image of {size} bytes, and up to {IMAGE_BYTES} are shown. Make a smaller copy with bash "
            "and read that."
        )
    return real


def read_file(folders: Folders, tool_input: dict[str, Any]) -> str:
    """Lines of a text file, numbered."""
    path = tool_input["file_path"]
    real = resolve(folders, path)
    first, last = _range_of(tool_input.get("view_range"))
    try:
        descriptor = _open_regular(real, path)
    except ToolError as error:
        raise ToolError(f"{error}{_similar(folders, path)}" if not os.path.exists(real) else str(error)) from None
    rows: list[str] = []
    size = number = 0
    full = False
    with os.fdopen(descriptor, "rb") as file:
        lines, notes = _numbered_lines(file, path)
        for number, line in lines:
            if full or not first <= number <= last:
                continue
            if len(line) > LINE_CHARACTERS:
                line = f"{line[:LINE_CHARACTERS]}… [cut, {len(line)} characters; bash shows the rest]"
            row = f"{number:>6}\t{line}"
            size += len(row) + 1
            if size > READ_BYTES and rows:
                full = True
                last = number - 1
                continue
            rows.append(row)
    if number == 0:
        return f"{path} is empty."
    if first > number:
        raise ToolError(f"{path} has only {number} lines. Give a view_range within them, such as [1, {number}].")
    if last < number:
        rows.append(f"[lines {first} to {last} of {number}; read on with view_range [{last + 1}, {number}]]")
    if notes:
        rows.append(
            f"[this file has {', '.join(dict.fromkeys(notes))}; edit_file takes line ends as \\n and keeps that]"
        )
    return "\n".join(rows)


def _range_of(view_range: list[int] | None) -> tuple[int, int]:
    """The first and the last line to show. An end of 0 or less is the file's end, as far as one answer goes."""
    if view_range is None:
        return 1, READ_LINES
    first = max(1, view_range[0])
    last = view_range[1] if view_range[1] > 0 else first + READ_LINES - 1
    if last < first:
        raise ToolError(
            f"view_range [{view_range[0]}, {view_range[1]}] ends before it begins. Give the first and the last line, "
            f"such as [{last}, {first}]."
        )
    return first, last


def _numbered_lines(file: Any, display_path: str) -> tuple[Iterator[tuple[int, str]], list[str]]:
    """Numbered lines of a text file, and what is peculiar about it, complete once all lines were read."""
    start = file.read(8192)
    file.seek(0)
    has_lone_cr = b"\r" in start and b"\n" not in start
    if has_lone_cr or any(start.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS):
        content = decode_file(file.read(TEXT_BYTES), display_path)
        text = content.text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text[:-1].split("\n") if text.endswith("\n") else text.split("\n") if text else []
        return iter(list(enumerate(lines, 1))), [content.peculiarities] if content.peculiarities else []
    if b"\0" in start:
        decode_file(start, display_path)  # raises
    notes: list[str] = []
    return _streamed_lines(file, notes), notes


def _streamed_lines(file: Any, notes: list[str]) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(file, 1):
        if raw.endswith(b"\r\n") and _CRLF not in notes:
            notes.append(_CRLF)
        raw = raw.rstrip(b"\r\n")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            line = raw.decode("latin-1")
            if _NOT_UTF8 not in notes:
                notes.append(_NOT_UTF8)
        if "\r" in line or "\x1b" in line:
            # Visible: the agent is shown results without control characters.
            line = line.replace("\r", "\u240d").replace("\x1b", "\u241b")
        yield number, line


_CRLF = "CRLF line ends"
_NOT_UTF8 = "bytes that are not UTF-8, shown as Latin-1"


def _similar(folders: Folders, path: str) -> str:
    """Files of the same name elsewhere in the workspace, as a sentence."""
    name = os.path.basename(path.rstrip("/"))
    found = []
    for relative, entry in _walk(os.path.realpath(folders.workspace)):
        if entry.name == name:
            found.append(relative)
            if len(found) == SIMILAR_PATHS:
                break
    return f" There is {' and '.join(sorted(found))}." if found else ""


def _walk(top: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below `top`, with their relative path. Does not follow symbolic links to folders."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(top, folder)) as entries:
                children = list(entries)
        except OSError:
            continue
        for entry in children:
            relative = os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in IGNORED:
                    pending.append(relative)
            elif os.path.isfile(entry.path):  # unlike the entry's own method, False for a circular link
                yield relative, entry


def glob_expression(pattern: str) -> str:
    """A regular expression for a glob pattern: `*`, `?`, `[…]`, `{a,b}`, and `**` for any number of folders."""
    import re

    out, index, depth = "", 0, 0
    while index < len(pattern):
        rest = pattern[index:]
        character = pattern[index]
        step = 1
        if rest.startswith("**/"):
            out, step = out + "(?:[^/]+/)*", 3
        elif rest.startswith("**"):
            out, step = out + ".*", 2
        elif character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[" and "]" in rest[2:]:
            step = rest.index("]", 2) + 1
            inside = rest[1 : step - 1].replace("\\", "\\\\").replace("[", "\\[")
            out += "(?!/)[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]"
        elif character == "{" and "}" in rest:
            out, depth = out + "(?:", depth + 1
        elif character == "}" and depth:
            out, depth = out + ")", depth - 1
        elif character == "," and depth:
            out += "|"
        else:
            out += re.escape(character)
        index += step
    return out + ")" * depth


def _matcher(folders: Folders, pattern: str) -> re.Pattern[str]:
    import re

    relative = pattern
    if relative.startswith(folders.workspace + "/"):
        relative = relative[len(folders.workspace) + 1 :]
    while relative.startswith("./"):
        relative = relative[2:]
    if relative.startswith("/") or ".." in relative.split("/"):
        raise ToolError(f"{pattern} is outside the workspace. Patterns are relative to it, such as src/**/*.ts.")
    try:
        return re.compile(glob_expression(relative), re.DOTALL)
    except re.error as error:
        raise ToolError(f"{pattern} is not a valid glob pattern: {error}. Use *, ?, [abc], {{a,b}} and **.") from None


def _searched(folders: Folders, path: str | None) -> Iterator[tuple[str, str, os.DirEntry[str]]]:
    """Files below a folder of the workspace: relative to that folder, relative to the workspace, and the entry.

    Raises:
        ToolError: there is no such folder.
    """
    top = os.path.realpath(folders.workspace)
    if not path:
        return ((relative, relative, entry) for relative, entry in _walk(top))
    real = resolve(folders, path)
    if not os.path.isdir(real):
        problem = "is a file" if os.path.exists(real) else "does not exist"
        raise ToolError(f"{path} {problem}. Give a folder of the workspace as path, or null for all of it.")
    prefix = os.path.relpath(real, top)
    prefix = "" if prefix == "." else prefix + "/"
    return ((relative, prefix + relative, entry) for relative, entry in _walk(real))


def find_files(folders: Folders, tool_input: dict[str, Any]) -> str:
    """Paths that match, newest first."""
    pattern, path = tool_input["pattern"], tool_input.get("path")
    matcher = _matcher(folders, pattern)
    matches = []
    for relative, shown, entry in _searched(folders, path):
        if matcher.fullmatch(relative):
            try:
                matches.append((-entry.stat().st_mtime_ns, shown))
            except OSError:
                continue
    if not matches:
        hint = "" if "**" in pattern else f" Below any folder it would be **/{pattern.lstrip('/')}."
        ignored = ", ".join(sorted(IGNORED))
        return f"No file{f' in {path}' if path else ''} matches {pattern}.{hint} Folders named {ignored} are left out."
    lines = [shown for _, shown in sorted(matches)]
    more = len(lines) - GLOB_PATHS
    return "\n".join(lines[:GLOB_PATHS] + ([f"[{more} more; narrow the pattern]"] if more > 0 else []))


def grep(folders: Folders, tool_input: dict[str, Any]) -> str:
    """Lines that match, as `path:line: text`."""
    import re

    pattern, path, only = tool_input["pattern"], tool_input.get("path"), tool_input.get("glob")
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ToolError(
            f"{pattern} is not a valid regular expression: {error}. It has Python's syntax; put a backslash before "
            "each of .^$*+?{}[]()|\\ that you mean literally."
        ) from None
    matcher = _matcher(folders, only) if only else None
    top = os.path.realpath(folders.workspace)
    rows: list[str] = []
    size = searched = 0
    for relative, shown, name in _greppable(folders, path):
        if matcher is not None and not matcher.fullmatch(name if only and "/" not in only else relative):
            continue
        for number, line in _lines(top, shown):
            searched += number == 1  # a file that is not text has no lines
            if not expression.search(line):
                continue
            text = line if len(line) <= GREP_LINE_CHARACTERS else line[:GREP_LINE_CHARACTERS] + "…"
            row = f"{shown}:{number}: {text}"
            size += len(row) + 1
            if len(rows) >= GREP_MATCHES or size > GREP_BYTES:
                return "\n".join([*rows, "[more matches; narrow the pattern or the glob]"])
            rows.append(row)
    if not rows and not searched:
        return f"No text file was searched: none matches {only or 'that path'}. Look with glob what there is."
    return "\n".join(rows) or f"No line matches in {searched} files."


def _greppable(folders: Folders, path: str | None) -> list[tuple[str, str, str]]:
    """The files to search, in order: relative to the folder, relative to the workspace, and the name."""
    if path and os.path.isfile(real := resolve(folders, path)):
        shown = os.path.relpath(real, os.path.realpath(folders.workspace))
        return [(os.path.basename(real), shown, os.path.basename(real))]
    found = [(relative, shown, entry.name) for relative, shown, entry in _searched(folders, path)]
    return sorted(found, key=lambda file: file[1])


def _lines(top: str, relative: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file. Yields nothing if it is binary, large or unreadable, or linked from outside."""
    real = os.path.realpath(os.path.join(top, relative))
    if not real.startswith(top + "/"):
        return
    try:
        descriptor = _open_regular(real, relative)
    except ToolError:
        return
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > GREP_FILE_BYTES:
            return
        data = file.read()
    try:
        text = decode_file(data, relative).text
    except ToolError:
        return
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    yield from enumerate(text.split("\n"), 1)


QUERIES: Mapping[str, Function] = {"read_file": read_file, "glob": find_files, "grep": grep}
"""The tools that only read, by name. Each has `SEARCH_SECONDS`, and a call may run any number of times."""
