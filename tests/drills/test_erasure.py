"""An erasure whose workers are killed at the beginning, in the middle and at the end of each step."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select, text, update

from clients.object_store import ObjectStore, image_key, store_config
from clients.payload_codec import ENCODING
from clients.sandbox import Role, Sandboxes, sandbox_config
from clients.temporal import connect_temporal
from db.erasures import certificate_of
from db.models import Erasure, LedgerEntry, ToolCall, User, UserDay
from db.session import Sessions, open_sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.conversation import image_mark
from domain.names import build_workflow_id, erasure_workflow_id, preview_workflow_id
from domain.status import Status
from local.ports import Ports
from local.postgres import api_database_url
from local.stack import LocalStack
from services.erasure import erase_user
from tests.harness.api_server import new_database
from tests.harness.buckets import new_versioned_bucket
from tests.harness.erasing_worker import BEGUN, DONE, MIDDLE, STEPS
from tests.harness.founder_texts import (
    PLACES,
    PLACES_OF_ACCOUNT,
    columns_without,
    has_history,
    image_of,
    objects_with,
    plant_account,
    plant_objects,
    plant_rows,
    tables_with,
)
from tests.harness.observed_run import ObservedProgram
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness, sample_brief, settings_of
from tests.harness.worker_process import worker_process
from tests.workflows.encrypted_scenarios import PAYLOAD_KEY

ALL_PLACES = {**PLACES, **PLACES_OF_ACCOUNT}

RIGGED = ("-m", "tests.harness.erasing_worker")


@pytest.mark.timeout(1800)  # a minute or two, but each worker may take five on a busy machine
async def test_erasure_whose_workers_are_killed_in_each_step(
    stack: LocalStack, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Kill -9 at 15 points of a founder's erasure: at the beginning, in the middle and at the end of each step.

    Another worker goes on. The certificate counts what there was, nothing of the founder is left in a row, an object, a
    version, a history, a sandbox, the log of any server, the API or a worker, or a file of Temporal's server, and what
    belongs to another founder is as it was.
    """
    temporal, rig = tmp_path / "temporal", tmp_path / "rig"
    rig.mkdir()
    async with LocalStack(temporal, parts=["temporal"], temporal_ui=False) as apart:
        await _erase(stack, apart, rig, figure, tmp_path)
        log = apart.log("temporal").read_bytes()
    word = (tmp_path / "word").read_text().encode()
    files = [path for path in temporal.rglob("*") if path.is_file()]
    assert [path for path in files if word in path.read_bytes()] == [], "encrypted, it was never there"
    assert any(ENCODING in path.read_bytes() for path in files), "Temporal stored something"
    assert word not in log
    logs = {part: stack.log(part).read_bytes() for part in stack.parts if part != "model"}  # that one is a vendor's
    assert [part for part, log in logs.items() if word in log] == []


async def _erase(stack: LocalStack, apart: LocalStack, rig: Path, figure: Callable[[str], None], notes: Path) -> None:
    bucket = await new_versioned_bucket(stack)
    settings = settings_of(
        stack,
        database_url=await new_database(stack),
        temporal_task_queue=f"test-{uuid.uuid4()}",
        project_snapshot_bucket=bucket,
    )
    environment = {
        "DATABASE_URL": settings.database_url,
        "PROJECT_SNAPSHOT_BUCKET": bucket,
        "TEMPORAL_ADDRESS": apart.environment["TEMPORAL_ADDRESS"],
        "PAYLOAD_KEY": PAYLOAD_KEY,
    }
    ada, bob, word, others = (f"{name}{uuid.uuid4().hex[:12]}" for name in ("ada", "bob", "zq", "zx"))
    (notes / "word").write_text(word)
    async with open_sessions(settings.database_url) as sessions, ObjectStore(store_config(settings)) as store:
        client = await connect_temporal(stack.environment | environment)
        harness = WorkerHarness(settings, client, sessions, settings.anthropic_base_url or "")
        sandboxes = Sandboxes(sandbox_config(settings))
        planted, kept = await _plant(sessions, store, ada, word), await _plant(sessions, store, bob, others)
        await _share_an_image(sessions, store, planted, kept)
        for role in Role:
            await sandboxes.create(str(planted), role)
        await sandboxes.create(str(kept), Role.WORKSPACE)
        await plant_account(sessions, ada, word)
        await plant_account(sessions, bob, others)
        async with worker_process(harness, stack, variables=environment) as first:
            await first.until("worker started")
            log_of_api = await _write_by_api(stack.environment | environment, ada, word, notes)
            say = bash(f"echo {word} > {word}.txt")
            ended = await harness.start(ada, goal=f"Sell {word}.", script=steps([say, bash(PRODUCT)]))
            assert (await harness.finished(ended)).status == Status.READY
            running = await harness.start(ada, goal=f"Sell {word} again.", script=steps([say, hold()]))
            await harness.until_event(running, "tool_started", count=2)
        builds = (planted, ended, running)
        assert await columns_without(sessions, word, ALL_PLACES) == set()
        assert len(await objects_with(store, word)) >= 9
        expected, money = await _counts(sessions, builds), await _money(sessions)
        begun = time.monotonic()
        erasure = (await erase_user(sessions, harness.builds, ada, "operator", confirmed=ada)).id
        logs = await _kill_in_each_step(harness, stack, environment, rig, erasure)
        seconds = time.monotonic() - begun

        async with transaction(sessions) as tx:
            row = await tx.session.get_one(Erasure, erasure)
        assert row.sha256 == certificate_of(row).sha256
        counted = {name: row.counts[name] for name in expected}
        assert counted == expected, "the certificate counts what there was"
        assert row.counts["executions"] == 4, "two builds, a preview, and a delivery to a webhook"
        assert (row.counts["uploads"], row.counts["objects"] >= 9 + 4) == (1, True)
        assert row.counts["sandboxes"] >= len(Role)

        assert await tables_with(sessions, word) == set()
        assert await tables_with(sessions, ada) <= {"erasures", "audit", "bulk_runs"}
        assert [version for version in await store.versions("") if _is_of(version.key, builds, word)] == []
        assert await objects_with(store, word) == []
        for build in builds:
            assert [name for role in Role for name in await sandboxes.find(str(build), role)] == []
            assert not await has_history(client, build_workflow_id(build))
            assert not await has_history(client, preview_workflow_id(build))
        assert word not in logs
        assert "request" in log_of_api
        assert word not in log_of_api
        assert await _money(sessions) == money, "what calls have cost stays"

        assert await columns_without(sessions, others, ALL_PLACES) == set()
        assert len(await objects_with(store, others)) == 8
        assert await store.unfinished_uploads(f"snapshots/{kept}/") == [f"snapshots/{kept}/2.tar.gz"]
        assert await store.get_image(image_of("shared")) == b"shared", "another founder's build has seen it too"
        assert len(await sandboxes.find(str(kept), Role.WORKSPACE)) == 1
        async with transaction(sessions) as tx:
            assert not (await tx.session.get_one(User, bob)).suspended
        await sandboxes.kill((await sandboxes.find(str(kept), Role.WORKSPACE))[0])
        await sandboxes.close()
    objects = row.counts["objects"]
    figure(
        f"15 workers killed in {len(STEPS)} steps, erased after {seconds:.0f} s; {objects} versions of objects, "
        f"{row.counts['executions']} histories and {row.counts['messages']} messages, all counted once; 0 left"
    )


async def _plant(sessions: Sessions, store: ObjectStore, user: str, word: str) -> uuid.UUID:
    async with transaction(sessions) as tx:
        await ensure_user(tx, user)
        row = await tx.session.get_one(User, user)
        row.plan = "cto_scale"
        tx.session.add(UserDay(user_id=user, day=await tx.session.scalar(select(func.current_date()))))
    _, build = await plant_rows(sessions, user, word)
    await plant_objects(store, build, word)
    return build


async def _write_by_api(environment: Mapping[str, str], user: str, word: str, directory: Path) -> str:
    """Create a project by the API, and send it what it refuses. Returns what it has logged."""
    ports = Ports()
    port, metrics = ports.choose(set()), ports.choose(set())
    own = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": api_database_url(environment["DATABASE_URL"]),
        "API_TOKEN": "of-founders",
        "API_OPERATOR_TOKEN": "of-operators",
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "METRICS_ADDRESS": f"127.0.0.1:{metrics}",
    }
    arguments = ["-m", "api", "--port", str(port)]
    program = ObservedProgram("api", arguments, {**environment, **own}, directory / "api.log")
    headers = {"Authorization": "Bearer of-operators", "X-Cofounder-User": user}
    try:
        await program.start()
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=DEADLINE, trust_env=False
        ) as http:
            made = await http.post("/v1/projects", json={"name": word, "brief": {**sample_brief(), "name": word}})
            assert made.status_code == 201, made.text
            refused = [
                await http.post("/v1/projects", json={"name": [word], word: word}),
                await http.post("/v1/projects", content=f'{{"name": "{word}'),
                await http.get(f"/v1/projects/{word}"),
                await http.get(f"/v1/projects?after={word}&cursor={word}&limit={word}"),
                await http.get(f"/{word}"),
            ]
            assert [each.status_code for each in refused if not 400 <= each.status_code < 500] == []
    finally:
        await program.kill()
        ports.release()
    return program.log.read_text()


async def _share_an_image(sessions: Sessions, store: ObjectStore, *builds: uuid.UUID) -> None:
    """Let builds of several founders have seen the same image."""
    await store.put(image_key(image_of("shared")), b"shared")
    async with transaction(sessions) as tx:
        for call in await tx.session.scalars(select(ToolCall).where(ToolCall.build_id.in_(builds))):
            result = f"{(call.result or '')[:-1]},{image_mark(image_of('shared'))}}}"
            await tx.session.execute(
                update(ToolCall)
                .where(ToolCall.build_id == call.build_id, ToolCall.tool_use_id == call.tool_use_id)
                .values(result=result)
            )


async def _kill_in_each_step(
    harness: WorkerHarness, stack: LocalStack, environment: dict[str, str], rig: Path, erasure: uuid.UUID
) -> str:
    """Let workers die at each moment of each step, and the last one end the erasure. Returns what they have logged."""
    left = [rig / f"{step}@{moment}" for step in STEPS for moment in (BEGUN, MIDDLE, DONE)]
    for instruction in left:
        instruction.touch()
    logs = []
    while any(instruction.exists() for instruction in left):
        before = sum(instruction.exists() for instruction in left)
        async with worker_process(harness, stack, program=RIGGED, ERASURE_RIG=str(rig), variables=environment) as dying:
            async with asyncio.timeout(DEADLINE):
                code = await dying.exit_code()
            logs.append(str(dying.logged) + dying.last_words)
        after = sum(instruction.exists() for instruction in left)
        assert (code, after) == (-9, before - 1), f"killed once by an instruction: {dying.logged}"
    async with worker_process(harness, stack, variables=environment) as last:
        await last.until("worker started")

        async with asyncio.timeout(DEADLINE):
            await harness.client.get_workflow_handle(erasure_workflow_id(erasure)).result()
        await last.stop()
        logs.append(str(last.logged) + last.last_words)
    return "\n".join(logs)


async def _counts(sessions: Sessions, builds: Collection[uuid.UUID]) -> dict[str, int]:
    """What a certificate counts that does not change while builds are cancelled."""
    tables = {"messages": "messages", "tool_calls": "tool_calls", "ledger_entries_kept": "ledger"}
    async with transaction(sessions) as tx:
        counts = {
            name: await tx.session.scalar(
                text(f"select count(*) from {table} where build_id = any(:builds)"), {"builds": list(builds)}
            )
            for name, table in tables.items()
        }
    by_api = 1
    return {
        "builds": len(builds),
        "projects": len(builds) + by_api,
        **{name: int(n or 0) for name, n in counts.items()},
    }


async def _money(sessions: Sessions) -> tuple[int, int, int]:
    async with transaction(sessions) as tx:
        entries = await tx.session.scalar(select(func.sum(LedgerEntry.cost)))
        days = await tx.session.scalar(select(func.sum(UserDay.spent)))
        fleet = await tx.session.scalar(text("select sum(spent) from fleet_days"))
        return int(entries or 0), int(days or 0), int(fleet or 0)


def _is_of(key: str, builds: Collection[uuid.UUID], word: str) -> bool:
    return any(str(build) in key for build in builds) or image_of(word) in key
