"""A worker as `worker.py` starts it, whose crash points follow the instructions of a fault test.

Workers are forked from a server process that has imported the program once, as a test starts dozens of them.

A file `<crash point>@<workflow id>` in the rig's directory is an instruction. The first worker that gets there renames
the file to `….reached`. If the file says `kill …`, the process is killed on the spot; if it says `hold …`, the activity
waits until the file is gone.
"""

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from temporalio import activity
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

import worker
from activities import compact, dispatch, gate, judge, lifecycle, snapshot, think, workspace
from activities.runtime import crash_point
from tests.harness.disabled_safeguards import count_edits, switch_off

SANDBOXED = "sandboxed"
"""If the rig's directory has this file, workflows run in the SDK's sandbox."""

_LOOK_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1

_forking = get_context("forkserver")
_forking.set_forkserver_preload([__name__])


def start_worker(environment: Mapping[str, str], log: Path, rig: Path, without: str) -> ForkServerProcess:
    """Start a worker with exactly these environment variables, logging to the file.

    `without` is a safeguard of `disabled_safeguards.py` to switch off, or empty.
    """
    process = _forking.Process(target=_run, args=(dict(environment), log, rig, without), daemon=True)
    process.start()
    return process


def _run(environment: dict[str, str], log: Path, rig: Path, without: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.environ.clear()
    os.environ.update(environment)
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    _rig(rig)
    if (rig / SANDBOXED).exists():
        vars(worker)["UnsandboxedWorkflowRunner"] = SandboxedWorkflowRunner
    count_edits()
    if without:
        switch_off(without)
    asyncio.run(worker.main())
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)


def _rig(directory: Path) -> None:
    async def rigged_crash_point(name: crash_point.CrashPoint) -> None:
        request = directory / f"{name}@{activity.info().workflow_id}"
        reached = request.with_name(f"{request.name}.reached")
        try:
            request.rename(reached)
        except FileNotFoundError:
            return
        instruction = reached.read_text()
        if instruction.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        # If this worker was stopped meanwhile, a new file with the same name may hold another worker.
        while _holds(reached, instruction):
            await asyncio.sleep(_LOOK_SECONDS)

    for module in (think, compact, dispatch, snapshot, workspace, gate, judge, lifecycle):
        assert "crash_point" in vars(module)
        vars(module)["crash_point"] = rigged_crash_point


def _holds(reached: Path, instruction: str) -> bool:
    try:
        return reached.read_text() == instruction
    except FileNotFoundError:
        return False
