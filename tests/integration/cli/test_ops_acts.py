"""`cofounder ops wake|cancel|…`, `ops bulk` and `ops reaper`: what operators do on the command line."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from temporalio.worker import Worker
from typer.testing import CliRunner, Result

from activities.bulk import BulkActivities
from cli.main import app
from clients.temporal import connect_temporal
from local.stack import LocalStack
from tests.harness.api_server import OPERATORS, TOKEN, RunningApi, as_user, new_database, running_api, settings_for
from workflows.bulk import BulkWorkflow

Run = Callable[..., Coroutine[Any, Any, Result]]

QUEUE = "bulk-on-the-command-line"


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    # The API logs in this process, and a command under test takes over its standard output.
    with structlog.testing.capture_logs():
        settings = settings_for(
            await new_database(stack),
            stack.environment,
            api_operator_token=SecretStr(OPERATORS),
            temporal_task_queue=QUEUE,
        )
        async with running_api(settings, stack.environment) as running:
            carrying = BulkActivities(running.sessions, running.resources.workflows)
            async with Worker(
                await connect_temporal(stack.environment),
                task_queue=QUEUE,
                workflows=[BulkWorkflow],
                activities=[carrying.carry_out_batch],
            ):
                yield running


@pytest.fixture
def run(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with the operators' token."""
    monkeypatch.setenv("COFOUNDER_API_URL", api.url)
    monkeypatch.setenv("API_TOKEN", TOKEN)
    monkeypatch.setenv("API_OPERATOR_TOKEN", OPERATORS)

    async def run_it(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["ops", *arguments])

    return run_it


async def test_an_act_is_shown_first_then_carried_out_and_listed(api: RunningApi, run: Run) -> None:
    builds = []
    for _ in range(3):
        path = f"/v1/projects/{await api.project('ada')}/builds"
        builds.append((await api.http.post(path, json={"goal": "Build it."}, headers=as_user("ada"))).json()["id"])
    wanted = ("cancel", "--where", "user=ada and open=true", "--reason", "a test", "--rate", "50")
    shown = await run(*wanted)
    assert shown.exit_code == 0, shown.output
    assert "3 builds match. `cancel` is possible for 3 of them now. Nothing was changed" in shown.output
    assert (await run(*wanted, "--yes", "--dry-run")).output == shown.output
    done = await run(*wanted, "--yes", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["state"], result["done"], result["by"]) == ("finished", 3, "operator")
    assert all([(await api.row(each)).cancel_requested_at is not None for each in builds])
    listed = await run("bulk", "list")
    assert [line.split("\t")[1:4] for line in listed.output.splitlines()] == [
        ["cancel", "finished", "3 of 3 done, 0 skipped, 0 failed"]
    ]
    one = await run("bulk", "show", result["id"])
    assert set(builds) <= set(one.output.replace("\n", "\t").split("\t"))
    again = await run("bulk", "resume", result["id"])
    assert "nothing to resume" in str(again.exception)


async def test_the_reaper_is_shown_and_planned(run: Run) -> None:
    shown = await run("reaper", "plan")
    assert shown.exit_code == 0, shown.output
    for step in ("builds", "sandboxes", "store", "nudges"):
        assert f"{step}: " in shown.output
    assert "reaper" in (await run("reaper", "show")).output


async def test_switches_limits_and_the_audit(api: RunningApi, run: Run) -> None:
    await api.project("switched")
    off = await run("switch", "off", "--user", "switched", "--reason", "a runaway", "--json")
    assert (off.exit_code, json.loads(off.stdout)["by"]) == (0, "operator"), off.output
    assert "There is no user no-one" in str((await run("switch", "off", "--user", "no-one", "--reason", "x")).exception)
    listed = (await run("switch", "list")).output
    assert "user switched" in listed
    assert "a runaway" in listed
    assert "On: user switched. Builds that wait" in (await run("switch", "on", "--user", "switched")).output
    assert "It was not off." in (await run("switch", "on", "--user", "switched")).output
    assert "Everything is on." in (await run("switch", "list")).output
    assert "$12.50 a day" in (await run("limits", "set", "fleet_day", "12.50")).output
    assert "$12.50 a day" in (await run("limits", "list")).output
    assert "no limit" in (await run("limits", "set", "fleet_day", "none")).output
    entries = json.loads((await run("audit", "--user", "switched", "--json")).stdout)["entries"]
    assert [each["action"] for each in entries][:2] == ["switch.on", "switch.on"]
    assert "switch.off" in (await run("audit", "--action", "switch.off")).output
