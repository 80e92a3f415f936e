"""One build from a brief of random words to a running preview, and everything that must be true of it afterwards."""

import html
import itertools
import json
import re
import secrets
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from temporalio.client import WorkflowHistory

from clients.object_store import ObjectStore, store_config
from clients.sandbox import Sandboxes, sandbox_config
from db.models import Build, GateRun, LedgerEntry, Message, Preview, Prompt, Snapshot, ToolCall, Turn
from db.phase_diffs import list_diffs
from domain.brief import Interview
from domain.events import read_event
from domain.names import preview_workflow_id
from domain.payloads import BuildContext
from domain.preview_address import preview_address
from domain.pricing import Tokens, cost_microdollars
from domain.prompt import OPENING
from domain.status import Status
from domain.tools import TOOLS
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness

ROOT = Path(__file__).parents[2]


def _token() -> str:
    return f"zq{secrets.token_hex(5)}"


@dataclass
class Built:
    """A build that has become ready, with its brief and goal."""

    row: Build
    brief: dict[str, Any]
    tokens: list[str]
    interview: Interview
    goal: str
    history: WorkflowHistory
    bodies: list[Path]
    """The requests of its turns."""
    judged: list[Path]
    """The requests to the judge."""


@pytest.fixture(scope="module")
async def built(harness: WorkerHarness, bodies: Path) -> AsyncIterator[Built]:
    tokens = [_token() for _ in range(6)]
    brief = {
        "name": f"Ünder <{tokens[0]}> & Co",
        "problem": f'People say "{tokens[1]}" and no one hears: 100 % {{lost}}.',
        "features": [f"{token} for everyone's «use»" for token in tokens[2:]],
        "tone": "dry",
    }
    interview = Interview.model_validate(
        {
            "questions": [{"id": "who", "text": "Who is it for?"}, {"id": "why", "text": "Why now?"}],
            "answers": {"who": f"People in {_token()}"},
        }
    )
    user_id = await harness.founder(model_overrides={"coder": "claude-opus-5-5"})
    project_id = await harness.project(user_id, brief, interview)
    goal = f"Make {_token()} happen."
    before = _body_files(bodies)
    build_id = await harness.start(user_id, project_id=project_id, goal=goal)
    row = await harness.finished(build_id)
    assert row.status == Status.READY, row.reason
    history = await harness.handle(build_id).fetch_history()
    sent = [path for path in _body_files(bodies) if path not in before and row.goal in path.read_text()]
    judged = [path for path in sent if "format" in json.loads(path.read_text()).get("output_config", {})]
    turns = [path for path in sent if path not in judged]
    yield Built(row, brief, tokens, interview, row.goal, history, turns, judged)
    await harness.client.get_workflow_handle(preview_workflow_id(build_id)).cancel()


def _body_files(bodies: Path) -> list[Path]:
    return sorted(bodies.iterdir())


def _requests(built: Built) -> Iterator[dict[str, Any]]:
    for path in built.bodies:
        yield json.loads(path.read_text())


async def test_every_word_of_the_brief_is_in_the_served_page(harness: WorkerHarness, built: Built) -> None:
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    async with harness.session() as tx:
        preview = await tx.session.get_one(Preview, built.row.id)
    assert (preview.state, preview.url) == ("open", built.row.preview_url)
    assert preview.url == preview_address(harness.settings.preview_url, built.row.id)
    sandbox = await sandboxes.connect(preview.sandbox_id or "")
    assert (preview.upstream_url, preview.traffic_token) == (sandbox.upstream(8000).url, sandbox.upstream(8000).token)
    answer = await sandbox.http_get(8000, "/", DEADLINE)
    await sandboxes.close()
    assert answer is not None
    assert answer.status == 200
    page = html.unescape(answer.body.decode())
    assert all(token in page for token in built.tokens)
    assert built.brief["name"] in page


async def test_the_traffic_token_is_in_the_preview_s_row_and_nowhere_else(
    harness: WorkerHarness, built: Built, bodies: Path
) -> None:
    async with harness.session() as tx:
        token = (await tx.session.get_one(Preview, built.row.id)).traffic_token
        assert token
        tables = (await tx.session.scalars(text("select tablename from pg_tables where schemaname = 'public'"))).all()
        found = {
            table: await tx.session.scalar(
                text(f'select count(*) from "{table}" as a where a::text like :needle'), {"needle": f"%{token}%"}
            )
            for table in tables
        }
        assert {table: count for table, count in found.items() if count} == {"previews": 1}
    of_preview = await harness.client.get_workflow_handle(preview_workflow_id(built.row.id)).fetch_history()
    events = [*built.history.events, *of_preview.events]
    assert any(b"preview_url" in event.SerializeToString() for event in events)
    assert not any(token.encode() in event.SerializeToString() for event in events)
    assert all(token not in path.read_text() for path in _body_files(bodies))


def test_brief_interview_and_goal_are_in_the_prompt_verbatim(built: Built) -> None:
    system = next(_requests(built))["system"][0]["text"]
    decode = json.JSONDecoder().raw_decode
    assert decode(system.split("<idea_brief>\n")[1])[0] == built.brief
    assert list(decode(system.split("<idea_brief>\n")[1])[0]) == list(built.brief), "the founder's order is kept"
    assert decode(system.split("<interview>\n")[1])[0] == [
        {"question": "Who is it for?", "answer": built.interview.answers["who"]}
    ]
    assert built.goal in system
    assert "no network" in system


def test_requests_are_as_designed(built: Built) -> None:
    for request in _requests(built):
        assert request["model"] == "claude-opus-5-5", "the founder's override must win"
        assert request["stream"] is True
        assert request["cache_control"] == {"type": "ephemeral"}
        assert all(tool["strict"] for tool in request["tools"])
        assert [tool["name"] for tool in request["tools"]] == list(TOOLS)


def test_the_sent_prefix_never_changes(built: Built) -> None:
    raw = [path.read_text() for path in built.bodies]
    assert len(raw) > 10
    for earlier, later in itertools.pairwise(raw):
        assert later.startswith(earlier.removesuffix("]}"))


def test_roles_alternate_and_every_tool_use_has_one_result_right_after_it(built: Built) -> None:
    *_, last = _requests(built)
    messages = last["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]
    assert messages[0]["content"] == [{"type": "text", "text": OPENING}]
    for asked, answered in zip(messages[1::2], messages[2::2], strict=True):
        uses = [block["id"] for block in asked["content"] if block["type"] == "tool_use"]
        results = [block["tool_use_id"] for block in answered["content"] if block["type"] == "tool_result"]
        assert uses == results


def test_cached(built: Built, tmp_path: Path) -> None:
    """At least 90 % of the input tokens after the third turn are cache reads; without cache_control none are."""

    def share(bodies: list[str]) -> float:
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        for path, body in zip(built.bodies, bodies, strict=True):
            (folder / path.name).write_text(body)
        command = [sys.executable, str(ROOT / "scripts" / "cache_share.py"), str(folder)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(re.findall(r"[\d.]+", said)[0])

    bodies = [path.read_text() for path in built.bodies]
    assert share(bodies) >= 90
    assert share([body.replace('"cache_control":{"type":"ephemeral"},', "") for body in bodies]) == 0


async def test_the_ledger_equals_what_the_model_served(harness: WorkerHarness, built: Built) -> None:
    async with harness.session() as tx:
        entries = (await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == built.row.id))).all()
    served = {line["request_id"]: line for line in await harness.served()}
    assert {entry.state for entry in entries} == {"settled"}
    assert [len(built.bodies), len(built.judged)] == [
        sum(entry.kind == kind for entry in entries) for kind in ("turn", "judge")
    ]
    assert len(built.judged) == 1
    for entry in entries:
        usage = served[entry.request_id or ""]["usage"]
        recorded = Tokens(
            input=entry.input_tokens,
            cache_write_5m=entry.cache_write_5m_tokens,
            cache_write_1h=entry.cache_write_1h_tokens,
            cache_read=entry.cache_read_tokens,
            output=entry.output_tokens,
        )
        assert recorded.model_dump() == usage
        assert entry.cost == cost_microdollars(harness.settings.model_prices, entry.model, recorded)
        assert entry.day == entry.opened_at.date()


async def test_state_is_saved_after_each_turn(harness: WorkerHarness, built: Built) -> None:
    async with harness.session() as tx:
        turns = (
            await tx.session.scalars(select(Turn).where(Turn.build_id == built.row.id).order_by(Turn.number))
        ).all()
        messages = (await tx.session.scalars(select(Message).where(Message.build_id == built.row.id))).all()
        calls = (await tx.session.scalars(select(ToolCall).where(ToolCall.build_id == built.row.id))).all()
        prompt = await tx.session.get_one(Prompt, (built.row.id, 0))
    assert [turn.number for turn in turns] == list(range(1, len(built.bodies) + 1))
    assert all(turn.outcome for turn in turns)
    numbers = [turn.number for turn in turns]
    assert sorted(message.turn for message in messages if message.role == "assistant") == numbers
    assert [message.turn for message in messages if message.role == "user"] == [1], (
        "results are stored with their calls"
    )
    tools = {"bash", "read_file", "write_file", "edit_file", "glob", "grep", "take_screenshot"}
    assert tools <= {call.name for call in calls}
    assert all(call.state == "done" and call.result for call in calls)
    assert all(call.sandbox_id and call.boot for call in calls)
    assert prompt.system in built.bodies[0].read_text()


async def test_one_honest_mistake_is_shown_by_a_check_and_fixed(harness: WorkerHarness, built: Built) -> None:
    async with harness.session() as tx:
        calls = (
            await tx.session.scalars(
                select(ToolCall).where(ToolCall.build_id == built.row.id).order_by(ToolCall.turn, ToolCall.position)
            )
        ).all()
    checks = [call.is_error for call in calls if "unittest" in call.summary]
    assert checks.count(True) == 1
    assert checks[checks.index(True) + 1] is False
    assert sum(bool(call.is_error) for call in calls) == 1


async def test_statuses_came_in_order(harness: WorkerHarness, built: Built) -> None:
    statuses = await harness.statuses(built.row.id)
    assert statuses == ["starting", "scaffold", "code", "checks", "ready"]


async def test_each_phase_ended_with_a_snapshot_that_is_there(harness: WorkerHarness, built: Built) -> None:
    async with harness.session() as tx:
        stored = select(Snapshot).where(Snapshot.build_id == built.row.id).order_by(Snapshot.number)
        snapshots = (await tx.session.scalars(stored)).all()
    commits = [event.data["commit"] for event in await harness.events(built.row.id, "phase_completed")]
    assert built.row.phases_completed == len(commits) >= 3
    assert [snapshot.commit[:12] for snapshot in snapshots if snapshot.reason == "phase" and snapshot.commit] == commits
    assert snapshots[-1].final
    async with harness.session() as tx:
        diffs = await list_diffs(tx, built.row.id)
    assert [(diff.phase, diff.commit[:12]) for diff in diffs] == list(enumerate(commits, 1))
    assert [(diff.base or "")[:12] for diff in diffs] == ["", *commits[:-1]]
    assert all(diff.files for diff in diffs)
    async with ObjectStore(store_config(harness.settings)) as store:
        for snapshot in snapshots:
            there = await store.size(snapshot.archive_key)
            assert there == (snapshot.archive_bytes if snapshot.state == "stored" else None)


async def test_the_row_says_what_the_founder_needs(harness: WorkerHarness, built: Built) -> None:
    row = built.row
    assert (row.build_version, row.workspace_path) == (1, "/home/user/project")
    assert row.preview_url
    assert row.model == "claude-opus-5-5"
    assert "rehearsal model" in (row.model_label or "")
    async with harness.session() as tx:
        gate = await tx.session.get_one(GateRun, (row.id, 1))
    assert gate.findings == []
    assert (gate.tests_run or 0) >= 5
    async with ObjectStore(store_config(harness.settings)) as store:
        for viewport in ("desktop", "mobile"):
            assert (await store.get(gate.screenshots[viewport], 10**7))[8:12] == b"WEBP"


async def test_narration_reached_the_feed_while_the_model_spoke(harness: WorkerHarness, built: Built) -> None:
    events = await harness.events(built.row.id)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    for event in events:
        known = read_event(event.type, event.data)
        assert known is not None, "as the API describes it"
        assert known.to_data() == event.data, "nothing is stored that the model does not name"
    spoken = [event for event in events if event.type == "narration"]
    assert len(spoken) > 20
    answered = {event.turn: event.id for event in events if event.type == "turn_answered"}
    assert all(event.id < answered[event.turn] for event in spoken)


async def test_only_the_preview_keeps_a_sandbox(harness: WorkerHarness, built: Built) -> None:
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    mine = [each for each in await sandboxes.list_all() if each.build_id == str(built.row.id)]
    await sandboxes.close()
    async with harness.session() as tx:
        preview = await tx.session.get_one(Preview, built.row.id)
    assert [each.id for each in mine] == [preview.sandbox_id]


async def test_no_secret_is_anywhere(harness: WorkerHarness, built: Built) -> None:
    places = [built.history.to_json(), *(path.read_text() for path in [*built.bodies, *built.judged])]
    places += [json.dumps(event.data) for event in await harness.events(built.row.id)]
    for secret in harness.settings.secret_values():
        assert not any(secret in place for place in places)


def test_history_holds_all_of_the_builds_context(built: Built) -> None:
    """Also the settings that are at their default: a running build keeps what it started with."""
    completed = (event.activity_task_completed_event_attributes for event in built.history.events)
    contexts = [
        json.loads(payload.data)["context"]
        for attributes in completed
        for payload in attributes.result.payloads
        if b'"tool_call_cap"' in payload.data
    ]
    keys = {field.alias or name for name, field in BuildContext.model_fields.items()}
    assert [context.keys() for context in contexts] == [keys]


def test_history_holds_no_content(built: Built) -> None:
    assert not any(token in built.history.to_json() for token in built.tokens)
    for event in built.history.events:
        assert event.ByteSize() < 4096


async def test_a_second_build_continues_the_product(harness: WorkerHarness, built: Built) -> None:
    word = _token()
    build_id = await harness.start(built.row.user_id, project_id=built.row.project_id, goal=f"Tell of {word}")
    row = await harness.finished(build_id)
    assert (row.status, row.build_version) == (Status.READY, 2), row.reason
    async with harness.session() as tx:
        calls = (
            await tx.session.scalars(select(ToolCall).where(ToolCall.build_id == build_id, ToolCall.turn == 1))
        ).all()
        before, after = await list_diffs(tx, built.row.id), await list_diffs(tx, build_id)
    assert any("server.py" in (call.result or "") for call in calls), "it has the first build's product"
    assert after[0].base == before[-1].commit
    await harness.client.get_workflow_handle(preview_workflow_id(build_id)).cancel()


@pytest.mark.parametrize(
    ("overrides", "plan_models", "expected"),
    [
        ({}, {"coder": "claude-haiku-5-5"}, "claude-haiku-5-5"),
        ({"coder": "claude-opus-5-5"}, {"coder": "claude-haiku-5-5"}, "claude-opus-5-5"),
        ({}, {}, "claude-sonnet-5-5"),
    ],
    ids=["plan", "override", "fallback"],
)
async def test_the_model_comes_from_override_plan_or_fallback(
    harness: WorkerHarness, overrides: dict[str, str], plan_models: dict[str, str], expected: str
) -> None:
    plan = await harness.plan(None, default_models=plan_models)
    build_id = await harness.start(
        await harness.founder(plan, model_overrides=overrides), faults=[{"kind": "authentication"}]
    )
    await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).model == expected
    assert expected in {line["model"] for line in await harness.served()}


@pytest.mark.thorough  # `gate_exhausted` in test_scenarios.py is shorter
async def test_with_the_fix_withheld_it_never_becomes_ready(harness: WorkerHarness) -> None:
    build_id: uuid.UUID = await harness.start(script={"kind": "product", "withhold_fix": True})
    row = await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    assert row.status == Status.NEEDS_INPUT
    bounced = await harness.events(build_id, "gate_bounced")
    assert len(bounced) == harness.settings.gate_attempts
    assert all("check" in event.data["findings"][0] for event in bounced)
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
