"""An agent that ends its turn before its plan is done goes on, and the gate reads the plan as well."""

import json
import uuid

from sqlalchemy import select

from db.models import GateRun, Message, Prompt
from domain.names import FINISH
from domain.status import Status
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import ready_build, release_command, until_waiting


async def kinds_of(harness: WorkerHarness, build_id: uuid.UUID, *kinds: str) -> list[str]:
    """The types of these kinds of events, in order."""
    return [event.type for event in await harness.events(build_id) if event.type in kinds]


async def test_an_agent_that_reports_after_its_scaffold_is_told_what_is_open(harness: WorkerHarness) -> None:
    build_id = await harness.start(script={"kind": "product", "reports": 1})
    await ready_build(harness, build_id)
    assert await kinds_of(harness, build_id, "plan", "gate_started") == ["plan", "plan", "gate_started"], (
        "no gate may run for a report"
    )
    first, last = [event.data for event in await harness.events(build_id, "plan")]
    assert (first["done"], last["open"]) == (1, 0)
    assert len(first["stories"]) == first["open"] >= 3
    async with harness.session() as tx:
        assert (await tx.session.get_one(Prompt, (build_id, 0))).wants_plan
        told = await tx.session.scalars(
            select(Message.content).where(
                Message.build_id == build_id, Message.role == "user", Message.content.contains("still open in PLAN.md")
            )
        )
        [message] = told.all()
    [text] = [block["text"] for block in json.loads(message)]
    assert all(f"- {story}" in text for story in first["stories"])


async def test_an_agent_that_forgets_its_plan_is_told_three_times_and_then_by_the_gate(harness: WorkerHarness) -> None:
    small = PRODUCT.replace("> PLAN.md", "> /dev/null")
    late = bash("printf -- '- [x] It shows a page\\n' > PLAN.md; git add -A; git commit -qm 'Plan'")
    reports = [[{"text": f"Report {number}."}] for number in range(4)]
    build_id = await harness.start(script=steps([bash(small)], *reports, [late]))
    await ready_build(harness, build_id)
    kinds = await kinds_of(harness, build_id, "plan", "gate_started", "gate_bounced", "gate_passed")
    assert kinds == [*["plan"] * 4, "gate_started", "gate_bounced", "plan", "gate_started", "gate_passed"]
    async with harness.session() as tx:
        run = await tx.session.get_one(GateRun, (build_id, 1))
    assert run.findings is not None
    [finding] = run.findings
    assert "no PLAN.md" in finding


async def test_fewer_open_stories_are_progress(harness: WorkerHarness) -> None:
    def plan(done: int) -> list[dict[str, object]]:
        lines = "".join(f"- [{'x' if number < done else ' '}] Story {number}\\n" for number in range(3))
        return [bash(f"printf -- '{lines}' > PLAN.md; git add -A; git commit -qm 'Story {done}'")]

    report = [{"text": "Some of it is done, and more is to come."}]
    early = [turn for done in range(3) for turn in (plan(done), report, report, report)]
    build_id = await harness.start(script=steps([bash(PRODUCT)], *early, plan(3)))
    await ready_build(harness, build_id)
    assert [event.data["open"] for event in await harness.events(build_id, "plan")] == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0]
    assert len(await harness.events(build_id, "gate_started")) == 1


async def test_finish_takes_an_open_plan_through_the_gate(harness: WorkerHarness) -> None:
    build_id = await harness.start(script=steps([bash(PRODUCT.replace("- [x]", "- [ ]"))], [hold()], [bash("true")]))
    await harness.until_event(build_id, "tool_started", count=2)
    await harness.handle(build_id).signal(FINISH)
    await release_command(harness, build_id)
    await ready_build(harness, build_id)
    assert await kinds_of(harness, build_id, "plan", "gate_bounced") == []


async def test_a_blocker_is_asked_about_and_finish_is_an_answer(harness: WorkerHarness) -> None:
    blocked = [{"text": "All else is done.\n\nBLOCKED: a key of the payment service is missing"}]
    build_id = await harness.start(script=steps([bash(PRODUCT.replace("- [x]", "- [ ]"))], blocked, [bash("true")]))
    assert "a key of the payment service is missing" in await until_waiting(harness, build_id, "founder")
    [question] = await harness.events(build_id, "question")
    assert "a key of the payment service is missing" in question.data["problem"]
    await harness.handle(build_id).signal(FINISH)
    await ready_build(harness, build_id)
    turns = [event.turn for event in await harness.events(build_id, "turn_answered")]
    assert turns == [1, 2], "the product as it is goes to the gate"
    assert (await harness.row(build_id)).status == Status.READY
