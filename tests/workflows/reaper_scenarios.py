"""The paths of the reaper's workflow."""

from tests.harness.reaper import reap_until
from tests.harness.scripts import bash, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import Drive, EndedWorkflow, Scenario

REAPER_SCENARIOS: list[Scenario] = []


def _scenario(path: str, drive: Drive) -> None:
    REAPER_SCENARIOS.append(Scenario(drive.__name__, path, drive, {}, own_database=True))


async def reaper_steps(harness: WorkerHarness) -> list[EndedWorkflow]:
    """An operator ends a build's workflow, and a run of the reaper closes its row."""
    build_id = await harness.start(script=steps([bash("sleep 300", 400)]))
    await harness.until_event(build_id, "tool_started")
    await harness.handle(build_id).terminate("an operator's decision")

    async def is_closed() -> bool:
        return (await harness.row(build_id)).closed_at is not None

    return [EndedWorkflow(await reap_until(harness, is_closed), "done")]


_scenario("the reaper runs its steps, each an activity of its own", reaper_steps)
