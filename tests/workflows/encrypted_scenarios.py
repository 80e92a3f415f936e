"""The path of a build whose payloads are encrypted, and that was started and woken by clients without the key."""

import base64

from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal
from domain.status import Status
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
    """The model's key is refused, a client without the payloads' key wakes the build, and its checks fail."""
    config = harness.client.service_client.config
    plain = await connect_temporal(
        {"TEMPORAL_ADDRESS": config.target_host, "TEMPORAL_NAMESPACE": harness.client.namespace}
    )
    encrypted_builds, harness.builds = harness.builds, BuildWorkflows(plain, harness.settings.temporal_task_queue)
    build_id = await harness.start(goal=GOAL, script=steps([bash(COMMAND)]), faults=[{"kind": "authentication"}])
    assert OPERATORS_REASON in await until_waiting(harness, build_id, "operator")
    await harness.builds.wake(build_id)
    await harness.until_event(build_id, "tool_done")
    assert FOUNDERS_REASON in await until_waiting(harness, build_id, "founder")
    await encrypted_builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


ENCRYPTED_SCENARIOS = [
    Scenario(
        encrypted.__name__,
        "its payloads are encrypted, except those of clients without the key, which start and wake it",
        encrypted,
        {"payload_key": PAYLOAD_KEY, "gate_attempts": 1},
        own_database=True,
    )
]
