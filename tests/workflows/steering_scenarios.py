"""The paths on which a founder steers a build: messages that are read, whatever happens to their announcement."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from temporalio.testing import TimeSkipper

from db import steering
from db.models import FounderMessage, Message, Question
from domain.names import REAPER_WORKFLOW
from domain.status import Status
from tests.workflows.scenarios import (
    FOUR_TURNS_A_DAY,
    PRODUCT,
    SMALL,
    Ended,
    Scenario,
    bash,
    poor_founder,
    ready_build,
    steps,
    waits,
    waits_for_event,
)
from tests.workshop import Workshop

STEERING_SCENARIOS: list[Scenario] = []


def _scenario(path: str, **settings: Any) -> Callable[[Callable[[Workshop], Awaitable[list[Ended]]]], None]:
    def add(drive: Callable[[Workshop], Awaitable[list[Ended]]]) -> None:
        STEERING_SCENARIOS.append(Scenario(drive.__name__, path, drive, settings))

    return add


async def _say(
    shop: Workshop, build_id: uuid.UUID, text: str, *, answers: uuid.UUID | None = None, announced: bool = True
) -> None:
    async with shop.sessions.begin() as session:
        build = await steering.lock_build(session, build_id)
        assert build is not None
        number = (await steering.add_message(session, build, text, question_id=answers)).number
    if announced:
        await shop.builds.tell_of_message(build_id, number)


async def _reap(shop: Workshop) -> None:
    """Let the reaper look, for which what was said has become old enough."""
    async with shop.sessions.begin() as session:
        long_ago = datetime.now(UTC) - timedelta(minutes=1)
        await session.execute(update(FounderMessage).where(FounderMessage.turn.is_(None)).values(created_at=long_ago))
    queue = shop.settings.temporal_task_queue
    await shop.client.execute_workflow(REAPER_WORKFLOW, id=f"reap-{uuid.uuid4()}", task_queue=queue)


async def _heard(shop: Workshop, build_id: uuid.UUID) -> list[tuple[int, str]]:
    """The turn and text of each message of the founder that was sent to the model, in the order of sending."""
    async with shop.session() as session:
        sent = (
            await session.execute(
                select(Message.turn, Message.content)
                .where(Message.build_id == build_id, Message.role == "user")
                .order_by(Message.turn)
            )
        ).all()
        rows = await session.scalars(
            select(FounderMessage).where(FounderMessage.build_id == build_id).order_by(FounderMessage.number)
        )
        noted = [row.turn for row in rows]
    found = [
        (turn, part.partition("\\n</founder_message>")[0])
        for turn, content in sent
        for part in content.split("<founder_message>\\n")[1:]
    ]
    assert [turn for turn, _ in found] == noted, "the rows say what was sent"
    return found


@_scenario("messages while a tool runs, to a build whose history is short", continue_as_new_turns=1)
async def said_while_working(shop: Workshop) -> list[Ended]:
    build_id = await shop.start(script=steps([bash("sleep 3")], [bash("echo two")], [bash(PRODUCT)]))
    await waits_for_event(shop, build_id, "tool_started")
    for text in ("Use blue.", "No, green.", "And keep it small."):
        await _say(shop, build_id, text, announced=text != "No, green.")
    ended = await ready_build(shop, build_id)
    assert await _heard(shop, build_id) == [(2, "Use blue."), (2, "No, green."), (2, "And keep it small.")]
    [read] = await shop.events(build_id, "messages_read")
    assert (read.turn, read.data) == (2, {"numbers": [1, 2, 3]})
    return ended


@_scenario("a message while the gate looks at the product: the agent reads it before anything is passed")
async def said_at_the_gate(shop: Workshop) -> list[Ended]:
    slow = PRODUCT.replace('"install": "true"', '"install": "sleep 2"')
    build_id = await shop.start(script=steps([bash(slow)], [{"text": "Done."}], [bash("echo read it")]))
    await waits_for_event(shop, build_id, "gate_step")
    await _say(shop, build_id, "One more thing.", announced=False)
    ended = await ready_build(shop, build_id)
    assert await _heard(shop, build_id) == [(3, "One more thing.")]
    kinds = [event.type for event in await shop.events(build_id)]
    assert [kind for kind in kinds if kind in ("gate_started", "messages_read", "gate_passed")] == [
        "gate_started",
        "messages_read",
        "gate_started",
        "gate_passed",
    ]
    assert (await shop.row(build_id)).gate_passed_at is not None
    return ended


@_scenario("the founder writes to a build that waits for them; once more, and the announcement is lost")
async def said_while_waiting(shop: Workshop) -> list[Ended]:
    build_id = await shop.start(script=SMALL, faults=[{"kind": "refusal"}, {"kind": "refusal"}])
    await waits(shop, build_id, "founder")
    asked = (await shop.row(build_id)).status_seq
    await _say(shop, build_id, "Try again, please.")
    async with asyncio.timeout(120):
        while (row := await shop.row(build_id)).status != Status.NEEDS_INPUT or row.status_seq == asked:
            await asyncio.sleep(0.05)
    await _say(shop, build_id, "And again.", announced=False)
    await _reap(shop)
    await _reap(shop)  # told already
    ended = await ready_build(shop, build_id)
    assert [text for _, text in await _heard(shop, build_id)] == ["Try again, please.", "And again."]
    history = await shop.handle(build_id).fetch_history()
    told = [event for event in history.events if event.HasField("workflow_execution_signaled_event_attributes")]
    assert len(told) == 2
    return ended


@_scenario("a message to a build that sleeps is read in the morning")
async def said_while_asleep(shop: Workshop) -> list[Ended]:
    user_id, _ = await poor_founder(shop, FOUR_TURNS_A_DAY)
    build_id = await shop.start(user_id, script=steps(*([bash(f"echo {turn}")] for turn in range(3)), [bash(PRODUCT)]))
    row = await shop.until(build_id, frozenset({Status.SLEEPING}))
    assert row.wakes_at is not None
    await _say(shop, build_id, "Good morning.")
    await asyncio.sleep(1)
    assert (await shop.row(build_id)).status_seq == row.status_seq, "a message is no money"
    left = row.wakes_at - datetime.now(UTC)
    await TimeSkipper(shop.client).fast_forward(shop.handle(build_id), left + timedelta(seconds=1))
    ended = await ready_build(shop, build_id)
    async with shop.session() as session:
        turn = await session.scalar(select(FounderMessage.turn).where(FounderMessage.build_id == build_id))
        morning = (await session.get_one(Message, (build_id, turn, "user"))).content
    assert morning.index("a new day's budget") < morning.index("Good morning.")
    return ended


_FAILS = [[bash(f"cd /tmp; python3 -c 'import nothing_there # {attempt}'")] for attempt in range(3)]


async def _asked(shop: Workshop, build_id: uuid.UUID) -> Question:
    """The question for which the build waits."""
    await waits(shop, build_id, "founder")
    async with shop.session() as session:
        found = await steering.find_question(session, build_id)
    assert found is not None
    assert found.question.closed_at is None
    return found.question


@_scenario("the same error strikes three times: the founder is asked, and answers")
async def asked_about_error(shop: Workshop) -> list[Ended]:
    build_id = await shop.start(script=steps(*_FAILS, [bash(PRODUCT)]))
    question = await _asked(shop, build_id)
    assert "No module named 'nothing_there'" in question.problem
    assert [tried.partition(":")[0] for tried in question.tried] == ["Turn 1", "Turn 2", "Turn 3"]
    assert question.problem.startswith((await shop.row(build_id)).reason or "-")
    await _say(shop, build_id, question.options[1], answers=question.id)
    ended = await ready_build(shop, build_id)
    assert await _heard(shop, build_id) == [(4, question.options[1])]
    async with shop.session() as session:
        told = (await session.get_one(Message, (build_id, 4, "user"))).content
        assert (await session.get_one(Question, question.id)).closed_at is not None
    assert "nothing_there" in told.partition("</question>")[0]
    assert "without an answer" not in told
    return ended


@_scenario("the agent goes in circles although it was steered: the founder is asked, and answers in their own words")
async def asked_about_circle(shop: Workshop) -> list[Ended]:
    build_id = await shop.start(script=steps(*([bash("echo again")] for _ in range(5)), [bash(PRODUCT)]))
    question = await _asked(shop, build_id)
    assert "`bash: echo again`" in question.problem
    await _say(shop, build_id, "Build the page instead.", answers=question.id)
    ended = await ready_build(shop, build_id)
    assert [text for _, text in await _heard(shop, build_id)] == ["Build the page instead."]
    return ended
