"""The command line with a running API and its database."""

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import func, update
from typer.testing import CliRunner, Result

from cli.main import app
from clients.cipher import cipher_of
from clients.object_store import ObjectStore, image_key
from clients.temporal import connect_temporal
from db.feed import append_events
from db.identities import find_user_of
from db.models import Build, GateRun, Message, PayloadKey, Project, Question, Snapshot, ToolCall, Turn
from db.payload_keys import note_key
from db.project_secrets import list_secrets
from db.steering import add_agent_question, close_question
from db.transaction import transaction
from db.users import ensure_user
from domain.errors import CofounderError
from domain.events import ModelEvent, NarrationEvent, StatusEvent, ToolDoneEvent
from domain.question import AskedQuestion
from domain.tool_output import render_result
from domain.workspace_diff import StoredDiff
from local.stack import LocalStack
from services.product_secrets import open_secrets
from tests.harness.api_server import (
    BRIEF,
    OPERATORS,
    TOKEN,
    RunningApi,
    as_user,
    new_database,
    running_api,
    settings_for,
)
from tests.harness.git_server import TOKEN as GIT_TOKEN
from tests.harness.git_server import git_server
from tests.harness.stored_diffs import PATCH, end_phase, make_diff, store_diff
from tests.harness.stored_files import store_files
from tests.harness.stored_repository import make_repository, store_repository

Run = Callable[..., Coroutine[Any, Any, Result]]

_KEY = f"main:{base64.b64encode(b'k' * 32).decode()}"
"""SECRETS_KEY of the API."""

_PROGRAM = (sys.executable, "-c", "from cli.main import main; main()")


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    # The API logs in this process, and a command under test takes over its standard output.
    with structlog.testing.capture_logs():
        keys = {
            "secrets_key": SecretStr(_KEY),
            "push_private_hosts": ["127.0.0.1"],
            "api_operator_token": SecretStr(OPERATORS),
        }
        settings = settings_for(await new_database(stack), stack.environment, **keys)
        async with running_api(settings, stack.environment) as running:
            yield running


@pytest.fixture
def run(api: RunningApi, stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a thread, as it has an event loop of its own."""
    environment = {
        **stack.environment,
        "COFOUNDER_API_URL": api.url,
        "API_TOKEN": TOKEN,
        "DATABASE_URL": api.settings.database_url,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def run_it(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))

    return run_it


def told(result: Result) -> str:
    """Return the sentence that `main` would show."""
    assert isinstance(result.exception, CofounderError), result.output
    return str(result.exception)


async def test_a_preview_is_shared_and_the_link_revoked(run: Run, api: RunningApi) -> None:
    build = await api.build()
    shared = await run("preview", build, "--share", "--hours", "2", "--json")
    assert shared.exit_code == 0, shared.output
    made = json.loads(shared.stdout)
    address, _, secret = made["url"].partition("#")
    assert address == f"{api.resources.settings.public_url}/previews/{build}"
    listed = await run("preview", build, "--links")
    assert (made["id"] in listed.output, secret in listed.output) == (True, False)
    assert "no longer" in (await run("preview", build, "--revoke", made["id"])).output
    assert "no link" in told(await run("preview", build, "--revoke", made["id"]))
    assert "no link that works" in (await run("preview", build, "--links")).output
    assert "needs --share" in (await run("preview", build, "--hours", "2")).output


async def test_a_build_begins_with_an_earlier_version(run: Run, api: RunningApi) -> None:
    project = await api.project(name="Pantry Pal", brief=BRIEF)
    assert "No version yet" in (await run("versions", project)).output
    build = await api.build(project)
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        row.status, row.closed_at, row.build_version = "ready", func.now(), 1
        (await tx.session.get_one(Project, row.project_id)).last_build_version = 1
        for number in (1, 2):
            stored = {"state": "stored", "archive_sha256": "a", "manifest_sha256": "b", "stored_at": func.now()}
            ids = {"id": uuid.uuid4(), "build_id": row.id, "project_id": row.project_id, "claim": uuid.uuid4()}
            keys = {"archive_key": "a", "manifest_key": "m"}
            tx.session.add(Snapshot(**ids, number=number, reason="phase", final=number == 2, **keys, **stored))
    listed = (await run("versions", project)).output
    assert (build in listed, "nothing" in listed) == (True, True)
    assert "is not kept. Those kept: 1, 2" in told(await run("build", "--from", f"{build}:3", "--no-watch"))
    for wrong in (["--from", f"{build}:x"], ["--from", build, "--idea", "Another."], ["--from", "x"]):
        assert (await run("build", *wrong)).exit_code == 2
    started = await run("build", "--from", f"{build}:1", "--goal", "Roll back.", "--no-watch", "--json")
    made = json.loads(started.stdout)
    assert made["project_id"] == project
    assert made["started_from"] == {"build_id": build, "snapshot": 1, "version": 1}
    [began_with] = [line for line in (await run("show", made["id"])).output.splitlines() if "began with" in line]
    assert began_with.endswith("version 1")
    assert "before you archive" in told(await run("projects", "archive", project))


async def test_projects_are_renamed_and_archived(run: Run, api: RunningApi) -> None:
    project = await api.project(name="Before", brief=BRIEF)
    assert "is called After now" in (await run("projects", "rename", project, "After")).output
    assert "After is archived" in (await run("projects", "archive", project)).output
    assert project not in (await run("list", "--projects", "--all")).output
    assert project in (await run("list", "--projects", "--archived")).output
    assert "is archived" in told(await run("build", "--project", project, "--no-watch"))
    assert "not archived any more" in (await run("projects", "unarchive", project)).output
    assert project in (await run("list", "--projects", "--all")).output
    assert (await run("list", "--archived")).exit_code == 2


async def test_screenshots_are_listed_and_saved(run: Run, api: RunningApi, tmp_path: Path) -> None:
    build = await api.build()
    assert "Nothing has taken a screenshot" in (await run("screenshots", build)).output
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    await store.put_image("1a" * 32, b"picture")
    keys = {"desktop": image_key("1a" * 32), "mobile": image_key("9f" * 32)}
    async with transaction(api.sessions) as tx:
        gate = {"build_id": uuid.UUID(build), "number": 1, "snapshot_number": 1, "findings": []}
        tx.session.add(GateRun(**gate, screenshots=keys, ended_at=func.now()))
    listed = (await run("screenshots", build)).output
    assert ("gate-1-desktop" in listed, "1280x800" in listed, "no longer kept" in listed) == (True, True, True)
    saved = await run("screenshots", build, "--to", str(tmp_path / "pictures"), "--json")
    files = [each["file"] for each in json.loads(saved.stdout)["screenshots"]]
    assert files == [str(tmp_path / "pictures" / "gate-1-desktop.webp"), None]
    assert (tmp_path / "pictures" / "gate-1-desktop.webp").read_bytes() == b"picture"
    assert "already exists" in told(await run("screenshots", build, "--to", str(tmp_path / "pictures")))


async def test_turns_and_tool_calls_are_shown(run: Run, api: RunningApi) -> None:
    build = await api.build()
    assert "no turn 1" in told(await run("show", build, "--turn", "1"))
    assert (await run("logs", build)).output == ""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": "I test it.\x1b[2J\nNow."}]
    blocks.append({"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "make test"}})
    build_id = uuid.UUID(build)
    key: dict[str, Any] = {"build_id": build_id, "turn": 1}
    async with transaction(api.sessions) as tx:
        answered: dict[str, Any] = {"outcome": "tool_use", "answered_at": func.now()}
        tx.session.add(Turn(build_id=build_id, number=1, run_id="r", claim=uuid.uuid4(), **answered))
        tx.session.add(Message(**key, role="assistant", content=json.dumps(blocks)))
        result = render_result("toolu_1", "1 failed\n[exit code 2]", is_error=True)
        ended: dict[str, Any] = {"state": "done", "is_error": True, "result": result}
        call = ToolCall(**key, tool_use_id="toolu_1", position=0, name="bash", summary="make test", **ended)
        tx.session.add(call)
    shown = (await run("show", build, "--turn", "1")).output
    assert "I test it.[2J\nNow." in shown
    assert f"cofounder logs {build} --call toolu_1" in shown
    assert "turn 1 toolu_1 failed bash: make test" in (await run("logs", build)).output
    called = (await run("logs", build, "--call", "toolu_1")).output
    assert "command: make test" in called
    assert "1 failed\n[exit code 2]" in called
    assert "no tool call toolu_2" in told(await run("logs", build, "--call", "toolu_2"))
    async with transaction(api.sessions) as tx:
        done = ToolDoneEvent(tool_use_id="toolu_1", name="bash", is_error=True)
        await append_events(tx, build_id, [done, StatusEvent(status="failed")])
        closed = {"status": "failed", "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == build_id).values(**closed))
    [line] = (await run("logs", build, "-f", "--json")).stdout.splitlines()
    assert (json.loads(line)["turn"], json.loads(line)["tool_use_id"]) == (1, "toolu_1")


async def test_messages_are_listed_and_taken_back(run: Run, api: RunningApi) -> None:
    build = await api.build()
    assert "Nothing was sent" in (await run("messages", build)).output
    for words in ("Use blue.", "And green."):
        await run("say", build, words)
    assert "does not read it" in (await run("messages", build, "--take-back", "2")).output
    listed = (await run("messages", build)).output.splitlines()
    assert listed == ["1\twaits for the next turn\tUse blue.", "2\ttaken back\tAnd green."]
    assert "no message 3" in told(await run("messages", build, "--take-back", "3"))
    finished = await run("finish", build)
    assert (finished.exit_code, "is checked" in finished.output) == (0, True)


async def test_build_is_started_shown_and_told(run: Run, api: RunningApi) -> None:
    wishes = ("--goal", "Make it.", "--sleep-policy", "stop", "--max-nights", "3")
    started = await run("build", "--idea", "A waitlist for my bakery", *wishes, "--no-watch")
    assert started.exit_code == 0, started.output
    (build,) = (line.split()[1] for line in started.output.splitlines() if line.startswith("build"))
    row = await api.row(build)
    assert (row.goal, row.user_id) == ("Make it.", "founder")
    assert (row.sleep_policy, row.max_nights) == ("stop", 3)

    shown = await run("show", build)
    assert shown.exit_code == 0
    assert ["status", "queued"] in [line.split() for line in shown.output.splitlines()]
    woken = await run("wake", build)
    assert (woken.exit_code, "queued" in woken.output) == (0, True)
    replayed = await run("replay", "last")
    assert (replayed.exit_code, replayed.output.startswith(f"build-{build}: ")) == (0, True), replayed.output

    again = await run("build", "--project", str(row.project_id), "--no-watch")
    assert f"Build {build} of this project is queued" in told(again)
    assert "only a ready build has a preview" in told(await run("preview", build))

    assert "Message 1 is stored" in (await run("say", "Use blue.")).output
    assert json.loads((await run("say", build, "And green.", "--json")).stdout)["number"] == 2
    assert "between quotes" in (await run("say", "last", "Use", "blue.")).output
    assert "not a build's id" in (await run("say", "Use", "blue.")).output

    assert "no open question" in told(await run("answer", "1"))
    async with transaction(api.sessions) as tx:
        asked = {"problem": "It fails.", "tried": ["Turn 1: make"], "options": ["Try again.", "Leave it."]}
        tx.session.add(Question(id=uuid.uuid4(), build_id=uuid.UUID(build), **asked))
    seen = (await run("show", build)).output
    assert "It fails." in seen
    assert f"cofounder answer {build} 1" in seen
    assert "Leave it." in (await run("answer", build, "2")).output
    assert json.loads((await run("answer", "Leave it.", "--json")).stdout)["answer"] == "Leave it."
    assert "was answered before: Leave it." in told(await run("answer", "1"))

    async with transaction(api.sessions) as tx:
        await close_question(tx, uuid.UUID(build))
        for number, what in enumerate(("name", "price")):
            asked_by_agent = AskedQuestion(f"Which {what}?", ("This one.", "That one."), "That one.")
            await add_agent_question(tx, uuid.UUID(build), f"toolu_{number}", asked_by_agent)
    seen = (await run("show", build)).output
    assert seen.count("until then") == 2
    several = told(await run("answer", "1"))
    assert "The agent has asked 2 questions" in several
    first = several.split("--question ")[1][:8]
    assert "This one." in (await run("answer", build, "1", "--question", first)).output
    assert "Neither." in (await run("answer", build, "Neither.")).output, "one is left"
    assert "no open question" in told(await run("answer", build, "1"))
    assert f"no open question {first}" in told(await run("answer", build, "1", "--question", first))

    assert f"Build {build} has no snapshot 7." in told(await run("restore", "--snapshot", "7"))
    assert "has no phase that ended with commit 4f9d2ac1" in told(await run("restore", build, "--commit", "4f9d2ac1"))
    assert "not both" in (await run("restore", "--commit", "4f9d2ac1", "--snapshot", "1")).output
    assert json.loads((await run("restore", "--json")).stdout) == {"snapshots": []}

    assert (await run("cancel", build)).exit_code == 0
    assert (await api.row(build)).cancel_requested_at is not None


async def test_unknown_build_is_one_sentence(run: Run) -> None:
    unknown = str(uuid.uuid4())
    for command in ("show", "watch", "wake", "cancel", "preview", "download"):
        assert told(await run(command, unknown)) == f"There is no build {unknown}."
    assert "can't be read" in told(await run("replay", unknown))


async def test_wrong_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "wrong")
    assert told(await run("show", str(uuid.uuid4()))).startswith("The API does not accept the token. Set API_TOKEN")


async def test_a_founder_needs_nothing_but_a_key(run: Run, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await run("users", "set", "newcomer")).exit_code == 0
    monkeypatch.setenv("API_TOKEN", OPERATORS)
    made = json.loads((await run("keys", "create", "a laptop", "--user", "newcomer", "--json")).stdout)
    for name in list(os.environ):
        if name not in ("PATH", "HOME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("API_TOKEN", made["secret"])
    monkeypatch.setenv("COFOUNDER_API_URL", api.url)
    started = await run("build", "--idea", "A bakery", "--no-watch", "--json")
    assert (started.exit_code, json.loads(started.stdout)["status"]) == (0, "queued"), started.output
    (project,) = json.loads((await run("list", "--projects", "--json")).stdout)["projects"]
    assert project["id"] == json.loads(started.stdout)["project_id"]


async def test_scripts_get_json_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in ("json-user", "nobody"):
        assert (await run("users", "set", user)).exit_code == 0
    assert "only operators may act for others" in told(await run("list", "--user", "json-user"))
    monkeypatch.setenv("API_TOKEN", OPERATORS)
    started = await run("build", "--idea", "A bakery", "--no-watch", "--json", "--user", "json-user")
    build = json.loads(started.stdout)
    assert (started.exit_code, build["status"]) == (0, "queued")
    as_user = ("--json", "--user", "json-user")
    assert json.loads((await run("show", "last", *as_user)).stdout)["id"] == build["id"]
    assert json.loads((await run("wake", "last", *as_user)).stdout)["id"] == build["id"]
    (listed,) = json.loads((await run("list", *as_user)).stdout)["builds"]
    assert listed["id"] == build["id"]
    (project,) = json.loads((await run("list", "--projects", *as_user)).stdout)["projects"]
    assert project["id"] == build["project_id"]
    assert json.loads((await run("cancel", "last", *as_user)).stdout)["cancel_requested_at"] is not None
    assert json.loads((await run("users", "show", *as_user[:1], "json-user")).stdout)["user"] == "json-user"
    assert json.loads((await run("migrate", "--json")).stdout) == {"migrated": True, "bound": True, "sql": []}
    assert told(await run("show", "last", "--user", "nobody")).startswith("There is no build yet.")


async def test_list_filters_and_goes_through_pages(run: Run, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await run("users", "set", "lister")).exit_code == 0
    monkeypatch.setenv("API_TOKEN", OPERATORS)
    user = ("--user", "lister")
    odd = "Goal\t{} [bold]\x1b[2J 龍"
    builds = []
    for n in range(3):
        started = await run("build", "--idea", f"Idea {n}", "--goal", odd.format(n), *user, "--no-watch", "--json")
        builds.append(json.loads(started.stdout))
    await change(api, builds[0]["id"], status="failed", closed_at=func.now())
    lines = (await run("list", *user)).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [build["id"] for build in reversed(builds)]
    assert lines[0].split("\t")[1:] == ["queued", builds[2]["created_at"], "0 %", "Goal 2 [bold][2J 龍"]

    async def ids(*options: str) -> list[str]:
        return [line.split("\t")[0] for line in (await run("list", *user, *options)).stdout.splitlines()]

    assert await ids("--open") == [builds[2]["id"], builds[1]["id"]]
    assert await ids("--status", "failed", "--status", "cancelled") == [builds[0]["id"]]
    assert await ids("--project", builds[1]["project_id"]) == [builds[1]["id"]]
    assert await ids("--status", "ready") == []
    assert len(await ids("--projects")) == 3
    first = await run("list", *user, "--limit", "2", "--json")
    page = json.loads(first.stdout)
    rest = json.loads((await run("list", *user, "--json", "--cursor", page["next_cursor"])).stdout)
    assert [each["id"] for each in page["builds"] + rest["builds"]] == [build["id"] for build in reversed(builds)]
    assert rest["next_cursor"] is None
    assert "There are more" in (await run("list", *user, "--limit", "2")).stderr


async def test_watch_leaves_a_build_that_waits_and_can_be_resumed(run: Run, api: RunningApi) -> None:
    build = await api.build()
    waits = StatusEvent(status="needs_input", waiting_for="founder", reason="Which colour?")
    async with transaction(api.sessions) as tx:
        await append_events(tx, uuid.UUID(build), [waits, StatusEvent(status="code"), waits])
    await change(api, build, status="needs_input", waiting_for="founder", reason="Which colour?")
    left = await run("watch", build)
    assert left.exit_code == 5, left.output
    assert "status: code" in left.stdout  # it must not leave because the build waited earlier
    assert f"cofounder wake {build}" in left.stdout
    resumed = await run("watch", build, "--json", "--after", "2")
    (event,) = (json.loads(line) for line in resumed.stdout.splitlines())
    assert (resumed.exit_code, event["id"], event["type"], event["data"]) == (5, 3, "status", waits.to_data())
    staying = asyncio.create_task(run("watch", build, "--stay", "--json"))
    async with transaction(api.sessions) as tx:
        await append_events(tx, uuid.UUID(build), [StatusEvent(status="cancelled")])
    await change(api, build, status="cancelled", waiting_for=None, closed_at=func.now())
    stayed = await staying
    assert (stayed.exit_code, len(stayed.stdout.splitlines())) == (4, 4)


async def test_code_is_pushed_with_a_token_that_is_no_argument(run: Run, api: RunningApi, tmp_path: Path) -> None:
    build = await api.build()
    token, work = tmp_path / "token", tmp_path / "work"
    token.write_text(f"{GIT_TOKEN}\n")
    with git_server(tmp_path / "server") as server:
        repository = server.repository("good/cli")
        push = ("push", build, server.url_of(repository), "--token-file", str(token))
        assert told(await run(*push)) == f"Build {build} has no snapshot yet."
        commit = await asyncio.to_thread(make_repository, work, "trunk")
        await store_repository(api, build, work)
        pushed = await run(*push)
        where = f"branch trunk of {server.url.removeprefix('http://')}/good/cli.git"
        assert f"{commit[:12]} is now {where}" in pushed.output
        again = await run(*push, "--json")
        assert (json.loads(again.stdout)["commit"], json.loads(again.stdout)["is_new"]) == (commit, False)
        token.write_text("wrong")
        assert "does not accept the token" in told(await run(*push, "--branch", "other"))
    assert "token by itself" in told(await run("push", build, "https://ada:pw@8.8.8.8/x", "--token-file", str(token)))
    assert "--token-file" in (await run("push", build, "https://8.8.8.8/x")).output
    token.write_text(" ")
    assert "is empty" in (await run(*push)).output


async def test_download_is_there_whole_or_not_at_all(run: Run, api: RunningApi, tmp_path: Path) -> None:
    build = await api.build()
    assert told(await run("download", build)) == f"Build {build} has no snapshot yet."
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    stored = packed.getvalue()
    await store_snapshot(api, build, 1, stored)
    await store_snapshot(api, build, 2, stored[:-9], announced=len(stored))

    target = tmp_path / "product.tar.gz"
    save = ("download", build, "--output", str(target))
    assert "broke off" in told(await run(*save))
    assert names_in(tmp_path) == []
    saved = await run(*save, "--snapshot", "1", "--json")
    assert json.loads(saved.stdout)["sha256"] == hashlib.sha256(stored).hexdigest()
    assert target.read_bytes() == stored
    assert "already exists. Replace it with --force" in told(await run(*save, "--snapshot", "1"))
    target.write_bytes(b"old")
    assert (await run(*save, "--snapshot", "1", "--force")).exit_code == 0
    assert target.read_bytes() == stored
    as_zip = await run("download", build, "--snapshot", "1", "--output", str(tmp_path), "--format", "zip")
    assert as_zip.exit_code == 0, as_zip.output
    with zipfile.ZipFile(tmp_path / f"workspace-{build}.zip") as unpacked:
        assert unpacked.namelist() == ["empty"]
    assert "can't be written" in told(await run("download", build, "--snapshot", "1", "-o", str(tmp_path / "no" / "x")))
    assert told(await run("download", build, "--snapshot", "3")) == f"Build {build} has no snapshot 3."
    assert names_in(tmp_path) == ["product.tar.gz", f"workspace-{build}.zip"]


async def test_files_are_listed_shown_and_saved(run: Run, api: RunningApi, tmp_path: Path) -> None:
    build = await api.build()
    assert told(await run("files", build)) == f"Build {build} has no snapshot yet."
    await store_files(api, build, [("old.txt", b"old\n", {})], number=1)
    await store_files(
        api, build, [("app.py", b"print()\n\x1b[2J", {}), ("logo.png", b"\x89PNG\r\n\x1a\n\0", {})], number=2
    )
    assert (await run("files", build)).output == "12\tapp.py\n9\tlogo.png\n"
    assert (await run("files", build, "--snapshot", "1")).output == "4\told.txt\n"
    assert (await run("files", build, "app.py")).output == "print()\n[2J\n"
    assert json.loads((await run("files", build, "app.py", "--json")).stdout)["text"] == "print()\n\x1b[2J"
    assert "A binary file (image/png, 9 bytes)" in (await run("files", build, "logo.png")).output
    assert (await run("files", build, "logo.png", "-o", str(tmp_path))).exit_code == 0
    assert (tmp_path / "logo.png").read_bytes() == b"\x89PNG\r\n\x1a\n\0"
    assert "no file of this path" in told(await run("files", build, "old.txt"))
    assert "needs a PATH" in (await run("files", build, "-o", str(tmp_path))).output


async def test_changes_of_phases_are_shown(run: Run, api: RunningApi) -> None:
    build = await api.build()
    assert "No phase has ended yet" in (await run("diff", build, "--phases")).output
    assert "no phase has ended" in told(await run("diff", build))
    one, two = "1" * 40, "2" * 40
    await end_phase(api, build, 1, one)
    await end_phase(api, build, 2, two, "A list\x1b[2J")
    await store_diff(
        api, build, 2, StoredDiff(phase=make_diff(two, one), build=make_diff(two, binary=True, patch=None))
    )
    listed = (await run("diff", build, "--phases")).output.splitlines()
    assert [line.split("\t")[3] for line in listed] == ["not stored", "+1 -1 in 1 file"]
    assert "\x1b" not in listed[1]
    shown = (await run("diff", build, "--phase", "2")).output
    assert shown.endswith(PATCH)
    assert "app.py (binary)" in (await run("diff", build)).output
    assert json.loads((await run("diff", build, "--json")).stdout)["up_to_phase"] == 2
    assert "were not stored" in told(await run("diff", build, "--phase", "1"))


def names_in(directory: Path) -> list[str]:
    """List the names of the files in the directory."""
    return sorted(path.name for path in directory.iterdir())


async def store_snapshot(
    api: RunningApi, build: str, number: int, content: bytes, announced: int | None = None
) -> None:
    """Store a snapshot of the build with this content; the length in its row may differ."""
    row, key = await api.row(build), f"test/{build}/{number}"
    assert isinstance(api.resources.store, ObjectStore)
    await api.resources.store.put(key, content)
    async with transaction(api.sessions) as tx:
        tx.session.add(
            Snapshot(
                id=uuid.uuid4(),
                build_id=row.id,
                project_id=row.project_id,
                number=number,
                state="stored",
                claim=uuid.uuid4(),
                reason="phase",
                archive_key=key,
                manifest_key="m",
                archive_sha256="abc",
                manifest_sha256="def",
                archive_bytes=announced or len(content),
                stored_at=func.now(),
            )
        )


async def test_watch_reconnects_and_leaves_the_build_running(run: Run, api: RunningApi) -> None:
    """Connect through a proxy that can interrupt, as if the API restarted or the network failed for a moment."""
    build = await api.build()
    proxy = BreakingProxy(int(api.url.rpartition(":")[2]))
    async with proxy:
        watching = await asyncio.create_subprocess_exec(
            *[*_PROGRAM, "watch", build, "--api-url", proxy.url, "--stay"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watching.stdout is not None
        said = ""
        for number in range(3):
            async with transaction(api.sessions) as tx:
                event = NarrationEvent(text=f"sentence {number}", claim="c")
                await append_events(tx, uuid.UUID(build), [event], turn=1)
            while f"sentence {number}" not in said:
                said += (await watching.stdout.readline()).decode()
            await proxy.interrupt()
        watching.send_signal(signal.SIGINT)
        rest, trouble = await watching.communicate()
    said += rest.decode()
    assert watching.returncode == 130, trouble
    assert [said.count(f"sentence {number}") for number in range(3)] == [1, 1, 1]
    assert f"The build keeps running. To see it again: cofounder watch {build}" in said
    assert b"Traceback" not in trouble
    assert (await api.row(build)).cancel_requested_at is None


class BreakingProxy:
    """A TCP proxy to a local port that can break its connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "BreakingProxy":
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.interrupt()

    async def interrupt(self) -> None:
        """Break the open connections."""
        for task in list(self._passing):
            task.cancel()
        if self._passing:
            await asyncio.wait(self._passing)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [asyncio.create_task(_copy(reader, inner_writer)), asyncio.create_task(_copy(inner_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # a broken connection must not fail the test
        finally:
            for way in ways:
                way.cancel()
            writer.close()
            inner_writer.close()
            self._passing.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def test_output_without_a_reader_ends_silently(run: Run, api: RunningApi) -> None:
    await api.build()
    for options in ([], ["--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = await asyncio.create_subprocess_exec(
            *[*_PROGRAM, "list", *options], stdout=writer, stderr=subprocess.PIPE
        )
        os.close(writer)
        _, said = await process.communicate()
        assert (process.returncode, said) == (1, b"")


async def change(api: RunningApi, build: str, **values: Any) -> None:
    """Change a build's row as its workflow does."""
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**values))


@pytest.mark.parametrize(("status", "exit_code"), [("ready", 0), ("failed", 4)])
async def test_watch_ends_with_the_build(run: Run, api: RunningApi, status: str, exit_code: int) -> None:
    build = await api.build()
    watching = asyncio.create_task(run("watch", build))
    async with transaction(api.sessions) as tx:
        label = "rehearsal model (standing in for claude-sonnet-5-5)"
        await append_events(tx, uuid.UUID(build), [ModelEvent(model="claude-sonnet-5-5", label=label)])
        await append_events(tx, uuid.UUID(build), [NarrationEvent(text="I look around.", claim="c")], turn=1)
    async with transaction(api.sessions) as tx:
        changes = {"status": status, "closed_at": func.now(), "reason": "because"}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**changes))
        await append_events(tx, uuid.UUID(build), [StatusEvent(status=status)])
    watched = await watching
    assert watched.exit_code == exit_code, watched.output
    assert "I look around." in watched.output
    assert "always builds the same kind of product" in watched.output
    assert f"status: {status}" in watched.output


async def test_watch_of_a_build_that_ended_without_a_word(run: Run, api: RunningApi) -> None:
    build = await api.build()
    await change(api, build, status="cancelled", closed_at=func.now())
    watched = await run("watch", build)
    assert (watched.exit_code, "waits for a person" in watched.output) == (4, False), watched.output


async def test_users_are_changed_and_shown(run: Run, api: RunningApi) -> None:
    assert "There is no user ada" in told(await run("users", "show", "ada"))
    made = await run(
        "users", "set", "ada", "--plan", "partner", "--model", "coder=claude-haiku-5-5", "--renewal-day", "15"
    )
    assert made.exit_code == 0, made.output
    shown = await run("users", "show", "ada")
    assert shown.output == made.output
    for words in ("partner", "coder=claude-haiku-5-5", "active", "15", "$0.00 today"):
        assert words in shown.output
    suspended = await run("users", "set", "ada", "--suspended", "--model", "coder=")
    for words in ("partner", "the plan's", "suspended", "15"):
        assert words in suspended.output

    project = await api.project("ada")
    refused = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=as_user("ada"))
    assert refused.status_code == 403
    assert (await run("users", "set", "ada", "--active", "--plan", "cto_scale")).exit_code == 0
    allowed = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=as_user("ada"))
    assert allowed.status_code == 201
    assert "unlimited" in (await run("users", "show", "ada")).output


async def test_a_person_is_linked_to_a_user_who_exists(run: Run, api: RunningApi) -> None:
    """A person is linked once, and by what a token can have as `iss` and `sub`."""
    issuer = "https://id.acme.example/"
    for arguments, says in (
        (("ida", issuer, "7"), "There is no user ida"),
        (("ida", "acme", "7"), "acme is not an issuer"),
        (("ida", issuer, " "), "can't be a `sub`"),
    ):
        assert says in told(await run("users", "link", *arguments))
    for user in ("ida", "eva"):
        assert (await run("users", "set", user, "--plan", "partner")).exit_code == 0
    for _ in range(2):
        assert f"7 of {issuer} is now the user ida." in (await run("users", "link", "ida", issuer, "7")).output
    assert f"7 of {issuer} is the user ida already" in told(await run("users", "link", "eva", issuer, "7"))
    async with transaction(api.sessions) as tx:
        assert await find_user_of(tx, issuer, "7") == "ida"


async def test_versions_of_workers_are_shown_and_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_DEPLOYMENT_NAME", f"of-{uuid.uuid4()}")
    assert json.loads((await run("deploy", "status", "--json")).stdout)["current"] == "unversioned"
    assert "unversioned" in (await run("deploy", "status")).output
    for command in (("set-current", "one"), ("ramp", "one", "--percent", "5")):
        assert "The version one can't take the work" in told(await run("deploy", *command))
    assert "The current version is unversioned" in told(await run("deploy", "settle", "--to", "one"))
    patches = json.loads((await run("deploy", "patches", "--json")).stdout)
    assert set(patches[0]) == {"patch", "since", "dropped_in", "open_without"}
    assert "places" in (await run("deploy", "patches")).output


async def test_a_payload_key_that_may_be_needed_stays(
    run: Run, api: RunningApi, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {name: f"{name}:{base64.b64encode(name.encode() * 8).decode()}" for name in ("old1", "new1")}
    monkeypatch.setenv("PAYLOAD_KEY", f"{keys['new1']},{keys['old1']}")
    client = await connect_temporal(stack.environment)
    open_one = await client.start_workflow("NoOne", id=f"open-{uuid.uuid4()}", task_queue="no-one")
    async with transaction(api.sessions) as tx:
        for name in keys:
            await note_key(tx, name, "check")
        await tx.session.execute(update(PayloadKey).values(used_since=func.now() + timedelta(minutes=1)))
    assert "encrypts" in told(await run("payload-keys", "retire", "new1"))
    assert "open workflows may have been written with old1" in told(await run("payload-keys", "retire", "old1"))
    await open_one.terminate()
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(PayloadKey).values(used_since=func.now() - timedelta(days=9)))
    assert (await run("payload-keys", "retire", "old1")).exit_code == 0
    monkeypatch.delenv("PAYLOAD_KEY")
    assert "new1, which PAYLOAD_KEY does not have" in told(await run("migrate"))
    assert (await run("payload-keys", "retire", "new1", "--force")).exit_code == 0


async def test_builds_are_switched_off_and_on(run: Run, api: RunningApi) -> None:
    project = await api.project("ulla")
    assert "Everything is on." in (await run("switch", "list")).output
    assert "Name one of" in told(await run("switch", "off", "--user", "a", "--plan", "b", "--reason", "x"))
    off = await run("switch", "off", "--user", "ulla", "--reason", "a runaway", "--json")
    assert (off.exit_code, json.loads(off.stdout)["key"]) == (0, "ulla"), off.output
    assert (await run("switch", "off", "--plan", "partner", "--reason", "no money")).exit_code == 0
    listed = (await run("switch", "list")).output
    for words in ("user ulla", "a runaway", "plan partner", "no money"):
        assert words in listed
    refused = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=as_user("ulla"))
    assert (refused.status_code, "Builds of your account" in refused.json()["detail"]) == (503, True)
    assert (await run("switch", "on", "--plan", "partner")).exit_code == 0
    on = json.loads((await run("switch", "on", "--user", "ulla", "--json")).stdout)
    assert (on["was_off"], on["trouble"]) == (True, None)
    assert "It was not off." in (await run("switch", "on")).output
    assert "Everything is on." in (await run("switch", "list")).output


async def test_the_fleet_is_limited(run: Run, api: RunningApi) -> None:
    assert "There is no limit fleet" in told(await run("limits", "set", "fleet", "1"))
    assert "is not an amount" in told(await run("limits", "set", "fleet_day", "much"))
    done = json.loads((await run("limits", "set", "fleet_day", "1000000", "--json")).stdout)
    assert (done["microdollars"], done["trouble"]) == (10**12, None)
    assert "$1000000.00 a day" in (await run("limits", "list")).output
    assert (await run("limits", "set", "fleet_day", "none")).exit_code == 0
    assert "no limit" in (await run("limits", "list")).output


async def test_top_up_is_money_of_today_and_wakes_builds(
    run: Run, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no user eve" in told(await run("users", "top-up", "eve", "5"))
    assert (await run("users", "set", "eve", "--plan", "bootstrapper")).exit_code == 0
    before = json.loads((await run("users", "show", "eve", "--json")).stdout)
    project = await api.project("eve")
    started = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=as_user("eve"))
    build = started.json()["id"]

    topped = await run("users", "top-up", "eve", "$2.50", "--note", "for Friday", "--key", "k", "--json")
    after = json.loads(topped.stdout)
    assert after["topped_up_microdollars"] == 2_500_000
    assert after["allowance_microdollars"] == before["allowance_microdollars"] + 2_500_000
    assert (after["builds_told"], after["trouble"], after["open_builds"]) == ([build], None, [build])
    repeated = json.loads((await run("users", "top-up", "eve", "2.5", "--key", "k", "--json")).stdout)
    assert repeated["allowance_microdollars"] == after["allowance_microdollars"]
    assert "another amount" in told(await run("users", "top-up", "eve", "3", "--key", "k"))
    for wrong in ("0", "five", "0.0000001", "nan", "1e99"):
        assert "not a valid amount" in told(await run("users", "top-up", "eve", wrong))
    assert (await run("users", "set", "ada", "--plan", "cto_scale")).exit_code == 0
    assert "nothing to top up" in told(await run("users", "top-up", "ada", "1"))
    shown = (await run("users", "show", "eve")).stdout
    assert "$2.50 today" in shown
    assert build in shown

    monkeypatch.setenv("TEMPORAL_ADDRESS", "no address")
    away = await run("users", "top-up", "eve", "1")
    assert away.exit_code == 0, away.output
    assert "The open builds could not be notified now. The reaper notifies them within a minute" in away.stdout
    assert "$3.50 today" in away.stdout


async def test_wrong_user_changes_make_no_row(run: Run, api: RunningApi) -> None:
    before = await api.rows()
    unknown_plan = told(await run("users", "set", "newcomer", "--plan", "gold"))
    assert unknown_plan == "There is no plan gold. The plans are: bootstrapper, cto_scale, partner."
    assert "gpt, which has no price" in told(await run("users", "set", "newcomer", "--model", "coder=gpt"))
    assert "printable" in told(await run("users", "set", "a b"))
    assert await api.rows() == before


async def test_secrets_are_read_from_standard_input_and_never_shown(
    run: Run, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await api.project("keeper")
    mine = ("--user", "keeper")
    monkeypatch.setenv("API_TOKEN", OPERATORS)

    async def set_(name: str, value: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["secrets", "set", name, *mine], value)

    done = await set_("STRIPE_API_KEY", "a value that is secret\n")
    assert (done.exit_code, "a value" in done.output) == (0, False), (done.output, done.exception)
    assert f"STRIPE_API_KEY is set for project {project}." in done.output
    async with transaction(api.sessions) as tx:
        [stored] = await list_secrets(tx, uuid.UUID(project))
    assert open_secrets(cipher_of(api.resources.settings), [stored]) == {"STRIPE_API_KEY": "a value that is secret"}
    assert "There is no value" in told(await set_("STRIPE_API_KEY", "\n"))
    assert "PATH is reserved" in told(await set_("PATH", "a value that is secret"))

    listed = await run("secrets", "list", *mine)
    assert listed.output.split()[0] == "STRIPE_API_KEY"
    assert json.loads((await run("secrets", "list", "--json", *mine)).output)["secrets"][0]["name"] == "STRIPE_API_KEY"
    monkeypatch.setenv("SECRETS_KEY", f"new:{base64.b64encode(b'n' * 32).decode()},{_KEY}")
    rotated = await run("secrets", "rotate", "--json")
    assert json.loads(rotated.output) == {"key": "new", "encrypted": 1, "unreadable": []}
    monkeypatch.setenv("SECRETS_KEY", _KEY)
    lost = await run("secrets", "rotate")
    assert (lost.exit_code, "the key new, which SECRETS_KEY does not have" in lost.output) == (1, True)

    assert (await run("secrets", "remove", "STRIPE_API_KEY", *mine)).exit_code == 0
    assert "has no secret" in told(await run("secrets", "remove", "STRIPE_API_KEY", *mine))
    await api.project("keeper")
    assert "Name one with --project" in told(await run("secrets", "list", *mine))


async def test_migrate_may_be_repeated(run: Run) -> None:
    assert (await run("migrate")).output == "The database is up to date.\n"


async def test_every_command_works_with_an_api_key(run: Run, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    async with transaction(api.sessions) as tx:
        await ensure_user(tx, "ada")
    monkeypatch.setenv("API_TOKEN", OPERATORS)
    made = json.loads((await run("keys", "create", "her laptop", "--user", "ada", "--days", "9", "--json")).stdout)
    assert "There is no user bob" in told(await run("keys", "create", "x", "--user", "bob"))

    monkeypatch.setenv("API_TOKEN", made["secret"])
    started = json.loads((await run("build", "--idea", "A bakery", "--no-watch", "--json")).stdout)
    assert (await api.row(started["id"])).user_id == "ada"
    me = (await run("me")).output
    assert [line.split()[0] for line in me.splitlines()] == ["user", "by", "scopes", "organisation"]
    assert ("ada (owner)" in me, f"an API key {made['key']['id']}" in me) == (True, True)

    reading = await run("keys", "create", "the export", "--scope", "builds:read")
    assert reading.exit_code == 0, reading.output
    secret = reading.output.splitlines()[-1].strip()
    listed = (await run("keys", "list")).output
    assert ("the export" in listed, secret in listed) == (True, False)
    rotated = await run("keys", "rotate", made["key"]["id"], "--overlap", "0")
    assert "does not work any more" in rotated.output
    assert "The key" in told(await run("keys", "list"))  # what has taken its place
    monkeypatch.setenv("API_TOKEN", rotated.output.splitlines()[-2].strip())
    key_id = secret.split("_")[1]
    assert f"{key_id} is revoked" in (await run("keys", "revoke", key_id)).output
    monkeypatch.setenv("API_TOKEN", secret)
    assert "was revoked" in told(await run("list"))
    monkeypatch.setenv("API_TOKEN", secret[:-2])
    assert "incomplete or mistyped" in told(await run("list"))


async def test_open_prints_a_link_that_signs_in(run: Run, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    started = json.loads((await run("build", "--idea", "A bakery", "--no-watch", "--json")).stdout)
    link = (await run("open", "last", "--print")).output.splitlines()[0]
    assert link.startswith(f"{api.url}/sign-in#code=")
    assert link.endswith(f"&to=%2Fbuilds%2F{started['id']}")
    assert "can't give away ops:read" in told(await run("open", "--operator"))
    monkeypatch.setenv("API_TOKEN", OPERATORS)
    of_operator = json.loads((await run("open", "--operator", "--json")).stdout)["url"].partition("#code=")[2]
    monkeypatch.setenv("API_TOKEN", TOKEN)
    async with httpx2.AsyncClient(base_url=api.url, headers={"Sec-Fetch-Site": "same-origin"}, trust_env=False) as http:
        for code in (link.partition("#code=")[2].partition("&")[0], of_operator):
            signed_in = await http.post("/v1/sign-ins", json={"code": code})
            assert signed_in.status_code == 201, signed_in.text
        assert "ops:write" in signed_in.json()["sign_in"]["scopes"]
        sign_in = signed_in.json()["sign_in"]["id"]
        assert sign_in in (await run("sign-ins", "list")).output
        assert f"{sign_in} is ended" in (await run("sign-ins", "end", sign_in)).output
        assert (await http.get("/v1/me")).status_code == 401


async def test_organisations_share_projects(run: Run, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    async with transaction(api.sessions) as tx:
        await ensure_user(tx, "guest/1")
    made = json.loads((await run("orgs", "create", "The choir", "--json")).stdout)
    built = await run("build", "--idea", "A calendar", "--org", "The choir", "--no-watch", "--json")
    build = json.loads(built.stdout)
    assert build["started_by"] == "founder"
    listed = await run("list", "--projects")
    assert "\tThe choir\t" in listed.stdout
    added = await run("orgs", "add", made["id"], "guest/1", "--role", "owner")
    assert "guest/1 is an owner now." in added.stdout
    assert "guest/1" in (await run("orgs", "members", "The choir")).stdout

    theirs = as_user("guest/1")["Authorization"].removeprefix("Bearer ")
    await api.http.get("/v1/me", headers=as_user("guest/1"))  # makes the key
    monkeypatch.setenv("API_TOKEN", theirs)
    listed = await run("list")
    assert build["id"] in listed.stdout
    nothing = await run("wake", "last")
    assert isinstance(nothing.exception, CofounderError)
    assert "There is no build yet" in str(nothing.exception)
    assert "is called The big choir now." in (await run("orgs", "rename", "The choir", "The big choir")).stdout
    assert "founder" in (await run("show", build["id"])).stdout
    moved = await run("orgs", "move", build["project_id"], "guest/1")
    assert isinstance(moved.exception, CofounderError)
    assert "who pays for it, could not change it" in str(moved.exception)
    removed = await run("orgs", "remove", made["id"], "founder")
    assert f"Cancelled, because they can't steer them any more: {build['id']}" in removed.stdout
    gone = await run("orgs", "remove", made["id"], "guest/1")
    assert isinstance(gone.exception, CofounderError)
    assert "last owner" in str(gone.exception)
    unknown = await run("orgs", "members", "The band")
    assert isinstance(unknown.exception, CofounderError)
    assert "cofounder orgs list" in str(unknown.exception)
