"""The versions of a project over HTTP, beginning a build with one of them, and archiving a project."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import event, func, select, text, update

from db.feed import append_events
from db.formats import ThisProcess, announce, own_formats
from db.models import Build, GateRun, Preview, Process, Project, Question, Snapshot
from db.projects import change_project, lock_project
from db.snapshots import mark_deleted, snapshot_to_continue, superfluous_snapshots
from db.transaction import transaction
from domain.events import NarrationEvent, StatusEvent, TurnWithdrawnEvent
from domain.formats import SCHEMA
from local.stack import LocalStack
from services.starts import CHOSEN_START
from tests.harness.api_server import BRIEF, RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.wait import wait_until


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment)
    async with running_api(settings, stack.environment) as running:
        yield running


async def _add_snapshots(api: RunningApi, build: str, *numbers: int, final: int | None = None) -> None:
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        for number in numbers:
            keys = {"archive_key": f"a{number}", "manifest_key": f"m{number}", "archive_bytes": 10 * number}
            stored = {"archive_sha256": "a", "manifest_sha256": "b", "stored_at": func.now(), "state": "stored"}
            ids = {"id": uuid.uuid4(), "build_id": row.id, "project_id": row.project_id, "claim": uuid.uuid4()}
            tx.session.add(Snapshot(**ids, number=number, reason="phase", final=number == final, **keys, **stored))


async def _close(api: RunningApi, build: str, status: str = "failed") -> None:
    async with transaction(api.sessions) as tx:
        values = {"status": status, "closed_at": func.now(), "waiting_for": None}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**values))


async def _make_version(api: RunningApi, project: str, number: int, **start: Any) -> str:
    """A ready build of the project with snapshots 1 to 3, of which the last is final."""
    build = str((await _started(await _start(api, project, **start)))["id"])
    await _add_snapshots(api, build, 1, 2, 3, final=3)
    await _close(api, build, "ready")
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        row.build_version, row.phases_completed = number, 2
        (await tx.session.get_one(Project, row.project_id)).last_build_version = number
        gate = {"build_id": row.id, "snapshot_number": 3, "ended_at": func.now(), "findings": []}
        tx.session.add(GateRun(**gate, number=1, tests_run=1))
        tx.session.add(GateRun(**gate, number=2, tests_run=14, screenshots={"desktop": "d"}))
        tx.session.add(Preview(build_id=row.id, state="closed", seq=1))
    return build


async def _start(api: RunningApi, project: str, key: str | None = None, **body: Any) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "Go on."} | body, headers=headers)


async def _started(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    build: dict[str, Any] = answer.json()
    return build


async def _begins_with(api: RunningApi, build: str) -> tuple[str, int] | None:
    async with transaction(api.sessions) as tx:
        snapshot = await snapshot_to_continue(tx, uuid.UUID(build))
    return None if snapshot is None else (str(snapshot.build_id), snapshot.number)


async def test_versions_are_listed_with_what_one_chooses_by(api: RunningApi) -> None:
    project = await api.project()
    path = f"/v1/projects/{project}/versions"
    assert (await api.http.get(path)).json() == {"versions": [], "next_before": None}
    first = await _make_version(api, project, 1)
    second = await _make_version(api, project, 2, start_from={"build_id": first, "snapshot": 2})
    failed = await _started(await _start(api, project))
    await _close(api, failed["id"])

    listed = (await api.http.get(path)).json()["versions"]
    assert [(each["version"], each["build_id"], each["is_current"]) for each in listed] == [
        (2, second, True),
        (1, first, False),
    ]
    newest, oldest = listed
    assert newest["started_from"] == {"build_id": first, "snapshot": 2, "version": 1}
    assert oldest["started_from"] is None
    assert (newest["goal"], newest["phases"], newest["tests"], newest["snapshot"]) == ("Go on.", 2, 14, 3)
    assert newest["poster"] == f"/v1/builds/{second}/screenshots/gate-2-desktop"
    assert newest["preview"] == {"state": "closed", "url": None, "expires_at": None}
    archive = f"/v1/builds/{second}/snapshots/3/archive"
    assert newest["downloads"] == [
        {"format": "tar.gz", "path": archive, "bytes": 30},
        {"format": "zip", "path": f"{archive}?format=zip", "bytes": None},
    ]
    page = (await api.http.get(path, params={"limit": 1})).json()
    assert ([each["version"] for each in page["versions"]], page["next_before"]) == ([2], 2)
    page = (await api.http.get(path, params={"limit": 1, "before": 2})).json()
    assert ([each["version"] for each in page["versions"]], page["next_before"]) == ([1], None)
    assert (await api.http.get(path, headers=as_user("eve"))).status_code == 404


async def test_a_build_begins_with_the_version_that_its_founder_chose(api: RunningApi) -> None:
    project = await api.project()
    first = await _make_version(api, project, 1)
    second = await _make_version(api, project, 2)
    build = await _started(await _start(api, project, start_from={"build_id": first}))
    assert build["started_from"] == {"build_id": first, "snapshot": 3, "version": 1}
    assert await _begins_with(api, build["id"]) == (first, 3)
    await _close(api, build["id"])
    build = await _started(await _start(api, project))
    assert build["started_from"] == {"build_id": second, "snapshot": 3, "version": 2}
    await _add_snapshots(api, build["id"], 1)
    assert await _begins_with(api, build["id"]) == (build["id"], 1), "its own work comes first"


@pytest.mark.thorough
async def test_a_build_begins_with_a_snapshot_of_a_failed_one(api: RunningApi) -> None:
    project = await api.project()
    failed = await api.build(project)
    await _add_snapshots(api, failed, 4, 5)
    await _close(api, failed)
    latest = await _started(await _start(api, project, start_from={"build_id": failed}))
    assert latest["started_from"] == {"build_id": failed, "snapshot": 5, "version": None}
    await _close(api, latest["id"], "cancelled")
    fresh = await _started(await _start(api, project))
    assert (fresh["started_from"], await _begins_with(api, fresh["id"])) == (None, None)


@pytest.mark.thorough
async def test_a_row_of_an_earlier_version_begins_with_the_last_product(api: RunningApi) -> None:
    project = await api.project()
    first = await _make_version(api, project, 1)
    build = await _started(await _start(api, project))
    async with transaction(api.sessions) as tx:
        values = {"start_build_id": None, "start_snapshot": None}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build["id"])).values(**values))
    assert await _begins_with(api, build["id"]) == (first, 3)


async def test_a_start_that_can_not_be_is_refused(api: RunningApi) -> None:
    project, other = await api.project(), await api.project()
    first = await _make_version(api, project, 1)
    async with transaction(api.sessions) as tx:
        gone = select(Snapshot.id).where(Snapshot.build_id == uuid.UUID(first), Snapshot.number == 1)
        await mark_deleted(tx, list(await tx.session.scalars(gone)))
    before = await api.rows()
    for number in (1, 9):
        refused = await _start(api, project, start_from={"build_id": first, "snapshot": number})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:snapshot-not-stored")
        assert refused.json()["kept"] == [2, 3]
        assert refused.json()["detail"] == f"Snapshot {number} of build {first} is not kept. Those kept: 2, 3."
    for wanted in (str(uuid.uuid4()), first):
        refused = await _start(api, other, start_from={"build_id": wanted})
        assert (refused.status_code, refused.json()["detail"]) == (404, f"Project {other} has no build {wanted}.")
    for wrong in ({}, {"build_id": first, "snapshot": 0}, {"build_id": first, "commit": "abc"}, first):
        assert (await _start(api, project, start_from=wrong)).status_code == 422
    assert await api.rows() == before
    opened = await _started(await _start(api, other))
    refused = await _start(api, other, start_from={"build_id": opened["id"]})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:open-build")
    await _close(api, opened["id"])
    refused = await _start(api, other, start_from={"build_id": opened["id"]})
    assert (refused.status_code, refused.json()["kept"]) == (409, [])


@pytest.mark.thorough
async def test_a_repeat_is_the_same_build_even_if_the_snapshot_is_gone(api: RunningApi) -> None:
    project = await api.project()
    first = await _make_version(api, project, 1)
    chosen = {"start_from": {"build_id": first, "snapshot": 2}}
    build = await _started(await _start(api, project, key="rollback", **chosen))
    await _close(api, build["id"])
    async with transaction(api.sessions) as tx:
        rows = await tx.session.scalars(select(Snapshot.id).where(Snapshot.build_id == uuid.UUID(first)))
        await mark_deleted(tx, list(rows))
    again = await _start(api, project, key="rollback", **chosen)
    assert (again.status_code, again.json()["id"]) == (200, build["id"])
    other = await _start(api, project, key="rollback", start_from={"build_id": first, "snapshot": 3})
    assert (other.status_code, other.json()["type"]) == (409, "urn:cofounder:problem:idempotency-key-reused")
    other = await _start(api, project, key="rollback")
    assert (other.status_code, other.json()["type"]) == (409, "urn:cofounder:problem:idempotency-key-reused")


async def test_what_an_open_build_begins_with_is_not_deleted(api: RunningApi) -> None:
    project = await api.project()
    failed = await api.build(project)
    await _add_snapshots(api, failed, *range(1, 9))
    await _close(api, failed)

    async def superfluous() -> set[int]:
        async with transaction(api.sessions) as tx:
            ids = await superfluous_snapshots(tx, uuid.UUID(failed), 5)
            return set(await tx.session.scalars(select(Snapshot.number).where(Snapshot.id.in_(ids))))

    assert await superfluous() == {1, 2, 3}
    build = await _started(await _start(api, project, start_from={"build_id": failed, "snapshot": 2}))
    assert await superfluous() == {1, 3, 4}
    await _close(api, build["id"])
    assert await superfluous() == {1, 2, 3}


@pytest.mark.thorough
async def test_a_start_waits_for_a_deletion_and_is_refused(api: RunningApi) -> None:
    project = await api.project()
    failed = await api.build(project)
    await _add_snapshots(api, failed, 1, 2)
    await _close(api, failed)
    async with transaction(api.sessions) as tx:
        await mark_deleted(tx, await superfluous_snapshots(tx, uuid.UUID(failed), 1))
        starting = asyncio.create_task(_start(api, project, start_from={"build_id": failed, "snapshot": 1}))
        await _blocked(api)
    refused = await starting
    assert (refused.status_code, refused.json()["kept"]) == (409, [2])


async def _blocked(api: RunningApi) -> None:
    """Wait until a statement waits for a lock."""
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    async def is_blocked() -> bool:
        async with transaction(api.sessions) as tx:
            return bool((await tx.execute(text(waiting), {})).scalar())

    await wait_until(is_blocked, seconds=60)


@pytest.mark.thorough
async def test_a_start_waits_for_archiving_and_is_refused(api: RunningApi) -> None:
    project = await api.project()
    async with transaction(api.sessions) as tx:
        row = await lock_project(tx, "founder", uuid.UUID(project), against_builds=True)
        assert row is not None
        await change_project(tx, row, name=None, archived=True)
        starting = asyncio.create_task(_start(api, project))
        await _blocked(api)
    refused = await starting
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:project-archived")


@pytest.mark.thorough
async def test_a_worker_of_an_earlier_version_must_end_first(api: RunningApi) -> None:
    project = await api.project()
    first = await _make_version(api, project, 1)
    older = uuid.uuid4()
    async with transaction(api.sessions) as tx:
        await announce(tx, ThisProcess(older, "worker", "0.0.9", 22))
        reads = {**own_formats(), SCHEMA: CHOSEN_START - 1}
        await tx.session.execute(update(Process).where(Process.id == older).values(reads=reads))
    refused = await _start(api, project, start_from={"build_id": first})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:conflict")
    assert "earlier version" in refused.json()["detail"]
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(Process).where(Process.id == older).values(reads=dict(own_formats())))
    await _started(await _start(api, project, start_from={"build_id": first}))


async def test_a_project_is_renamed_and_archived(api: RunningApi) -> None:
    project = await api.project("nora", name="Before", brief=BRIEF)
    mine, path = as_user("nora"), f"/v1/projects/{project}"
    renamed = await api.http.patch(path, json={"name": "  After  "}, headers=mine)
    assert (renamed.status_code, renamed.json()["name"], renamed.json()["archived_at"]) == (200, "After", None)
    build = await api.http.post(f"{path}/builds", json={"goal": "Go."}, headers=mine)
    refused = await api.http.patch(path, json={"archived": True}, headers=mine)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:open-build")
    await _close(api, build.json()["id"])
    for _ in range(2):
        archived = await api.http.patch(path, json={"archived": True}, headers=mine)
        assert archived.json()["archived_at"] is not None
    assert (await api.http.get(path, headers=mine)).json() == archived.json()

    async def listed(**query: Any) -> list[str]:
        page = (await api.http.get("/v1/projects", params=query, headers=mine)).json()
        return [each["name"] for each in page["projects"]]

    assert (await listed(), await listed(archived="true")) == ([], ["After"])
    before = await api.rows()
    refused = await api.http.post(f"{path}/builds", json={"goal": "Go."}, headers=mine)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:project-archived")
    assert await api.rows() == before
    await api.http.patch(path, json={"archived": False}, headers=mine)
    assert await listed() == ["After"]
    assert (await api.http.post(f"{path}/builds", json={"goal": "Go."}, headers=mine)).status_code == 201
    for wrong in ({"name": " "}, {"name": "x" * 121}, {"archived": "maybe"}, {"user": "eve"}):
        assert (await api.http.patch(path, json=wrong, headers=mine)).status_code == 422
    assert (await api.http.patch(path, json={"name": "Mine"}, headers=as_user("eve"))).status_code == 404


async def test_a_sentence_of_a_withdrawn_attempt_is_not_the_last(api: RunningApi) -> None:
    mine = as_user("wilma")
    project = await api.project("wilma")
    answer = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "Go."}, headers=mine)
    build = uuid.UUID((await _started(answer))["id"])

    async def shown() -> list[Any]:
        [listed] = (await api.http.get("/v1/projects", headers=mine)).json()["projects"]
        [row] = (await api.http.get("/v1/builds", headers=mine)).json()["builds"]
        return [listed["latest_build"]["narration"], row["narration"]]

    async with transaction(api.sessions) as tx:
        kept = NarrationEvent(text="Kept.", claim="a")
        lost = [NarrationEvent(text="Lost.", claim="b"), NarrationEvent(text="Lost, too.", claim="b")]
        await append_events(tx, build, [kept, *lost, TurnWithdrawnEvent(claim="b"), TurnWithdrawnEvent()], turn=1)
    assert await shown() == ["Kept.", "Kept."]
    async with transaction(api.sessions) as tx:  # as programs before claims have written it
        await append_events(tx, build, [NarrationEvent(text="Of an older program.")], turn=1)
    assert await shown() == ["Of an older program."] * 2


async def _say(api: RunningApi, build: str, *sentences: str) -> None:
    async with transaction(api.sessions) as tx:
        said = [NarrationEvent(text=sentence, claim="c") for sentence in sentences]
        await append_events(tx, uuid.UUID(build), [*said, StatusEvent(status="code")], turn=1)


async def test_a_list_of_projects_says_what_is_latest_of_each(api: RunningApi) -> None:
    mine = as_user("lena")
    never, running, ready = [await api.project("lena", name=name, brief=BRIEF) for name in ("a", "b", "c")]

    async def start(project: str) -> str:
        answer = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "Go."}, headers=mine)
        return str((await _started(answer))["id"])

    done = await start(ready)
    await _close(api, done, "ready")
    open_build = await start(running)
    await _say(api, open_build, "First.", "The list is sorted now.")
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(done))
        row.build_version = 1
        (await tx.session.get_one(Project, row.project_id)).last_build_version = 1
        gate = {"snapshot_number": 1, "ended_at": func.now(), "findings": []}
        tx.session.add(GateRun(build_id=row.id, number=1, tests_run=3, screenshots={"mobile": "m"}, **gate))
        tx.session.add(GateRun(build_id=uuid.UUID(open_build), number=1, screenshots={"desktop": "d"}, **gate))
        tx.session.add(
            Question(id=uuid.uuid4(), build_id=uuid.UUID(open_build), problem="Which?", tried=[], options=["a", "b"])
        )
        values = {"status": "needs_input", "waiting_for": "founder", "reason": "It asks."}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(open_build)).values(**values))
    queued = await start(never)
    listed = (await api.http.get("/v1/projects", headers=mine)).json()["projects"]
    of_ready, of_running, of_queued = listed
    assert (
        of_ready["latest_build"].items() >= {"id": done, "narration": None, "level": None, "build_version": 1}.items()
    )
    assert of_ready["latest_version"].items() >= {"version": 1, "tests": 3, "is_current": True}.items()
    assert of_ready["poster"] == f"/v1/builds/{done}/screenshots/gate-1-mobile"
    build = of_running["latest_build"]
    assert build.items() >= {"status": "needs_input", "waiting_for": "founder", "reason": "It asks."}.items()
    assert (build["narration"], build["question"]["problem"]) == ("The list is sorted now.", "Which?")
    assert (build["level"], build["queue_place"]) == ("green", 1)
    assert (of_running["latest_version"], of_running["poster"]) == (
        None,
        f"/v1/builds/{open_build}/screenshots/gate-1-desktop",
    )
    assert (of_queued["latest_build"]["id"], of_queued["latest_build"]["queue_place"]) == (queued, 2)
    builds = (await api.http.get("/v1/builds", headers=mine, params={"open": "true"})).json()["builds"]
    assert [(each["id"], each["queue_place"], each["narration"]) for each in builds] == [
        (queued, 2, None),
        (open_build, 1, "The list is sorted now."),
    ]
    assert await _projects_of(api, "eve") == []


async def _projects_of(api: RunningApi, user: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await api.http.get("/v1/projects", headers=as_user(user))).json()["projects"]
    return listed


async def test_a_list_of_many_projects_takes_no_more_statements(api: RunningApi) -> None:
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    async def count(projects: int) -> int:
        user = f"owner-of-{projects}"
        for _ in range(projects):
            path = f"/v1/projects/{await api.project(user)}/builds"
            await _started(await api.http.post(path, json={"goal": "Go."}, headers=as_user(user)))
        await _projects_of(api, user)  # the key's use is noted once a minute
        engine = api.resources.sessions.statements.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        statements.clear()
        listed = await _projects_of(api, user)
        event.remove(engine, "before_cursor_execute", note)
        assert len(listed) == projects
        return len([each for each in statements if "from" in each.lower()])

    assert 4 < await count(1) == await count(5)
