"""API keys over HTTP: made, used, rotated, revoked, and refused in every way in which one can be wrong."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from db.models import ApiKey, Base
from db.transaction import transaction
from db.users import ensure_user
from domain.api_keys import MAX_KEYS, ApiKeyText, parse
from domain.identity import FOUNDER_SCOPES
from local.stack import LocalStack
from tests.harness.api_server import (
    OPERATORS,
    RunningApi,
    for_user,
    new_database,
    running_api,
    settings_for,
)

FOUNDERS = sorted(map(str, FOUNDER_SCOPES))


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), api_operator_token=SecretStr(OPERATORS))
    async with running_api(settings, stack.environment) as running:
        async with transaction(running.sessions) as tx:
            for user in ("ada", "eve", "max"):
                await ensure_user(tx, user)
        yield running


async def _make(api: RunningApi, user: str = "ada", **body: Any) -> dict[str, Any]:
    headers = for_user(user)
    answer = await api.http.post("/v1/keys", json={"name": "a program", **body}, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def _with(key: dict[str, Any] | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key['secret']}"}


async def _me(api: RunningApi, key: dict[str, Any] | str) -> httpx2.Response:
    return await api.http.get("/v1/me", headers=_with(key))


async def _change(api: RunningApi, key: dict[str, Any], **values: Any) -> None:
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(ApiKey).where(ApiKey.id == key["key"]["id"]).values(**values))


async def test_a_key_acts_for_its_user_and_its_secret_is_stored_nowhere(api: RunningApi) -> None:
    with structlog.testing.capture_logs() as logs:
        made = await _make(api, name="  the nightly export ")
        assert (made["key"]["name"], made["key"]["scopes"]) == ("the nightly export", FOUNDERS)
        expires_at = datetime.fromisoformat(made["key"]["expires_at"])
        assert timedelta(days=89) < expires_at - datetime.now(UTC) < timedelta(days=91)
        me = await _me(api, made)
    assert me.status_code == 200, me.text
    seen = me.json()
    assert (seen["user"], seen["actor"], seen["how"]) == ("ada", "ada", "api_key")
    assert (seen["credential_id"], seen["scopes"]) == (made["key"]["id"], FOUNDERS)
    assert [(each["name"], each["role"]) for each in seen["organisations"]] == [("ada", "owner")]

    listed = await api.http.get("/v1/keys", headers=_with(made))
    assert listed.json()["keys"][0]["id"] == made["key"]["id"]
    secret = made["secret"].rpartition("_")[2]
    assert secret not in listed.text
    assert secret not in str(logs)
    async with transaction(api.sessions) as tx:
        for table in Base.metadata.sorted_tables:
            rows = "".join(await tx.session.scalars(text(f'select t::text from "{table.name}" t')))
            assert secret not in rows
            assert secret.encode().hex() not in rows


async def test_a_key_reaches_only_its_users_rows_and_scopes(api: RunningApi) -> None:
    project = await api.project()
    reader = await _make(api, "eve", scopes=["builds:read", "account:read"])
    assert (await api.http.get(f"/v1/projects/{project}", headers=_with(reader))).status_code == 404
    refused = await api.http.post("/v1/projects", json={"name": "Mine"}, headers=_with(reader))
    assert (refused.status_code, refused.json()["scope"]) == (403, "builds:write")
    assert (await api.http.get("/v1/projects", headers=_with(reader))).json()["projects"] == []
    # Only operators act for others, whatever a header says.
    assert (await api.http.get("/v1/me", headers=_with(reader) | {"X-Cofounder-User": "ada"})).status_code == 403


async def test_a_key_makes_no_key_with_more_scopes_or_a_longer_life(api: RunningApi) -> None:
    maker = await _make(api, "eve", scopes=["builds:read", "account:write", "account:read"], days=3)

    async def make(**body: Any) -> httpx2.Response:
        return await api.http.post("/v1/keys", json={"name": "a child", **body}, headers=_with(maker))

    assert (await make()).json()["key"]["scopes"] == ["account:read", "account:write", "builds:read"]
    assert (await make()).json()["key"]["expires_at"] == maker["key"]["expires_at"]
    for body in ({"scopes": ["builds:write"]}, {"scopes": ["ops:read", "builds:read"]}, {"days": 4}):
        refused = await make(**body)
        assert refused.status_code == 422, refused.text
    # Neither by rotating a key that has more.
    other = await _make(api, "eve")
    rotated = await api.http.post(f"/v1/keys/{other['key']['id']}/rotate", json={}, headers=_with(maker))
    assert (rotated.status_code, "builds:write" in rotated.json()["detail"]) == (422, True)
    # Nor by rotating itself: the clock of the first key goes on.
    itself = await api.http.post(f"/v1/keys/{maker['key']['id']}/rotate", json={}, headers=_with(maker))
    assert itself.json()["key"]["expires_at"] == maker["key"]["expires_at"]
    founder = await api.http.post("/v1/keys", json={"name": "too much", "scopes": ["ops:write"]})
    assert founder.status_code == 422
    operator = await _make(api, "eve", scopes=["ops:read", "ops:write"])
    assert operator["key"]["scopes"] == ["ops:read", "ops:write"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "a", "scopes": []}, "scopes"),
        ({"name": "a", "scopes": ["everything"]}, "scopes[0]"),
        ({"name": "a", "days": 0}, "days"),
        ({"name": "a", "days": 367}, "days"),
        ({"name": "a", "expires": "never"}, "expires"),
        ({}, "name"),
    ],
)
async def test_what_a_key_can_not_be_is_refused_by_name(api: RunningApi, body: dict[str, Any], field: str) -> None:
    refused = await api.http.post("/v1/keys", json=body)
    assert (refused.status_code, [each["field"] for each in refused.json()["errors"]]) == (422, [field])


async def test_after_a_rotation_both_keys_work_until_the_overlap_ends(api: RunningApi) -> None:
    old = await _make(api, scopes=["builds:read", "account:read"], days=30)
    path = f"/v1/keys/{old['key']['id']}/rotate"
    new = (await api.http.post(path, json={"overlap_seconds": 3600}, headers=for_user("ada"))).json()
    assert (new["key"]["name"], new["key"]["scopes"]) == (old["key"]["name"], old["key"]["scopes"])
    assert new["secret"] != old["secret"]
    lifetime = datetime.fromisoformat(new["key"]["expires_at"]) - datetime.fromisoformat(new["key"]["created_at"])
    assert timedelta(days=29, hours=23) < lifetime < timedelta(days=30, hours=1)
    assert [(await _me(api, key)).status_code for key in (old, new)] == [200, 200]
    again = await api.http.post(path, json={}, headers=for_user("ada"))
    assert (again.status_code, new["key"]["id"] in again.json()["detail"]) == (409, True)

    async with transaction(api.sessions) as tx:
        row = (await tx.session.scalars(select(ApiKey).where(ApiKey.id == old["key"]["id"]))).one()
    assert row.expires_at is not None
    assert timedelta(minutes=59) < row.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    await _change(api, old, expires_at=func.now() - timedelta(seconds=1))
    ended = await _me(api, old)
    assert (ended.status_code, ended.json()["reason"]) == (401, "key-expired")
    assert new["key"]["id"] in ended.json()["detail"]
    assert (await _me(api, new)).status_code == 200


async def test_without_an_overlap_the_old_key_ends_at_once(api: RunningApi) -> None:
    old = await _make(api)
    path = f"/v1/keys/{old['key']['id']}/rotate"
    new = await api.http.post(path, json={"overlap_seconds": 0}, headers=_with(old))
    assert new.status_code == 201, new.text
    assert [(await _me(api, key)).status_code for key in (old, new.json())] == [401, 200]
    ended = await api.http.post(path, json={}, headers=_with(new.json()))
    assert (ended.status_code, "has ended" in ended.json()["detail"]) == (409, True)


async def test_rotations_at_the_same_time_make_one_key(api: RunningApi) -> None:
    old = await _make(api, "max")
    path = f"/v1/keys/{old['key']['id']}/rotate"
    answers = await asyncio.gather(*(api.http.post(path, json={}, headers=_with(old)) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]


async def test_revoking_ends_what_the_key_has_made_and_replaced(api: RunningApi) -> None:
    parent = await _make(api)
    child = (await api.http.post("/v1/keys", json={"name": "child"}, headers=_with(parent))).json()
    grandchild = (await api.http.post("/v1/keys", json={"name": "grandchild"}, headers=_with(child))).json()
    by_itself = await api.http.post(f"/v1/keys/{child['key']['id']}/rotate", json={}, headers=_with(child))
    stranger = await _make(api)
    assert (await api.http.delete(f"/v1/keys/{parent['key']['id']}", headers=_with(stranger))).status_code == 204
    for key in (parent, child, grandchild, by_itself.json()):
        ended = await _me(api, key)
        assert (ended.status_code, ended.json()["reason"]) == (401, "key-revoked"), key
    assert (await _me(api, stranger)).status_code == 200

    old = await _make(api)
    new = (await api.http.post(f"/v1/keys/{old['key']['id']}/rotate", json={}, headers=_with(old))).json()
    assert (await api.http.delete(f"/v1/keys/{new['key']['id']}", headers=_with(new))).status_code == 204
    assert [(await _me(api, key)).status_code for key in (old, new)] == [401, 401]
    # Revoking it again succeeds: the key is as it should be.
    path = f"/v1/keys/{new['key']['id']}"
    assert (await api.http.delete(path, headers=_with(stranger))).status_code == 204


async def test_keys_of_another_user_do_not_exist(api: RunningApi) -> None:
    key = await _make(api, "ada")
    eve = for_user("eve")
    path = f"/v1/keys/{key['key']['id']}"
    assert (await api.http.delete(path, headers=eve)).status_code == 404
    assert (await api.http.post(f"{path}/rotate", json={}, headers=eve)).status_code == 404
    assert key["key"]["id"] not in (await api.http.get("/v1/keys", headers=eve)).text
    assert (await _me(api, key)).status_code == 200


@pytest.mark.parametrize("change", ["truncated", "mistyped", "wrong secret", "unknown", "expired", "revoked"])
async def test_a_key_that_does_not_work_is_refused_with_its_reason(api: RunningApi, change: str) -> None:
    key = await _make(api)
    text, part = key["secret"], parse(key["secret"])
    digit = "0" if text[-1] != "0" else "1"
    sent, reason, words = {
        "truncated": (text[:-5], "key-incomplete", "incomplete or mistyped"),
        "mistyped": (text[:-1] + digit, "key-incomplete", "incomplete or mistyped"),
        "wrong secret": (str(ApiKeyText(part.id, "ab" * 32)), "key-unknown", "not known here"),
        "unknown": (str(ApiKeyText("ab" * 8, part.secret)), "key-unknown", "not known here"),
        "expired": (text, "key-expired", "expired on"),
        "revoked": (text, "key-revoked", "was revoked on"),
    }[change]
    if change == "expired":
        await _change(api, key, expires_at=func.now())
    if change == "revoked":
        await _change(api, key, revoked_at=func.now())
    refused = await _me(api, sent)
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (401, "urn:cofounder:problem:unauthorized")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert (problem["reason"], words in problem["detail"]) == (reason, True), problem
    assert "cofounder keys create" in problem["detail"]
    assert part.secret not in refused.text
    # Someone who has only the id learns nothing about the key.
    if change in ("expired", "revoked"):
        guess = (await _me(api, str(ApiKeyText(part.id, "ab" * 32)))).json()
        assert guess["reason"] == "key-unknown"


async def test_a_key_of_another_deployment_is_refused(api: RunningApi, stack: LocalStack) -> None:
    key = await _make(api)
    async with running_api(settings_for(await new_database(stack)), stack.environment) as other:
        refused = await _me(other, key)
    assert (refused.status_code, "of another deployment" in refused.json()["detail"]) == (401, True)


async def test_use_is_noted_at_most_once_a_minute(api: RunningApi) -> None:
    key = await _make(api)

    async def noted() -> datetime | None:
        async with transaction(api.sessions) as tx:
            at: datetime | None = await tx.session.scalar(
                select(ApiKey.last_used_at).where(ApiKey.id == key["key"]["id"])
            )
            return at

    assert await noted() is None
    await _me(api, key)
    first = await noted()
    await _me(api, key)
    assert first is not None
    assert await noted() == first
    await _change(api, key, last_used_at=func.now() - timedelta(seconds=61))
    await _me(api, key)
    assert (await noted() or first) > first


async def test_a_user_has_a_limited_number_of_keys(api: RunningApi) -> None:
    user = f"u-{uuid.uuid4().hex}"
    async with transaction(api.sessions) as tx:
        await ensure_user(tx, user)
    headers = for_user(user)
    first = await _make(api, user)
    async with transaction(api.sessions) as tx:
        await tx.session.execute(
            text(
                "insert into api_keys (id, user_id, name, secret_hash, scopes, created_by, expires_at) "
                "select 'filler ' || n, :user, 'filler', '', '[]', :user, now() + interval '1 day' "
                "from generate_series(1, :most - 1 - (select count(*) from api_keys where user_id = :user)) n"
            ),
            {"user": user, "most": MAX_KEYS},
        )
    answers = await asyncio.gather(
        *(api.http.post("/v1/keys", json={"name": "one more"}, headers=headers) for _ in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert (await api.http.delete(f"/v1/keys/{first['key']['id']}", headers=headers)).status_code == 204
    assert (await api.http.post("/v1/keys", json={"name": "one more"}, headers=headers)).status_code == 201
