"""What a build's agent has said and done, read over HTTP."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func

from clients.object_store import ObjectStore, image_key
from db.feed import append_events
from db.models import GateRun, LedgerEntry, Message, ToolCall, Turn
from db.transaction import transaction
from domain.events import GatePassedEvent, PhaseCompletedEvent, StatusEvent
from domain.tool_output import ImageRef, render_result
from local.stack import LocalStack
from tests.harness.api_server import (
    AS_OPERATOR,
    OPERATORS,
    RunningApi,
    as_user,
    new_database,
    running_api,
    settings_for,
)

HOSTILE = "<img src=x onerror=alert(1)> \u202e ✓"


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=SecretStr(OPERATORS))
    async with running_api(settings, stack.environment) as running:
        yield running


async def _turn(api: RunningApi, build: str, number: int, *blocks: dict[str, Any], answered: bool = True) -> None:
    async with transaction(api.sessions) as tx:
        outcome = {"outcome": "tool_use", "answered_at": func.now()} if answered else {}
        row = Turn(build_id=uuid.UUID(build), number=number, run_id="r", claim=uuid.uuid4(), **outcome)
        tx.session.add(row)
        if answered:
            content = json.dumps(list(blocks))
            tx.session.add(Message(build_id=row.build_id, turn=number, role="assistant", content=content))


async def _call(api: RunningApi, build: str, turn: int, call_id: str, result: str | None = None, **fields: Any) -> None:
    done = {} if result is None else {"state": "done", "result": result, "is_error": False, "done_at": func.now()}
    row = {"name": "bash", "summary": "make test", "position": 0} | done | fields
    async with transaction(api.sessions) as tx:
        tx.session.add(ToolCall(build_id=uuid.UUID(build), tool_use_id=call_id, turn=turn, **row))


def _asks(call_id: str, **tool_input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "bash", "input": tool_input}


async def test_turns_have_text_calls_and_tokens_and_come_in_pages(api: RunningApi) -> None:
    build = await api.build()
    assert (await api.http.get(f"/v1/builds/{build}/turns")).json() == {"turns": [], "next_before": None}
    thought = {"type": "thinking", "thinking": "A secret thought.", "signature": "s"}
    await _turn(api, build, 1, thought, {"type": "text", "text": HOSTILE}, _asks("toolu_1", command="make"))
    await _call(api, build, 1, "toolu_1", render_result("toolu_1", "fine"), commit="c" * 40)
    await _turn(api, build, 2, {"type": "text", "text": "One."}, {"type": "text", "text": "Two \ud800."})
    await _turn(api, build, 3, answered=False)
    kinds = (("turn", "settled", 5), ("turn", "estimated", 20), ("turn", "released", 0), ("judge", "settled", 700))
    async with transaction(api.sessions) as tx:
        for kind, state, cost in kinds:
            entry = {"kind": kind, "state": state, "cost": cost, "day": date(2026, 11, 1), "model": "m"}
            tokens = {"input_tokens": 1, "cache_write_5m_tokens": 2, "cache_write_1h_tokens": 3, "output_tokens": 4}
            ids = {"id": uuid.uuid4(), "build_id": uuid.UUID(build), "user_id": "founder", "turn": 1}
            tx.session.add(LedgerEntry(**ids, **entry, **tokens, closed_at=datetime.now(UTC)))

    path = f"/v1/builds/{build}/turns"
    first = (await api.http.get(path, params={"limit": 2})).json()
    assert ([turn["number"] for turn in first["turns"]], first["next_before"]) == ([3, 2], 2)
    unanswered, two = first["turns"]
    assert (unanswered["text"], unanswered["outcome"], unanswered["calls"]) == ("", None, [])
    assert two["text"] == "One.\n\nTwo ?."
    rest = (await api.http.get(path, params={"limit": 2, "before": 2})).json()
    assert rest["next_before"] is None
    [one] = rest["turns"]
    assert (one["text"], one["outcome"]) == (HOSTILE, "tool_use")
    assert one["tokens"] == {"input": 2, "cache_write": 10, "cache_read": 0, "output": 8}
    assert (one["attempts"], one["cost_microdollars"]) == (2, None)
    [call] = one["calls"]
    assert (call["tool_use_id"], call["state"], call["is_error"], call["commit"]) == (
        "toolu_1",
        "done",
        False,
        "c" * 40,
    )
    assert "thought" not in json.dumps(rest)
    seen = (await api.http.get(path, params={"before": 2}, headers=AS_OPERATOR)).json()
    assert seen["turns"][0]["cost_microdollars"] == 25
    for wrong in ({"before": 0}, {"limit": 101}, {"before": "x"}):
        assert (await api.http.get(path, params=wrong)).status_code == 422


async def test_a_tool_call_has_its_input_and_what_it_returned(api: RunningApi) -> None:
    build = await api.build()
    await _turn(api, build, 1, _asks("toolu_a", command=HOSTILE, deep={"odd": "\udc80"}), _asks("toolu_b"))
    result = render_result("toolu_a", [f"{HOSTILE}\n[exit code 2]", ImageRef("ab" * 32)], is_error=True)
    await _call(api, build, 1, "toolu_a", result, is_error=True)
    await _call(api, build, 1, "toolu_b", position=1)
    await _call(api, build, 9, "toolu_without_answer", render_result("toolu_without_answer", ""), lost=True)

    read = (await api.http.get(f"/v1/builds/{build}/tool-calls/toolu_a")).json()
    assert read["input"] == {"command": HOSTILE, "deep": {"odd": "?"}}
    assert (read["turn"], read["is_error"], read["lost"]) == (1, True, False)
    text, image = read["result"]
    assert text == {"type": "text", "text": f"{HOSTILE}\n[exit code 2]"}
    assert image["path"] == f"/v1/builds/{build}/images/{'ab' * 32}"
    waits = (await api.http.get(f"/v1/builds/{build}/tool-calls/toolu_b")).json()
    assert (waits["state"], waits["input"], waits["result"], waits["is_error"]) == ("requested", {}, None, None)
    lost = (await api.http.get(f"/v1/builds/{build}/tool-calls/toolu_without_answer")).json()
    assert (lost["lost"], lost["input"], lost["result"]) == (True, {}, [{"type": "text", "text": "(no output)"}])
    for unknown, status in (("toolu_c", 404), ("a.b", 422)):
        assert (await api.http.get(f"/v1/builds/{build}/tool-calls/{unknown}")).status_code == status


async def test_an_image_is_shown_only_in_a_build_that_has_taken_it(api: RunningApi) -> None:
    build, other = await api.build(), await api.build()
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    taken, of_gate, quoted = ("1a" * 32, "2b" * 32, "3c" * 32)
    for each in (taken, of_gate, quoted):
        await store.put_image(each, b"picture")
    await _turn(api, build, 1, _asks("toolu_1"), _asks("toolu_2"))
    await _call(api, build, 1, "toolu_1", render_result("toolu_1", [ImageRef(taken)]))
    forged = f'{{"data":"sha256:{quoted}"}}'
    await _call(api, build, 1, "toolu_2", render_result("toolu_2", forged), position=1)
    async with transaction(api.sessions) as tx:
        tx.session.add(
            GateRun(
                build_id=uuid.UUID(build),
                number=1,
                snapshot_number=1,
                screenshots={"mobile": image_key(of_gate)},
            )
        )
    for sha256 in (taken, of_gate):
        shown = await api.http.get(f"/v1/builds/{build}/images/{sha256}")
        assert (shown.status_code, shown.content, shown.headers["content-type"]) == (200, b"picture", "image/webp")
        assert "sandbox" in shown.headers["content-security-policy"]
        assert shown.headers["cache-control"].startswith("private")
        assert (await api.http.get(f"/v1/builds/{other}/images/{sha256}")).status_code == 404
    assert (await api.http.get(f"/v1/builds/{build}/images/{quoted}")).status_code == 404
    assert (await api.http.get(f"/v1/builds/{build}/images/%2e%2e")).status_code in (404, 422)


async def test_another_user_finds_nothing_of_a_conversation(api: RunningApi) -> None:
    build = await api.build()
    await _turn(api, build, 1, _asks("toolu_1"))
    await _call(api, build, 1, "toolu_1", render_result("toolu_1", [ImageRef("4d" * 32)]))
    for path in ("turns", "tool-calls/toolu_1", f"images/{'4d' * 32}"):
        answer = await api.http.get(f"/v1/builds/{build}/{path}", headers=as_user("eve"))
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:cofounder:problem:not-found"), path


async def test_progress_is_read_without_the_feed(api: RunningApi) -> None:
    build = await api.build()
    build_id = uuid.UUID(build)
    path = f"/v1/builds/{build}/progress"
    begun = (await api.http.get(path)).json()
    assert begun == {
        **{"turn": 0, "calls": 0, "failed_calls": 0, "unread": 0, "phases": [], "gates": [], "sleeps": []},
        "queue_place": begun["queue_place"],
    }
    assert begun["queue_place"] >= 1
    later = await api.build()
    assert (await api.http.get(f"/v1/builds/{later}/progress")).json()["queue_place"] == begun["queue_place"] + 1

    await _turn(api, build, 1, _asks("toolu_1"), _asks("toolu_2"))
    for position, fields in enumerate(({}, {"is_error": True}, {"is_error": True, "lost": True})):
        call_id = f"toolu_{position}"
        await _call(api, build, 1, call_id, render_result(call_id, "x"), position=position, **fields)
    assert (await api.http.post(f"/v1/builds/{build}/messages", json={"text": "Hello."})).status_code == 201
    sha256 = "5e" * 32
    async with transaction(api.sessions) as tx:
        gate = {"build_id": build_id, "snapshot_number": 1, "ended_at": func.now()}
        tx.session.add(GateRun(**gate, number=1, findings=["It fails."], tests_run=2))
        tx.session.add(GateRun(**gate, number=2, findings=[], screenshots={"desktop": image_key(sha256)}))
        tx.session.add(GateRun(build_id=build_id, number=3, snapshot_number=2))
        phase = PhaseCompletedEvent(phase=1, commit="c" * 40, title="A page")
        asleep = StatusEvent(status="sleeping", reason="No money.", wakes_at="2026-11-25T00:00:00+00:00")
        statuses = [asleep, asleep, StatusEvent(status="code"), asleep]
        await append_events(tx, build_id, [phase, GatePassedEvent(number=2), *statuses], turn=1)
    read = (await api.http.get(path)).json()
    counts = {name: read[name] for name in ("turn", "calls", "failed_calls", "unread")}
    assert counts == {"turn": 1, "calls": 3, "failed_calls": 1, "unread": 1}
    [ended] = read["phases"]
    assert (ended["number"], ended["title"], ended["commit"], ended["turn"]) == (1, "A page", "c" * 40, 1)
    assert [(gate["passed"], gate["findings"]) for gate in read["gates"]] == [
        (False, ["It fails."]),
        (True, []),
        (None, []),
    ]
    assert read["gates"][1]["screenshots"] == {"desktop": f"/v1/builds/{build}/images/{sha256}"}
    first, second = read["sleeps"]
    assert (first["reason"], first["until"] is None, second["until"]) == ("No money.", False, None)
    whole = (await api.http.get(f"/v1/builds/{build}")).json()
    assert (whole["turn"], whole["project_name"]) == (1, "Pantry Pal")
    assert (await api.http.get(path, headers=as_user("eve"))).status_code == 404
