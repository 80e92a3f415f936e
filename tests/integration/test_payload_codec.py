"""With a key, Temporal stores nothing of a build in plain text, and no process works without that key."""

import base64
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from api.main import check_servers
from checks.check import CheckContext
from checks.temporal import check_payloads
from clients.browser import Browser
from clients.build_workflows import BuildWorkflows
from clients.fleet_workflows import FleetWorkflows
from clients.object_store import ObjectStore
from clients.sandbox import Sandboxes, sandbox_config
from clients.sandbox_runner import WORKSPACE
from clients.schedules import schedule_reaper
from clients.temporal import connect_temporal
from db.payload_keys import retire_key
from db.session import Sessions, open_sessions
from db.transaction import transaction
from domain.errors import LostPayloadKey
from local.stack import LocalStack
from services.deployment import check_deployment
from services.recovery import Deployment, take_stock
from tests.harness.activities import store_config
from tests.harness.api_server import new_database, settings_for
from tests.harness.telling_workflow import TellingChild, TellingWorkflow, refuse, tell
from tests.harness.worker import settings_of, worker_harness
from tests.workflows.encrypted_scenarios import PAYLOAD_KEY, WORDS, encrypted

ANOTHER = f"tests:{base64.b64encode(b'x' * 32).decode()}"
NEXT = f"next:{base64.b64encode(b'n' * 32).decode()}"


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    async with open_sessions(await new_database(stack)) as opened:
        yield opened


async def _check(stack: LocalStack, sessions: Sessions, key: str | None) -> None:
    environment = stack.environment | ({} if key is None else {"PAYLOAD_KEY": key})
    await check_deployment(sessions, BuildWorkflows(await connect_temporal(environment), "a-queue-without-workers"))


async def _recover(stack: LocalStack, sessions: Sessions) -> None:
    workflows = BuildWorkflows(await connect_temporal(stack.environment), "a-queue-without-workers")
    async with ObjectStore(store_config(stack.environment)) as store:
        sandboxes = Sandboxes(sandbox_config(settings_of(stack)))
        where = Deployment(sessions, workflows, sandboxes, store, WORKSPACE, 5)
        await take_stock(where, after_restore=False)


async def test_a_lost_or_wrong_key_is_refused_at_the_start(
    stack: LocalStack, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _check(stack, sessions, f"plain,{PAYLOAD_KEY}")
    await _check(stack, sessions, None)  # nothing has been written with the key yet
    await _check(stack, sessions, PAYLOAD_KEY)
    with pytest.raises(LostPayloadKey, match="the key tests, which PAYLOAD_KEY does not have"):
        await _check(stack, sessions, None)
    with pytest.raises(LostPayloadKey, match="another one than the key tests"):
        await _check(stack, sessions, ANOTHER)
    settings = settings_for(sessions.statements.url.render_as_string(hide_password=False), stack.environment)
    with pytest.raises(LostPayloadKey):
        await check_servers(settings, stack.environment)
    monkeypatch.setenv("TEMPORAL_ADDRESS", stack.environment["TEMPORAL_ADDRESS"])
    assert (await check_payloads(CheckContext(settings))).state == "fail"
    with pytest.raises(LostPayloadKey):
        await _recover(stack, sessions)
    monkeypatch.setenv("PAYLOAD_KEY", PAYLOAD_KEY)
    assert (await check_payloads(CheckContext(settings))).detail.endswith("encrypted, with the key tests")
    await _check(stack, sessions, f"{NEXT},{PAYLOAD_KEY}")
    await _check(stack, sessions, f"plain,{NEXT},{PAYLOAD_KEY}")
    async with transaction(sessions) as tx:
        assert await retire_key(tx, "tests")
        assert not await retire_key(tx, "tests")
    await _check(stack, sessions, NEXT)


@pytest.mark.thorough
async def test_no_word_is_in_the_files_of_temporals_server(stack: LocalStack, browser: Browser, tmp_path: Path) -> None:
    async with LocalStack(tmp_path / "temporal", parts=["temporal"], temporal_ui=False) as apart:
        environment = {**stack.environment, "TEMPORAL_ADDRESS": apart.environment["TEMPORAL_ADDRESS"]}
        settings: dict[str, Any] = {"database_url": await new_database(stack), "gate_attempts": 1}
        async with worker_harness(stack, browser, environment, payload_key=PAYLOAD_KEY, **settings) as harness:
            [build] = await encrypted(harness)
    files = [path.read_bytes() for path in (tmp_path / "temporal").rglob("*") if path.is_file()]
    assert any(build.workflow_id.encode() in content for content in files)
    assert [word for word in WORDS if any(word.encode() in content for content in files)] == []


@pytest.mark.thorough
async def test_no_text_of_any_kind_is_in_the_files_of_temporals_server(tmp_path: Path) -> None:
    word = f"zuckerhut{uuid.uuid4().hex}"
    async with LocalStack(tmp_path / "temporal", parts=["temporal"], temporal_ui=False) as apart:
        client = await connect_temporal({**apart.environment, "PAYLOAD_KEY": PAYLOAD_KEY})
        async with Worker(
            client,
            task_queue="telling",
            workflows=[TellingWorkflow, TellingChild],
            activities=[tell, refuse],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            handle = await client.start_workflow(
                TellingWorkflow.run,
                word,
                id="telling",
                task_queue="telling",
                memo={"said": f"memo {word}"},
                static_summary=f"summary {word}",
                static_details=f"details {word}",
            )
            assert await handle.query(TellingWorkflow.ask, word) == f"answer {word}"
            with pytest.raises(WorkflowQueryFailedError):  # the client gets it encrypted
                await handle.query(TellingWorkflow.ask, f"wrong {word}")
            assert await handle.execute_update(TellingWorkflow.change, word) == f"changed {word}"
            for bad in ("wrong", "refused"):
                with pytest.raises(WorkflowUpdateFailedError) as failed:
                    await handle.execute_update(TellingWorkflow.change, f"{bad} {word}")
                assert word in str(failed.value.cause)
            await handle.signal(TellingWorkflow.finish, word)
            with pytest.raises(WorkflowFailureError) as ended:
                await handle.result()
            assert f"end {word}" in str(ended.value.cause)
        fleet = FleetWorkflows(client)
        await schedule_reaper(client, "no-workers", timedelta(hours=1))
        await fleet.pause_reaper(f"because of {word}")
        found = await fleet.reaper()
        assert found is not None
        assert (found.paused, found.note) == (True, f"because of {word}")
        without_key = await FleetWorkflows(await connect_temporal(apart.environment)).reaper()
        assert without_key is not None
        assert (without_key.note or "").startswith("encrypted:")
        history = await handle.fetch_history()
    kinds = {EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events}
    assert {"WORKFLOW_TASK_FAILED", "ACTIVITY_TASK_FAILED", "CHILD_WORKFLOW_EXECUTION_FAILED"} <= kinds
    files = [path for path in (tmp_path / "temporal").rglob("*") if path.is_file()]
    assert any(b"telling" in path.read_bytes() for path in files)
    assert [path.name for path in files if word.encode() in path.read_bytes()] == []
