"""Messages to an agent: listed, and taken back unless a turn reads them first."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest
from sqlalchemy import func, text, update

from db import steering
from db.models import Build, Question
from db.transaction import transaction
from db.turns import load_turn_start
from domain.names import FINISH, build_workflow_id
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.wait import wait_until


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack)), stack.environment) as running:
        yield running


async def _send(api: RunningApi, build: str, *texts: str) -> None:
    for each in texts:
        sent = await api.http.post(f"/v1/builds/{build}/messages", json={"text": each})
        assert sent.status_code == 201, sent.text


async def _listed(api: RunningApi, build: str) -> list[Any]:
    return list((await api.http.get(f"/v1/builds/{build}/messages")).json()["messages"])


async def _read(api: RunningApi, build: str, turn: int) -> list[int]:
    async with transaction(api.sessions) as tx:
        unread = await steering.unread_messages(tx, uuid.UUID(build))
        await steering.mark_read(tx, unread, turn)
        return [message.number for message in unread]


async def _withdrawn_at_start(api: RunningApi, build: str) -> int:
    async with transaction(api.sessions) as tx:
        return (await load_turn_start(tx, uuid.UUID(build), 1, date(2026, 11, 1))).last_withdrawn


async def test_an_unread_message_is_taken_back(api: RunningApi) -> None:
    build = await api.build()
    path = f"/v1/builds/{build}/messages"
    assert await _listed(api, build) == []
    await _send(api, build, "one", "two", "three")
    assert (await api.http.delete(f"{path}/2")).status_code == 204
    assert (await api.http.delete(f"{path}/2")).status_code == 204, "a repeat"
    one, two, three = await _listed(api, build)
    assert (two["text"], two["turn"], two["read_at"]) == ("two", None, None)
    assert two["withdrawn_at"] is not None
    assert await _withdrawn_at_start(api, build) == 0, "the first message is still to be read"
    assert await _read(api, build, 4) == [1, 3]
    one, two, three = await _listed(api, build)
    assert [(each["turn"], each["withdrawn_at"] is None) for each in (one, two, three)] == [
        (4, True),
        (None, False),
        (4, True),
    ]
    refused = await api.http.delete(f"{path}/3")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:message-read")
    assert "turn 4" in refused.json()["detail"]
    await _send(api, build, "four")
    assert (await api.http.delete(f"{path}/4")).status_code == 204
    assert await _withdrawn_at_start(api, build) == 4
    await _send(api, build, "five")
    assert [each["number"] for each in await _listed(api, build)] == [1, 2, 3, 4, 5]
    async with transaction(api.sessions) as tx:
        rows = await tx.session.execute(
            text("select data->>'number' from events where build_id = :build and type = 'message_withdrawn'"),
            {"build": uuid.UUID(build)},
        )
        assert [number for (number,) in rows] == ["2", "4"]


async def test_what_cannot_be_taken_back(api: RunningApi) -> None:
    build, question = await api.build(), uuid.uuid4()
    path = f"/v1/builds/{build}/messages"
    async with transaction(api.sessions) as tx:
        asked = {"problem": "It fails.", "tried": [], "options": ["Yes.", "No."]}
        tx.session.add(Question(id=question, build_id=uuid.UUID(build), **asked))
    answer = {"question_id": str(question), "option": 1}
    assert (await api.http.post(f"/v1/builds/{build}/answer", json=answer)).status_code == 200
    refused = await api.http.delete(f"{path}/1")
    assert (refused.status_code, "answer to a question" in refused.json()["detail"]) == (409, True)
    for number, status in ((2, 404), (0, 422), (2**31, 422)):
        assert (await api.http.delete(f"{path}/{number}")).status_code == status
    await _send(api, build, "Hello.")
    for method, at in (("GET", path), ("DELETE", f"{path}/2"), ("POST", f"/v1/builds/{build}/finish")):
        assert (await api.http.request(method, at, headers=as_user("eve"))).status_code == 404
    async with transaction(api.sessions) as tx:
        closed = {"status": "failed", "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**closed))
    for method, at in (("DELETE", f"{path}/2"), ("POST", f"/v1/builds/{build}/finish")):
        ended = await api.http.request(method, at)
        assert (ended.status_code, ended.json()["type"]) == (409, "urn:cofounder:problem:build-closed")
    assert [each["withdrawn_at"] for each in await _listed(api, build)] == [None, None]


async def _waits_for_a_lock(api: RunningApi) -> bool:
    async with transaction(api.sessions) as tx:
        query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        return bool((await tx.execute(text(query), {})).scalar())


async def test_a_turn_that_reads_first_wins(api: RunningApi) -> None:
    build = await api.build()
    await _send(api, build, "one")
    async with transaction(api.sessions) as tx:
        [message] = await steering.unread_messages(tx, uuid.UUID(build))
        asking = asyncio.create_task(api.http.delete(f"/v1/builds/{build}/messages/1"))
        await wait_until(lambda: _waits_for_a_lock(api))
        await steering.mark_read(tx, [message], 1)
    assert (await asking).status_code == 409
    [listed] = await _listed(api, build)
    assert (listed["turn"], listed["withdrawn_at"]) == (1, None)


async def test_taking_back_first_wins(api: RunningApi) -> None:
    build = await api.build()
    await _send(api, build, "one")
    async with transaction(api.sessions) as tx:
        message = await steering.lock_message(tx, uuid.UUID(build), 1)
        assert message is not None
        reading = asyncio.create_task(_read(api, build, 1))
        await wait_until(lambda: _waits_for_a_lock(api))
        await steering.withdraw_message(tx, message)
    assert await reading == []
    [listed] = await _listed(api, build)
    assert (listed["turn"], listed["withdrawn_at"] is None) == (None, False)


async def test_finish_is_a_signal(api: RunningApi) -> None:
    build = await api.build()
    assert (await api.http.post(f"/v1/builds/{build}/finish")).status_code == 202
    history = await api.temporal.get_workflow_handle(build_workflow_id(build)).fetch_history()
    signals = [event.workflow_execution_signaled_event_attributes.signal_name for event in history.events]
    assert [name for name in signals if name] == [FINISH]
