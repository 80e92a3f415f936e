"""The paths of a build whose agent ends its turn before its plan is done; see `scenarios.py`."""

from collections.abc import Callable

from sqlalchemy import select

from db.models import Message, Snapshot
from tests.harness.scripts import PRODUCT, bash, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import Drive, EndedWorkflow, Scenario, ready_build, until_waiting

PLAN_SCENARIOS: list[Scenario] = []

OPEN_PRODUCT = PRODUCT.replace("- [x]", "- [ ]")
"""`PRODUCT` before its story is ticked in the plan."""


def _scenario(path: str) -> Callable[[Drive], None]:
    def add(drive: Drive) -> None:
        PLAN_SCENARIOS.append(Scenario(drive.__name__, path, drive, {}))

    return add


@_scenario("the agent ends its turn with an open story: it is told, goes on, and only then meets the gate")
async def reported_early(harness: WorkerHarness) -> list[EndedWorkflow]:
    report = [{"text": "The page is there. I will check it next."}]
    build_id = await harness.start(script=steps([bash(OPEN_PRODUCT)], report, [bash(PRODUCT)]))
    workflows = await ready_build(harness, build_id)
    kinds = [event.type for event in await harness.events(build_id)]
    assert [kind for kind in kinds if kind in ("plan", "gate_started")] == ["plan", "plan", "gate_started"]
    assert kinds.count("guard") == 1
    return workflows


@_scenario("the agent names a blocker: the founder is asked, and wakes the build")
async def blocked(harness: WorkerHarness) -> list[EndedWorkflow]:
    report = [{"text": "All else is done.\n\nBLOCKED: the key of the mail service"}]
    build_id = await harness.start(script=steps([bash(OPEN_PRODUCT)], report, [bash(PRODUCT)]))
    reason = await until_waiting(harness, build_id, "founder")
    assert reason == "The agent can't finish without you. It needs: the key of the mail service"
    [question] = await harness.events(build_id, "question")
    assert question.data["problem"] == reason
    await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    assert not await harness.events(build_id, "gate_bounced")
    return workflows


SCAFFOLD = (
    "mkdir /tmp/app; cd /tmp/app; git init -q; echo n >n; git add -A; git commit -qm 'Scaffold'; "
    "cp -a /tmp/app/. /home/user/project; cd /home/user/project; git add -A; git commit -qm 'Go on from the scaffold'"
)


@_scenario("the agent overwrites its git history: it and the founder are told, and the earlier snapshot stays")
async def history_overwritten(harness: WorkerHarness) -> list[EndedWorkflow]:
    first = "echo 1 >a; git add -A; git commit -qm 'Add a'"
    build_id = await harness.start(script=steps([bash(first)], [bash(SCAFFOLD)], [bash(PRODUCT)]))
    workflows = await ready_build(harness, build_id)
    [guard] = await harness.events(build_id, "guard")
    assert "Snapshot 1 has the work as it was before" in guard.data["text"]
    async with harness.session() as tx:
        told = await tx.session.scalars(select(Message).where(Message.build_id == build_id))
        kept = await tx.session.scalars(select(Snapshot.number).where(Snapshot.build_id == build_id, Snapshot.kept))
        assert [message.turn for message in told if "does not descend any more" in message.content] == [3]
        assert list(kept) == [1]
    return workflows
