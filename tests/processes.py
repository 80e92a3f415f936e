"""Looks at a test's own processes, which may end while they are looked at."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from tests.wait import DEADLINE


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended; a zombie that waits for the host's init has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def command_line(process: psutil.Process) -> list[str]:
    """Its program and arguments; none once it has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def outliving(processes: Iterable[psutil.Process], seconds: float = DEADLINE) -> list[psutil.Process]:
    """Those that have not ended in time."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def left_in(directory: Path, seconds: float = DEADLINE) -> list[psutil.Process]:
    """Wait until no process names the directory; those that still do so in the end."""
    deadline = time.monotonic() + seconds
    while (left := naming(directory)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def naming(directory: Path) -> list[psutil.Process]:
    """The processes whose arguments, working directory or environment name the directory, this one and those that it
    runs under aside. Other runs of the tests on this machine have other directories."""
    above = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [each for each in psutil.process_iter() if each.pid not in above and _names(each, str(directory))]


def _names(process: psutil.Process, directory: str) -> bool:
    words = command_line(process)
    # Another test's may work in a directory whose name is too long to be told.
    with suppress(psutil.Error, OSError):
        words.append(process.cwd())
    with suppress(psutil.Error, OSError):
        words += process.environ().values()
    return any(directory in word for word in words)
