"""Pushing over HTTP: answers that say what to do, a client that goes away, and a token that is kept nowhere."""

import asyncio
import base64
import logging
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from sqlalchemy import text

from clients.git import DIRECTORY_PREFIX
from clients.sandbox import Role, Sandboxes, sandbox_config
from db.audit import AuditFilter, list_entries
from db.models import Base
from db.transaction import transaction
from domain.audit import Action
from domain.names import build_workflow_id
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.git_server import TOKEN, GitServer, ProcessWatch, git, git_server
from tests.harness.stored_repository import make_repository, store_repository
from tests.harness.wait import DEADLINE, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment, push_private_hosts=["127.0.0.1"])
    async with running_api(settings, stack.environment) as running:
        yield running


@pytest.fixture
async def build(api: RunningApi, tmp_path: Path) -> str:
    """An open build whose snapshot has one commit."""
    build_id = await api.build()
    await asyncio.to_thread(make_repository, tmp_path / "work")
    await store_repository(api, build_id, tmp_path / "work")
    return build_id


async def push(api: RunningApi, build: str, url: str, **more: Any) -> httpx2.Response:
    return await api.http.post(f"/v1/builds/{build}/push", json={"url": url, "token": TOKEN, **more})


async def sandboxes_of(api: RunningApi, build: str) -> list[str]:
    sandboxes = Sandboxes(sandbox_config(api.resources.settings))
    try:
        return await sandboxes.find(build, Role.PUSH)
    finally:
        await sandboxes.close()


async def rows_with(api: RunningApi, form: str) -> list[str]:
    """Tables with a row in which a text occurs."""
    async with transaction(api.sessions) as tx:
        found = []
        for name in Base.metadata.tables:
            query = text(f'select count(*) from "{name}" as row where position(:form in cast(row as text)) > 0')
            if (await tx.execute(query, {"form": form})).scalar():
                found.append(name)
        return found


_WATCHED = (b"history.bundle", b"git-remote-http")
"""Parts of the command lines of the sandbox and of the push."""


async def test_the_code_is_pushed_and_the_token_is_kept_nowhere(
    api: RunningApi, server: GitServer, build: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    repository = server.repository("good/api")
    url = server.url_of(repository)
    with structlog.testing.capture_logs() as logged, ProcessWatch() as watch:
        pushed = await push(api, build, url, branch="mvp")
        wrong = await api.http.post(f"/v1/builds/{build}/push", json={"url": f"{server.url}/echo/x", "token": TOKEN})
        invalid = await push(api, build, url, snapshot="none", username="a:b")
        inside = await push(api, build, url.replace("//", f"//ada:{TOKEN}@"))
        pushes = 1
        async with asyncio.timeout(DEADLINE):
            while not all(watch.has_seen(part) for part in _WATCHED):  # on a busy machine it looks rarely
                assert (await push(api, build, url, branch="mvp")).status_code == 200
                pushes += 1
    assert pushed.status_code == 200, pushed.text
    async with transaction(api.sessions) as tx:
        entries = await list_entries(tx, AuditFilter(action=Action.BUILD_PUSH), 100)
    recorded = [(str(entry.build_id), entry.fields) for entry in entries]
    assert recorded == [(build, {"snapshot": 1})] * pushes, "the refused ones are not recorded"
    commit = git("rev-parse", "mvp", cwd=repository)
    where = url.removeprefix("http://")
    assert pushed.json() == {"repository": where, "branch": "mvp", "commit": commit, "snapshot": 1, "is_new": True}
    assert (wrong.status_code, wrong.json()["reason"]) == (409, "not_allowed")
    assert wrong.json()["type"] == "urn:cofounder:problem:push-failed"
    assert (invalid.status_code, inside.status_code) == (422, 422)

    assert await rows_with(api, where) == ["events"], "what is searched can be found"
    history = await api.temporal.get_workflow_handle(build_workflow_id(uuid.UUID(build))).fetch_history()
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    for form in (TOKEN, TOKEN.encode().hex(), basic, basic[4:-4]):
        assert await rows_with(api, form) == []
        assert form not in history.to_json()
        assert form not in caplog.text
        assert form not in str(logged)
        assert not [each for each in watch.seen if form.encode() in each]
        for answer in (pushed, wrong, invalid, inside):
            assert form not in answer.text


async def test_a_client_that_goes_away_ends_the_push(
    api: RunningApi, server: GitServer, build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def directories() -> list[Path]:
        return list(tmp_path.glob(f"{DIRECTORY_PREFIX}*"))

    repository = server.repository("slow/gone")
    server.hold.clear()
    server.requests.clear()
    asking = asyncio.create_task(push(api, build, server.url_of(repository)))
    await wait_until(lambda: len(server.requests) > 1)
    assert directories()
    busy = await push(api, build, server.url_of(repository))
    asking.cancel()
    await asyncio.wait({asking})

    await wait_until(lambda: not directories())
    server.hold.set()
    assert await sandboxes_of(api, build) == []
    assert busy.status_code == 409, "one push at a time"
    assert git("for-each-ref", cwd=repository) == ""
    assert (await push(api, build, server.url_of(repository))).status_code == 200


async def test_an_api_without_access_to_sandboxes_says_so(stack: LocalStack, api: RunningApi, build: str) -> None:
    settings = settings_for(api.settings.database_url, stack.environment, e2b_api_key=None)
    async with running_api(settings, stack.environment) as without:
        answer = await push(without, build, "https://8.8.8.8/ada/x.git")
    assert answer.status_code == 503
    assert "E2B_API_KEY" in answer.json()["detail"]


async def test_an_api_that_stops_ends_its_pushes_and_says_so(
    stack: LocalStack, api: RunningApi, server: GitServer, build: str
) -> None:
    server.hold.clear()
    server.requests.clear()
    settings = settings_for(api.settings.database_url, stack.environment, push_private_hosts=["127.0.0.1"])
    async with AsyncExitStack() as stopping:
        stops = await stopping.enter_async_context(running_api(settings, stack.environment))
        wanted = {"url": server.url_of(server.repository("slow/stopped")), "token": TOKEN}
        asking = asyncio.create_task(api.http.post(f"{stops.url}/v1/builds/{build}/push", json=wanted))
        await wait_until(lambda: len(server.requests) > 1)
        ended = asyncio.create_task(stopping.pop_all().aclose())
        answer = await asking
        await ended
    server.hold.set()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "Push again in a minute" in answer.json()["detail"]
    assert await sandboxes_of(api, build) == []


async def test_another_user_finds_nothing_to_push(api: RunningApi, build: str) -> None:
    answer = await api.http.post(
        f"/v1/builds/{build}/push",
        json={"url": "https://8.8.8.8/x.git", "token": TOKEN},
        headers=as_user("eve"),
    )
    assert answer.status_code == 404
