"""The command line against a running API and its database."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import func, update
from typer.testing import CliRunner, Result

from cli import app
from db.feed import append_events
from db.models import Build
from domain.errors import CofounderError
from domain.events import EventType, NewEvent
from local.stack import LocalStack
from tests.integration.api_server import TOKEN, RunningApi, as_user, new_database, running_api, settings_for

Run = Callable[..., Coroutine[Any, Any, Result]]


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack)), stack.environment) as running:
        yield running


@pytest.fixture
def run(api: RunningApi, stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; it has an event loop of its own, so it runs beside ours."""
    environment = {
        **stack.environment,
        "COFOUNDER_API_URL": api.url,
        "API_TOKEN": TOKEN,
        "DATABASE_URL": api.services.settings.database_url,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def run_it(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))

    return run_it


def told(result: Result) -> str:
    """The sentence that `main` would show."""
    assert isinstance(result.exception, CofounderError), result.output
    return str(result.exception)


async def test_build_is_started_shown_and_told(run: Run, api: RunningApi) -> None:
    started = await run("build", "--idea", "A waitlist for my bakery", "--goal", "Make it.", "--no-watch")
    assert started.exit_code == 0, started.output
    (build,) = (line.split()[1] for line in started.output.splitlines() if line.startswith("build"))
    row = await api.row(build)
    assert (row.goal, row.user_id) == ("Make it.", "founder")

    shown = await run("show", build)
    assert shown.exit_code == 0
    assert [line.split() for line in shown.output.splitlines()][2] == ["status", "queued"]
    woken = await run("wake", build)
    assert (woken.exit_code, "queued" in woken.output) == (0, True)

    again = await run("build", "--project", str(row.project_id), "--no-watch")
    assert f"Build {build} of this project is queued" in told(again)
    assert "only a ready build has a preview" in told(await run("preview", build))

    assert (await run("cancel", build)).exit_code == 0
    assert (await api.row(build)).cancel_requested_at is not None


async def test_unknown_build_is_one_sentence(run: Run) -> None:
    unknown = str(uuid.uuid4())
    for command in ("show", "watch", "wake", "cancel", "preview"):
        assert told(await run(command, unknown)) == f"There is no build {unknown}."
    assert "can't be read" in told(await run("replay", unknown))


async def test_wrong_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "wrong")
    assert told(await run("show", str(uuid.uuid4()))).startswith("The API does not accept the token. Set API_TOKEN")


@pytest.mark.parametrize(("status", "exit_code"), [("ready", 0), ("failed", 1)])
async def test_watch_ends_with_the_build(run: Run, api: RunningApi, status: str, exit_code: int) -> None:
    build = await api.build()
    watching = asyncio.create_task(run("watch", build))
    async with api.sessions.begin() as session:
        label = {"model": "claude-sonnet-5-5", "label": "rehearsal model (standing in for claude-sonnet-5-5)"}
        said = NewEvent(EventType.NARRATION, {"text": "I look around.", "claim": "c"}, turn=1)
        await append_events(session, uuid.UUID(build), [NewEvent(EventType.MODEL, label), said])
    async with api.sessions.begin() as session:
        changes = {"status": status, "closed_at": func.now(), "reason": "because"}
        await session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**changes))
        await append_events(session, uuid.UUID(build), [NewEvent(EventType.STATUS, {"status": status})])
    watched = await watching
    assert watched.exit_code == exit_code, watched.output
    assert "I look around." in watched.output
    assert "always builds the same kind of product" in watched.output
    assert f"status: {status}" in watched.output


async def test_users_are_changed_and_shown(run: Run, api: RunningApi) -> None:
    assert "There is no user ada" in told(await run("users", "show", "ada"))
    made = await run(
        "users", "set", "ada", "--plan", "partner", "--model", "coder=claude-haiku-5-5", "--renewal-day", "15"
    )
    assert made.exit_code == 0, made.output
    shown = await run("users", "show", "ada")
    assert shown.output == made.output
    for words in ("partner", "coder=claude-haiku-5-5", "active", "15", "$0.0000 spent of $"):
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
    assert "of unlimited" in (await run("users", "show", "ada")).output


async def test_wrong_user_changes_make_no_row(run: Run, api: RunningApi) -> None:
    before = await api.rows()
    unknown_plan = told(await run("users", "set", "newcomer", "--plan", "gold"))
    assert unknown_plan == "There is no plan gold. The plans are: bootstrapper, cto_scale, partner."
    assert "There is no price for the model gpt" in told(await run("users", "set", "newcomer", "--model", "coder=gpt"))
    assert "printable" in told(await run("users", "set", "a b"))
    assert await api.rows() == before


async def test_migrate_may_be_repeated(run: Run) -> None:
    assert (await run("migrate")).output == "The database is up to date.\n"
