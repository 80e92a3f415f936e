"""Reading the agent's plan in its workspace, and who is asked for one."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from activities.context import ContextActivities
from activities.plan import PlanActivities
from activities.turn.budget import CallBudget
from db.models import Event, Message, Prompt, Turn
from db.transaction import transaction
from domain.payloads import BuildRef, PlanReading, ReadPlan
from local.stack import LocalStack
from settings import Settings
from tests.harness.activities import ActivityHarness, open_activity_harness, shell


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


async def read(harness: ActivityHarness, build: str, sandbox_id: str, turn: int = 1) -> PlanReading:
    plans = PlanActivities(harness.sessions, harness.sandboxes, ["hunter2hunter2"])
    return await harness.run(plans.read_plan, ReadPlan(build_id=build, turn=turn, sandbox_id=sandbox_id))


async def shown(harness: ActivityHarness, build: str) -> list[Event]:
    return await harness.events(build, "plan")


async def test_a_plan_is_shown_once_for_a_turn(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, "printf -- '- [x] One\\n- [ ] Two with hunter2hunter2\\n- [ ] Three\\n' > PLAN.md")
    assert await read(harness, build, sandbox.id) == PlanReading(open=2, done=1)
    await shell(sandbox, "printf -- '- [x] All\\n' > PLAN.md")
    assert await read(harness, build, sandbox.id) == PlanReading(open=2, done=1), "as the feed says"
    assert await read(harness, build, sandbox.id, turn=2) == PlanReading(done=1)
    first, second = await shown(harness, build)
    assert (first.turn, first.data["open"], first.data["stories"][1]) == (1, 2, "Three")
    assert "hunter2hunter2" not in str(first.data)
    assert (second.turn, second.data["open"], second.data["done"]) == (2, 0, 1)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("true", PlanReading()),
        ("mkdir PLAN.md", PlanReading()),
        ("mkfifo PLAN.md", PlanReading()),
        ("ln -s /dev/zero PLAN.md", PlanReading()),
        ("printf -- '- [ ] \\000\\377 story\\n' > PLAN.md", PlanReading(open=1)),
        ("yes -- '- [x] a story of forty characters or so...' | head -c 9000000 > PLAN.md", PlanReading(done=5954)),
    ],
)
async def test_whatever_the_file_is_it_is_read(
    harness: ActivityHarness, build: str, command: str, expected: PlanReading
) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, command)
    assert await read(harness, build, sandbox.id) == expected


async def test_the_last_message_of_the_turn_names_a_blocker(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    async with transaction(harness.sessions) as tx:
        own = {"build_id": uuid.UUID(build), "run_id": "run", "claim": uuid.uuid4(), "answered_at": datetime.now(UTC)}
        tx.session.add_all(Turn(number=number, outcome="end_turn", **own) for number in (1, 2))
        await tx.session.flush()
        for turn, said in ((1, "Done."), (2, "Nearly.\\nBLOCKED: a key")):
            content = f'[{{"type":"text","text":"{said}"}}]'
            tx.session.add(Message(build_id=uuid.UUID(build), turn=turn, role="assistant", content=content))
    assert not (await read(harness, build, sandbox.id)).blocked
    assert (await read(harness, build, sandbox.id, turn=2)).blocked


@pytest.mark.parametrize("asked", [True, False])
async def test_only_a_prompt_that_asked_for_a_plan_is_held_to_it(
    harness: ActivityHarness, build: str, asked: bool
) -> None:
    settings = Settings()
    context = ContextActivities(
        harness.sessions,
        settings.model_prices,
        {},
        settings,
        fallback_model="",
        rehearsal_model=True,
        egress_hosts=[],
        budget=CallBudget(settings.model_prices, settings.max_output_tokens, autonomous_agent=True),
    )
    async with transaction(harness.sessions) as tx:
        tx.session.add(Prompt(build_id=uuid.UUID(build), system="[]", tools="[]", wants_plan=asked))
    assert (await harness.run(context.load_build_context, BuildRef(build_id=build))).wants_plan is asked
    async with transaction(harness.sessions) as tx:
        stored = await tx.session.scalars(select(Prompt.wants_plan).where(Prompt.build_id == uuid.UUID(build)))
        assert stored.all() == [asked]
