"""What operators do over the API: acts on many builds, switches, limits."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from domain.names import bulk_workflow_id
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


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=SecretStr(OPERATORS))
    async with running_api(settings, stack.environment) as running:
        yield running


async def _builds(api: RunningApi, user: str, number: int) -> list[str]:
    builds = []
    for _ in range(number):
        path = f"/v1/projects/{await api.project(user)}/builds"
        builds.append((await api.http.post(path, json={"goal": "Build it."}, headers=as_user(user))).json()["id"])
    return builds


async def test_a_run_is_tried_made_read_stopped_and_resumed(api: RunningApi) -> None:
    builds = await _builds(api, "bulk-1", 3)
    wanted = {"act": "cancel", "where": "user=bulk-1 and open=true", "rate_per_second": 5, "reason": "a test"}
    tried = await api.http.post("/v1/ops/bulk", json={**wanted, "dry_run": True}, headers=AS_OPERATOR)
    assert (tried.status_code, tried.json()["count"], tried.json()["fitting"]) == (200, 3, 3)
    assert [each["build_id"] for each in tried.json()["sample"]] == builds
    waking = await api.http.post("/v1/ops/bulk", json={**wanted, "act": "wake", "dry_run": True}, headers=AS_OPERATOR)
    assert waking.json()["fitting"] == 0
    assert {each["why_not"] for each in waking.json()["sample"]} == {"The build does not wait: it is queued."}

    headers = {**AS_OPERATOR, "Idempotency-Key": "one"}
    made = await api.http.post("/v1/ops/bulk", json=wanted, headers=headers)
    again = await api.http.post("/v1/ops/bulk", json=wanted, headers=headers)
    assert (made.status_code, made.json()["id"]) == (201, again.json()["id"])
    reused = await api.http.post("/v1/ops/bulk", json={**wanted, "reason": "another"}, headers=headers)
    assert reused.status_code == 409
    run = f"/v1/ops/bulk/{made.json()['id']}"
    assert (made.json()["total"], made.json()["pending"], made.json()["by"]) == (3, 3, "operator")
    workflow = api.temporal.get_workflow_handle(bulk_workflow_id(made.json()["id"]))
    assert (await workflow.describe()).status is not None

    first = (await api.http.get(run, params={"limit": 2}, headers=AS_OPERATOR)).json()
    second = (await api.http.get(run, params={"cursor": first["next_cursor"]}, headers=AS_OPERATOR)).json()
    assert [each["build_id"] for each in first["builds"] + second["builds"]] == builds
    assert (await api.http.get(run, params={"state": "done"}, headers=AS_OPERATOR)).json()["builds"] == []

    stopped = (await api.http.post(f"{run}/stop", headers=AS_OPERATOR)).json()
    assert (stopped["state"], stopped["stopped_by"]) == ("stopped", "operator")
    assert (await api.http.post(f"{run}/resume", headers=AS_OPERATOR)).json()["state"] == "running"

    wanted["where"] = "user=no-one"
    empty = (await api.http.post("/v1/ops/bulk", json=wanted, headers=AS_OPERATOR)).json()
    assert (empty["state"], empty["total"]) == ("finished", 0)
    page = (await api.http.get("/v1/ops/bulk", params={"limit": 1}, headers=AS_OPERATOR)).json()
    assert [each["id"] for each in page["runs"]] == [empty["id"]]
    then = {"cursor": page["next_cursor"]}
    rest = (await api.http.get("/v1/ops/bulk", params=then, headers=AS_OPERATOR)).json()
    assert [each["id"] for each in rest["runs"]] == [made.json()["id"]]
    bad = await api.http.post("/v1/ops/bulk", json={**wanted, "where": "colour=red"}, headers=AS_OPERATOR)
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "where")
    missing = await api.http.get(f"/v1/ops/bulk/{uuid.uuid4()}", headers=AS_OPERATOR)
    assert missing.status_code == 404


async def test_switches_and_limits_hold_at_once(api: RunningApi) -> None:
    off = {"scope": "user", "key": "switched", "reason": "a test"}
    project = await api.project("switched")
    switched = await api.http.put("/v1/ops/switches", json=off, headers=AS_OPERATOR)
    assert (switched.status_code, switched.json()["by"]) == (200, "operator")
    start: dict[str, Any] = {
        "url": f"/v1/projects/{project}/builds",
        "json": {"goal": "Build it."},
        "headers": as_user("switched"),
    }
    assert (await api.http.post(**start)).status_code == 503
    listed = (await api.http.get("/v1/ops/switches", headers=AS_OPERATOR)).json()
    assert [each["key"] for each in listed["off"]] == ["switched"]
    which = {"scope": "user", "key": "switched"}
    for was_off in (True, False):
        answer = await api.http.delete("/v1/ops/switches", params=which, headers=AS_OPERATOR)
        assert answer.json() == {"was_off": was_off}
    assert (await api.http.post(**start)).status_code == 201
    for body in (
        {**off, "scope": "fleet"},
        {"scope": "plan", "reason": "r"},
        *(off | {"scope": each, "key": "no-such"} for each in ("user", "plan", "model")),
    ):
        assert (await api.http.put("/v1/ops/switches", json=body, headers=AS_OPERATOR)).status_code == 422

    set_to = {"value_microdollars": 5_000_000}
    answer = await api.http.put("/v1/ops/limits/fleet_day", json=set_to, headers=AS_OPERATOR)
    assert (answer.json()["value_microdollars"], answer.json()["set_by"]) == (5_000_000, "operator")
    [limit] = (await api.http.get("/v1/ops/limits", headers=AS_OPERATOR)).json()["limits"]
    assert limit == answer.json()
    removed = {"value_microdollars": None}
    answer = await api.http.put("/v1/ops/limits/fleet_day", json=removed, headers=AS_OPERATOR)
    assert answer.json()["value_microdollars"] is None


async def test_who_may_only_read_changes_nothing(api: RunningApi) -> None:
    reader = await api.http.post("/v1/keys", json={"name": "reads", "scopes": ["ops:read"]}, headers=AS_OPERATOR)
    headers = {"Authorization": f"Bearer {reader.json()['secret']}"}
    assert (await api.http.get("/v1/ops/bulk", headers=headers)).status_code == 200
    refused = await api.http.put("/v1/ops/limits/fleet_day", json={"value_microdollars": 1}, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:cofounder:problem:insufficient-scope")
