"""Incidents, staged on a running stack: found and cured with `cofounder ops` alone."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text
from temporalio import workflow
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from typer.testing import CliRunner

from cli.main import app
from db.transaction import transaction
from domain.names import BUILD_WORKFLOW
from domain.payloads import BuildInput
from domain.status import Dependency, Status
from local.stack import LocalStack
from tests.harness.api_server import OPERATORS, TOKEN, running_api
from tests.harness.away import Away, away_harness
from tests.harness.scripts import SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, worker_harness
from tests.workflows.scenarios import release_command
from worker import wired_worker

Ops = Callable[..., Awaitable[dict[str, Any]]]
Figure = Callable[[str], None]


@pytest.fixture(scope="module")
async def away(stack: LocalStack) -> AsyncIterator[Away]:
    """A worker behind proxies, and the API behind the same."""
    async with worker_harness(stack) as harness, away_harness(harness) as away:
        yield away


@pytest.fixture
async def command(away: Away, stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ops]:
    """Run a command as an operator, and return what its --json prints."""
    settings = away.harness.settings.model_copy(
        update={"api_token": SecretStr(TOKEN), "api_operator_token": SecretStr(OPERATORS)}
    )
    with structlog.testing.capture_logs():  # a command takes over the standard output of this process
        async with running_api(settings, stack.environment) as api:
            environment = {
                **stack.environment,
                "COFOUNDER_API_URL": api.url,
                "API_TOKEN": OPERATORS,
                "API_OPERATOR_TOKEN": OPERATORS,
                "DATABASE_URL": settings.database_url,
                "TEMPORAL_TASK_QUEUE": settings.temporal_task_queue,
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)

            async def run(*words: str) -> dict[str, Any]:
                result = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--json"])
                assert result.exception is None or isinstance(result.exception, SystemExit), result.output
                return dict(json.loads(result.stdout.splitlines()[-1]))

            yield run


async def wake(command: Ops, where: str) -> None:
    """Wake all builds that match."""
    ended = await command("ops", "wake", "--where", where, "--reason", "the cause is gone", "--yes")
    assert (ended["state"], ended["failed"]) == ("finished", 0)


def reasons(stuck: dict[str, Any], build_id: uuid.UUID) -> list[str]:
    """Why a build is listed as stuck."""
    return [why["kind"] for each in stuck["builds"] if each["build"]["id"] == str(build_id) for why in each["why"]]


async def check_of(command: Ops, name: str, state: str) -> dict[str, Any]:
    """Wait until a check has a state; results are kept for ten seconds."""
    found: dict[str, Any] = {}

    async def is_seen() -> bool:
        checks = (await command("ops", "checks"))["checks"]
        found.update(next(each for each in checks if each["name"] == name))
        return bool(found["state"] == state)

    await wait_until(is_seen)
    return found


async def test_key_revoked(away: Away, command: Ops, figure: Figure) -> None:
    """The model's API does not accept the key any more: builds wait for an operator."""
    away.proxies[Dependency.MODEL].refuse(401)
    build_id = await away.harness.start(script=SMALL)
    await away.harness.until(build_id, frozenset({Status.NEEDS_INPUT}))

    stuck = await command("ops", "stuck")
    assert reasons(stuck, build_id) == ["waits_for_operator"]
    [listed] = (await command("ops", "builds", "--where", "waiting_for=operator"))["builds"]
    assert (listed["id"], listed["status"]) == (str(build_id), "needs_input")
    assert (await command("ops", "show", str(build_id)))["build"]["reason"]
    model = await check_of(command, "model", "fail")
    assert "does not accept the key (status 401)" in model["detail"]
    assert "Set ANTHROPIC_API_KEY to a valid key." in model["remedy"]

    away.proxies[Dependency.MODEL].heal()  # the operator sets a valid key
    await wake(command, f"waiting_for=operator and id={build_id}")
    assert (await away.harness.finished(build_id)).status == Status.READY
    assert reasons(await command("ops", "stuck"), build_id) == []
    figure("found by stuck and checks, cured by a key and wake")


async def test_sandbox_service_down(away: Away, command: Ops, figure: Figure) -> None:
    """The sandbox service answers each request with an error: builds wait for it."""
    away.take(Dependency.SANDBOX)
    builds = [await away.harness.start(script=SMALL) for _ in range(3)]
    for build_id in builds:
        await away.harness.until(build_id, frozenset({Status.WAITING}))

    fleet = await command("ops", "fleet")
    sandbox = next(each for each in fleet["dependencies"] if each["name"] == "sandbox")
    assert (sandbox["state"], sandbox["builds"]) == ("down", 3)
    listed = await command("ops", "builds", "--where", "dependency=sandbox")
    assert {each["id"] for each in listed["builds"]} == set(map(str, builds))
    assert "is busy" in (await check_of(command, "sandboxes", "warn"))["detail"]
    stuck = await command("ops", "stuck")
    assert not any(reasons(stuck, build_id) for build_id in builds), "they heal by themselves"

    away.give_back(Dependency.SANDBOX)
    await wake(command, "dependency=sandbox")  # the prober does it by itself; an operator need not wait for it
    for build_id in builds:
        assert (await away.harness.finished(build_id)).status == Status.READY
    await check_of(command, "sandboxes", "ok")
    figure("3 builds found by fleet and builds, cured by wake")


@workflow.defn(name=BUILD_WORKFLOW)
class BrokenBuild:
    """A build's workflow of a version whose tasks fail."""

    @workflow.run
    async def run(self, _: BuildInput) -> int:
        """Fail the task, not the workflow."""
        raise RuntimeError("a version that can't run builds")


async def test_stuck_task(away: Away, command: Ops, figure: Figure) -> None:
    """A version of the workers fails each workflow task of a build."""
    queue = f"broken-{uuid.uuid4()}"
    settings = away.harness.settings.model_copy(update={"temporal_task_queue": queue})
    harness = WorkerHarness(settings, away.harness.client, away.harness.sessions, away.harness.model_url)
    broken = Worker(
        harness.client, task_queue=queue, workflows=[BrokenBuild], workflow_runner=UnsandboxedWorkflowRunner()
    )
    async with broken:
        build_id = await harness.start(script=SMALL)

        async def is_found() -> bool:
            return "task_failing" in reasons(await command("ops", "stuck"), build_id)

        await wait_until(is_found)
        shown = await command("ops", "show", str(build_id))
        assert shown["workflow"]["task_attempt"] > 1
        assert "category=WorkflowTaskFailed" in shown["workflow"]["problems"]
    async with wired_worker(settings, harness.client, runner=SandboxedWorkflowRunner()) as repaired, repaired:
        assert (await harness.finished(build_id)).status == Status.READY  # once a version is deployed that can
    assert reasons(await command("ops", "stuck"), build_id) == []
    figure("found by stuck, cured by workers of another version")


async def spend_on(harness: WorkerHarness, user: str, build_id: uuid.UUID, days_ago: int, cost: int) -> None:
    """Let the ledger say that a call of the build has cost this (microdollars), days ago."""
    day = datetime.now(UTC).date() - timedelta(days=days_ago)
    values = {"user": user, "build": build_id, "day": day, "cost": cost}
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(
            text("insert into user_days (user_id, day) values (:user, :day) on conflict do nothing"), values
        )
        await tx.session.execute(
            text(
                "insert into ledger (id, build_id, user_id, turn, day, model, state, cost, closed_at) values "
                "(gen_random_uuid(), :build, :user, 1, :day, 'claude-sonnet-5-5', 'settled', :cost, now())"
            ),
            values,
        )


async def test_spend_spike(away: Away, command: Ops, figure: Figure) -> None:
    """One user's builds spend far more than on the days before."""
    harness = away.harness
    usual, spender = await harness.founder(), await harness.founder()
    build_id = await harness.start(spender, script=steps([hold("echo held")], [bash("true")], [bash("true")]))
    other_id = await harness.start(usual, script=SMALL)
    await harness.finished(other_id)
    await harness.until_event(build_id, "tool_started")
    pairs = ((usual, other_id), (spender, build_id))
    earlier = [(user, build, days_ago, 1_000_000) for user, build in pairs for days_ago in (1, 2)]
    for user, build, days_ago, cost in (
        *earlier,
        (usual, other_id, 0, 1_100_000),
        (spender, build_id, 0, 90_000_000),
    ):
        await spend_on(harness, user, build, days_ago, cost)

    spend = await command("ops", "spend", "--by", "user")
    first = spend["rows"][0]
    assert first["key"] == spender
    assert first["spent_microdollars"] > 50 * first["before_microdollars"], "beside the days before"
    [listed] = (await command("ops", "builds", "--where", f"user={spender} and open=true", "--sort", "-spent"))[
        "builds"
    ]
    assert listed["id"] == str(build_id)

    await command("ops", "switch", "off", "--user", spender, "--reason", "spends 90 times as much as usual")
    await release_command(harness, build_id)
    row = await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    assert row.waiting_for == "kill_switch"
    [off] = (await command("ops", "fleet"))["switches"]
    assert (off["scope"], off["key"]) == ("user", spender)

    await command("ops", "switch", "on", "--user", spender)
    await harness.until(build_id, frozenset({Status.CODE, Status.CHECKS}))
    await harness.builds.cancel(build_id)
    figure("found by spend, stopped by switch, and on again")
