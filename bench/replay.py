"""Time the replay of stored histories, with the SDK's workflow sandbox and without it (ADR 0005).

python -m bench.replay [HISTORY…]     default: the longest build in tests/replay/histories/
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from cli.replay import load_history
from clients.temporal import DATA_CONVERTER
from workflows.build import BuildWorkflow

_HISTORIES = Path(__file__).parents[1] / "tests" / "replay" / "histories"
_TIMES = 5
"""Replays of each history with each runner; the table shows the fastest and the slowest."""


async def _seconds(runner: WorkflowRunner, history: WorkflowHistory) -> float:
    replayer = Replayer(workflows=[BuildWorkflow], data_converter=DATA_CONVERTER, workflow_runner=runner)
    start = time.perf_counter()
    await replayer.replay_workflow(history)
    return time.perf_counter() - start


async def _main(paths: list[Path]) -> None:
    runners = {"in the sandbox": SandboxedWorkflowRunner(), "without": UnsandboxedWorkflowRunner()}
    for path in paths:
        history = load_history(path)
        times: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(_TIMES):  # alternate, so that other load on the machine affects both
            for name, runner in runners.items():
                times[name].append(await _seconds(runner, history) * 1000)
        summary = ", ".join(f"{name} {min(each):.0f} to {max(each):.0f} ms" for name, each in times.items())
        print(f"{path.name}: {len(history.events)} events, {summary}")


if __name__ == "__main__":
    longest = max(_HISTORIES.glob("*-build-1.json"), key=lambda path: path.stat().st_size)
    asyncio.run(_main([Path(word) for word in sys.argv[1:]] or [longest]))
    sys.stdout.flush()
    os._exit(0)
