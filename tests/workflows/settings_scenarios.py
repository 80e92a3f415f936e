"""The path on which an operator changes the settings of a build that runs."""

from services.build_settings import change_settings, notify_of_settings
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import EndedWorkflow, Scenario, ready_build, release_command

_PATH = "an operator gives it more tool calls while it works, and it does not stop at those that it began with"


async def changed_settings(harness: WorkerHarness) -> list[EndedWorkflow]:
    script = steps([hold()], [bash("echo 2")], [bash("echo 3")], [bash(PRODUCT)])
    build_id = await harness.start(script=script)
    await harness.until_event(build_id, "tool_started")
    changed = await change_settings(harness.sessions, build_id, {"tool_call_cap": 50})
    assert await notify_of_settings(harness.builds, changed) == 1
    await release_command(harness, build_id)
    ended = await ready_build(harness, build_id)
    assert "needs_input" not in await harness.statuses(build_id)
    return ended


SETTINGS_SCENARIOS: list[Scenario] = [
    Scenario(changed_settings.__name__, _PATH, changed_settings, {"tool_call_cap": 2}),
]
