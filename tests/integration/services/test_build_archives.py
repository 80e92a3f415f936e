"""Conversations of builds that have long ended go into the store, and only what is there leaves the database."""

import gzip
import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import DBAPIError

from activities.reaped_store import StoreReaper
from clients.object_store import ObjectStore, store_config
from db.build_archives import ARCHIVED, ARCHIVES_PREFIX, StoredArchive, count_rows, find_archive, replace_rows
from db.erasures import Scope, erase_rows, insert_erasure
from db.models import Build, BuildArchive, Certificate, Deployment, DoomedObject, Message
from db.reaper import read_cursor
from db.session import Sessions, open_sessions
from db.snapshots import SNAPSHOTS_PREFIX
from db.tombstones import doom
from db.transaction import Transaction, transaction
from db.users import ensure_user
from domain.erasure import ErasureKind
from domain.errors import NeedsPerson
from domain.status import WaitingFor
from local.stack import LocalStack
from services.build_archives import STEP, archive_build, due_builds
from services.reap.deletions import plan_deletions
from services.reap.look import Budget
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.founder_texts import image_of, plant_rows

ADA, BOB = "ada", "bob"


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack), stack.environment), stack.environment) as running:
        await running.http.get("/v1/projects", headers=as_user(ADA))
        yield running


@pytest.fixture(scope="module")
async def store(api: RunningApi) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(store_config(api.settings)) as opened:
        yield opened


def a_word() -> str:
    return f"zq{uuid.uuid4().hex[:12]}"


async def _planted(api: RunningApi, word: str, days: int) -> tuple[uuid.UUID, uuid.UUID]:
    project, build = await plant_rows(api.sessions, ADA, word)
    async with transaction(api.sessions) as tx:
        ended = func.now() - timedelta(days=days)
        await tx.session.execute(update(Build).where(Build.id == build).values(closed_at=ended))
    return project, build


async def _rows(api: RunningApi, build: uuid.UUID) -> dict[str, int]:
    async with transaction(api.sessions) as tx:
        return await count_rows(tx, build)


async def test_old_conversations_move_into_the_store_and_are_exported(api: RunningApi, store: ObjectStore) -> None:
    word, recent = a_word(), a_word()
    project, build = await _planted(api, word, days=91)
    _, young = await _planted(api, recent, days=89)
    before = await _rows(api, build)
    assert (before["messages"], before["events"], before["tool_calls"]) == (1, 1, 1)
    async with transaction(api.sessions) as tx:
        if await tx.session.scalar(select(Deployment.id)) is None:
            tx.session.add(Deployment(id=uuid.uuid4(), namespace="default", temporal_address="here"))

    await StoreReaper(api.sessions, store).look(Budget())
    assert await _rows(api, build) == before, "by default they stay"
    await StoreReaper(api.sessions, store, 90).look(Budget())
    assert set((await _rows(api, build)).values()) == {0}
    assert (await _rows(api, young))["messages"] == 1
    async with transaction(api.sessions) as tx:
        archive = await find_archive(tx, build)
    assert archive is not None
    assert (archive.rows, archive.images) == (before, [image_of(word)])

    [listed] = (await api.http.get(f"/v1/projects/{project}/certificates", headers=as_user(ADA))).json()["certificates"]
    assert (listed["kind"], listed["build_id"], listed["rule"]) == ("archive", str(build), "CONVERSATION_DAYS=90")
    assert listed["counts"] == {**before, "bytes": archive.bytes}
    manifest = await store.get(f"{ARCHIVES_PREFIX}{build}/manifest.json", 10_000)
    assert listed["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert listed["file_sha256"] == archive.sha256
    said = {**listed, "issued_at": listed["issued_at"].replace("Z", "000Z")[:26] + "Z"}
    del said["sha256"]
    assert (
        listed["sha256"] == hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    )

    answer = await api.http.get(f"/v1/projects/{project}/export", headers=as_user(ADA))
    exported = zipfile.ZipFile(io.BytesIO(answer.content))
    lines = gzip.decompress(exported.read(f"builds/{build}/archive.jsonl.gz")).splitlines()
    read: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert {name: sum(each["table"] == name for each in read) for name in ARCHIVED} == before
    [message] = [each["row"] for each in read if each["table"] == "messages"]
    assert json.loads(message["content"]) == [{"type": "text", "text": word}]


async def test_a_certificate_is_for_its_founder_and_never_changed(api: RunningApi, store: ObjectStore) -> None:
    project, build = await _planted(api, a_word(), days=91)
    assert await archive_build(api.sessions, store, build, 90)
    async with transaction(api.sessions) as tx:
        row = await tx.session.scalar(select(Certificate).where(Certificate.build_id == build))
    assert row is not None
    path = f"/v1/certificates/{row.id}"
    await api.http.get("/v1/projects", headers=as_user(BOB))
    assert (await api.http.get(path, headers=as_user(ADA))).json()["project_id"] == str(project)
    assert (await api.http.get(path, headers=as_user(BOB))).status_code == 404
    assert (await api.http.get(path, headers={"Authorization": ""})).status_code == 404

    async def change(statement: Any) -> None:
        async with transaction(api.sessions) as tx:
            await tx.session.execute(statement)

    for statement in (update(Certificate).values(rule="none"), delete(Certificate)):
        with pytest.raises(DBAPIError, match="a certificate is never changed"):
            await change(statement)


async def test_rows_that_are_not_in_the_archive_stay(
    api: RunningApi, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, build = await _planted(api, a_word(), days=91)

    async def add_first(tx: Any, archive: Any) -> bool:
        tx.session.add(Message(build_id=build, turn=2, role="user", content="[]"))
        await tx.session.flush()
        return await replace_rows(tx, archive)

    monkeypatch.setattr("services.build_archives.replace_rows", add_first)
    assert not await archive_build(api.sessions, store, build, 90)
    assert (await _rows(api, build))["messages"] == 2
    async with transaction(api.sessions) as tx:
        assert await find_archive(tx, build) is None


async def test_what_is_written_while_and_after_a_build_is_erased_goes_too(
    api: RunningApi, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, build = await _planted(api, word := a_word(), days=91)

    async def erase_first(tx: Transaction, archive: StoredArchive) -> bool:
        async with transaction(api.sessions) as other:
            erasure = await insert_erasure(other, ErasureKind.PROJECT, ADA, project, ADA)
            assert erasure is not None
            await erase_rows(other, erasure, Scope([project], [build]))
        return await replace_rows(tx, archive)

    monkeypatch.setattr("services.build_archives.replace_rows", erase_first)
    assert not await archive_build(api.sessions, store, build, 90)
    assert await store.versions(f"{ARCHIVES_PREFIX}{build}/") == []

    late, not_ours = f"{SNAPSHOTS_PREFIX}{build}/1/late.tar.gz", f"{SNAPSHOTS_PREFIX}{uuid.uuid4()}/1/late.tar.gz"
    for key in (late, not_ours):
        await store.put(key, word.encode(), "application/gzip")
    await store._client.create_multipart_upload(Bucket=store.config.bucket, Key=f"{ARCHIVES_PREFIX}{build}/late")
    reaper = StoreReaper(api.sessions, store)
    await reaper.look(Budget())
    assert await store.keys(late) == [late], "its writer may still be at work"
    async with transaction(api.sessions) as tx:
        tombstones = DoomedObject.build_id == build
        assert await tx.session.scalar(select(func.count()).where(tombstones)) == 3
        await tx.session.execute(update(DoomedObject).where(tombstones).values(due_at=func.now()))
    planned = {each.id: each.why for each in await plan_deletions(api.sessions)}
    assert "was erased" in planned[f"{SNAPSHOTS_PREFIX}{build}/"]
    assert (await reaper.look(Budget())).objects >= 1
    assert await store.versions(late) == []
    assert await store.unfinished_uploads(f"{ARCHIVES_PREFIX}{build}/") == []
    assert await store.keys(not_ours) == [not_ours]
    async with transaction(api.sessions) as tx:
        assert await tx.session.scalar(select(func.count()).where(tombstones)) == 0


async def test_the_rows_of_another_build_are_not_deleted(api: RunningApi) -> None:
    _, build = await _planted(api, a_word(), days=91)

    async def delete_all() -> None:
        async with transaction(api.sessions) as tx:
            found = await tx.session.scalar(select(BuildArchive.build_id).limit(1))
            await tx.session.execute(select(func.set_config("cofounder.archive", str(found or build), True)))
            await tx.session.execute(delete(Message).where(Message.build_id == build))

    with pytest.raises(DBAPIError, match="rows of messages are never changed"):
        await delete_all()


async def test_a_store_that_refuses_to_delete_gets_archives(
    api: RunningApi, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, build = await _planted(api, a_word(), days=91)
    async with transaction(api.sessions) as tx:
        if await tx.session.scalar(select(Deployment.id)) is None:
            tx.session.add(Deployment(id=uuid.uuid4(), namespace="default", temporal_address="here"))
        await doom(tx, build, [f"snapshots/{build}/000001-locked.tar.gz"], "a test")
        due = update(DoomedObject).where(DoomedObject.build_id == build)
        await tx.session.execute(due.values(due_at=datetime.now(UTC)))

    async def refuse(_: object) -> None:
        raise NeedsPerson("its objects are locked", WaitingFor.STORE)

    monkeypatch.setattr(store, "delete_for_good", refuse)
    with pytest.raises(NeedsPerson):
        await StoreReaper(api.sessions, store, 90).look(Budget())
    async with transaction(api.sessions) as tx:
        assert await find_archive(tx, build) is not None


async def test_what_is_archived_is_not_read_again_and_what_is_not_stays_due(stack: LocalStack) -> None:
    async with open_sessions(await new_database(stack)) as sessions:
        builds = []
        for days in (200, 150, 100):
            async with transaction(sessions) as tx:
                await ensure_user(tx, ADA)
            _, build = await plant_rows(sessions, ADA, a_word())
            ended = datetime.now(UTC) - timedelta(days=days)
            async with transaction(sessions) as tx:
                await tx.session.execute(update(Build).where(Build.id == build).values(closed_at=ended))
            builds.append((build, ended))
        failed, archived, other = builds
        assert await due_builds(sessions, 90, 10) == [build for build, _ in builds]
        await _pretend_archive(sessions, archived[0])
        assert await due_builds(sessions, 90, 10) == [failed[0], other[0]]
        for each in (failed, other):
            await _pretend_archive(sessions, each[0])
        assert await due_builds(sessions, 90, 10) == []
        async with transaction(sessions) as tx:
            cursor = await read_cursor(tx, STEP)
        assert cursor is not None
        assert other[1] < cursor < datetime.now(UTC) - timedelta(days=90)


async def _pretend_archive(sessions: Sessions, build: uuid.UUID) -> None:
    async with transaction(sessions) as tx:
        archive = BuildArchive(build_id=build, object_key=str(build), bytes=1, sha256="", rows={}, images=[])
        tx.session.add(archive)
