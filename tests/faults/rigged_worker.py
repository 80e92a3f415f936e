"""A worker as `worker.py` starts it, whose crash points do what a fault test asks of them.

Forked from a server of this module's process, which has imported the program once: a test starts dozens of workers.

A file `<crash point>@<workflow id>` in the rig's directory asks: whoever gets there renames it to `….reached`; then,
where it says `kill …`, the process is killed on the spot; where it says `hold …`, it waits until the file is gone.
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

import worker
from activities import dispatch, gate, lifecycle, snapshot, think, workspace
from activities.runtime import crash_point
from tests.faults.disabled_safeguards import count_edits, switch_off

_LOOK_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1

_forking = get_context("forkserver")
_forking.set_forkserver_preload([__name__])


def start_worker(environment: Mapping[str, str], log: Path, rig: Path, without: str) -> ForkServerProcess:
    """Start a worker with these variables and no others, its log going to the file; see `without.py` for `without`."""
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
    count_edits()
    if without:
        switch_off(without)
    asyncio.run(worker.main())
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)


def _rig(directory: Path) -> None:
    async def rigged(name: crash_point.CrashPoint) -> None:
        asked = directory / f"{name}@{activity.info().workflow_id}"
        reached = asked.with_name(f"{asked.name}.reached")
        try:
            asked.rename(reached)
        except FileNotFoundError:
            return
        told = reached.read_text()
        if told.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        # Another file in its place holds another worker, when this one has been stopped meanwhile.
        while _holds(reached, told):
            await asyncio.sleep(_LOOK_SECONDS)

    for module in (think, dispatch, snapshot, workspace, gate, lifecycle):
        assert "crash_point" in vars(module)
        vars(module)["crash_point"] = rigged


def _holds(reached: Path, told: str) -> bool:
    try:
        return reached.read_text() == told
    except FileNotFoundError:
        return False
