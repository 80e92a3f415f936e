"""The paths on which a founder steers a build: messages, answers and restores, even if their signal is lost."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from temporalio.testing import TimeSkipper

from clients.sandbox import Role
from db import steering
from db.models import FounderMessage, Message, Question, Restore, Snapshot, ToolCall
from db.restores import add_restore
from db.transaction import transaction
from db.turns import stored_user_message
from db.users import UserChange, change_user
from domain.names import FINISH
from domain.status import Status
from domain.tool_output import render_result
from tests.harness.reaper import reap
from tests.harness.scripts import HOLD, PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder
from tests.workflows.scenarios import (
    Drive,
    EndedWorkflow,
    Scenario,
    ready_build,
    release_command,
    until_row,
    until_waiting,
)

STEERING_SCENARIOS: list[Scenario] = []


def _scenario(
    path: str, **settings: Any
) -> Callable[[Callable[[WorkerHarness], Awaitable[list[EndedWorkflow]]]], None]:
    def add(drive: Drive) -> None:
        STEERING_SCENARIOS.append(Scenario(drive.__name__, path, drive, settings))

    return add


async def _say(
    harness: WorkerHarness, build_id: uuid.UUID, text: str, *, answers: uuid.UUID | None = None, announced: bool = True
) -> None:
    async with transaction(harness.sessions) as tx:
        build = await steering.lock_build(tx, build_id)
        assert build is not None
        number = (await steering.add_message(tx, build, text, question_id=answers)).number
    if announced:
        await harness.builds.signal_message(build_id, number)


async def _reap(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Run the reaper, with the build's messages and restores made old enough for it to look at them."""
    async with transaction(harness.sessions) as tx:
        long_ago = datetime.now(UTC) - timedelta(minutes=1)
        unread = (FounderMessage.build_id == build_id, FounderMessage.turn.is_(None))
        await tx.session.execute(update(FounderMessage).where(*unread).values(created_at=long_ago))
        requested = (Restore.build_id == build_id, Restore.state == "requested")
        await tx.session.execute(update(Restore).where(*requested).values(created_at=long_ago))
    await reap(harness)


async def _messages_sent(harness: WorkerHarness, build_id: uuid.UUID) -> list[tuple[int, str]]:
    """Return the turn and text of each founder's message that was sent to the model, in order."""
    async with harness.session() as tx:
        messages = (
            await tx.session.execute(
                select(Message.turn, Message.content)
                .where(Message.build_id == build_id, Message.role == "user")
                .order_by(Message.turn)
            )
        ).all()
        rows = await tx.session.scalars(
            select(FounderMessage).where(FounderMessage.build_id == build_id).order_by(FounderMessage.number)
        )
        turns = [row.turn for row in rows]
    messages_sent = [
        (turn, part.partition("\\n</founder_message>")[0])
        for turn, content in messages
        for part in content.split("<founder_message>\\n")[1:]
    ]
    assert [turn for turn, _ in messages_sent] == turns, "the rows must have the turns in which the messages were sent"
    return messages_sent


@_scenario("messages while a tool runs, to a build whose history is short", continue_as_new_turns=1)
async def said_while_working(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([hold()], [bash("echo two")], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started")
    for text in ("Use blue.", "No, green.", "And keep it small."):
        await _say(harness, build_id, text, announced=text != "No, green.")
    await release_command(harness, build_id)
    workflows = await ready_build(harness, build_id)
    assert await _messages_sent(harness, build_id) == [(2, "Use blue."), (2, "No, green."), (2, "And keep it small.")]
    [read] = await harness.events(build_id, "messages_read")
    assert (read.turn, read.data) == (2, {"numbers": [1, 2, 3]})
    return workflows


@_scenario("a message while the gate looks at the product: the agent reads it before anything is passed")
async def said_at_the_gate(harness: WorkerHarness) -> list[EndedWorkflow]:
    slow = PRODUCT.replace('"install": "true"', f'"install": "[ -e go-on ] || {{ {HOLD}; }}"')
    read = bash("touch go-on; git add -A; git commit -qm 'Read it'")
    build_id = await harness.start(script=steps([bash(slow)], [{"text": "Done."}], [read]))
    await harness.until_event(build_id, "gate_step")
    await _say(harness, build_id, "One more thing.", announced=False)
    await release_command(harness, build_id, Role.GATE)
    workflows = await ready_build(harness, build_id)
    assert await _messages_sent(harness, build_id) == [(3, "One more thing.")]
    kinds = [event.type for event in await harness.events(build_id)]
    assert [kind for kind in kinds if kind in ("gate_started", "messages_read", "gate_passed")] == [
        "gate_started",
        "messages_read",
        "gate_started",
        "gate_passed",
    ]
    assert (await harness.row(build_id)).gate_passed_at is not None
    return workflows


@_scenario("a message and a request to finish while the gate looks at the product: read first, then finished")
async def finished_at_the_gate(harness: WorkerHarness) -> list[EndedWorkflow]:
    slow = PRODUCT.replace('"install": "true"', f'"install": "[ -e go-on ] || {{ {HOLD}; }}"')
    read = bash("touch go-on; git add -A; git commit -qm 'Read it'")
    turns = [bash(slow)], [{"text": "Done."}], [read], [bash("echo more")]
    build_id = await harness.start(script=steps(*turns))
    await harness.until_event(build_id, "gate_step")
    await _say(harness, build_id, "One more thing.", announced=False)
    await harness.handle(build_id).signal(FINISH)
    await release_command(harness, build_id, Role.GATE)
    workflows = await ready_build(harness, build_id)
    assert await _messages_sent(harness, build_id) == [(3, "One more thing.")]
    assert len(await harness.events(build_id, "turn_answered")) == 3, "the request to finish must not be lost"
    return workflows


@_scenario("the founder of a build that sleeps has what is there checked")
async def finished_while_asleep(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    turns = [bash(PRODUCT)], *([bash(f"echo {turn}")] for turn in range(5))
    build_id = await harness.start(user_id, script=steps(*turns))
    await harness.until(build_id, frozenset({Status.SLEEPING}))
    await harness.handle(build_id).signal(FINISH)
    return await ready_build(harness, build_id)


@_scenario("the founder writes to a build that waits for them; once more, and the announcement is lost")
async def said_while_waiting(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL, faults=[{"kind": "refusal", "times": 6}])
    await until_waiting(harness, build_id, "founder")
    first_request = (await harness.row(build_id)).status_seq
    await _say(harness, build_id, "Try again, please.")
    await until_row(harness, build_id, lambda row: row.status == Status.NEEDS_INPUT and row.status_seq != first_request)
    await _say(harness, build_id, "And again.", announced=False)
    await _reap(harness, build_id)
    signals = await _signal_count(harness, build_id)
    await _reap(harness, build_id)
    assert await _signal_count(harness, build_id) == signals, "the reaper must not announce a message again"
    workflows = await ready_build(harness, build_id)
    assert [text for _, text in await _messages_sent(harness, build_id)] == ["Try again, please.", "And again."]
    assert signals >= 2
    return workflows


async def _signal_count(harness: WorkerHarness, build_id: uuid.UUID) -> int:
    """Count the signals sent to the build. A message that waits for long is announced more than once."""
    history = await harness.handle(build_id).fetch_history()
    return sum(event.HasField("workflow_execution_signaled_event_attributes") for event in history.events)


@_scenario("a message to a build that sleeps is read in the morning")
async def said_while_asleep(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(
        user_id, script=steps(*([bash(f"echo {turn}")] for turn in range(3)), [bash(PRODUCT)])
    )
    row = await harness.until(build_id, frozenset({Status.SLEEPING}))
    assert row.wakes_at is not None
    await _say(harness, build_id, "Good morning.")
    await harness.until_idle(build_id)
    assert (await harness.row(build_id)).status_seq == row.status_seq, "a message must not wake a sleeping build"
    left = row.wakes_at - datetime.now(UTC)
    await TimeSkipper(harness.client).fast_forward(harness.handle(build_id), left + timedelta(seconds=1))
    workflows = await ready_build(harness, build_id)
    async with harness.session() as tx:
        turn = await tx.session.scalar(select(FounderMessage.turn).where(FounderMessage.build_id == build_id))
        morning = await stored_user_message(tx, build_id, turn or 0)
    assert "Good morning." in morning[0]
    assert "a new day's budget" in morning[-1]
    return workflows


_FAILS = [[bash(f"cd /tmp; python3 -c 'import nothing_there # {attempt}'")] for attempt in range(3)]


async def _open_question(harness: WorkerHarness, build_id: uuid.UUID) -> Question:
    """Wait until the build waits for the founder, and return its open question."""
    await until_waiting(harness, build_id, "founder")
    async with harness.session() as tx:
        pending = await steering.find_question(tx, build_id)
    assert pending is not None
    assert pending.question.closed_at is None
    return pending.question


@_scenario("the same error strikes three times: the founder is asked, and answers")
async def asked_about_error(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps(*_FAILS, [bash(PRODUCT)]))
    question = await _open_question(harness, build_id)
    assert "No module named 'nothing_there'" in question.problem
    assert [tried.partition(":")[0] for tried in question.tried] == ["Turn 1", "Turn 2", "Turn 3"]
    assert question.problem.startswith((await harness.row(build_id)).reason or "-")
    await _say(harness, build_id, question.options[1], answers=question.id)
    workflows = await ready_build(harness, build_id)
    assert await _messages_sent(harness, build_id) == [(4, question.options[1])]
    async with harness.session() as tx:
        user_message = (await tx.session.get_one(Message, (build_id, 4, "user"))).content
        assert (await tx.session.get_one(Question, question.id)).closed_at is not None
    assert "nothing_there" in user_message.partition("</question>")[0]
    assert "without an answer" not in user_message
    return workflows


@_scenario("the agent goes in circles although it was steered: the founder is asked, and answers in their own words")
async def asked_about_circle(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps(*([bash("echo again")] for _ in range(5)), [bash(PRODUCT)]))
    question = await _open_question(harness, build_id)
    assert "`bash: echo again`" in question.problem
    await _say(harness, build_id, "Build the page instead.", answers=question.id)
    workflows = await ready_build(harness, build_id)
    assert [text for _, text in await _messages_sent(harness, build_id)] == ["Build the page instead."]
    return workflows


async def _restore(harness: WorkerHarness, build_id: uuid.UUID, *, announced: bool = True, **target: Any) -> int:
    fields: dict[str, Any] = {"snapshot_number": None, "commit": None} | target
    async with transaction(harness.sessions) as tx:
        await steering.lock_build(tx, build_id)
        number = (await add_restore(tx, build_id, idempotency_key=None, **fields)).number
    if announced:
        await harness.builds.signal_restore(build_id, number)
    return number


async def _until_restored(harness: WorkerHarness, build_id: uuid.UUID, number: int) -> Restore:
    async def ended_restore() -> Restore | None:
        row = await _restore_row(harness, build_id, number)
        return None if row.state == "requested" else row

    return await wait_until(ended_restore)


async def _restore_row(harness: WorkerHarness, build_id: uuid.UUID, number: int) -> Restore:
    async with harness.session() as tx:
        return await tx.session.get_one(Restore, (build_id, number))


async def _manifest_hash(harness: WorkerHarness, build_id: uuid.UUID, number: int | None) -> str | None:
    """Read the hash of a stored snapshot's manifest."""
    async with harness.session() as tx:
        return await tx.session.scalar(
            select(Snapshot.manifest_sha256).where(
                Snapshot.build_id == build_id, Snapshot.number == number, Snapshot.state == "stored"
            )
        )


async def _call(harness: WorkerHarness, build_id: uuid.UUID, turn: int) -> ToolCall:
    async with harness.session() as tx:
        return (
            await tx.session.scalars(select(ToolCall).where(ToolCall.build_id == build_id, ToolCall.turn == turn))
        ).one()


def _phase(number: int) -> list[dict[str, Any]]:
    return [bash(f"echo {number} > phase; echo x > only-{number}; git add -A; git commit -qm 'Phase {number}'")]


_DIRTY = "echo ignored > .gitignore; echo x > ignored; echo dirty > phase; echo x > untracked"
_LOOK = [bash("cat phase; ls; git log --format=%s; git status --short")]


@_scenario("put back to the oldest snapshot that is kept, and then to a commit that came after it", snapshots_kept=3)
async def restored_while_working(harness: WorkerHarness) -> list[EndedWorkflow]:
    busy = [hold(_DIRTY)]
    script = steps(_phase(1), _phase(2), _phase(3), busy, _LOOK, busy, _LOOK, [bash(PRODUCT)])
    build_id = await harness.start(script=script)
    await harness.until_event(build_id, "tool_started", turn=4)
    first = await _manifest_hash(harness, build_id, 1)
    number = await _restore(harness, build_id, snapshot_number=1)
    await harness.builds.signal_restore(build_id, number)  # a repeated signal does nothing
    await _say(harness, build_id, "Again from there.")
    await release_command(harness, build_id)
    done = await _until_restored(harness, build_id, number)
    assert (done.state, done.kept_as, done.stored_as) == ("done", 4, 5)
    assert first is not None
    assert await _manifest_hash(harness, build_id, 5) == first
    assert await _manifest_hash(harness, build_id, 4) is not None, "the state before the restore must be kept"
    await harness.until_event(build_id, "tool_started", turn=6)
    commit = (await _call(harness, build_id, 3)).commit
    second = await _restore(harness, build_id, commit=commit)
    await release_command(harness, build_id)
    again = await _until_restored(harness, build_id, second)
    assert again.state == "done", "the snapshot taken before the first restore has the commit"
    workflows = await ready_build(harness, build_id)
    look, second_look = await _call(harness, build_id, 5), await _call(harness, build_id, 7)
    assert look.result == render_result(look.tool_use_id, "1\nonly-1\nphase\nPhase 1")
    expected = "3\nonly-1\nonly-2\nonly-3\nphase\nPhase 3\nPhase 2\nPhase 1"
    assert second_look.result == render_result(second_look.tool_use_id, expected)
    async with harness.session() as tx:
        user_message = (await tx.session.get_one(Message, (build_id, 5, "user"))).content
    assert user_message.index("put back to snapshot 1. HEAD is") < user_message.index("Again from there.")
    assert (await _restore_row(harness, build_id, number)).turn == 5
    assert len(await harness.events(build_id, "restore_done")) == 2
    return workflows


@_scenario("put back to a commit while the founder is waited for; the announcement is lost")
async def restored_while_waiting(harness: WorkerHarness) -> list[EndedWorkflow]:
    script = steps(_phase(1), _phase(2), [bash(_DIRTY)], [bash("true")], _LOOK, [bash(PRODUCT)])
    build_id = await harness.start(script=script, faults=[{"kind": "unknown_stop_reason", "after": 3}])
    await until_waiting(harness, build_id, "founder")
    commit = (await _call(harness, build_id, 1)).commit
    number = await _restore(harness, build_id, commit=commit, announced=False)
    await _reap(harness, build_id)
    workflows = await ready_build(harness, build_id)
    assert (await _restore_row(harness, build_id, number)).state == "done"
    looks = [call for turn in range(5, 8) if "git log" in (call := await _call(harness, build_id, turn)).summary]
    assert '"text":"1\\nonly-1\\nphase\\nPhase 1"' in (looks[0].result or "")
    return workflows


@_scenario("put back when it wakes, to a build that sleeps")
async def restored_when_woken(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(user_id, script=steps(_phase(1), [bash(_DIRTY)], _LOOK, _LOOK, [bash(PRODUCT)]))
    row = await harness.until(build_id, frozenset({Status.SLEEPING}))
    number = await _restore(harness, build_id, snapshot_number=1)
    assert row.wakes_at is not None
    left = row.wakes_at - datetime.now(UTC)
    await TimeSkipper(harness.client).fast_forward(harness.handle(build_id), left + timedelta(seconds=1))
    done = await _until_restored(harness, build_id, number)
    assert done.state == "done"
    assert await _manifest_hash(harness, build_id, done.stored_as) == await _manifest_hash(harness, build_id, 1)
    async with transaction(harness.sessions) as tx:
        await change_user(tx, user_id, UserChange(plan="cto_scale"), datetime.now(UTC).date())
    await harness.builds.signal_budget_changed(build_id)
    return await ready_build(harness, build_id)
