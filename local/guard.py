"""Runs one part of the embedded stack, and stops it when the process that started the stack is gone.

Run by path, as `python -I -S guard.py [options] -- COMMAND…`. Its standard input is one end of a socket pair, to which
it writes the command's process id. The owner closes the other end to stop the command. The kernel closes it if the
owner is killed, so a stack leaves nothing behind even after SIGKILL. If the owner writes anything, the guard kills the
command at once.

The guard is a subreaper: processes that the command leaves behind become the guard's children, whatever their process
group or session, and are killed before it exits. If the guard itself is killed, the kernel kills the command.

With `--remove DIR` it runs nothing. It waits until the socket is closed, then for the lock of the data directory, which
every guard holds by inheritance, and removes the directory.

It imports only a little of the standard library: one guard per part has to start in milliseconds.
"""

import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522
_REMOVE_WAIT_SECONDS = 60


def _prctl(option: int, first: int, second: int = 0) -> None:
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _keep_only_dac_override() -> None:
    """Drop every capability but CAP_DAC_OVERRIDE, which opens closed directories. Exec keeps that one."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << _CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable; low words first
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(ctypes.byref(header), ctypes.byref(sets)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE)


def _become(uid: int, gid: int, keep_dac_override: bool) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    if keep_dac_override:
        # Without this bit access(2), with which PostgreSQL looks for its programs, ignores the capabilities of any
        # user but root. A root without CAP_SETPCAP may not set it: then only data may lie in a closed directory, and
        # PostgreSQL says so of its programs.
        with contextlib.suppress(PermissionError):
            _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
        _prctl(_PR_SET_KEEPCAPS, 1)
        # With that bit, a program with the set-user-ID bit could not drop its capabilities by changing its user.
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.setresuid(uid, uid, uid)
    if keep_dac_override:
        _keep_only_dac_override()


def _spawn(command: list[str], account: tuple[int, int] | None, keep_dac_override: bool) -> int:
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        if account is not None:
            _become(*account, keep_dac_override)
        # Set after the change of user, which clears it.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except BaseException as error:  # the child must never return into the guard's code
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    os._exit(127)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123 (pathlib is slow to import)
            return [int(pid) for pid in listing.read().split()]
    except OSError:
        return []


def _reap(command: int) -> int | None:
    """Collect the children that have ended. Return the command's exit code if it is one of them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == command:
            exit_code = os.waitstatus_to_exitcode(status)
            code = exit_code if exit_code >= 0 else 128 - exit_code


def _kill_descendants(command: int) -> None:
    """Kill the processes that the command left behind."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command, signal.SIGKILL)
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _read_owner(owner: int) -> bytes | None:
    """Return what the owner has written: None for nothing yet, b"" if it is gone."""
    try:
        return os.read(owner, 64)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.ECONNRESET:
            return b""
        raise


def _remove_leftovers(patterns: list[str]) -> None:
    """Remove the files that the command left outside of its directory."""
    if not patterns:
        return
    import glob

    for pattern in patterns:
        for path in glob.glob(pattern):  # noqa: PTH207 (pathlib is slow to import)
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 (as above)


def guard(
    command: list[str],
    *,
    stop_signal: int,
    grace: float,
    account: tuple[int, int] | None,
    dac_override: bool,
    leftovers: list[str],
) -> int:
    """Run the command until it ends or the owner is gone. Return its exit code (128 + signal if it was killed)."""
    control = 0
    os.set_blocking(control, False)
    # The guard inherited the data directory's lock. The command must not inherit it.
    for name in os.listdir("/proc/self/fd") if sys.platform.startswith("linux") else []:  # noqa: PTH208 (as above)
        if int(name) > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    stop_requests: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: stop_requests.append(received))

    pid = _spawn(command, account, dac_override)
    with contextlib.suppress(OSError):
        os.write(control, f"{pid}\n".encode())

    code: int | None = None
    deadline: float | None = None
    while code is None:
        watched = [wake] if deadline is not None else [wake, control]
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select(watched, [], [], timeout)
        if wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        code = _reap(pid)
        if code is not None:
            break
        message = _read_owner(control) if control in readable else None
        if message:
            os.kill(pid, signal.SIGKILL)
        elif deadline is None and (stop_requests or message is not None):
            deadline = time.monotonic() + grace
            os.kill(pid, stop_signal)
            os.kill(pid, signal.SIGCONT)  # a stopped process would not receive the signal
        elif deadline is not None and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + grace
    _kill_descendants(pid)
    _remove_leftovers(leftovers)
    return code


def remove(directory: str) -> int:
    """Wait until the owner and every guard of the directory are gone, then remove the directory."""
    import fcntl
    import shutil

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        while os.read(0, 64):
            pass
    deadline = time.monotonic() + _REMOVE_WAIT_SECONDS
    with contextlib.suppress(OSError):
        lock = os.open(os.path.join(directory, "lock"), os.O_RDWR)  # noqa: PTH118 (as above)
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
    for _ in range(5):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):  # noqa: PTH110 (as above)
            return 0
        time.sleep(0.2)
    return 1


def main(arguments: list[str]) -> int:
    """Read the options and run. See the module's docstring."""
    stop_signal, grace, account, dac_override = int(signal.SIGTERM), 10.0, None, False
    leftovers: list[str] = []
    while arguments:
        option = arguments.pop(0)
        if option == "--remove":
            return remove(arguments.pop(0))
        if option == "--stop-signal":
            stop_signal = int(arguments.pop(0))
        elif option == "--grace":
            grace = float(arguments.pop(0))
        elif option == "--account":
            uid, gid = arguments.pop(0).split(":")
            account = (int(uid), int(gid))
        elif option == "--dac-override":
            dac_override = True
        elif option == "--leftovers":
            leftovers.append(arguments.pop(0))
        elif option == "--":
            return guard(
                arguments,
                stop_signal=stop_signal,
                grace=grace,
                account=account,
                dac_override=dac_override,
                leftovers=leftovers,
            )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
