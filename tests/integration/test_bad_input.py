"""Mistakes of operators and founders: one sentence that says what to do, no traceback, no half-made row."""

import asyncio
import os
import re
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from cli.main import app
from clients.temporal import connect_temporal
from domain.errors import CofounderError, Misconfigured
from domain.models import default_prices
from domain.pricing import ModelPrice
from local.stack import LocalStack
from tests.harness.api_server import TOKEN, RunningApi, new_database, running_api, settings_for, suspend
from tests.harness.wait import DEADLINE
from tests.harness.worker import settings_of
from worker import wired_worker

ROOT = Path(__file__).parents[2]
CLOSED = "127.0.0.1:1"


# ---- the worker and the API as processes


PROCESSES: dict[str, tuple[list[str], dict[str, str], list[str]]] = {
    "temporal": (["worker.py"], {"TEMPORAL_ADDRESS": CLOSED}, ["cofounder local temporal", "TEMPORAL_ADDRESS"]),
    "sandboxes": (["worker.py"], {"E2B_API_KEY": ""}, ["E2B_API_KEY", "cofounder local sandbox"]),
    "api": (["-m", "api"], {"TEMPORAL_PROFILE": "nobodys"}, ["Profile 'nobodys' not found", "TEMPORAL_PROFILE"]),
}


async def _ended(arguments: list[str], environment: dict[str, str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "API_TOKEN": TOKEN, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, said = await asyncio.wait_for(process.communicate(), DEADLINE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(), said.decode()


async def test_a_process_that_can_not_work_says_why_in_one_sentence(stack: LocalStack) -> None:
    async with asyncio.TaskGroup() as group:
        ended = {
            name: group.create_task(_ended(arguments, stack.environment | broken))
            for name, (arguments, broken, _) in PROCESSES.items()
        }
    for name, (_, _, words) in PROCESSES.items():
        code, output, said = ended[name].result()
        assert (code, output, said.count("\n")) == (1, "", 1), (name, said)
        assert re.match("(worker|error): ", said), (name, said)
        assert [word for word in words if word not in said] == [], (name, said)


async def test_a_port_that_is_taken_is_reported_in_one_sentence(stack: LocalStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, output, errors = await _ended(["-m", "api", "--port", port], stack.environment)
    assert (code, output, errors.count("\n")) == (1, "", 1), errors
    assert errors.startswith(f"error: The API can't listen on 127.0.0.1, port {port}: Address already in use.")
    assert "--port" in errors


# ---- what a worker checks before it takes work


def _other_database(stack: LocalStack, name: str) -> str:
    return stack.environment["DATABASE_URL"].rpartition("/")[0] + f"/{name}"


_PRICE = {"input": 1, "output": 1, "cache_read": 1, "cache_write_5m": 1, "cache_write_1h": 1}

WIRING: dict[str, tuple[Callable[[LocalStack], dict[str, Any]], str]] = {
    "no database": (
        lambda stack: {"database_url": f"postgresql://x@{CLOSED}/x"},
        "Check DATABASE_URL, then run `cofounder migrate`",
    ),
    "a database without tables": (
        lambda stack: {"database_url": _other_database(stack, "template1")},
        "has not been migrated: .*Run `cofounder migrate`",
    ),
    "a database that is not there": (
        lambda stack: {"database_url": _other_database(stack, "nobodys")},
        'Check DATABASE_URL.*"nobodys" does not exist',
    ),
    "a plan whose model has no price": (
        lambda stack: {"fallback_model": "mine", "model_prices": {"mine": ModelPrice.model_validate(_PRICE)}},
        r"The plan \S+ has no usable model for the role coder. .*MODEL_PRICES",
    ),
    "a model of an unknown provider": (
        lambda stack: {
            "model_prices": default_prices() | {"mine": ModelPrice.model_validate(_PRICE | {"provider": "acme"})}
        },
        "MODEL_PRICES: mine names the provider acme, which does not exist. Set it to one of anthropic",
    ),
    "no bucket": (
        lambda stack: {"project_snapshot_bucket": "nobodys"},
        "The bucket nobodys does not exist. Create it, or set PROJECT_SNAPSHOT_BUCKET",
    ),
    "a wrong secret": (
        lambda stack: {"aws_secret_access_key": "wrong"},
        "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
    ),
    "no name of a bucket": (
        lambda stack: {"project_snapshot_bucket": "No bucket!"},
        "'No bucket!' is not a valid bucket name. Correct PROJECT_SNAPSHOT_BUCKET",
    ),
    "no key for sandboxes": (
        lambda stack: {"e2b_api_key": None},
        "There is no E2B_API_KEY.*cofounder local sandbox",
    ),
    "another server than a sandbox service": (
        lambda stack: {"e2b_api_url": stack.environment["ANTHROPIC_BASE_URL"]},
        "E2B_API_URL",
    ),
    "no browser": (
        lambda stack: {"chromium_path": "/nowhere/chromium"},
        "CHROMIUM_PATH is /nowhere/chromium, which is not a program",
    ),
}


@pytest.mark.parametrize("case", WIRING)
async def test_worker_looks_before_it_takes_work(stack: LocalStack, case: str) -> None:
    changes, says = WIRING[case]
    settings = settings_of(stack, **changes(stack))
    client = await connect_temporal(stack.environment)
    with pytest.raises(Misconfigured, match=says) as refused:
        async with wired_worker(settings, client):
            pass
    assert "\n" not in str(refused.value)


async def test_unknown_namespace(stack: LocalStack) -> None:
    client = await connect_temporal(stack.environment | {"TEMPORAL_NAMESPACE": "nobodys"})
    with pytest.raises(Misconfigured, match=r"no namespace nobodys\. Set TEMPORAL_NAMESPACE.*namespace create"):
        async with wired_worker(settings_of(stack), client):
            pass


async def test_unknown_aws_profile(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    with pytest.raises(Misconfigured, match=r"nobodys.*AWS_"):
        async with wired_worker(settings_of(stack), await connect_temporal(stack.environment)):
            pass


@pytest.mark.parametrize("variables", [("s3_endpoint_url",), ("e2b_api_url", "e2b_sandbox_url")])
async def test_a_worker_starts_although_a_server_is_away(stack: LocalStack, variables: tuple[str, ...]) -> None:
    settings = settings_of(stack, **dict.fromkeys(variables, f"http://{CLOSED}"))
    with capture_logs() as logs:
        async with wired_worker(settings, await connect_temporal(stack.environment)):
            pass
    [told] = [each for each in logs if "builds will wait" in each["event"]]
    assert told["log_level"] == "warning"
    assert CLOSED in told["reason"]


async def test_refused_sandbox_key_is_logged_and_left_to_the_builds(stack: LocalStack) -> None:
    settings = settings_of(stack, e2b_api_key="an-unknown-key")
    with capture_logs() as logs:
        async with wired_worker(settings, await connect_temporal(stack.environment)):
            pass
    [told] = [each for each in logs if each["log_level"] == "error"]
    assert "Check E2B_API_KEY" in told["reason"]


# ---- `cofounder build`


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack)), stack.environment) as running:
        yield running


async def _build(api: RunningApi, *arguments: str) -> Result:
    """Run `cofounder build` in a thread, as it has an event loop of its own."""
    environment = {"COFOUNDER_API_URL": api.url, "API_TOKEN": TOKEN}
    command = ["build", *arguments, "--no-watch"]
    return await asyncio.to_thread(CliRunner(env=environment).invoke, app, command)


def _told(result: Result) -> str:
    assert isinstance(result.exception, CofounderError), result.output
    return str(result.exception)


@pytest.mark.parametrize(
    ("brief", "says"),
    [
        ('{"name": ', "not valid JSON"),
        ('{"name": "a"}', "problem"),
        ('{"name": "a", "problem": "b\\u0000", "features": ["c"]}', "NUL character"),
        ('{"name": "a", "problem": "b", "features": ["%s"]}' % ("c" * 70_000), "larger than 64 KB"),
    ],
)
async def test_bad_brief_makes_no_row(api: RunningApi, tmp_path: Path, brief: str, says: str) -> None:
    before = await api.rows()
    (tmp_path / "brief.json").write_text(brief)
    assert says in _told(await _build(api, "--brief", str(tmp_path / "brief.json")))
    assert await api.rows() == before


@pytest.mark.parametrize(
    ("goal", "says"), [(" ", "goal is empty"), ("x" * 20_001, "Shorten it"), ("a\0b", "NUL character")]
)
async def test_bad_goal_makes_no_project(api: RunningApi, goal: str, says: str) -> None:
    before = await api.rows()
    assert says in _told(await _build(api, "--idea", "A waitlist", "--goal", goal))
    assert await api.rows() == before


async def test_unknown_project_makes_no_row(api: RunningApi) -> None:
    before, unknown = await api.rows(), str(uuid.uuid4())
    assert _told(await _build(api, "--project", unknown)) == f"There is no project {unknown}."
    assert await api.rows() == before


async def test_refused_build_tells_what_was_stored(api: RunningApi) -> None:
    """Creating a project and building it are two requests: if the second is refused, the project stays."""
    await api.project()
    await suspend(api, "founder")
    before = await api.rows()
    result = await _build(api, "--idea", "A waitlist")
    [project] = re.findall("^project (.*)$", result.output, re.M)
    assert _told(result).startswith("Your account is suspended")
    later = f"The project is stored. To build it later: cofounder build --project {project}"
    assert later in result.output.splitlines()
    assert "suspended" in _told(await _build(api, "--project", project))
    after = await api.rows()
    assert {name: count - before[name] for name, count in after.items() if count != before[name]} == {
        "projects": 1,
        "artifacts": 1,
    }
