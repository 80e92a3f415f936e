"""Builds over HTTP: they start once, a refusal leaves no row, and commands become signals."""

import asyncio
import io
import random
import tarfile
import uuid
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, update
from temporalio.api.enums.v1 import EventType as HistoryEvent

from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore
from db.models import Build, GateRun, LedgerEntry, Preview, Snapshot, TopUp, UserDay
from db.switches import switch_off, switch_on
from db.transaction import transaction
from db.users import UserChange, change_user
from domain.judge import JudgeFinding, Judgement
from domain.names import BUILD_PLAN, BUILD_PROJECT, BUILD_STATUS, BUILD_USER, build_workflow_id, preview_workflow_id
from domain.switches import SwitchScope, refusal
from local.stack import LocalStack
from tests.harness.api_server import (
    AS_OPERATOR,
    OPERATORS,
    RunningApi,
    as_user,
    for_user,
    new_database,
    running_api,
    settings_for,
    suspend,
)


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    operators = SecretStr(OPERATORS)
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=operators)
    async with running_api(settings, stack.environment) as running:
        yield running


async def _start(api: RunningApi, project: str, goal: str = "Build it.", key: str | None = None, **further: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await api.http.post(f"/v1/projects/{project}/builds", json={"goal": goal, **further}, headers=headers)


async def _close(api: RunningApi, build: str, status: str = "failed") -> None:
    async with transaction(api.sessions) as tx:
        changes = {"status": status, "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**changes))


async def _history(api: RunningApi, workflow_id: str) -> Counter[int]:
    history = await api.temporal.get_workflow_handle(workflow_id).fetch_history()
    return Counter(event.event_type for event in history.events)


async def test_build_is_a_row_and_a_workflow(api: RunningApi) -> None:
    project = await api.project()
    answer = await _start(api, project, "  A waitlist.\nAnd more.  ")
    assert answer.status_code == 201
    build = answer.json()
    assert answer.headers["location"] == f"/v1/builds/{build['id']}"
    assert (build["status"], build["goal"], build["cost_microdollars"]) == ("queued", "A waitlist.\nAnd more.", None)
    assert build["started_at"] is not None
    assert (build["sleep_policy"], build["max_nights"]) == ("sleep", 30)

    description = await api.resources.workflows.describe(uuid.UUID(build["id"]))
    found = {key.name: value for key, value in ((p.key, p.value) for p in description.typed_search_attributes)}
    assert found == {
        BUILD_STATUS: "queued",
        BUILD_USER: "founder",
        BUILD_PROJECT: project,
        BUILD_PLAN: "bootstrapper",
        **{name: value for name, value in found.items() if name.startswith("Temporal")},
    }
    assert await description.memo() == {"user": "founder", "project": project}
    assert await description.static_summary() == "a build on the plan bootstrapper"

    assert (await api.http.get(answer.headers["location"])).json() == build
    listed = await api.http.get(f"/v1/projects/{project}/builds")
    assert listed.json() == {"builds": [build], "next_cursor": None}


async def test_repeat_with_the_key_returns_the_build(api: RunningApi) -> None:
    project = await api.project()
    first = await _start(api, project, key="once", sleep_policy="stop", max_nights=7)
    before = await api.rows()
    again = await _start(api, project, key="once", max_nights=7, sleep_policy="stop")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert (first.json()["sleep_policy"], first.json()["max_nights"]) == ("stop", 7)
    other_policy = await _start(api, project, key="once")
    assert first.headers["location"] == again.headers["location"]
    other_goal = await _start(api, project, "Something else.", key="once")
    other_project = await _start(api, await api.project(), key="once")
    for refused in (other_policy, other_goal, other_project):
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:cofounder:problem:idempotency-key-reused"
    assert (await api.rows())["builds"] == before["builds"]


async def test_key_belongs_to_its_user(api: RunningApi) -> None:
    mine = await _start(api, await api.project(), key="shared")
    theirs = await api.project("eve")
    answer = await api.http.post(
        f"/v1/projects/{theirs}/builds", json={"goal": "x"}, headers={"Idempotency-Key": "shared", **as_user("eve")}
    )
    assert (mine.status_code, answer.status_code) == (201, 201)
    assert mine.json()["id"] != answer.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
async def test_key_is_checked(api: RunningApi, key: str) -> None:
    answer = await _start(api, await api.project(), key=key)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["idempotency-key"]


async def test_twenty_at_once_with_one_key_make_one_build(api: RunningApi) -> None:
    project = await api.project()
    before = await api.rows()
    answers = await asyncio.gather(*(_start(api, project, key="storm") for _ in range(20)))
    assert sorted({answer.status_code for answer in answers}) == [200, 201]
    assert [answer.status_code for answer in answers].count(201) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await api.rows())["builds"] == before["builds"] + 1
    started = await _history(api, build_workflow_id(answers[0].json()["id"]))
    assert started[HistoryEvent.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED] == 1


async def test_twenty_at_once_without_a_key_make_one_build(api: RunningApi) -> None:
    project = await api.project()
    before = await api.rows()
    answers = await asyncio.gather(*(_start(api, project) for _ in range(20)))
    made = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 409]
    assert (len(made), len(refused)) == (1, 19)
    assert {answer.json()["build_id"] for answer in refused} == set(made)
    assert {answer.json()["type"] for answer in refused} == {"urn:cofounder:problem:open-build"}
    assert (await api.rows())["builds"] == before["builds"] + 1


async def test_closed_build_makes_room_for_the_next(api: RunningApi) -> None:
    project = await api.project()
    first = await api.build(project)
    await _close(api, first)
    second = await _start(api, project)
    assert second.status_code == 201
    listed = (await api.http.get(f"/v1/projects/{project}/builds")).json()["builds"]
    assert [build["id"] for build in listed] == [second.json()["id"], first]


async def test_builds_in_pages_and_filtered(api: RunningApi) -> None:
    user = as_user("lister")
    projects = [await api.project("lister") for _ in range(3)]
    made: list[str] = []
    for number in range(7):
        answer = await api.http.post(f"/v1/projects/{projects[number % 3]}/builds", json={"goal": "x"}, headers=user)
        assert answer.status_code == 201, answer.text
        made.insert(0, answer.json()["id"])
        if number < 4:
            await _close(api, made[0], "failed" if number % 2 else "ready")
    async with transaction(api.sessions) as tx:  # rows created at the same moment are ordered by id
        same = update(Build).where(Build.id.in_(map(uuid.UUID, made[2:5]))).values(created_at=func.now())
        await tx.session.execute(same)

    async def listed(**params: Any) -> list[str]:
        found: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await api.http.get("/v1/builds", params={**params, **cursor}, headers=user)
            assert page.status_code == 200, page.text
            found += [build["id"] for build in page.json()["builds"]]
            if page.json()["next_cursor"] is None:
                return found
            cursor = {"cursor": page.json()["next_cursor"]}

    whole = await listed()
    assert sorted(whole) == sorted(made)
    assert whole[:3] == sorted(made[2:5], reverse=True)
    for limit in (1, 2, 3, 7, 100):
        assert await listed(limit=limit) == whole
    assert set(await listed(open="true", limit=2)) == set(made[:3])
    assert set(await listed(open="false")) == set(made[3:])
    assert set(await listed(status=["failed", "queued"], limit=1)) == set(made) - {made[6], made[4]}
    assert set(await listed(project_id=projects[0], status="ready")) == {made[6]}
    assert await listed(project_id=str(uuid.uuid4())) == []
    assert made[0] not in (await api.http.get("/v1/builds")).text

    first = (await api.http.get("/v1/builds", params={"limit": 2}, headers=user)).json()["next_cursor"]
    of_projects = (await api.http.get("/v1/projects", params={"limit": 1}, headers=user)).json()["next_cursor"]
    tampered = [first[:place] + ("A" if first[place] != "A" else "B") + first[place + 1 :] for place in (0, 30, 52)]
    for wrong in (*tampered, first[:-1], first + "A", of_projects, "", "%00", "x" * 500, "ünï"):
        answer = await api.http.get("/v1/builds", params={"cursor": wrong}, headers=user)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor"), wrong
    for name, wrong in (("status", "asleep"), ("open", "maybe"), ("project_id", "x"), ("limit", "0"), ("limit", "101")):
        answer = await api.http.get("/v1/builds", params={name: wrong}, headers=user)
        assert (answer.status_code, answer.json()["errors"][0]["field"].split("[")[0]) == (422, name)


async def test_repeat_starts_what_a_crash_left_unstarted(api: RunningApi) -> None:
    project = await api.project()
    build_id = uuid.uuid4()
    made = await _start(api, project, key="crash")
    async with transaction(api.sessions) as tx:
        # A row as a crash right after its commit leaves it: the same request, another id, no workflow.
        row = (
            await tx.session.scalars(
                update(Build)
                .where(Build.id == uuid.UUID(made.json()["id"]))
                .returning(Build)
                .values(id=build_id, started_at=None)
            )
        ).one()
        assert row.started_at is None
    again = await _start(api, project, key="crash")
    assert (again.status_code, again.json()["id"]) == (200, str(build_id))
    assert again.json()["started_at"] is not None
    await api.resources.workflows.describe(build_id)


REFUSED = {
    "an unknown project": ({"project": str(uuid.uuid4())}, 404, "not-found"),
    "another user's project": ({"user": "mallory"}, 404, "not-found"),
    "an empty goal": ({"goal": " \n "}, 422, "invalid-request"),
    "a long goal": ({"goal": "x" * 20_001}, 422, "invalid-request"),
    "a NUL in the goal": ({"goal": "a\0b"}, 422, "invalid-request"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refusal_makes_no_row(api: RunningApi, case: str) -> None:
    given, status, slug = REFUSED[case]
    project = await api.project()
    before = await api.rows()
    answer = await api.http.post(
        f"/v1/projects/{given.get('project', project)}/builds",
        json={"goal": given.get("goal", "Build it.")},
        headers=as_user(given.get("user")),
    )
    assert answer.status_code == status
    assert answer.json()["type"] == f"urn:cofounder:problem:{slug}"
    assert await api.rows() == before


async def test_suspended_user_is_refused(api: RunningApi) -> None:
    project = await api.project("sam")
    await suspend(api, "sam")
    before = await api.rows()
    answer = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=as_user("sam"))
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:cofounder:problem:account-suspended"
    assert await api.rows() == before


async def test_kill_switch_refuses_and_says_so(api: RunningApi, stack: LocalStack) -> None:
    project = await api.project()
    off = settings_for(api.settings.database_url, autonomous_agent=False)
    async with running_api(off, stack.environment) as switched_off:
        before = await api.rows()
        answer = await _start(switched_off, project)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:cofounder:problem:autonomous-agent-off"
        assert "Builds are switched off" in answer.json()["detail"]
        assert await api.rows() == before
        assert (await switched_off.http.get("/readyz")).status_code == 200


@pytest.mark.parametrize("scope", SwitchScope)
async def test_a_switch_refuses_the_builds_that_it_is_for(api: RunningApi, scope: SwitchScope) -> None:
    project, other = await api.project("sue"), await api.project("tom")
    keys = {
        SwitchScope.FLEET: "",
        SwitchScope.PLAN: "partner",
        SwitchScope.USER: "sue",
        SwitchScope.MODEL: "claude-opus-5-5",
    }
    async with transaction(api.sessions) as tx:
        await change_user(tx, "sue", UserChange(plan="partner"), datetime.now(UTC).date())
        await switch_off(tx, scope, keys[scope], reason="a test", by="a test")
    try:
        before = await api.rows()
        answer = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=as_user("sue"))
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:cofounder:problem:autonomous-agent-off"
        assert answer.json()["detail"] == refusal(scope)
        assert await api.rows() == before
        answer = await api.http.post(f"/v1/projects/{other}/builds", json={"goal": "x"}, headers=as_user("tom"))
        assert answer.status_code == (503 if scope is SwitchScope.FLEET else 201)
    finally:
        async with transaction(api.sessions) as tx:
            assert await switch_on(tx, scope, keys[scope])


async def test_unreachable_temporal_refuses_before_there_is_a_row(api: RunningApi) -> None:
    project = await api.project()
    nowhere = {"TEMPORAL_ADDRESS": "127.0.0.1:1"}
    async with running_api(api.settings, nowhere) as alone:
        before = await api.rows()
        answer = await _start(alone, project)
        assert answer.status_code == 503
        assert (answer.json()["type"], answer.json()["dependency"]) == ("urn:cofounder:problem:unavailable", "temporal")
        assert await api.rows() == before
        ready = await alone.http.get("/readyz")
        assert ready.status_code == 200, "feeds and all that is only read need the database alone"
        assert (ready.json()["ready"], ready.json()["degraded"]) == (True, True)
        assert ready.json()["dependencies"]["temporal"]["ok"] is False
        assert ready.json()["dependencies"]["database"]["ok"] is True


async def test_temporal_that_goes_away_leaves_a_queued_build(api: RunningApi, stack: LocalStack) -> None:
    class GoesAwayAfterTheCheck(BuildWorkflows):
        async def is_reachable(self) -> bool:
            return True

    project = await api.project()
    async with running_api(api.settings, {"TEMPORAL_ADDRESS": "127.0.0.1:1"}) as alone:
        workflows = GoesAwayAfterTheCheck(alone.temporal, "api-tests")
        object.__setattr__(alone.resources, "workflows", workflows)
        answer = await _start(alone, project, key="late")
        assert (answer.status_code, answer.json()["status"]) == (201, "queued")
        assert answer.json()["started_at"] is None
    again = await _start(api, project, key="late")
    assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
    assert again.json()["started_at"] is not None


async def test_unreachable_database(stack: LocalStack) -> None:
    settings = settings_for("postgresql://user@127.0.0.1:1/nothing")
    async with running_api(settings, stack.environment) as api:
        answers = [
            await api.http.post("/v1/projects", json={"name": "x"}),
            await api.http.get(f"/v1/builds/{uuid.uuid4()}"),
            await api.http.get(f"/v1/builds/{uuid.uuid4()}/events"),
        ]
        for answer in answers:
            assert answer.status_code == 503
            assert (answer.json()["type"], answer.json()["dependency"]) == (
                "urn:cofounder:problem:unavailable",
                "database",
            )
            assert "127.0.0.1" not in answer.text
        ready = await api.http.get("/readyz")
        assert (ready.status_code, ready.json()["dependencies"]["database"]["ok"]) == (503, False)
        assert (await api.http.get("/healthz")).status_code == 200


async def test_database_without_tables_says_what_to_do(api: RunningApi, stack: LocalStack) -> None:
    async with running_api(
        settings_for(stack.environment["DATABASE_URL"].rpartition("/")[0] + "/template1"), {}
    ) as bare:
        answer = await bare.http.post("/v1/projects", json={"name": "x"})
        assert answer.status_code == 503
        assert "cofounder migrate" in answer.json()["detail"]


async def test_cancel_is_noted_and_sent(api: RunningApi) -> None:
    build = await api.build()
    first = await api.http.post(f"/v1/builds/{build}/cancel")
    again = await api.http.post(f"/v1/builds/{build}/cancel")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["cancel_requested_at"] == again.json()["cancel_requested_at"] is not None
    history = await _history(api, build_workflow_id(build))
    assert history[HistoryEvent.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED] == 1


async def test_wake_is_a_signal_without_an_argument(api: RunningApi) -> None:
    build = await api.build()
    assert (await api.http.post(f"/v1/builds/{build}/wake")).status_code == 202
    history = await api.temporal.get_workflow_handle(build_workflow_id(build)).fetch_history()
    signals = [
        event.workflow_execution_signaled_event_attributes
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert [(signal.signal_name, len(signal.input.payloads)) for signal in signals] == [("wake", 0)]


@pytest.mark.parametrize("action", ["cancel", "wake"])
async def test_ended_build_takes_no_commands(api: RunningApi, action: str) -> None:
    build = await api.build()
    await _close(api, build)
    answer = await api.http.post(f"/v1/builds/{build}/{action}")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:cofounder:problem:build-closed"
    assert (await api.row(build)).cancel_requested_at is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", "/cancel"),
        ("POST", "/wake"),
        ("GET", "/preview"),
        ("POST", "/preview"),
        ("GET", "/events"),
        ("GET", "/snapshots"),
        ("GET", "/snapshots/current/archive"),
        ("GET", "/snapshots/1/archive"),
        ("GET", "/screenshots"),
        ("GET", "/screenshots/desktop"),
    ],
)
async def test_unknown_and_others_builds_are_not_found(api: RunningApi, method: str, path: str) -> None:
    build = await api.build()
    for wanted, user in ((str(uuid.uuid4()), None), (build, "mallory")):
        answer = await api.http.request(method, f"/v1/builds/{wanted}{path}", headers=as_user(user))
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"There is no build {wanted}."


async def test_preview_is_for_ready_builds_and_opens_again(api: RunningApi) -> None:
    build = await api.build()
    early = await api.http.post(f"/v1/builds/{build}/preview")
    assert early.status_code == 409
    assert early.json()["type"] == "urn:cofounder:problem:build-not-ready"
    assert (await api.http.get(f"/v1/builds/{build}/preview")).status_code == 404

    await _close(api, build, "ready")
    async with transaction(api.sessions) as tx:
        tx.session.add(Preview(build_id=uuid.UUID(build), state="closed", seq=7))
    opened = await api.http.post(f"/v1/builds/{build}/preview", json={"seconds": 600})
    assert opened.status_code == 202
    assert opened.json()["state"] == "closed"  # until the preview's workflow reports another state
    extended = await api.http.post(f"/v1/builds/{build}/preview")
    assert extended.status_code == 202
    history = await _history(api, preview_workflow_id(build))
    assert history[HistoryEvent.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED] == 1
    assert history[HistoryEvent.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED] == 2
    restarted = await api.http.post(f"/v1/builds/{build}/preview", json={"restart": True})
    assert restarted.status_code == 202
    history = await _history(api, preview_workflow_id(build))
    assert history[HistoryEvent.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED] == 4  # close, then open
    too_long = await api.http.post(f"/v1/builds/{build}/preview", json={"seconds": 10**9})
    assert (too_long.status_code, too_long.json()["errors"][0]["field"]) == (422, "seconds")


async def test_workspace_and_screenshots_are_streamed(api: RunningApi) -> None:
    build = await api.build()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("app.py", b"print()"), ("ünï", random.Random(1).randbytes(2_000_000))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = packed.getvalue()
    await _put(api, f"test/{build}/archive", archive)
    await _put(api, f"test/{build}/desktop", b"picture")
    async with transaction(api.sessions) as tx:
        row = await api.row(build)
        for number, state in ((1, "deleted"), (2, "stored"), (3, "stored"), (4, "taking")):
            tx.session.add(
                Snapshot(
                    id=uuid.uuid4(),
                    build_id=row.id,
                    project_id=row.project_id,
                    number=number,
                    state=state,
                    claim=uuid.uuid4(),
                    reason="phase",
                    archive_key=f"test/{build}/{'lost' if number == 2 else 'archive'}",
                    manifest_key="m",
                    archive_sha256="abc",
                    manifest_sha256="def",
                    archive_bytes=len(archive),
                    stored_at=func.now(),
                )
            )
        tx.session.add(
            GateRun(
                build_id=row.id,
                number=1,
                snapshot_number=2,
                findings=[],
                ended_at=func.now(),
                screenshots={"desktop": f"test/{build}/desktop", "mobile": f"test/{build}/lost"},
            )
        )
    listed = (await api.http.get(f"/v1/builds/{build}/snapshots")).json()["snapshots"]
    assert [snapshot["number"] for snapshot in listed] == [3, 2]
    for which in ("current", "3"):
        path = f"/v1/builds/{build}/snapshots/{which}/archive"
        whole = await api.http.get(path, headers={"Accept-Encoding": "identity"})
        assert (whole.status_code, whole.headers["content-type"]) == (200, "application/gzip")
        assert whole.headers["content-disposition"] == f'attachment; filename="workspace-{build}-3.tar.gz"'
        assert (whole.headers["content-length"], whole.content) == (str(len(archive)), archive)
        zipped = await api.http.get(path, params={"format": "zip"})
        assert (zipped.status_code, zipped.headers["content-type"]) == (200, "application/zip")
        assert zipped.headers["content-disposition"] == f'attachment; filename="workspace-{build}-3.zip"'
        with zipfile.ZipFile(io.BytesIO(zipped.content)) as opened:
            assert opened.namelist() == ["app.py", "ünï"]
            assert (opened.testzip(), opened.read("app.py")) == (None, b"print()")
    refused = {"1": (404, "not-found"), "2": (404, "not-found"), "4": (409, "snapshot-not-stored")}
    refused |= {"5": (404, "not-found"), "0": (422, "invalid-request"), "last": (422, "invalid-request")}
    for which, (status, slug) in refused.items():
        for wanted in ("tar.gz", "zip"):
            path = f"/v1/builds/{build}/snapshots/{which}/archive"
            answer = await api.http.get(path, params={"format": wanted})
            assert answer.status_code == status
            assert answer.json()["type"] == f"urn:cofounder:problem:{slug}"
    rar = await api.http.get(f"/v1/builds/{build}/snapshots/3/archive", params={"format": "rar"})
    assert (rar.status_code, rar.json()["errors"][0]["field"]) == (422, "format")
    nothing = await api.http.get(f"/v1/builds/{await api.build()}/snapshots/current/archive")
    assert (nothing.status_code, nothing.json()["type"]) == (404, "urn:cofounder:problem:not-found")

    pictures = (await api.http.get(f"/v1/builds/{build}/screenshots")).json()["screenshots"]
    assert [picture["viewport"] for picture in pictures] == ["desktop", "mobile"]
    assert (await api.http.get(pictures[0]["path"])).content == b"picture"
    picture = await api.http.get(f"/v1/builds/{build}/screenshots/desktop")
    assert (picture.headers["content-type"], picture.content) == ("image/webp", b"picture")
    lost = await api.http.get(f"/v1/builds/{build}/screenshots/mobile")
    assert (lost.status_code, lost.headers["content-type"]) == (404, "application/problem+json")


async def test_cost_is_the_sum_of_the_ledger(api: RunningApi) -> None:
    build = await api.build()
    async with transaction(api.sessions) as tx:
        for turn, cost in ((1, 1200), (2, 34)):
            tx.session.add(
                LedgerEntry(
                    id=uuid.uuid4(),
                    build_id=uuid.UUID(build),
                    user_id="founder",
                    turn=turn,
                    day=func.current_date(),
                    model="claude-sonnet-5-5",
                    cost=cost,
                )
            )
    assert (await api.http.get(f"/v1/builds/{build}")).json()["cost_microdollars"] is None, "founders see shares only"
    assert (await api.http.get(f"/v1/builds/{build}", headers=AS_OPERATOR)).json()["cost_microdollars"] == 1234


async def test_a_build_shows_how_it_was_judged_and_what_that_cost(api: RunningApi) -> None:
    build = await api.build()
    assert (await api.http.get(f"/v1/builds/{build}")).json()["judgement"] is None
    finding = JudgeFinding(kind="missing", asked_for="A calendar", evidence="No page has it.", remedy="Build it.")
    judged = Judgement(model="claude-haiku-5-5", findings=(finding,), returned=True, called=True)
    unjudged = Judgement(not_judged="today's budget does not pay for it")
    async with transaction(api.sessions) as tx:
        call = {"build_id": uuid.UUID(build), "user_id": "founder", "day": func.current_date(), "turn": 1}
        for kind, cost in (("turn", 1200), ("judge", 34)):
            tx.session.add(LedgerEntry(id=uuid.uuid4(), model="claude-haiku-5-5", kind=kind, cost=cost, **call))
        row = {"build_id": uuid.UUID(build), "snapshot_number": 1}
        tx.session.add(GateRun(number=1, judgement=judged.model_dump(mode="json"), **row))
        tx.session.add(GateRun(number=2, **row))
    read = (await api.http.get(f"/v1/builds/{build}", headers=AS_OPERATOR)).json()
    assert (read["cost_microdollars"], read["judge_cost_microdollars"]) == (1234, 34)
    assert (read["judgement"]["gate"], read["judgement"]["returned"]) == (1, True)
    assert read["judgement"]["findings"] == judged.texts
    async with transaction(api.sessions) as tx:
        run = await tx.session.get_one(GateRun, (uuid.UUID(build), 2))
        run.judgement = unjudged.model_dump(mode="json")
    read = (await api.http.get(f"/v1/builds/{build}")).json()
    assert (read["judgement"]["gate"], read["judgement"]["not_judged"]) == (2, unjudged.not_judged)
    assert read["judge_cost_microdollars"] is None, "founders see shares only"
    [usage] = [
        each
        for each in (await api.http.get("/v1/usage", headers=AS_OPERATOR)).json()["builds"]
        if each["build_id"] == build
    ]
    assert (usage["calls"], usage["judge_calls"], usage["judge_cost_microdollars"]) == (2, 1, 34)


async def test_usage_sums_the_ledger_by_day_model_and_build(api: RunningApi) -> None:
    user = for_user("spender")
    builds: list[uuid.UUID] = []
    for _ in range(2):
        project = await api.project("spender")
        answer = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=user)
        builds.append(uuid.UUID(answer.json()["id"]))
    opus, sonnet = "claude-opus-5-5", "claude-sonnet-5-5"
    calls = [
        (builds[0], "2026-11-01", sonnet, "settled", 1),
        (builds[0], "2026-11-01", sonnet, "estimated", 20),
        (builds[0], "2026-11-01", opus, "settled", 300),
        (builds[1], "2026-11-02", sonnet, "open", 4000),
        (builds[1], "2026-11-02", sonnet, "released", 0),
        (builds[1], "2026-12-01", sonnet, "settled", 50_000),
    ]
    async with transaction(api.sessions) as tx:
        for turn, (build, day, model, state, cost) in enumerate(calls):
            tx.session.add(
                LedgerEntry(
                    id=uuid.uuid4(),
                    build_id=build,
                    user_id="spender",
                    turn=turn,
                    day=date.fromisoformat(day),
                    model=model,
                    state=state,
                    cost=cost,
                    input_tokens=cost * 2,
                    output_tokens=3,
                    closed_at=None if state == "open" else func.now(),
                )
            )
    november = {"from": "2026-11-01", "to": "2026-11-30"}
    read = (await api.http.get("/v1/usage", params=november, headers=user)).json()
    assert (read["from"], read["to"], read["cost_microdollars"]) == ("2026-11-01", "2026-11-30", 4321)
    days = [(day["day"], day["model"], day["calls"], day["cost_microdollars"]) for day in read["days"]]
    assert days == [("2026-11-01", opus, 1, 300), ("2026-11-01", sonnet, 2, 21), ("2026-11-02", sonnet, 1, 4000)]
    assert (read["days"][1]["input_tokens"], read["days"][1]["output_tokens"]) == (42, 6)
    by_build = [(each["build_id"], each["calls"], each["cost_microdollars"]) for each in read["builds"]]
    assert by_build == [(str(builds[1]), 1, 4000), (str(builds[0]), 3, 321)]
    assert {each["project_name"] for each in read["builds"]} == {"Pantry Pal"}
    assert {day["percent"] for day in read["days"]} == {None}, "the allowance of these days is not known"
    async with transaction(api.sessions) as tx:
        first = date(2026, 11, 1)
        tx.session.add(UserDay(user_id="spender", day=first, from_plan=400))
        tx.session.add(TopUp(id=uuid.uuid4(), user_id="spender", day=first, amount=200))
    told = (await api.http.get("/v1/usage", params=november, headers=as_user("spender"))).json()
    assert [day["percent"] for day in told["days"]] == [50, 3, None]
    assert {told["cost_microdollars"], *(each["cost_microdollars"] for each in told["days"] + told["builds"])} == {None}
    assert told["days"][1]["input_tokens"] == 42
    december = await api.http.get("/v1/usage", params={"from": "2026-11-02", "to": "2026-12-01"}, headers=user)
    assert december.json()["cost_microdollars"] == 54_000
    assert (await api.http.get("/v1/usage", params=november, headers=as_user("saver"))).json()["days"] == []
    today = (await api.http.get("/v1/usage")).json()
    assert date.fromisoformat(today["to"]) - date.fromisoformat(today["from"]) == timedelta(days=29)
    wrong = [
        ({"from": "2026-11-02", "to": "2026-11-01"}, "from"),
        ({"from": "0001-01-01"}, "from"),
        ({"to": "x"}, "to"),
    ]
    for params, field in wrong:
        answer = await api.http.get("/v1/usage", params=params)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    first_day = await api.http.get("/v1/usage", params={"to": "0001-01-01"})
    assert first_day.json()["from"] == "0001-01-01"


async def _put(api: RunningApi, key: str, content: bytes) -> None:
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    await store.put(key, content)
