"""What operators see of all builds, and that no one else finds anything there."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from checks.run import SERVER_CHECKS
from db.models import AuditEntry, Build, Event, ReaperStep, Turn
from db.transaction import transaction
from domain.audit import Action
from domain.names import build_workflow_id
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
from tests.harness.fleet import fill_fleet
from tests.harness.wait import wait_until

BUILDS = 40


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(
        await new_database(stack),
        stack.environment,
        api_operator_token=SecretStr(OPERATORS),
        temporal_ui_url="http://temporal.example.com",
        sandbox_quota=7,
    )
    async with running_api(settings, stack.environment) as running:
        await fill_fleet(running.sessions, BUILDS)
        yield running


async def ask(api: RunningApi, path: str, **query: Any) -> dict[str, Any]:
    answer = await api.http.get(f"/v1/ops/{path}", params=query, headers=AS_OPERATOR)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def sign_in(api: RunningApi, user: str) -> dict[str, str]:
    """Sign a browser in as a founder, and return the headers of its requests."""
    link = await api.http.post("/v1/sign-in-links", json={}, headers=as_user(user))
    code = link.json()["url"].partition("#code=")[2]
    answer = await api.http.post("/v1/sign-ins", json={"code": code}, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 201, answer.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    api.http.cookies.clear()
    return {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}


async def test_founders_find_nothing(api: RunningApi) -> None:
    """By key, by sign-in, and by the API's own token: the answer is that of an address that does not exist."""
    description = (await api.http.get("/openapi.json")).json()
    operations = [
        (method.upper(), path)
        for path, methods in description["paths"].items()
        if path.startswith("/v1/ops/")
        for method in methods
    ]
    assert len(operations) >= 3
    for headers in (as_user("fleet-1"), await sign_in(api, "fleet-2"), {}):
        for method, path in operations:
            where = path.replace("{build_id}", str(uuid.uuid4())).replace("{run_id}", str(uuid.uuid4()))
            where = where.replace("{name}", "fleet_day")
            body: dict[str, Any] | None = None if method in ("GET", "DELETE") else {}
            request = api.http.build_request(method, where, json=body, headers=headers)
            if "Cookie" in headers:
                del request.headers["Authorization"]
            answer = await api.http.send(request)
            assert answer.status_code == 404, f"{method} {path}: {answer.text}"
            nothing = {"type": "urn:cofounder:problem:not-found", "title": "Not found", "status": 404}
            assert answer.json() == nothing | {"detail": f"There is nothing at {where}."}


async def test_founders_find_nothing_with_a_body_that_can_not_be_read(api: RunningApi) -> None:
    json = {"Content-Type": "application/json"}
    for content in (b"{", b"\xff"):
        for path, kind in (
            ("ops/bulk", json),
            ("ops/bulk", {"Content-Type": "text/plain"}),
            ("ops/reaper/pause", json),
        ):
            answer = await api.http.post(f"/v1/{path}", content=content, headers=as_user("fleet-1") | kind)
            assert answer.status_code == 404, answer.text
        answer = await api.http.post("/v1/ops/bulk", content=content, headers=AS_OPERATOR | json)
        assert answer.status_code == 400
        unknown = {"Authorization": "Bearer none"} | json
        assert (await api.http.post("/v1/ops/bulk", content=content, headers=unknown)).status_code == 401


async def test_fleet(api: RunningApi) -> None:
    fleet = await ask(api, "fleet")
    counts = {(each["status"], each["waiting_for"] or each["dependency"]): each["count"] for each in fleet["builds"]}
    assert counts[("sleeping", None)] == BUILDS // 2
    assert counts[("waiting", "model")] + counts[("waiting", "sandbox")] == BUILDS // 10
    assert counts[("needs_input", "operator")] == BUILDS // 20
    assert sum(counts.values()) == BUILDS, "builds that ended before today are left out"
    spend = fleet["spend_today"]
    assert spend["spent_microdollars"] == sum(each["spent_microdollars"] for each in spend["by_plan"]) > 0
    assert spend["spent_microdollars"] == sum(each["spent_microdollars"] for each in spend["by_model"])
    assert {each["key"] for each in spend["by_plan"]} == {"bootstrapper", "partner"}
    assert fleet["turns_last_minute"] == 0
    assert fleet["permits"][0] == {"kind": "all", "used": 0, "quota": 7, "queued": 0}
    assert {each["name"]: each["builds"] for each in fleet["dependencies"]}["model"] == counts[("waiting", "model")]


async def test_turns_of_the_last_minute_are_counted(api: RunningApi) -> None:
    working = (await ask(api, "builds", status="code", limit=1))["builds"][0]["id"]
    async with transaction(api.sessions) as tx:
        now = update(Turn).where(Turn.build_id == uuid.UUID(working), Turn.number > 1).values(answered_at=func.now())
        await tx.session.execute(now)
    assert (await ask(api, "fleet"))["turns_last_minute"] == 2


async def test_list_is_filtered_and_paged(api: RunningApi) -> None:
    whole = await ask(api, "builds", limit=500)
    assert whole["total"] == len(whole["builds"]) == BUILDS * 2
    assert whole["next_cursor"] is None

    listed = await ask(api, "builds", status="sleeping", plan="partner")
    assert listed["total"] == len(listed["builds"]) > 0
    assert {(each["status"], each["plan"]) for each in listed["builds"]} == {("sleeping", "partner")}
    assert listed["where"] == "status=sleeping and plan=partner"
    assert 'BuildStatus = "sleeping" AND BuildPlan = "partner"' in listed["temporal_query"]
    assert listed["temporal_command"].startswith("temporal workflow list --namespace default --query ")
    assert await ask(api, "builds", where=listed["where"]) == listed
    first = listed["builds"][0]["id"]
    named = await ask(api, "builds", where=f"id={first}")
    assert [each["id"] for each in named["builds"]] == [first]

    first = listed["builds"][0]
    assert first["temporal_url"] == (
        f"http://temporal.example.com/namespaces/default/workflows/{build_workflow_id(first['id'])}"
    )
    assert first["turn"] == 3
    assert first["spent_microdollars"] == 3006
    assert first["last_event_at"] is not None


@pytest.mark.parametrize("sort", ["-created_at", "since", "-spent", "turn", "wakes_at", "-last_event_at"])
async def test_pages_have_every_build_once(api: RunningApi, sort: str) -> None:
    query: dict[str, Any] = {"open": "true", "sort": sort, "limit": 7}
    whole = await ask(api, "builds", open="true", sort=sort, limit=500)
    ids: list[str] = []
    page = await ask(api, "builds", **query)
    while True:
        ids += [each["id"] for each in page["builds"]]
        if page["next_cursor"] is None:
            break
        page = await ask(api, "builds", **query, cursor=page["next_cursor"])
    assert ids == [each["id"] for each in whole["builds"]]
    assert len(set(ids)) == BUILDS


async def test_cursor_of_another_order_is_refused(api: RunningApi) -> None:
    page = await ask(api, "builds", limit=1)
    query = {"sort": "turn", "cursor": page["next_cursor"]}
    answer = await api.http.get("/v1/ops/builds", params=query, headers=AS_OPERATOR)
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"where": "status=asleep"}, "status"),
        ({"where": "colour=red"}, "where"),
        ({"where": "open=true", "open": "true"}, "where"),
        ({"status": "asleep"}, "status"),
        ({"sort": "beauty"}, "sort"),
    ],
)
async def test_wrong_filters_are_explained(api: RunningApi, query: dict[str, str], field: str) -> None:
    answer = await api.http.get("/v1/ops/builds", params=query, headers=AS_OPERATOR)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)


async def test_age_and_closed_builds(api: RunningApi) -> None:
    ended = await ask(api, "builds", open="false")
    assert ended["total"] == BUILDS
    assert {each["status"] for each in ended["builds"]} == {"failed"}
    old = await ask(api, "builds", where="status=failed and older_than_seconds=86400")
    assert old["total"] == BUILDS
    assert old["temporal_query_left_out"] == ["older_than_seconds"]
    assert (await ask(api, "builds", where="open=true and older_than_seconds=86400"))["total"] == 0


async def test_temporal_takes_the_query(stack: LocalStack) -> None:
    """The query that is shown finds the workflow of the build that the filter matches."""
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=SecretStr(OPERATORS))
    async with running_api(settings, stack.environment) as api:
        build = await api.build()
        for where in ("open=true and status=queued", "user=founder", "plan=bootstrapper and user=founder,bob"):
            listed = await ask(api, "builds", where=where)
            assert [each["id"] for each in listed["builds"]] == [build]
            query = f'WorkflowId = "{build_workflow_id(build)}" AND {listed["temporal_query"]}'

            async def finds_it(query: str = query) -> bool:
                return [each.id async for each in api.temporal.list_workflows(query)] == [build_workflow_id(build)]

            await wait_until(finds_it)
        assert (await ask(api, "builds", version="v1"))["builds"] == []
        [unversioned] = (await ask(api, "builds", where="version=unversioned"))["builds"]
        assert (unversioned["id"], unversioned["version"]) == (build, None)
        await api.temporal.get_workflow_handle(build_workflow_id(build)).terminate()


async def test_reading_is_recorded_once_an_hour(api: RunningApi) -> None:
    for _ in range(2):
        await ask(api, "builds")
        await ask(api, "fleet")
    async with transaction(api.sessions) as tx:
        entries = await tx.session.scalars(select(AuditEntry).where(AuditEntry.action == Action.FLEET_READ))
        assert [(each.actor, each.how) for each in entries] == [("operator", "operator_token")]
    for user in ("named", "other", "named"):
        await ask(api, "builds", user=user)
    async with transaction(api.sessions) as tx:
        query = select(AuditEntry.user_id).where(AuditEntry.user_id.in_(("named", "other"))).order_by(AuditEntry.id)
        assert list(await tx.session.scalars(query)) == ["named", "other"]


async def test_stuck_builds_and_why(api: RunningApi) -> None:
    silent = (await ask(api, "builds", status="code", sort="created_at", limit=1))["builds"][0]["id"]
    async with transaction(api.sessions) as tx:
        long_ago = {"created_at": func.now() - timedelta(hours=1)}
        await tx.session.execute(update(Event).where(Event.build_id == uuid.UUID(silent)).values(long_ago))
        old = {"status_at": func.now() - timedelta(hours=1)}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(silent)).values(old))
        tx.session.add(ReaperStep(step="a step", alert="Two sandboxes can't be ended.", alert_at=func.now()))
    stuck = await ask(api, "stuck")
    why = {each["build"]["id"]: [reason["kind"] for reason in each["why"]] for each in stuck["builds"]}
    assert why[silent] == ["silent"]
    kinds = [kind for kinds in why.values() for kind in kinds]
    assert kinds.count("waits_for_operator") == BUILDS // 20
    assert {"reaper", "no_worker"} <= {each["kind"] for each in stuck["others"]}
    assert all(reason["remedy"] for each in stuck["builds"] for reason in each["why"])

    whole = await ask(api, f"builds/{silent}")
    assert [each["kind"] for each in whole["why"]] == ["silent"]
    assert whole["build"]["id"] == silent
    assert (whole["workflow"], whole["temporal_answers"]) == (None, True)
    assert [event["id"] for event in whole["events"]] == [3, 2, 1]
    [ledger] = whole["ledger"]
    assert (ledger["calls"], ledger["spent_microdollars"]) == (3, 3006)
    assert (await api.http.get(f"/v1/ops/builds/{uuid.uuid4()}", headers=AS_OPERATOR)).status_code == 404
    async with transaction(api.sessions) as tx:
        read = select(AuditEntry).where(AuditEntry.build_id == uuid.UUID(silent))
        [entry] = await tx.session.scalars(read)
        assert (entry.action, entry.user_id) == (Action.USER_READ, whole["build"]["user_id"])


async def test_spending_beside_the_week_before(api: RunningApi) -> None:
    by_user = await ask(api, "spend")
    assert by_user["by"] == "user"
    rows = {each["key"]: each for each in by_user["rows"]}
    assert len(rows) == BUILDS // 4
    assert [each["spent_microdollars"] for each in by_user["rows"]] == sorted(
        (each["spent_microdollars"] for each in by_user["rows"]), reverse=True
    )
    # Each of a user's four builds has three calls: one today, two on the days before.
    one = rows["fleet-1"]
    assert (one["calls"], one["input_tokens"], one["spent_microdollars"]) == (4, 4000, 4 * 1003)
    assert one["before_microdollars"] == pytest.approx(4 * (1001 + 1002) / 7)
    for by in ("plan", "model"):
        summed = await ask(api, "spend", by=by)
        assert sum(each["calls"] for each in summed["rows"]) == sum(each["calls"] for each in rows.values())
    day = by_user["from"]
    days = await ask(api, "spend", by="day", **{"from": str(date.fromisoformat(day) - timedelta(days=5)), "to": day})
    assert [each["calls"] for each in days["rows"]] == [BUILDS] * 3
    wrong = {"from": "2026-02-02", "to": "2026-01-01"}
    assert (await api.http.get("/v1/ops/spend", params=wrong, headers=AS_OPERATOR)).status_code == 422


async def test_checks_quote_no_secret_and_are_kept(api: RunningApi) -> None:
    found = await ask(api, "checks")
    names = {each["name"]: each for each in found["checks"]}
    assert set(names) == {name for name, _ in SERVER_CHECKS}
    assert names["database"]["state"] == "ok", names["database"]
    assert names["outages"]["state"] == "warn"
    whole = json.dumps(found)
    assert not [secret for secret in api.settings.secret_values() if secret in whole]
    assert await ask(api, "checks") == found, "the same results for ten seconds"
