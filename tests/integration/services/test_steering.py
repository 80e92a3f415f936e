"""A founder's messages reach the agent once and in order, or are refused, even if processes die in between."""

import asyncio
import base64
import dataclasses
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, insert, select, update
from temporalio.api.enums.v1 import EventType as HistoryEvent
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.question import QuestionActivities
from activities.restore import RestoreActivities
from activities.sandbox.snapshot_store import CHANGES
from clients.build_workflows import BuildWorkflows
from clients.sandbox import Sandbox
from db import steering
from db.models import Build, Event, FounderMessage, GateRun, Message, Prompt, Snapshot, ToolCall, Turn, User
from db.restores import add_restore, end_restore
from db.snapshots import superfluous_snapshots
from db.transaction import transaction
from domain.guards import error_signature
from domain.names import build_workflow_id
from domain.payloads import AskFounder, FinishRestore, RestoreWorkspace, RunGate, ThinkOutcome
from domain.question import ASKED, AskedQuestion
from domain.redaction import SECRET
from domain.tool_output import render_result
from local.stack import LocalStack
from services import messages
from tests.harness.activities import ActivityHarness, open_activity_harness, shell
from tests.harness.api_server import TOKEN, RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.model_server import MODEL, START, STOP, SYSTEM, ends, says, speaking, think


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    key = SecretStr(f"main:{base64.b64encode(bytes(32)).decode()}")
    settings = settings_for(await new_database(stack), stack.environment, secrets_key=key)
    async with running_api(settings, stack.environment) as running:
        yield running


@pytest.fixture(scope="module")
async def harness(stack: LocalStack, api: RunningApi) -> AsyncIterator[ActivityHarness]:
    """Activities on the API's database."""
    async with open_activity_harness(stack) as opened:
        opened.sessions = api.sessions
        opened.__post_init__()
        yield opened


async def _say(api: RunningApi, build: str, text: str, key: str | None = None, user: str | None = None) -> Any:
    headers = as_user(user) | ({} if key is None else {"Idempotency-Key": key})
    return await api.http.post(f"/v1/builds/{build}/messages", json={"text": text}, headers=headers)


async def _change(api: RunningApi, build: str, **changes: Any) -> None:
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**changes))


async def _texts_sent(api: RunningApi, build: str) -> list[str]:
    """Return the founder's messages in the order in which the model's user messages have them."""
    async with transaction(api.sessions) as tx:
        contents = await tx.session.scalars(
            select(Message.content)
            .where(Message.build_id == uuid.UUID(build), Message.role == "user")
            .order_by(Message.turn)
        )
        blocks = [block["text"] for content in contents for block in json.loads(content)]
    marked = "The founder says:\n<founder_message>\n"
    return [text.removeprefix(marked).partition("\n</")[0] for text in blocks if text.startswith(marked)]


async def test_message_is_a_row_an_event_and_a_signal(api: RunningApi) -> None:
    build = await api.build()
    first = await _say(api, build, "  Use blue.\nNot red.  ", key="once")
    again = await _say(api, build, "Use blue.\nNot red.", key="once")
    second = await _say(api, build, f"My token is {TOKEN}.")
    assert (first.status_code, again.status_code, second.status_code) == (201, 200, 201)
    assert first.json() == again.json()
    assert (first.json()["number"], first.json()["text"], first.json()["read_at"]) == (1, "Use blue.\nNot red.", None)
    assert second.json()["text"] == "My token is [secret]."
    async with transaction(api.sessions) as tx:
        events = await tx.session.scalars(
            select(Event.data).where(Event.build_id == uuid.UUID(build), Event.type == "message").order_by(Event.id)
        )
        assert [data["number"] for data in events] == [1, 2]
    history = await api.temporal.get_workflow_handle(build_workflow_id(build)).fetch_history()
    kinds = Counter(event.event_type for event in history.events)
    assert kinds[HistoryEvent.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED] == 3


async def test_a_secret_that_the_founder_writes_to_the_agent_is_blanked(api: RunningApi) -> None:
    project = await api.project()
    value = "sk_live_51Hx/9+abcDEF=="
    stored = await api.http.put(f"/v1/projects/{project}/secrets/STRIPE_API_KEY", json={"value": value})
    assert stored.is_success
    encoded = base64.b64encode(value.encode()).decode()
    said = await _say(api, await api.build(project), f"Use {value} or {encoded}, please.")
    assert said.json()["text"].startswith(f"Use {SECRET} or {SECRET}")
    assert encoded[:-3] not in said.text


async def test_what_cannot_be_said(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    build = await api.build()
    before = await api.rows()
    for text, status in (("", 422), (" \n", 422), ("x" * 10_001, 422), ("a\x00b", 422)):
        assert (await _say(api, build, text)).status_code == status, text[:10]
    lone = b'{"text": "\\ud800"}'
    answer = await api.http.post(
        f"/v1/builds/{build}/messages", content=lone, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert (await _say(api, build, "Hello.", user="eve")).status_code == 404
    assert (await _say(api, str(uuid.uuid4()), "Hello.")).status_code == 404
    assert await api.rows() == before
    await _say(api, build, "Hello.", key="k")
    refused = [await _say(api, build, "Goodbye.", key="k")]
    monkeypatch.setattr(messages, "MAX_UNREAD", 1)
    refused.append(await _say(api, build, "And more."))
    for changes in (
        {"cancel_requested_at": func.now()},
        {"gate_passed_at": func.now()},
        {"status": "failed", "closed_at": func.now()},
    ):
        await _change(api, build, **changes)
        refused.append(await _say(api, build, "Anybody there?"))
    assert [(answer.status_code, answer.json()["type"].rpartition(":")[2]) for answer in refused] == [
        (409, "idempotency-key-reused"),
        (409, "too-many-unread"),
        *[(409, "build-closed")] * 3,
    ]
    assert (await _say(api, build, "Hello.", key="k")).status_code == 200, "a repeat must not send it again"


async def test_message_is_stored_while_temporal_is_away(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    build = await api.build()

    async def away(*_: object) -> None:
        raise RuntimeError("no connection")

    monkeypatch.setattr(BuildWorkflows, "signal_message", away)
    assert (await _say(api, build, "Hello.")).status_code == 201


async def test_each_message_is_sent_once_and_in_order(api: RunningApi, harness: ActivityHarness) -> None:
    """Five messages arrive at once while turns begin, die before their answer and run again; then the gate passes."""
    build = await api.build()
    async with transaction(api.sessions) as tx:
        tx.session.add(Prompt(build_id=uuid.UUID(build), system=SYSTEM, tools="[]"))
    await _change(api, build, model=MODEL)
    async with transaction(api.sessions) as tx:
        (await tx.session.get_one(User, "founder")).plan = "cto_scale"  # each attempt that dies costs an estimate
    acknowledged: dict[int, str] = {}
    refused: list[str] = []
    chance = random.Random(11)

    async def speak(speaker: int) -> None:
        for number in range(8):
            await asyncio.sleep(chance.random() * 0.1)
            text = f"{speaker}-{number}"
            answer = await _say(api, build, text, key=text)
            if answer.status_code == 201:
                acknowledged[answer.json()["number"]] = text
                assert (await _say(api, build, text, key=text)).status_code == 200
            else:
                assert answer.json()["type"].endswith("build-closed"), answer.text
                refused.append(text)

    async def take_turns() -> None:
        async with speaking(START, *says(0, "Hm."), ends("end_turn"), STOP) as model:
            for turn in range(1, 1000):
                if chance.random() < 0.6:
                    await die_in(turn)
                result = await think(harness, model, build, turn)
                assert result.outcome is ThinkOutcome.END_TURN
                async with transaction(api.sessions) as tx:
                    if turn >= 6 and not await steering.close_input(tx, uuid.UUID(build)):
                        return

    async def die_in(turn: int) -> None:
        asked = asyncio.Event()
        async with speaking(silent=asked) as silent:
            attempt = asyncio.ensure_future(think(harness, silent, build, turn))
            await asked.wait()
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt

    await asyncio.gather(take_turns(), *(speak(speaker) for speaker in range(5)))
    assert sorted(acknowledged) == list(range(1, len(acknowledged) + 1))
    assert await _texts_sent(api, build) == [acknowledged[number] for number in sorted(acknowledged)]
    assert acknowledged
    assert len(acknowledged) + len(refused) == 40


async def test_gate_waits_for_what_was_said_before_it(api: RunningApi, harness: ActivityHarness) -> None:
    build = await api.build()
    await _say(api, build, "Wait.")
    async with transaction(api.sessions) as tx:
        tx.session.add(GateRun(build_id=uuid.UUID(build), number=1, snapshot_number=1, claim=uuid.uuid4()))
    result = await harness.run(harness.gate.run_evidence_gate, RunGate(build_id=build, number=1, snapshot_number=1))
    assert (result.passed, result.message) == (False, 1)
    async with transaction(api.sessions) as tx:
        assert await tx.session.get(GateRun, (uuid.UUID(build), 1)) is None, "an older attempt can't pass any more"
        assert (await tx.session.get_one(FounderMessage, (uuid.UUID(build), 1))).turn is None


async def _answer(api: RunningApi, build: str, question: object, **given: Any) -> Any:
    return await api.http.post(f"/v1/builds/{build}/answer", json={"question_id": str(question), **given})


async def _stuck(api: RunningApi, build: str) -> AskFounder:
    """Insert a build whose third call has ended with the same error as the two before."""
    text = "ImportError: no module named x\n[exit code 1]"
    async with transaction(api.sessions) as tx:
        for turn in range(1, 5):
            call = {"type": "tool_use", "id": f"toolu_{turn}", "name": "bash", "input": {"command": "make"}}
            said = [{"type": "text", "text": f"Attempt {turn}."}, call]
            await tx.session.execute(
                insert(Turn).values(
                    build_id=uuid.UUID(build),
                    number=turn,
                    run_id="r",
                    claim=uuid.uuid4(),
                    outcome="tool_use",
                    answered_at=func.now(),
                )
            )
            tx.session.add(Message(build_id=uuid.UUID(build), turn=turn, role="assistant", content=json.dumps(said)))
            result = text if turn != 2 else "Something else.\n[exit code 1]"
            tx.session.add(
                ToolCall(
                    build_id=uuid.UUID(build),
                    tool_use_id=f"toolu_{turn}",
                    turn=turn,
                    position=0,
                    name="bash",
                    summary="bash: make",
                    state="done",
                    is_error=True,
                    result=render_result(f"toolu_{turn}", result, is_error=True),
                )
            )
    signature = error_signature("bash", "bash: make", text)
    return AskFounder(build_id=build, question_id=str(uuid.uuid4()), error=signature)


async def test_question_is_asked_once_shown_and_answered_once(api: RunningApi, harness: ActivityHarness) -> None:
    build = await api.build()
    assert (await api.http.get(f"/v1/builds/{build}")).json()["question"] is None
    given, activities = await _stuck(api, build), QuestionActivities(harness.sessions)
    told = await harness.run(activities.ask_founder, given)
    assert await harness.run(activities.ask_founder, given) == told
    assert len(await harness.events(build, "question")) == 1
    shown = (await api.http.get(f"/v1/builds/{build}")).json()["question"]
    assert (shown["id"], shown["answer"], len(shown["options"])) == (given.question_id, None, 3)
    assert shown["tried"] == [f"Turn {turn}: Attempt {turn}. — bash: make" for turn in (1, 3, 4)]
    assert shown["problem"].startswith("The agent has hit the same error 3 times")
    assert told.reason == ASKED, "the question itself is not in Temporal's history"
    assert "no module named x" in shown["problem"]
    assert (await api.http.get("/v1/builds", params={"limit": 1})).json()["builds"][0]["question"] == shown

    before = await api.rows()
    for wrong in ({}, {"option": 1, "text": "x"}, {"option": 4}, {"option": 0}, {"text": " "}, {"text": "\x00"}):
        assert (await _answer(api, build, given.question_id, **wrong)).status_code == 422, wrong
    assert (await _answer(api, build, uuid.uuid4(), option=1)).status_code == 404
    assert await api.rows() == before

    answers = await asyncio.gather(*(_answer(api, build, given.question_id, option=2) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json() for answer in answers] == [answers[0].json()] * 5
    assert answers[0].json()["answer"] == shown["options"][1]
    other = await _answer(api, build, given.question_id, text="No.")
    assert (other.status_code, other.json()["type"]) == (409, "urn:cofounder:problem:already-answered")
    assert (await _answer(api, build, given.question_id, text=shown["options"][1])).status_code == 200
    assert (await api.rows())["founder_messages"] == before["founder_messages"] + 1
    assert len(await harness.events(build, "answer")) == 1

    async with transaction(api.sessions) as tx:
        await steering.close_question(tx, uuid.UUID(build))
    assert (await api.http.get(f"/v1/builds/{build}")).json()["question"] is None
    await _change(api, build, status="failed", closed_at=func.now())
    assert (await _answer(api, build, given.question_id, option=2)).status_code == 200, "the question was answered"


async def test_questions_that_the_agent_does_not_wait_for(api: RunningApi, harness: ActivityHarness) -> None:
    build = await api.build()
    asked = [AskedQuestion(f"Which {what}?", ("a", "b", "c", "d", "e", "f"), "b") for what in ("name", "price", "logo")]
    ids = []
    for number in (0, 1, 2, 0):
        async with transaction(api.sessions) as tx:
            ids.append(await steering.add_agent_question(tx, uuid.UUID(build), f"toolu_{number}", asked[number]))
    assert ids.pop() == ids[0], "a call asks once"
    shown = (await api.http.get(f"/v1/builds/{build}")).json()
    assert shown["question"] is None, "the build waits for none"
    assert [(each["id"], each["default"]) for each in shown["agent_questions"]] == [(str(each), "b") for each in ids]
    assert len(await harness.events(build, "question")) == 3

    assert (await _answer(api, build, ids[1], option=6)).json()["answer"] == "f"
    assert (await _answer(api, build, ids[0], text="Ada's")).status_code == 200
    assert (await _answer(api, build, ids[0], text="Ada's")).status_code == 200, "a repeat"
    other = await _answer(api, build, ids[0], option=1)
    assert (other.status_code, other.json()["type"]) == (409, "urn:cofounder:problem:already-answered")
    left = (await api.http.get(f"/v1/builds/{build}")).json()["agent_questions"]
    assert [each["id"] for each in left] == [str(ids[2])]

    async with transaction(api.sessions) as tx:
        tx.session.add(Prompt(build_id=uuid.UUID(build), system=SYSTEM, tools="[]"))
    await _change(api, build, model=MODEL)
    async with speaking(START, *says(0, "Hm."), ends("end_turn"), STOP) as model:
        await think(harness, model, build, 1)
    async with transaction(api.sessions) as tx:
        sent = await tx.session.scalar(
            select(Message.content).where(Message.build_id == uuid.UUID(build), Message.role == "user")
        )
    texts = "\n".join(part["text"] for part in json.loads(sent or "[]"))
    assert texts.index("Which price?") < texts.index("Which name?"), "in the order of the answers"
    assert "You went on with: b\nThe founder answers:\n<founder_message>\nf\n</founder_message>" in texts

    await _change(api, build, status="failed", closed_at=func.now())
    assert (await api.http.get(f"/v1/builds/{build}")).json()["agent_questions"] == []
    late = await _answer(api, build, ids[2], option=1)
    assert (late.status_code, late.json()["type"]) == (409, "urn:cofounder:problem:build-closed")


async def test_nothing_is_asked_while_messages_are_unread(api: RunningApi, harness: ActivityHarness) -> None:
    build = await api.build()
    given = await _stuck(api, build)
    await _say(api, build, "Do it without x.")
    told = await harness.run(QuestionActivities(harness.sessions).ask_founder, given)
    assert (told.reason, told.message) == ("", 1)
    assert await harness.events(build, "question") == []


async def _restore(api: RunningApi, build: str, key: str | None = None, **target: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await api.http.post(f"/v1/builds/{build}/restore", json=target, headers=headers)


def _snapshot(build: Build, number: int, state: str = "stored", commit: str | None = None) -> Snapshot:
    return Snapshot(
        id=uuid.uuid4(),
        build_id=build.id,
        project_id=build.project_id,
        number=number,
        state=state,
        claim=uuid.uuid4(),
        reason="phase",
        archive_key=f"a-{number}",
        manifest_key=f"m-{number}",
        archive_sha256="a",
        manifest_sha256="m",
        stored_at=func.now(),
        commit=commit,
    )


async def test_restore_is_asked_for_once(api: RunningApi, harness: ActivityHarness) -> None:
    build = await api.build()
    row = await api.row(build)
    async with transaction(api.sessions) as tx:
        tx.session.add_all([_snapshot(row, 1, commit="abcdef0" + "1" * 33), _snapshot(row, 2, "deleted")])
        tx.session.add_all([_snapshot(row, 3, "failed"), _snapshot(row, 4, commit="abcdef0" + "2" * 33)])
    before = await api.rows()
    wrong: list[dict[str, Any]] = [{}, {"snapshot": 1, "commit": "abcdef01"}, {"snapshot": 0}, {"commit": "xyz"}]
    wrong += [{"commit": "abcdef"}, {"commit": "--hard; rm -rf /"}, {"snapshot": 2**40}]
    assert {(await _restore(api, build, **target)).status_code for target in wrong} == {422}
    for target, status in (
        ({"snapshot": 9}, 404),
        ({"snapshot": 2}, 409),
        ({"snapshot": 3}, 409),
        ({"commit": "1234567"}, 404),
        ({"commit": "abcdef0"}, 409),
    ):
        assert (await _restore(api, build, **target)).status_code == status, target
    assert await api.rows() == before

    answers = await asyncio.gather(*(_restore(api, build, "once", commit="ABCDEF01") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 202]
    first = answers[0].json()
    assert all(answer.json() == first for answer in answers)
    assert (first["number"], first["commit"], first["state"]) == (1, "abcdef0" + "1" * 33, "requested")
    assert (await _restore(api, build, "once", snapshot=1)).json()["type"].endswith("idempotency-key-reused")
    waits = await _restore(api, build, snapshot=1)
    assert (waits.status_code, waits.json()["type"]) == (409, "urn:cofounder:problem:restore-waits")
    assert (await api.rows())["restores"] == before["restores"] + 1
    [asked] = await harness.events(build, "restore_asked")
    assert asked.data == {"number": 1, "commit": first["commit"]}

    async with transaction(api.sessions) as tx:
        assert await steering.close_input(tx, uuid.UUID(build)) is not None, "the restore comes first"
        await end_restore(tx, uuid.UUID(build), 1, kept_as=5, stored_as=6)
        await end_restore(tx, uuid.UUID(build), 1, error="too late")
        assert await steering.close_input(tx, uuid.UUID(build)) is None
    again = (await _restore(api, build, "once", commit="abcdef01")).json()
    assert (again["state"], again["kept_as"], again["stored_as"], again["error"]) == ("done", 5, 6, None)
    assert (await _restore(api, build, snapshot=1)).json()["type"].endswith("build-closed")


async def test_the_wanted_snapshot_outlives_those_that_the_restore_takes(api: RunningApi) -> None:
    build = await api.build()
    row = await api.row(build)
    async with transaction(api.sessions) as tx:
        made = [_snapshot(row, number) for number in range(1, 8)]
        tx.session.add_all(made)
        await tx.session.flush()
        numbers = {each.id: each.number for each in made}

        async def superfluous(kept: int) -> set[int]:
            return {numbers[each] for each in await superfluous_snapshots(tx, row.id, kept)}

        assert await superfluous(5) == {1, 2}
        await add_restore(tx, row.id, snapshot_number=1, commit=None, idempotency_key=None)
        assert await superfluous(5) == {2, 3}
        assert await superfluous(1) == {2, 3, 4, 5}


async def _git(sandbox: Sandbox, command: str) -> str:
    return await shell(sandbox, f"cd /home/user/project; git config user.name x; git config user.email x@x; {command}")


async def test_workspace_is_put_back_whole_or_not_at_all(api: RunningApi, harness: ActivityHarness) -> None:
    """To a commit, whatever the agent has done to the repository; once more; and never by a stale attempt."""
    build = await api.build()
    sandbox = await harness.open(build)
    await _git(sandbox, "echo 1 > a; echo b > b; printf 'i\\nk' > .gitignore; git add -A; git commit -qm 1")
    first = (await _git(sandbox, "git rev-parse HEAD")).strip()
    await _git(
        sandbox, "echo 2 > a; git rm -q b; echo j > .gitignore; echo new > c; echo k > k; git add -A; git commit -qm 2"
    )
    await _git(
        sandbox,
        "git update-index --skip-worktree a; echo 3 > a; echo dirty > c; echo x > untracked; "
        "echo kept > i; echo i >> .gitignore; echo gone > j; "
        "mkdir nested; cd nested; git init -q; echo x > y; cd ..; touch .git/index.lock; "
        "printf 'touch /tmp/hooked' > .git/hooks/post-checkout; chmod +x .git/hooks/*",
    )
    await harness.take(build, sandbox, 1)
    async with transaction(api.sessions) as tx:
        await add_restore(tx, uuid.UUID(build), snapshot_number=None, commit=first[:12], idempotency_key=None)
    activities = RestoreActivities(harness.sessions, harness.sandboxes, harness.store)
    given = RestoreWorkspace(build_id=build, number=1, sandbox_id=sandbox.id)

    async def attempt(number: int, given: RestoreWorkspace = given) -> bool:
        """Run the attempt that was scheduled after this many others."""
        environment = ActivityEnvironment()
        scheduled = datetime(2026, 11, 26, tzinfo=UTC) + timedelta(seconds=number)
        environment.info = dataclasses.replace(environment.info, current_attempt_scheduled_time=scheduled)
        return (await environment.run(activities.restore_workspace, given)).done

    for number in (1, 2):
        assert await attempt(number)
        assert await _git(sandbox, "cat a b; ls; git log --format=%s; git status --short") == "1\nb\na\nb\ni\n1\n"
    await harness.take(build, sandbox, 2, reason="phase")

    await _git(sandbox, "echo worked on > a")
    with pytest.raises(ApplicationError, match="later attempt"):
        await attempt(1)
    assert await _git(sandbox, "cat a") == "worked on\n"

    await sandbox.write(CHANGES, "[]")  # the state that an attempt leaves if it dies in the middle
    with pytest.raises(ApplicationError, match="incomplete"):
        await harness.take(build, sandbox, 3)
    assert await attempt(3)
    assert await _git(sandbox, "cat a") == "1\n"

    await harness.run(
        activities.finish_restore, FinishRestore(build_id=build, number=1, snapshot_before=1, snapshot_after=2)
    )
    await _git(sandbox, "echo later > a")
    assert await attempt(4), "it was done and must not be done again"
    assert await _git(sandbox, "cat a") == "later\n"

    async with transaction(api.sessions) as tx:
        await add_restore(tx, uuid.UUID(build), snapshot_number=None, commit="0" * 12, idempotency_key=None)
    assert not await attempt(5, given.model_copy(update={"number": 2}))
    [failed] = await harness.events(build, "restore_failed")
    assert "stays as it is" in failed.data["error"]
    assert await _git(sandbox, "cat a") == "later\n"
    await harness.kill_all(build)
