"""`cofounder ops`: what operators see on the command line."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import func, update
from typer.testing import CliRunner, Result

from cli.api_client import ApiProblem
from cli.main import app
from db.models import Build, ModelBucket
from db.transaction import transaction
from domain.errors import InvalidInput
from local.stack import LocalStack
from tests.harness.api_server import OPERATORS, TOKEN, RunningApi, make_key, new_database, running_api, settings_for
from tests.harness.fleet import fill_fleet

Run = Callable[..., Coroutine[Any, Any, Result]]

BUILDS = 20


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    # The API logs in this process, and a command under test takes over its standard output.
    with structlog.testing.capture_logs():
        settings = settings_for(
            await new_database(stack),
            stack.environment,
            api_operator_token=SecretStr(OPERATORS),
            anthropic_api_key=None,
        )
        async with running_api(settings, stack.environment) as running:
            await fill_fleet(running.sessions, BUILDS)
            yield running


@pytest.fixture
def run(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with the operators' token."""
    monkeypatch.setenv("COFOUNDER_API_URL", api.url)
    monkeypatch.setenv("API_TOKEN", TOKEN)
    monkeypatch.setenv("API_OPERATOR_TOKEN", OPERATORS)

    async def run_it(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))

    return run_it


async def test_fleet(run: Run) -> None:
    result = await run("ops", "fleet")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.output.splitlines()]
    assert [str(BUILDS // 2), "sleeping", ""] in [row[:3] for row in rows]
    assert "reserved, without a limit" in result.output
    assert "processes    1 api" in result.output
    assert json.loads((await run("ops", "fleet", "--json")).output)["turns_last_minute"] == 0


async def test_what_is_left_of_a_models_limits(api: RunningApi, run: Run) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    async with transaction(api.sessions) as tx:
        for kind, per_minute in (("requests", 50), ("input", 30_000), ("output", None)):
            level = 0 if per_minute is None else per_minute
            row = {"per_minute": per_minute, "level": level, "blocked_until": later if kind == "requests" else None}
            tx.session.add(ModelBucket(model="claude-sonnet-5-5", kind=kind, **row))
    [line] = [line for line in (await run("ops", "fleet")).output.splitlines() if "requests" in line]
    # A sixth of a minute's: more is not saved up.
    assert re.fullmatch(r"claude-sonnet-5-5 +8 requests, 5,000 input tokens left, refuses calls until .+", line)


async def test_builds(run: Run) -> None:
    result = await run("ops", "builds", "--where", "status=needs_input and waiting_for=operator", "--sort", "-spent")
    assert result.exit_code == 0, result.output
    [line] = result.output.splitlines()
    assert line.split("\t")[3:6] == ["needs_input", "operator", "3"]
    listed = json.loads((await run("ops", "builds", "--all", "--json")).output)
    assert (listed["total"], len(listed["builds"])) == (BUILDS, BUILDS)
    assert "No builds match." in (await run("ops", "builds", "--where", "user=no-one")).output
    query = await run("ops", "builds", "--where", "plan=partner", "--temporal")
    assert 'BuildPlan = "partner"' in query.output
    assert "temporal workflow list --namespace" in query.output


async def test_stuck_and_one_build(api: RunningApi, run: Run) -> None:
    result = await run("ops", "stuck")
    assert result.exit_code == 1, result.output
    assert "waits for operator: A reason of this build." in result.output
    assert "no worker: No worker was seen" in result.output
    build = json.loads((await run("ops", "stuck", "--json")).output)["builds"][0]["build"]["id"]
    shown = await run("ops", "show", build)
    assert shown.exit_code == 0, shown.output
    for text in (build, "has no workflow", "3 calls of", "status=code", "waits for operator:"):
        assert text in shown.output


async def test_spend(run: Run) -> None:
    result = await run("ops", "spend", "--by", "plan")
    assert result.exit_code == 0, result.output
    assert {line.split("\t")[-1] for line in result.output.splitlines()} == {"bootstrapper", "partner"}
    nothing = await run("ops", "spend", "--from", "2026-01-01", "--to", "2026-01-02")
    assert "Nothing was spent from 2026-01-01 to 2026-01-02." in nothing.output


async def test_checks_are_those_of_doctor(
    stack: LocalStack, api: RunningApi, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await run("ops", "checks", "--json")
    found = {each["name"]: each for each in json.loads(result.output)["checks"]}
    assert (found["database"]["state"], found["temporal"]["state"]) == ("ok", "ok"), found
    assert "not checked: the API has no ANTHROPIC_API_KEY" in found["model"]["detail"]
    assert found["worker"]["state"] == "fail"
    assert result.exit_code == 1
    lines = (await run("ops", "checks")).output
    assert "fail worker      no worker polls the task queue" in lines

    own = {"DATABASE_URL": api.settings.database_url, "TEMPORAL_TASK_QUEUE": api.settings.temporal_task_queue}
    for name, value in {**stack.environment, **own}.items():
        monkeypatch.setenv(name, value)
    only = ("database", "temporal", "worker")
    asked = await run("doctor", "--json", *(word for name in only for word in ("--only", name)))
    of_doctor = {each["name"]: each for each in json.loads(asked.output)["checks"]}
    for name in only:
        assert (of_doctor[name]["state"], of_doctor[name]["detail"]) == (found[name]["state"], found[name]["detail"])


async def test_founders_are_told_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_OPERATOR_TOKEN")
    result = await run("ops", "fleet")
    assert isinstance(result.exception, InvalidInput)
    assert "The API shows this to operators alone. Set API_OPERATOR_TOKEN" in str(result.exception)


async def test_nothing_is_stuck(api: RunningApi, run: Run) -> None:
    async with transaction(api.sessions) as tx:
        ended = {"status": "failed", "closed_at": func.now(), "waiting_for": None, "dependency": None}
        await tx.session.execute(update(Build).where(Build.closed_at.is_(None)).values(ended))
    assert "waits for operator" not in (await run("ops", "stuck")).output


async def test_erasures(api: RunningApi, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in ("cli-ida", "cli-jo"):
        await make_key(api.sessions, user)
        wrong = await run("ops", "erase", user, "--confirm", "cli-kim")
        assert isinstance(wrong.exception, ApiProblem), wrong.output
        asked = await run("ops", "erase", user, "--confirm", user, "--json")
        assert asked.exit_code == 0, asked.output
    erasure = json.loads(asked.output)["id"]
    listed = (await run("ops", "erasures")).output.splitlines()
    assert ["cli-jo had" in listed[0], "cli-ida had" in listed[1], len(listed)] == [True, True, 2]

    monkeypatch.setenv("API_TOKEN", await make_key(api.sessions, "cli-lou"))
    wrong = await run("account", "delete", "--confirm", "lou")
    assert isinstance(wrong.exception, ApiProblem), wrong.output
    deleted = await run("account", "delete", "--confirm", "cli-lou")
    assert "Keep this id" in deleted.output
    mine = deleted.output.split()[-1]
    monkeypatch.setenv("API_TOKEN", "a key that is gone")
    for each in (mine, erasure):
        shown = await run("erasures", "show", each)
        assert shown.exit_code == 0, shown.output
        assert "not yet" in shown.output
