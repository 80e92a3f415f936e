"""Exports that a workflow writes: their files are whole and last a week, and their certificates stay."""

import asyncio
import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from typer.testing import CliRunner, Result

from activities.reaped_store import StoreReaper
from cli.main import app
from clients.browser import Browser
from clients.object_store import ObjectStore, store_config
from db import stored_exports
from db.certificates import certificates_of_project
from db.models import Certificate, Deployment, StoredExport
from db.stored_exports import EXPORTS_PREFIX
from db.transaction import transaction
from domain.names import export_workflow_id
from local.stack import LocalStack
from services import export as export_service
from services.reap.look import Budget
from tests.harness.api_server import (
    BRIEF,
    RunningApi,
    as_user,
    make_key,
    new_database,
    running_api,
    settings_for,
)
from tests.harness.buckets import new_versioned_bucket
from tests.harness.founder_texts import has_history, objects_with, plant_rows
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, worker_harness

ADA, BOB = "ada", "bob"


@pytest.fixture(scope="module")
async def harness(stack: LocalStack, browser: Browser) -> AsyncIterator[WorkerHarness]:
    own: dict[str, Any] = {
        "database_url": await new_database(stack),
        "project_snapshot_bucket": await new_versioned_bucket(stack),
    }
    async with worker_harness(stack, browser, **own) as running:
        yield running


@pytest.fixture(scope="module")
async def api(stack: LocalStack, harness: WorkerHarness) -> AsyncIterator[RunningApi]:
    settings = settings_for(
        harness.settings.database_url,
        stack.environment,
        temporal_task_queue=harness.settings.temporal_task_queue,
        project_snapshot_bucket=harness.settings.project_snapshot_bucket,
    )
    async with running_api(settings, stack.environment) as running:
        for user in (ADA, BOB):
            await running.http.get("/v1/projects", headers=as_user(user))
        yield running


@pytest.fixture(scope="module")
async def store(harness: WorkerHarness) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(store_config(harness.settings)) as opened:
        yield opened


async def ask(api: RunningApi, path: str, key: str | None = None, user: str = ADA) -> dict[str, Any]:
    answer = await api.http.post(path, headers=as_user(user) | ({} if key is None else {"Idempotency-Key": key}))
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/exports/{body['id']}"
    return body


async def ended(api: RunningApi, export: str) -> dict[str, Any]:
    async def read() -> dict[str, Any] | None:
        body: dict[str, Any] = (await api.http.get(f"/v1/exports/{export}", headers=as_user(ADA))).json()
        return body if body["state"] in ("ready", "failed") else None

    return await wait_until(read)


async def file_of(api: RunningApi, export: str, user: str = ADA) -> Any:
    return await api.http.get(f"/v1/exports/{export}/file", headers=as_user(user))


async def test_a_project_is_exported_although_a_worker_is_killed(
    api: RunningApi, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = f"zq{uuid.uuid4().hex[:12]}"
    project = await api.project(ADA, name=word, brief={**BRIEF, "name": word})
    attempts = []
    note = stored_exports.store_export

    async def die_first(*arguments: Any) -> bool:
        attempts.append(arguments)
        if len(attempts) == 1:
            raise ConnectionError("killed, and its file is in the store")
        return await note(*arguments)

    monkeypatch.setattr(stored_exports, "store_export", die_first)
    path = f"/v1/projects/{project}/exports"
    asked = await ask(api, path, "once")
    assert (await ask(api, path, "once"))["id"] == asked["id"]
    read = await ended(api, asked["id"])
    assert (read["state"], len(attempts)) == ("ready", 2)
    assert [each.key for each in await store.versions(f"{EXPORTS_PREFIX}{asked['id']}/")] == [
        attempts[1][3].object_key
    ], "the killed attempt's is deleted"

    answer = await file_of(api, asked["id"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert (len(answer.content), hashlib.sha256(answer.content).hexdigest()) == (read["bytes"], read["sha256"])
    exported = zipfile.ZipFile(io.BytesIO(answer.content))
    assert exported.testzip() is None
    direct = await api.http.get(f"/v1/projects/{project}/export", headers=as_user(ADA))
    assert {*exported.namelist()} == {*zipfile.ZipFile(io.BytesIO(direct.content)).namelist()}
    assert json.loads(exported.read("project.json"))["name"] == word

    certificate = (await api.http.get(f"/v1/certificates/{asked['id']}", headers=as_user(ADA))).json()
    assert (certificate["kind"], certificate["rule"]) == ("export", f"requested by {ADA}")
    assert (certificate["counts"]["artifacts"], certificate["counts"]["bytes"]) == (1, read["bytes"])
    assert certificate["file_sha256"] == read["sha256"]
    assert certificate["manifest_sha256"] == hashlib.sha256(exported.read("manifest.json")).hexdigest()

    for status, refused in (
        (404, await api.http.post(path, headers=as_user(BOB))),
        (404, await api.http.get(f"/v1/exports/{asked['id']}", headers=as_user(BOB))),
        (404, await file_of(api, asked["id"], BOB)),
        (404, await api.http.get(f"/v1/certificates/{asked['id']}", headers=as_user(BOB))),
        (409, await api.http.post("/v1/account/exports", headers=as_user(ADA) | {"Idempotency-Key": "once"})),
    ):
        assert refused.status_code == status, refused.text

    async with transaction(api.sessions) as tx:
        if await tx.session.scalar(select(Deployment.id)) is None:
            tx.session.add(Deployment(id=uuid.uuid4(), namespace="default", temporal_address="here"))
        expired = update(StoredExport).where(StoredExport.id == uuid.UUID(asked["id"]))
        await tx.session.execute(expired.values(expires_at=func.now()))
    gone = await file_of(api, asked["id"])
    assert (gone.status_code, "was deleted" in gone.text) == (404, True), "also before the reaper came"
    await StoreReaper(api.sessions, store).look(Budget())
    assert await store.versions(f"{EXPORTS_PREFIX}{asked['id']}/") == []
    assert (await api.http.get(f"/v1/exports/{asked['id']}", headers=as_user(ADA))).json()["state"] == "expired"
    assert (await api.http.get(f"/v1/certificates/{asked['id']}", headers=as_user(ADA))).json() == certificate


@pytest.mark.thorough
async def test_an_erasure_stops_an_export_and_deletes_what_it_has_written(
    api: RunningApi, harness: WorkerHarness, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, begun = f"zq{uuid.uuid4().hex[:12]}", asyncio.Event()
    project = await api.project(ADA, name=word, brief={**BRIEF, "name": word})
    ready = await ask(api, f"/v1/projects/{project}/exports")
    await ended(api, ready["id"])
    assert len(await objects_with(store, word)) == 1

    async def never_end(*_: Any) -> AsyncGenerator[bytes, None]:
        yield b"x" * 10_000_000  # more than a part, so there is an unfinished upload
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(export_service, "_write", never_end)
    running = await ask(api, f"/v1/projects/{project}/exports")
    assert (await ask(api, f"/v1/projects/{project}/exports"))["id"] == running["id"], "one at a time"
    await begun.wait()
    assert (await file_of(api, running["id"])).status_code == 409
    asked = await api.http.request("DELETE", f"/v1/projects/{project}", json={"name": word}, headers=as_user(ADA))
    assert asked.status_code == 202, asked.text
    refused = await api.http.post(f"/v1/projects/{project}/exports", headers=as_user(ADA))
    assert refused.status_code in (404, 409)

    async def finished() -> dict[str, Any] | None:
        body: dict[str, Any] = (await api.http.get(f"/v1/erasures/{asked.json()['id']}", headers=as_user(ADA))).json()
        return body if body["finished_at"] else None

    assert (await wait_until(finished))["counts"]["exports"] == 2
    assert await objects_with(store, word) == []
    for each in (ready, running):
        assert (await file_of(api, each["id"])).status_code == 404
        assert await store.versions(f"{EXPORTS_PREFIX}{each['id']}/") == []
        assert await store.unfinished_uploads(f"{EXPORTS_PREFIX}{each['id']}/") == []
        assert not await has_history(harness.client, export_workflow_id(each["id"]))
    async with transaction(api.sessions) as tx:
        [kept] = await certificates_of_project(tx, uuid.UUID(project), 10)
        assert str(kept.id) == ready["id"], "the certificate stays"


@pytest.mark.thorough
async def test_the_newest_files_are_kept_and_stale_attempts_note_nothing(api: RunningApi) -> None:
    project, _ = await plant_rows(api.sessions, ADA, f"zq{uuid.uuid4().hex[:12]}")  # with an export that is stored
    ids = []
    for number in range(4):
        async with transaction(api.sessions) as tx:
            export = await stored_exports.insert_export(tx, ADA, project, ADA, None)
            assert export is not None
            ids.append(export.id)
        stale, claim = uuid.uuid4(), uuid.uuid4()
        written = stored_exports.WrittenExport(f"k{number}", 1, "a", {}, "b")
        for each in (stale, claim):
            async with transaction(api.sessions) as tx:
                assert await stored_exports.claim_export(tx, export.id, each) is not None
        for each, is_noted in ((stale, False), (claim, True), (claim, False)):
            async with transaction(api.sessions) as tx:
                assert await stored_exports.store_export(tx, export.id, each, written) is is_noted
    listed = (await api.http.get("/v1/exports", headers=as_user(ADA))).json()["exports"]
    states = {each["id"]: each["state"] for each in listed}
    assert [states[str(each)] for each in ids] == ["expired", "ready", "ready", "ready"]
    async with transaction(api.sessions) as tx:
        found = await tx.session.scalars(select(Certificate.id).where(Certificate.project_id == project))
        assert set(found) == set(ids), "one for each"


@pytest.mark.thorough
async def test_commands(api: RunningApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = await api.project(ADA, name="Hats", brief=BRIEF)
    monkeypatch.setenv("COFOUNDER_API_URL", api.url)
    monkeypatch.setenv("API_TOKEN", await make_key(api.sessions, ADA))

    async def run(*arguments: str) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
        assert result.exit_code == 0, result.output
        return result

    of_project = _id_in((await run("export", project, "--in-background", "--json")).stdout)
    of_account = _id_in((await run("export", "--in-background", "--json")).stdout)
    for each in (of_project, of_account):
        await ended(api, each)
        saved = tmp_path / f"{each}.zip"
        await run("exports", "download", each, "--output", str(saved))
        assert zipfile.ZipFile(saved).testzip() is None
        assert "ready" in (await run("exports", "show", each)).output
        assert "exported all that there was" in (await run("certificates", "show", each)).output
    assert f"project {project}: ready" in (await run("exports", "list")).output.replace("\n", " ")
    assert of_project in (await run("certificates", "list", project)).output


def _id_in(output: str) -> str:
    """The id in a document, around which the API may have logged something."""
    [document] = [line for line in output.splitlines() if line.startswith("{")]
    return str(json.loads(document)["id"])
