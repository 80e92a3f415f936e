"""The feed of an account: how each build stands that one may see, and nothing of others."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, text, update

from db.build_states import read_states
from db.feed import append_events
from db.models import Build, Preview
from db.nudges import CHANNEL
from db.transaction import Transaction, transaction
from domain.events import NarrationEvent, PreviewEvent, StatusEvent
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, key_of, new_database, running_api, settings_for
from tests.harness.wait import wait_until


class Stream:
    """An open feed, read event by event."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        """The next event's type and data."""
        kind = ""
        async for line in self._lines:
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return kind, json.loads(line.removeprefix("data: "))
        return "", None

    async def state_at(self, last_event_id: int) -> Any:
        """The state that has come to this event; those before may be left out."""
        while True:
            kind, state = await self.next()
            assert kind == "build"
            if state["last_event_id"] >= last_event_id:
                return state


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment, open_feeds_per_user=2)
    async with running_api(settings, stack.environment) as running:
        yield running


@asynccontextmanager
async def _feed(api: RunningApi, user: str) -> AsyncIterator[Stream]:
    before = api.resources.account_feeds.viewers()
    async with api.http.stream("GET", "/v1/events", headers=as_user(user)) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        await wait_until(lambda: api.resources.account_feeds.viewers() > before)
        yield Stream(answer)


async def _build(api: RunningApi, user: str) -> str:
    project = await api.project(user)
    answer = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "Build it."}, headers=as_user(user))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_each_sees_the_states_of_their_own_builds(api: RunningApi) -> None:
    build, other = await _build(api, "ada"), await _build(api, "bob")
    async with _feed(api, "ada") as ada, _feed(api, "bob") as bob:
        async with transaction(api.sessions) as tx:
            row = update(Build).where(Build.id == uuid.UUID(build))
            await tx.session.execute(row.values(status="needs_input", waiting_for="founder", phases_completed=2))
            last = await append_events(tx, uuid.UUID(build), [StatusEvent(status="needs_input")])
        state = await ada.state_at(last)
        assert state == {
            "build_id": build,
            "project_id": state["project_id"],
            "status": "needs_input",
            "waiting_for": "founder",
            "phase": 2,
            "turn": 0,
            "level": "green",
            "last_event_id": last,
            "preview": None,
        }

        # After the end of its own feed, too.
        async with transaction(api.sessions) as tx:
            await tx.session.execute(row.values(status="ready", waiting_for=None, closed_at=func.now()))
            tx.session.add(Preview(build_id=uuid.UUID(build), state="open", url="http://127.0.0.1:1/"))
            last = await append_events(tx, uuid.UUID(build), [PreviewEvent(state="open")])
        state = await ada.state_at(last)
        assert (state["status"], state["preview"]["state"]) == ("ready", "open")

        async with transaction(api.sessions) as tx:
            last = await append_events(tx, uuid.UUID(other), [NarrationEvent(text="Mine.")])
        kind, first = await bob.next()
        assert (kind, first["build_id"], first["last_event_id"]) == ("build", other, last)

        async with api.http.stream("GET", "/v1/events", headers=as_user("ada")):
            third = await api.http.get("/v1/events", headers=as_user("ada"))
            assert (third.status_code, third.json()["type"]) == (429, "urn:cofounder:problem:too-many-requests")
    await wait_until(lambda: api.resources.account_feeds.viewers() == 0)


async def test_a_user_whose_builds_cannot_be_read_disturbs_no_one(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(tx: Transaction, user_id: str, build_ids: Collection[uuid.UUID]) -> Any:
        if user_id == "fay":
            raise ValueError("a row that this program can't read")
        return await read_states(tx, user_id, build_ids)

    monkeypatch.setattr("api.account_feeds.read_states", failing)
    # Users are read in the order of their builds' rows, so one of the others may come before or after.
    builds = {user: await _build(api, user) for user in ("erik", "fay", "gwen")}
    async with _feed(api, "erik") as erik, _feed(api, "fay") as fay, _feed(api, "gwen") as gwen:
        async with transaction(api.sessions) as tx:
            for build in builds.values():
                await append_events(tx, uuid.UUID(build), [NarrationEvent(text="At once.")])
        assert await fay.next() == ("reload", {})
        for user, stream in (("erik", erik), ("gwen", gwen)):
            kind, state = await stream.next()
            assert (kind, state.get("build_id")) == ("build", builds[user])


@pytest.mark.thorough
async def test_a_feed_ends_with_its_key(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.account_feeds._ACCESS_SECONDS", 0.05)
    await _build(api, "carol")
    async with _feed(api, "carol") as carol:
        revoked = await api.http.delete(f"/v1/keys/{key_of('carol').id}", headers=as_user("carol"))
        assert revoked.is_success, revoked.text
        assert await carol.next() == ("", None)


@pytest.mark.thorough
async def test_what_was_missed_has_to_be_read_again(api: RunningApi) -> None:
    async def end_listener() -> int:
        query = text(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and query ilike :query and pid <> pg_backend_pid()"
        )
        async with transaction(api.sessions) as tx:
            return int(await tx.session.scalar(query, {"query": f"LISTEN%{CHANNEL}%"}) or 0)

    build = await _build(api, "dora")
    async with _feed(api, "dora") as dora:
        assert await wait_until(end_listener) == 1
        kinds = []
        while "reload" not in kinds:
            kind, _ = await dora.next()
            assert kind
            kinds.append(kind)
        async with transaction(api.sessions) as tx:
            last = await append_events(tx, uuid.UUID(build), [NarrationEvent(text="Again.")])
        assert (await asyncio.wait_for(dora.state_at(last), 60))["build_id"] == build
