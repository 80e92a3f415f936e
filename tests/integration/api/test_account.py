"""Accounts over HTTP: founders see shares of the budget, operators see money, and only operators change anything."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from db import money
from db.erasures import insert_erasure
from db.models import Build, LedgerEntry, User
from db.transaction import transaction
from domain.erasure import ErasureKind
from domain.names import MONEY, build_workflow_id
from local.stack import LocalStack
from tests.harness.api_server import (
    OPERATORS,
    RunningApi,
    as_user,
    for_user,
    new_database,
    running_api,
    settings_for,
)


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(
        await new_database(stack), stack.environment, api_operator_token=SecretStr(OPERATORS), temporal_task_queue="no"
    )
    async with running_api(settings, stack.environment) as running:
        yield running


async def read(api: RunningApi, path: str, user: str, *, operator: bool = False) -> dict[str, Any]:
    answer = await api.http.get(path, headers=for_user(user) if operator else as_user(user))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def build_of(api: RunningApi, user: str) -> str:
    project = await api.project(user)
    started = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "Go."}, headers=as_user(user))
    assert started.status_code == 201, started.text
    return str(started.json()["id"])


async def spend(api: RunningApi, build: str, cost: int, state: str = "settled") -> None:
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        closed_at = None if state == "open" else func.now()
        known: dict[str, Any] = {"turn": 1, "day": datetime.now(UTC).date(), "model": "claude-sonnet-5-5"}
        entry = LedgerEntry(id=uuid.uuid4(), build_id=row.id, user_id=row.user_id, state=state, cost=cost, **known)
        entry.closed_at = closed_at
        tx.session.add(entry)


async def test_founders_see_shares_and_operators_money(api: RunningApi) -> None:
    async with httpx2.AsyncClient(base_url=api.url, trust_env=False) as http:
        unknown = await http.get("/v1/account", headers=for_user("nobody"))
        assert (unknown.status_code, "cofounder users set" in unknown.json()["detail"]) == (404, True)
        unknown = await http.post("/v1/projects", json={}, headers=for_user("nobody"))
        assert unknown.status_code == 404
    build = await build_of(api, "ada")
    async with transaction(api.sessions) as tx:
        allowance = (await money.lock_day(tx, "ada", datetime.now(UTC).date())).allowance
    assert allowance
    await spend(api, build, allowance // 2)
    hidden = {"allowance": None, "spent": None, "reserved": None}
    half = (await read(api, "/v1/account", "ada"))["budget"]
    refreshes_at = datetime.fromisoformat(half.pop("refreshes_at"))
    assert (refreshes_at.time().isoformat(), refreshes_at > datetime.now(UTC)) == ("00:00:00", True)
    assert half.pop("percent") in (49, 50)
    assert half == {"level": "green"} | hidden
    await spend(api, build, allowance // 4, "open")
    for path in ("/v1/account", f"/v1/builds/{build}"):
        assert (await read(api, path, "ada"))["budget"]["level"] == "yellow"
        seen = (await read(api, path, "ada", operator=True))["budget"]
        assert (seen["allowance"], seen["spent"], seen["reserved"]) == (allowance, allowance // 2, allowance // 4)
    await spend(api, build, allowance // 5)
    [listed] = (await read(api, "/v1/builds", "ada"))["builds"]
    assert listed["budget"]["level"] == "red"
    assert listed["budget"]["spent"] is None


async def test_only_operators_change_accounts(api: RunningApi) -> None:
    await build_of(api, "eve")
    for method, path, body in (
        ("PATCH", "/v1/account", {"plan": "cto_scale"}),
        ("POST", "/v1/account/top-ups", {"amount": 1}),
    ):
        refused = await api.http.request(method, path, json=body, headers=as_user("eve"))
        assert (refused.status_code, "API_OPERATOR_TOKEN" in refused.json()["detail"]) == (403, True)
    assert (await read(api, "/v1/account", "eve"))["plan"] == "bootstrapper"
    object.__setattr__(api.resources.settings, "api_operator_token", None)
    try:
        anonymous = await api.http.patch("/v1/account", json={"plan": "partner"}, headers=for_user("eve"))
        assert anonymous.status_code == 401
        unset = await api.http.patch("/v1/account", json={"plan": "partner"}, headers=as_user("eve"))
        assert "cofounder users" in unset.json()["detail"]
    finally:
        object.__setattr__(api.resources.settings, "api_operator_token", SecretStr(OPERATORS))


async def test_an_account_that_is_being_deleted_stays_suspended(api: RunningApi) -> None:
    await build_of(api, "gone")
    async with transaction(api.sessions) as tx:
        await insert_erasure(tx, ErasureKind.USER, "gone", None, "gone")
    refused = await api.http.patch("/v1/account", json={"suspended": False}, headers=for_user("gone"))
    assert (refused.status_code, "is being deleted" in refused.json()["detail"]) == (409, True)
    assert (await api.http.patch("/v1/account", json={"plan": "partner"}, headers=for_user("gone"))).status_code == 200


async def test_operators_top_up_and_change_plans_and_builds_hear_of_it(api: RunningApi) -> None:
    build = await build_of(api, "bob")
    headers = for_user("bob")
    before = (await read(api, "/v1/account", "bob", operator=True))["budget"]["allowance"]
    for _ in range(2):
        topped = await api.http.post(
            "/v1/account/top-ups", json={"amount": 2_500_000}, headers=headers | {"Idempotency-Key": "k"}
        )
        assert topped.status_code == 200, topped.text
        account = topped.json()
        assert (account["topped_up"], account["budget"]["allowance"]) == (2_500_000, before + 2_500_000)
        assert account["open_builds"] == [build]
    other = await api.http.post("/v1/account/top-ups", json={"amount": 1}, headers=headers | {"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["type"]) == (409, "urn:cofounder:problem:idempotency-key-reused")
    for amount in (0, -1, 1.5, "5", 10**13, None):
        wrong = await api.http.post("/v1/account/top-ups", json={"amount": amount}, headers=headers)
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "amount")
    changed = await api.http.patch(
        "/v1/account",
        json={"plan": "cto_scale", "renewal_day": 15, "models": {"coder": "claude-haiku-5-5"}},
        headers=headers,
    )
    assert changed.status_code == 200, changed.text
    assert changed.json()["budget"]["percent"] is None, "unlimited"
    assert (changed.json()["renewal_day"], changed.json()["models"]) == (15, {"coder": "claude-haiku-5-5"})
    choice = {"model": "claude-sonnet-5-5", "effort": "low", "fallbacks": ["claude-haiku-5-5"]}
    changed = await api.http.patch("/v1/account", json={"models": {"coder": choice}}, headers=headers)
    assert (changed.json()["models"], changed.json()["choices"]) == ({"coder": choice["model"]}, {"coder": choice})
    for body, field in (
        ({"models": {"coder": choice | {"effort": "heroic"}}}, "models"),
        ({"plan": "gold"}, "plan"),
        ({"models": {"coder": "gpt"}}, "models"),
        ({"models": {"painter": None}}, "models.painter"),
        ({"renewal_day": 32}, "renewal_day"),
        ({"budget": 1}, "budget"),
    ):
        wrong = await api.http.patch("/v1/account", json=body, headers=headers)
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, field), wrong.text
    unlimited = await api.http.post("/v1/account/top-ups", json={"amount": 1}, headers=headers)
    assert (unlimited.status_code, "nothing to top up" in unlimited.json()["detail"]) == (422, True)

    history = await api.temporal.get_workflow_handle(build_workflow_id(build)).fetch_history()
    signals = [event.workflow_execution_signaled_event_attributes.signal_name for event in history.events]
    assert signals.count(MONEY) == 4
    async with transaction(api.sessions) as tx:
        told, changed_at = (
            await tx.session.execute(
                select(Build.nudged_at, User.money_changed_at)
                .join(User, User.id == Build.user_id)
                .where(Build.id == uuid.UUID(build))
            )
        ).one()
        assert told == changed_at, "the reaper must not repeat it"


async def test_a_change_of_budget_is_missed_until_it_was_delivered(api: RunningApi) -> None:
    build = uuid.UUID(await build_of(api, "joe"))
    today, later = datetime.now(UTC).date(), datetime.now(UTC) + timedelta(minutes=1)

    async def missed() -> list[money.MissedNotification]:
        async with transaction(api.sessions) as tx:
            found = await money.missed_notifications(tx, later, switched_on=False)
            return [each for each in found if each.build_id == build]

    async def sleeps() -> None:
        asleep = {"status": "sleeping", "status_at": func.clock_timestamp()}
        async with transaction(api.sessions) as tx:
            await tx.session.execute(update(Build).where(Build.id == build).values(**asleep))

    await sleeps()
    assert not await missed()
    for _ in range(2):
        async with transaction(api.sessions) as tx:
            await money.top_up(tx, "joe", 1, today)
        await sleeps()  # it read its budget before the top-up and wrote its status after it
        [change] = await missed()
        assert [change] == await missed(), "missed until it is marked"
        async with transaction(api.sessions) as tx:
            await money.mark_notified(tx, [build], change.since)
        assert not await missed()
