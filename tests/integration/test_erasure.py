"""A project or a founder is erased: nothing is found anywhere afterwards, money adds up, and a certificate says so."""

import asyncio
import hashlib
import io
import logging
import uuid
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError
from temporalio import activity

from clients.browser import Browser
from clients.object_store import ObjectStore, image_key, store_config
from clients.sandbox import Role, Sandboxes, sandbox_config
from db import erasures
from db.erasures import certificate_of, insert_erasure
from db.images import lock_images
from db.models import AuditEntry, Build, Erasure, LedgerEntry, Membership, User, UserDay
from db.transaction import Transaction, transaction
from db.users import ensure_user
from domain.audit import Action
from domain.erasure import ErasureKind
from domain.errors import LastOwner
from domain.identity import How
from domain.names import build_workflow_id, erasure_workflow_id, preview_workflow_id
from domain.payloads import ErasureStep
from local.stack import LocalStack
from services.erasure import erase_user, start_unstarted
from services.images import keep_image
from tests.harness.api_server import (
    AS_OPERATOR,
    BRIEF,
    OPERATORS,
    RunningApi,
    as_user,
    key_of,
    new_database,
    running_api,
    settings_for,
    suspend,
)
from tests.harness.buckets import new_versioned_bucket
from tests.harness.founder_texts import (
    PLACES_OF_ACCOUNT,
    columns_without,
    has_history,
    objects_with,
    place_count,
    plant_account,
    plant_objects,
    plant_rows,
    tables_with,
)
from tests.harness.scripts import bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, worker_harness

ADA, BOB = "ada", "bob"
STEPS = ("stop_builds", "end_sandboxes", "erase_objects", "erase_executions", "erase_rows")


@pytest.fixture(scope="module")
async def database_url(stack: LocalStack) -> str:
    return await new_database(stack)


@pytest.fixture(scope="module")
async def bucket(stack: LocalStack) -> str:
    return await new_versioned_bucket(stack)


@pytest.fixture(scope="module")
async def harness(stack: LocalStack, browser: Browser, database_url: str, bucket: str) -> AsyncIterator[WorkerHarness]:
    async with worker_harness(stack, browser, database_url=database_url, project_snapshot_bucket=bucket) as running:
        yield running


@pytest.fixture(scope="module")
async def api(stack: LocalStack, harness: WorkerHarness) -> AsyncIterator[RunningApi]:
    settings = settings_for(
        harness.settings.database_url,
        stack.environment,
        temporal_task_queue=harness.settings.temporal_task_queue,
        project_snapshot_bucket=harness.settings.project_snapshot_bucket,
        api_operator_token=SecretStr(OPERATORS),
    )
    async with running_api(settings, stack.environment) as running:
        for user in (ADA, BOB):
            await running.http.get("/v1/projects", headers=as_user(user))
        yield running


@pytest.fixture(scope="module")
async def store(harness: WorkerHarness) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(store_config(harness.settings)) as opened:
        yield opened


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Fail the first attempt of each step once it has done its work, as if its worker was killed before it said so."""
    counted: Counter[str] = Counter()

    def done(left: int = 0) -> ErasureStep:
        name = activity.info().activity_type
        counted[name] += 1
        if counted[name] == 1:
            raise ConnectionError("killed")
        return ErasureStep(left=left)

    monkeypatch.setattr("activities.erasure.ErasureStep", done)
    return counted


def a_word() -> str:
    return f"zq{uuid.uuid4().hex[:12]}"


async def finished(api: RunningApi, erasure: str, user: str = ADA) -> dict[str, Any]:
    async def read() -> dict[str, Any] | None:
        answer = await api.http.get(f"/v1/erasures/{erasure}", headers=as_user(user))
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body if body["finished_at"] else None

    return await wait_until(read)


async def erase(api: RunningApi, project: object, name: str, user: str = ADA) -> Any:
    return await api.http.request("DELETE", f"/v1/projects/{project}", json={"name": name}, headers=as_user(user))


async def money(api: RunningApi) -> tuple[int, int, int]:
    async with transaction(api.sessions) as tx:
        entries = await tx.session.scalar(select(func.sum(LedgerEntry.cost)))
        days = await tx.session.scalar(select(func.sum(UserDay.spent)))
        fleet = await tx.session.scalar(text("select sum(spent) from fleet_days"))
        return int(entries or 0), int(days or 0), int(fleet or 0)


async def day_of(api: RunningApi, user: str) -> None:
    async with transaction(api.sessions) as tx:
        tx.session.add(UserDay(user_id=user, day=await tx.session.scalar(select(func.current_date()))))


async def test_a_project_is_erased_from_every_place(
    api: RunningApi, harness: WorkerHarness, store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    word, others = a_word(), a_word()
    live_name = f"{word} live"
    caplog.set_level(logging.INFO)
    await day_of(api, ADA)
    with structlog.testing.capture_logs() as logged:
        project, build = await plant_rows(api.sessions, ADA, word)
        await plant_objects(store, build, word)
        sandboxes = Sandboxes(sandbox_config(harness.settings))
        await (await sandboxes.create(str(build), Role.WORKSPACE)).write("/home/user/project/word", word)
        kept, _ = await plant_rows(api.sessions, BOB, others)
        answer = await api.http.post(
            "/v1/projects",
            json={"name": live_name, "brief": {**BRIEF, "name": word}},
            headers=as_user(ADA),
        )
        live = uuid.UUID(answer.json()["id"])
        running = await harness.start(
            ADA, project_id=live, goal=f"Sell {word}.", script=steps([bash(f"echo {word} > {word}.txt"), hold()])
        )
        await harness.until_event(running, "tool_started", count=2)
        assert place_count() >= 40
        assert await columns_without(api.sessions, word) == set()
        assert len(await objects_with(store, word)) == 8, "also an earlier version, and one that was deleted"
        before = await money(api)
        asked_for = []
        for each, name in ((project, word), (live, live_name)):
            asked = await erase(api, each, name)
            assert asked.status_code == 202, asked.text
            assert (await erase(api, each, name)).json()["id"] == asked.json()["id"], "a repeat changes nothing"
            asked_for.append(asked.json()["id"])
        certificates = [await finished(api, each) for each in asked_for]
    assert await tables_with(api.sessions, word) == set()
    assert await objects_with(store, word) == []
    left = await store.versions("")
    assert [each for each in left if str(build) in each.key or str(running) in each.key] == []
    assert await store.unfinished_uploads(f"snapshots/{build}/") == []
    assert not await has_history(harness.client, build_workflow_id(running))
    both = [(each, role) for each in (build, running) for role in Role]
    assert [found for each, role in both for found in await sandboxes.find(str(each), role)] == []
    await sandboxes.close()
    for workflow_id in (*map(erasure_workflow_id, asked_for),):
        history = await harness.client.get_workflow_handle(workflow_id).fetch_history()
        assert word.encode() not in b"".join(event.SerializeToString() for event in history.events)
    assert word not in str(logged) + caplog.text

    assert await money(api) == before
    planted, ran = certificates
    counted = [planted["counts"][name] for name in ("builds", "messages", "exports")]
    assert counted == [1, 1, 1]
    assert (planted["counts"]["ledger_entries_kept"], planted["requested_by"]) == (1, ADA)
    assert (planted["counts"]["objects"], planted["counts"]["uploads"]) == (9, 1), "eight versions and a marker"
    assert (planted["counts"]["sandboxes"], ran["counts"]["executions"] >= 1) == (1, True)
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Erasure, uuid.UUID(asked_for[0]))
        assert planted["sha256"] == certificate_of(row).sha256
    assert await columns_without(api.sessions, others) == set(), "the projects of others are as they were"
    assert (await api.http.get(f"/v1/projects/{project}", headers=as_user(ADA))).status_code == 404
    assert (await api.http.get(f"/v1/erasures/{asked_for[0]}", headers=as_user(BOB))).status_code == 404
    listed = (await api.http.get("/v1/erasures", headers=as_user(ADA))).json()["erasures"]
    assert {each["id"] for each in listed} == set(asked_for)
    assert kept


@pytest.mark.thorough
async def test_a_founder_is_erased_although_each_step_is_killed_once(
    api: RunningApi, harness: WorkerHarness, store: ObjectStore, tries: Counter[str]
) -> None:
    user, word = f"eve-{uuid.uuid4().hex[:8]}", a_word()
    await day_of_user(api, user, word)
    await plant_account(api.sessions, user, word)
    _, build = await plant_rows(api.sessions, user, word)
    assert await columns_without(api.sessions, word, PLACES_OF_ACCOUNT) == set()
    await plant_objects(store, build, word)
    before = await money(api)
    erasure = await erase_user(api.sessions, harness.builds, user, "operator", confirmed=user)
    async with transaction(api.sessions) as tx:
        assert (await tx.session.get_one(User, user)).suspended

    async def is_finished() -> bool:
        async with transaction(api.sessions) as tx:
            return (await tx.session.get_one(Erasure, erasure.id)).finished_at is not None

    await wait_until(is_finished)
    await harness.client.get_workflow_handle(erasure_workflow_id(erasure.id)).result()
    assert all(tries[name] > 1 for name in STEPS), tries
    assert await tables_with(api.sessions, word) == set()
    assert await objects_with(store, word) == []
    assert await tables_with(api.sessions, user) <= {"erasures", "audit", "bulk_runs"}
    assert await money(api) == before
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Erasure, erasure.id)
        assert (row.counts["projects"], row.counts["messages"], row.counts["objects"] >= 4) == (1, 1, True)
        assert not await tx.session.scalar(
            select(func.count()).select_from(AuditEntry).where(AuditEntry.actor == user, AuditEntry.ip.is_not(None))
        )


async def test_a_founder_deletes_the_account_and_keeps_the_certificate(api: RunningApi, harness: WorkerHarness) -> None:
    user, friend, word = f"fay-{uuid.uuid4().hex[:8]}", f"gus-{uuid.uuid4().hex[:8]}", a_word()
    project = await api.project(user, name=word, brief={**BRIEF, "name": word})
    await api.project(friend, name="Theirs", brief=BRIEF)
    made = await api.http.post("/v1/organisations", json={"name": "Both"}, headers=as_user(user))
    members = f"/v1/organisations/{made.json()['id']}/members"

    async def role_of_friend(role: str) -> None:
        assert (await api.http.put(f"{members}/{friend}", json={"role": role}, headers=as_user(user))).is_success

    async def delete(confirmed: str, headers: dict[str, str]) -> Any:
        return await api.http.request("DELETE", "/v1/account", json={"user_id": confirmed}, headers=headers)

    await role_of_friend("member")
    only_account = await api.http.post(
        "/v1/keys", json={"name": "some", "scopes": ["account:read", "account:write"]}, headers=as_user(user)
    )
    refusals = [
        await delete(friend, as_user(user)),
        await delete(user, {"Authorization": f"Bearer {only_account.json()['secret']}"}),
        await delete(user, as_user(user)),
        await api.http.post(f"/v1/ops/users/{user}/erase", json={"user_id": user}, headers=as_user(friend)),
        await api.http.post(f"/v1/ops/users/{user}/erase", json={"user_id": friend}, headers=AS_OPERATOR),
    ]
    assert [each.status_code for each in refusals] == [409, 403, 409, 404, 409]
    assert "the only owner of Both" in refusals[2].text
    assert (await api.http.get(f"/v1/projects/{project}", headers=as_user(user))).json()["name"] == word

    await role_of_friend("owner")
    exported = await api.http.get("/v1/account/export", headers=as_user(user))
    with zipfile.ZipFile(io.BytesIO(exported.content)) as file:
        assert word in file.read("projects.jsonl").decode()
    asked = await delete(user, as_user(user))
    assert (asked.status_code, asked.json()["kind"], asked.json()["requested_by"]) == (202, "user", user)
    certificate = asked.headers["location"]
    assert certificate == f"/v1/certificates/{asked.json()['id']}"

    async def finished_certificate() -> dict[str, Any] | None:
        answer = await api.http.get(certificate)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body if body["finished_at"] else None

    body = await wait_until(finished_certificate)
    assert (body["user_id"], body["counts"]["projects"], len(body["sha256"])) == (user, 1, 64)
    assert (await api.http.get("/v1/me", headers={"Authorization": f"Bearer {key_of(user)}"})).status_code == 401
    assert await tables_with(api.sessions, word) == set()
    listed = (await api.http.get("/v1/organisations", headers=as_user(friend))).json()["organisations"]
    assert "Both" in [each["name"] for each in listed]
    entries = await api.http.get("/v1/ops/audit", params={"user": user, "action": "user.erase"}, headers=AS_OPERATOR)
    assert [(each["actor"], each["how"]) for each in entries.json()["entries"]] == [(user, "api_key")]


async def test_operators_erase_a_founder_and_list_all_erasures(api: RunningApi) -> None:
    user = f"hal-{uuid.uuid4().hex[:8]}"
    project = await api.project(user, name="Hats", brief=BRIEF)
    of_project = (await erase(api, project, "Hats", user)).json()["id"]
    assert (await api.http.get(f"/v1/certificates/{of_project}")).status_code == 404, "the founder can sign in"
    asked = await api.http.post(f"/v1/ops/users/{user}/erase", json={"user_id": user}, headers=AS_OPERATOR)
    assert (asked.status_code, asked.json()["requested_by"]) == (202, "operator")
    again = await api.http.post(f"/v1/ops/users/{user}/erase", json={"user_id": user}, headers=AS_OPERATOR)
    assert again.status_code == 404 or again.json()["id"] == asked.json()["id"], "or the user is gone already"

    async def is_finished() -> bool:
        read = await api.http.get(f"/v1/erasures/{asked.json()['id']}", headers=AS_OPERATOR)
        return read.json()["finished_at"] is not None

    await wait_until(is_finished)
    ids, cursor = [], None
    while True:
        query = {"limit": 1} if cursor is None else {"limit": 1, "cursor": cursor}
        page = (await api.http.get("/v1/ops/erasures", params=query, headers=AS_OPERATOR)).json()
        ids += [each["id"] for each in page["erasures"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert ids[:2] == [asked.json()["id"], of_project]
    assert len(ids) == len(set(ids)) >= 2
    entries = await api.http.get("/v1/ops/audit", params={"user": user, "action": "user.erase"}, headers=AS_OPERATOR)
    assert [(each["actor"], each["how"]) for each in entries.json()["entries"]] == [("operator", "operator_token")]


async def day_of_user(api: RunningApi, user: str, word: str) -> None:
    async with transaction(api.sessions) as tx:
        await ensure_user(tx, user)
        row = await tx.session.get_one(User, user)
        row.name, row.email = word, f"{word}@example.com"
    await day_of(api, user)


async def test_images_go_although_no_result_names_them_and_stay_for_other_builds(
    api: RunningApi, harness: WorkerHarness, store: ObjectStore
) -> None:
    word, name, others = a_word(), a_word(), a_word()
    (project, build), (second, its_build), (_, kept) = [
        await plant_rows(api.sessions, user, each) for user, each in ((ADA, word), (ADA, name), (BOB, others))
    ]
    alone, common, shared = (f"{a_word()} as an image".encode() for _ in range(3))
    for each, images in ((build, (alone, common, shared)), (its_build, (common,)), (kept, (shared,))):
        for image in images:
            await keep_image(api.sessions, store, each, image)
    asked = await asyncio.gather(erase(api, project, word), erase(api, second, name))
    for each in asked:
        await finished(api, each.json()["id"])
    assert [len(await store.versions(image_key(hashlib.sha256(each).hexdigest()))) for each in (alone, common)] == [
        0,
        0,
    ]
    assert await store.get_image(hashlib.sha256(shared).hexdigest()) == shared

    async with transaction(api.sessions) as tx:
        await lock_images(tx)
        keeping = asyncio.create_task(keep_image(api.sessions, store, kept, alone))
        await asyncio.sleep(0.3)
        await store.delete_for_good([image_key(hashlib.sha256(alone).hexdigest())])
        assert not keeping.done(), "an erasure deletes it just now"
    assert await store.get_image(await keeping) == alone


@pytest.mark.thorough
async def test_the_last_step_waits_for_a_preview_that_opened_meanwhile(
    api: RunningApi, harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, build = await plant_rows(api.sessions, ADA, word := a_word())
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == build).values(status="ready"))
    deleted, opened = erasures.deliveries_of, list[str]()

    async def open_last(tx: Transaction, builds: Sequence[uuid.UUID]) -> list[uuid.UUID]:
        if activity.info().activity_type == "erase_rows" and not opened:
            opened.append(preview_workflow_id(build))
            await harness.builds.open_preview(build, 60)
        return await deleted(tx, builds)

    monkeypatch.setattr(erasures, "deliveries_of", open_last)
    asked = await erase(api, project, word)
    refused = await api.http.post(f"/v1/builds/{build}/preview", headers=as_user(ADA))
    assert refused.status_code in (404, 409), "the rows may be gone"
    certificate = await finished(api, asked.json()["id"])
    assert opened == [preview_workflow_id(build)]
    assert certificate["counts"]["executions"] >= 1
    assert not await has_history(harness.client, opened[0])
    assert await tables_with(api.sessions, word) == set()


async def test_no_preview_opens_while_its_project_is_erased(api: RunningApi) -> None:
    project, build = await plant_rows(api.sessions, ADA, a_word())
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == build).values(status="ready"))
        erasure = await insert_erasure(tx, ErasureKind.PROJECT, ADA, project, ADA)
    refused = await api.http.post(f"/v1/builds/{build}/preview", headers=as_user(ADA))
    assert (refused.status_code, "is being deleted" in refused.text) == (409, True)
    async with transaction(api.sessions) as tx:
        assert erasure is not None
        await tx.session.execute(delete(Erasure).where(Erasure.id == erasure.id))


async def test_an_erasure_whose_workflow_is_lost_is_started_again(api: RunningApi, harness: WorkerHarness) -> None:
    word = a_word()
    project = await api.project(ADA, name=word, brief={**BRIEF, "name": word})
    async with transaction(api.sessions) as tx:
        erasure = await insert_erasure(tx, ErasureKind.PROJECT, ADA, uuid.UUID(project), ADA)
        assert erasure is not None
        lost = update(Erasure).where(Erasure.id == erasure.id)
        await tx.session.execute(lost.values(started_at=func.now() - timedelta(minutes=59)))
    assert await start_unstarted(api.sessions, harness.builds) == 0
    async with transaction(api.sessions) as tx:
        await tx.session.execute(lost.values(started_at=func.now() - timedelta(minutes=61)))
    assert await start_unstarted(api.sessions, harness.builds) == 1
    assert await start_unstarted(api.sessions, harness.builds) == 0, "it is left alone for another hour"
    await finished(api, str(erasure.id))
    assert await tables_with(api.sessions, word) == set()


@pytest.mark.thorough
async def test_an_account_export_keeps_no_name_of_an_erased_project(api: RunningApi, store: ObjectStore) -> None:
    user, word = f"ivy-{uuid.uuid4().hex[:8]}", a_word()
    project = await api.project(user, name=word, brief={**BRIEF, "name": word})

    async def export() -> Any:
        asked = (await api.http.post("/v1/account/exports", headers=as_user(user))).json()["id"]

        async def read() -> Any:
            body = (await api.http.get(f"/v1/exports/{asked}", headers=as_user(user))).json()
            return body if body["state"] == "ready" else None

        return await wait_until(read)

    async def projects_in(response: Any) -> str:
        with zipfile.ZipFile(io.BytesIO(response.content)) as file:
            return file.read("projects.jsonl").decode()

    export_id = (await export())["id"]
    path = f"/v1/exports/{export_id}"
    assert word in await projects_in(await api.http.get(f"{path}/file", headers=as_user(user)))
    asked = await erase(api, project, word, user)
    direct = await api.http.get("/v1/account/export", headers=as_user(user))
    assert word not in await projects_in(direct), "it may be read until the rows go"
    certificate = await finished(api, asked.json()["id"], user)
    assert certificate["counts"]["exports"] == 1
    assert await store.versions(f"exports/{export_id}/") == []
    assert (await api.http.get(path, headers=as_user(user))).json()["state"] == "expired"
    assert (await api.http.get(f"{path}/file", headers=as_user(user))).status_code == 404
    assert word not in await projects_in(
        await api.http.get(f"/v1/exports/{(await export())['id']}/file", headers=as_user(user))
    )


async def test_what_an_erasure_gets_to_erase_in_its_last_step_is_erased_everywhere_first(
    api: RunningApi, harness: WorkerHarness, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last other member is gone when the objects of the other projects are deleted already."""
    user, friend = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("jo", "kim"))
    word = a_word()
    for each in (user, friend):
        await api.http.get("/v1/projects", headers=as_user(each))
    made = await api.http.post("/v1/organisations", json={"name": "Two"}, headers=as_user(user))
    members = f"/v1/organisations/{made.json()['id']}/members"
    assert (await api.http.put(f"{members}/{friend}", json={"role": "owner"}, headers=as_user(user))).is_success
    project, build = await plant_rows(api.sessions, user, word)
    async with transaction(api.sessions) as tx:
        moved = text("update projects set org_id = :org where id = :project")
        await tx.session.execute(moved, {"org": made.json()["id"], "project": project})
    await plant_objects(store, build, word)
    lock, left = erasures.lock_scope, list[str]()

    async def leave_first(tx: Transaction, erasure: Erasure) -> erasures.Scope:
        if activity.in_activity() and not left:
            async with transaction(api.sessions) as other:
                await other.session.execute(delete(Membership).where(Membership.user_id == friend))
            left.append(friend)
        return await lock(tx, erasure)

    monkeypatch.setattr(erasures, "lock_scope", leave_first)
    erasure = await erase_user(api.sessions, harness.builds, user, "operator", confirmed=user)
    await harness.client.get_workflow_handle(erasure_workflow_id(erasure.id)).result()
    assert left == [friend]
    assert await tables_with(api.sessions, word) == set()
    assert await objects_with(store, word) == []


async def test_an_organisation_is_not_left_to_owners_who_are_erased_too(
    api: RunningApi, harness: WorkerHarness
) -> None:
    one, two, third = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("lea", "max", "ned"))
    for each in (one, two, third):
        await api.http.get("/v1/projects", headers=as_user(each))
    made = await api.http.post("/v1/organisations", json={"name": "Three"}, headers=as_user(one))
    members = f"/v1/organisations/{made.json()['id']}/members"
    for each, role in ((two, "owner"), (third, "member")):
        assert (await api.http.put(f"{members}/{each}", json={"role": role}, headers=as_user(one))).is_success
    await suspend(api, two)
    with pytest.raises(LastOwner, match="the only owner of Three"):
        await erase_user(api.sessions, harness.builds, one, "operator", confirmed=one)
    for refused in (
        await api.http.delete(f"{members}/{one}", headers=as_user(one)),
        await api.http.put(f"{members}/{one}", json={"role": "member"}, headers=as_user(one)),
    ):
        assert (refused.status_code, "suspended" in refused.text) == (409, True)
    await suspend(api, two, suspended=False)
    asked = await asyncio.gather(
        *(erase_user(api.sessions, harness.builds, each, "operator", confirmed=each) for each in (one, two)),
        return_exceptions=True,
    )
    assert {type(each) for each in asked} == {Erasure, LastOwner}


async def test_what_is_not_erased(api: RunningApi) -> None:
    project = await api.project(ADA, name="Pantry", brief=BRIEF)
    wrong = await erase(api, project, "Pantri")
    assert (wrong.status_code, "not the project's name" in wrong.text) == (409, True)
    assert (await erase(api, project, "Pantry", BOB)).status_code == 404
    assert (await api.http.get(f"/v1/projects/{project}", headers=as_user(ADA))).json()["name"] == "Pantry"


async def test_rows_that_are_never_changed_are_deleted_within_an_erasure_alone(api: RunningApi) -> None:
    word = a_word()
    await plant_rows(api.sessions, BOB, word)

    async def delete(erasure: str) -> None:
        async with transaction(api.sessions) as tx:
            await tx.session.execute(text("select set_config('cofounder.erasure', :id, true)"), {"id": erasure})
            await tx.session.execute(text("delete from messages where content like :word"), {"word": f"%{word}%"})

    for erasure in ("", str(uuid.uuid4()), "no id"):
        with pytest.raises(DBAPIError, match="rows of messages are never changed"):
            await delete(erasure)


async def test_of_an_entry_of_the_audit_an_erasure_removes_the_identity_alone(api: RunningApi) -> None:
    async with transaction(api.sessions) as tx:
        erasure = await insert_erasure(tx, ErasureKind.USER, a_word(), None, "operator")
        assert erasure is not None
        by_token = AuditEntry(actor="nan", how=How.JWT, credential_id="idp:nan", action=Action.PROJECT_ERASE)
        by_key = AuditEntry(actor="nan", how=How.API_KEY, credential_id="key", action=Action.IDENTITY_LINK)
        by_key.fields = {"issuer": "https://id.example.com", "subject": "nan"}
        tx.session.add_all([by_token, by_key])
        await tx.session.flush()

    async def change(entry: AuditEntry, change: str) -> None:
        async with transaction(api.sessions) as tx:
            await tx.session.execute(text("select set_config('cofounder.erasure', :id, true)"), {"id": str(erasure.id)})
            await tx.session.execute(text(f"update audit set {change} where id = :id"), {"id": entry.id})

    await change(by_token, "credential_id = null, ip = null")
    await change(by_key, "fields = fields - 'subject', ip = null")
    for entry, refused in (
        (by_key, "credential_id = null"),
        (by_key, "fields = '{}'"),
        (by_key, 'fields = fields || \'{"subject": "other"}\''),
        (by_token, "credential_id = 'other'"),
        (by_token, "actor = 'other', ip = null"),
        (by_token, "ip = '192.0.2.1'"),
    ):
        with pytest.raises(DBAPIError, match="the audit is only ever added to"):
            await change(entry, refused)
    async with transaction(api.sessions) as tx:
        assert (await tx.session.get_one(AuditEntry, by_token.id)).credential_id is None
        assert (await tx.session.get_one(AuditEntry, by_key.id)).fields == {"issuer": "https://id.example.com"}
        await tx.session.execute(delete(Erasure).where(Erasure.id == erasure.id))
