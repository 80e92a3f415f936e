"""A project is exported whole, to its members alone, and without secrets."""

import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, update

from clients.object_store import ObjectStore, store_config
from db import export
from db.events import read_feed
from db.feed import append_events
from db.models import Snapshot
from db.transaction import transaction
from domain.events import NarrationEvent
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.founder_texts import plant_objects, plant_rows

ADA, BOB = "ada", "bob"


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack), stack.environment), stack.environment) as running:
        for user in (ADA, BOB):
            await running.http.get("/v1/projects", headers=as_user(user))
        yield running


async def _planted(api: RunningApi, word: str) -> tuple[uuid.UUID, uuid.UUID]:
    project, build = await plant_rows(api.sessions, ADA, word)
    async with ObjectStore(store_config(api.settings)) as store:
        await plant_objects(store, build, word)
    stored = {"state": "stored", "archive_sha256": "a", "manifest_sha256": "m", "stored_at": func.now()}
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(Snapshot).where(Snapshot.build_id == build).values(**stored))
    return project, build


async def test_a_project_is_exported_with_all_that_its_founder_wrote(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    monkeypatch.setattr("services.export.PAGE", 2)
    word = f"zq{uuid.uuid4().hex[:12]}"
    project, build = await _planted(api, word)
    for _ in range(4):
        async with transaction(api.sessions) as tx:
            await append_events(tx, build, [NarrationEvent(text=word)])
    answer = await api.http.get(f"/v1/projects/{project}/export", headers=as_user(ADA))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    exported = zipfile.ZipFile(io.BytesIO(answer.content))
    assert exported.testzip() is None
    manifest = json.loads(exported.read("manifest.json"))
    assert {each["path"] for each in manifest["files"]} == set(exported.namelist()) - {"manifest.json"}
    for each in manifest["files"]:
        assert hashlib.sha256(exported.read(each["path"])).hexdigest() == each["sha256"], each["path"]

    def lines(name: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in exported.read(f"builds/{build}/{name}.jsonl").splitlines()]

    assert json.loads(exported.read("project.json"))["name"] == word
    assert json.loads(exported.read(f"builds/{build}/build.json"))["goal"] == word
    assert [each["text"] for each in lines("messages")] == [word]
    assert [each["content"] for each in lines("conversation")] == [[{"type": "text", "text": word}]]
    async with transaction(api.sessions) as tx:
        feed = await read_feed(tx, build, 0, 100)
    assert [each["id"] for each in lines("events")] == [each.id for each in feed.events]
    [call] = lines("model_calls")
    assert ("cost" in call, call["model"], call["input_tokens"]) == (False, "claude-sonnet-5-5", 0)
    assert exported.read(f"builds/{build}/workspace.tar.gz")[:2] == b"\x1f\x8b"
    names = "\n".join(exported.namelist())
    assert "secret" not in names
    assert not any("ciphertext" in exported.read(name).decode(errors="ignore") for name in exported.namelist())


async def test_another_user_gets_nothing(api: RunningApi) -> None:
    project, _ = await plant_rows(api.sessions, ADA, f"zq{uuid.uuid4().hex[:12]}")
    assert (await api.http.get(f"/v1/projects/{project}/export", headers=as_user(BOB))).status_code == 404


async def test_an_account_is_exported_without_what_is_secret_in_it(api: RunningApi) -> None:
    word = f"zq{uuid.uuid4().hex[:12]}"
    await plant_rows(api.sessions, ADA, word)
    await plant_rows(api.sessions, BOB, f"{word}-of-bob")
    answer = await api.http.get("/v1/account/export", headers=as_user(ADA))
    assert answer.status_code == 200, answer.text
    exported = zipfile.ZipFile(io.BytesIO(answer.content))
    assert json.loads(exported.read("account.json"))["id"] == ADA
    assert word in exported.read("projects.jsonl").decode()
    assert json.loads(exported.read("model_calls.jsonl").splitlines()[0])["model"] == "claude-sonnet-5-5"
    [key] = [json.loads(line) for line in exported.read("api_keys.jsonl").splitlines()]
    assert (key["name"], "secret_hash" in key) == ("tests", False)
    assert not any(f"{word}-of-bob" in exported.read(name).decode() for name in exported.namelist())
