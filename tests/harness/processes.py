"""Inspects the processes of a test, which may end at any moment."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from tests.harness.wait import DEADLINE


def lives(process: psutil.Process) -> bool:
    """Whether the process has not ended. A zombie that waits for the host's init has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def command_line(process: psutil.Process) -> list[str]:
    """Return the program and its arguments, or an empty list once the process has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def survivors(processes: Iterable[psutil.Process], seconds: float = DEADLINE) -> list[psutil.Process]:
    """Wait until the processes have ended, and return those that have not ended in time."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def processes_left_in(directory: Path, seconds: float = DEADLINE) -> list[psutil.Process]:
    """Wait until no process names the directory, and return those that still do after the deadline."""
    deadline = time.monotonic() + seconds
    while (left := processes_naming(directory)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def processes_naming(directory: Path) -> list[psutil.Process]:
    """Return the processes whose arguments, working directory or environment name the directory, except this process
    and its ancestors. Other runs of the tests on this machine have other directories."""
    above = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [each for each in psutil.process_iter() if each.pid not in above and _names(each, str(directory))]


def _names(process: psutil.Process, directory: str) -> bool:
    words = command_line(process)
    # A process of another test may work in a directory whose name is too long to read.
    with suppress(psutil.Error, OSError):
        words.append(process.cwd())
    with suppress(psutil.Error, OSError):
        words += process.environ().values()
    return any(directory in word for word in words)
