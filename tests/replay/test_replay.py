"""Stored histories replay with the current workflows, without a server, and cover every command."""

import ast
import base64
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import coverage
import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
from temporalio.worker._workflow import _WorkflowWorker

from cli.replay import load_history, replay_file
from clients.temporal import DATA_CONVERTER, data_converter
from domain.payload_keys import parse_payload_keys
from tests.harness.wait import DEADLINE
from tests.workflows.encrypted_scenarios import PAYLOAD_KEY, WORDS
from workflows.build import BuildWorkflow
from workflows.bulk import BulkWorkflow
from workflows.erasure import ErasureWorkflow
from workflows.export import ExportWorkflow
from workflows.preview import PreviewWorkflow
from workflows.prober import ProberWorkflow
from workflows.reaper import ReaperWorkflow
from workflows.webhook import WebhookWorkflow

HISTORIES = Path(__file__).parent / "histories"
MANIFEST: list[dict[str, Any]] = json.loads((HISTORIES / "manifest.json").read_text())
WORKFLOWS = Path(__file__).parents[2] / "workflows"

REQUIRED = {
    "ready",
    "failed_suspended",
    "cancelled_mid_tool",
    "gate_bounced",
    "slept_woken_by_signal",
    "slept_woken_by_timer",
    "continued_as_new",
    "three_nights",
    "nights_exhausted",
    "woken_by_top_up",
    "woken_while_falling_asleep",
    "ceiling",
    "queued",
    "admitted",
    "long_in_line",
    "switched_off_midway",
    "encrypted",
    "erased",
    "exported",
    "export_refused",
}

COMMANDS = {
    "execute_activity_method",
    "start_child_workflow",
    "wait_condition",
    "upsert_search_attributes",
    "continue_as_new",
}
"""The functions of `workflow` that leave a command, or with a timeout a timer, in history."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a workflow step take longer than the SDK's two seconds, in which a busy machine may not run it at all.

    The SDK has no option for this alone: its debug mode also switches off the sandbox."""
    original = _WorkflowWorker.__init__

    def changed(self: _WorkflowWorker, **given: Any) -> None:
        original(self, **given)
        assert self._deadlock_timeout_seconds == 2
        self._deadlock_timeout_seconds = int(DEADLINE)

    monkeypatch.setattr(_WorkflowWorker, "__init__", changed)


@pytest.fixture(autouse=True)
def payload_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the encrypted history, too; all others are plain."""
    monkeypatch.setenv("PAYLOAD_KEY", PAYLOAD_KEY)


def test_the_corpus_is_there_and_named() -> None:
    files = {path.name for path in HISTORIES.glob("*.json")} - {"manifest.json"}
    assert files == {entry["file"] for entry in MANIFEST}
    assert {file.split("-")[0] for file in files} >= REQUIRED
    assert all(entry["path"] and entry["status"] for entry in MANIFEST)


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"].removesuffix(".json"))
async def test_replays(entry: dict[str, Any]) -> None:
    result = await replay_file(HISTORIES / entry["file"])
    assert result.replays, result.problem
    assert result.events == entry["events"]


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"].removesuffix(".json"))
def test_ends_as_the_manifest_says(entry: dict[str, Any]) -> None:
    last = load_history(HISTORIES / entry["file"]).events[-1]
    ends = {
        "workflow_execution_completed_event_attributes": {"ready", "done", "closed"},
        "workflow_execution_failed_event_attributes": {"failed"},
        "workflow_execution_canceled_event_attributes": {"cancelled"},
        "workflow_execution_terminated_event_attributes": {"terminated"},
        "workflow_execution_continued_as_new_event_attributes": {"continued as new"},
    }
    assert entry["status"] in ends[last.WhichOneof("attributes") or ""]


def _command_lines(path: Path) -> dict[int, str]:
    """Return the lines of a workflow module that issue a command, by line number."""
    return {
        node.func.end_lineno or node.lineno: ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "workflow"
        and node.func.attr in COMMANDS
    }


async def test_every_command_is_covered_by_replay_alone() -> None:
    """A line that no stored history reaches could be changed without any history failing."""
    measured = coverage.Coverage(include=[f"{WORKFLOWS}/*"], data_file=None)
    # Without the workflow sandbox, which would load a second copy of the modules. The code is the same.
    replayer = Replayer(
        workflows=[
            BuildWorkflow,
            PreviewWorkflow,
            ReaperWorkflow,
            ProberWorkflow,
            WebhookWorkflow,
            ErasureWorkflow,
            ExportWorkflow,
            BulkWorkflow,
        ],
        data_converter=data_converter(parse_payload_keys(PAYLOAD_KEY)),
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    measured.start()
    try:
        for entry in MANIFEST:
            await replayer.replay_workflow(load_history(HISTORIES / entry["file"]))
    finally:
        measured.stop()
    missed = []
    for path in sorted(WORKFLOWS.glob("*.py")):
        uncovered = set(measured.analysis2(str(path))[3])
        missed += [f"{path.name}:{line} {what}" for line, what in _command_lines(path).items() if line in uncovered]
    assert not missed


async def test_swapping_two_activities_makes_histories_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay fails if the model is resolved before the context is loaded."""
    ordered = [BuildWorkflow._load_context, BuildWorkflow._resolve_model]
    monkeypatch.setattr(BuildWorkflow, "_load_context", ordered[1])
    monkeypatch.setattr(BuildWorkflow, "_resolve_model", ordered[0])
    replayer = Replayer(
        workflows=[BuildWorkflow], data_converter=DATA_CONVERTER, workflow_runner=UnsandboxedWorkflowRunner()
    )
    history = load_history(HISTORIES / "ready-build-1.json")
    with pytest.raises(workflow.NondeterminismError):
        await replayer.replay_workflow(history)


async def test_a_dropped_activity_makes_histories_fail() -> None:
    """The other direction: the history lacks an activity that the code runs."""
    history = load_history(HISTORIES / "ready-build-1.json")
    raw = json.loads((HISTORIES / "ready-build-1.json").read_text())
    scheduled = next(event for event in raw["events"] if event["eventType"] == "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED")
    scheduled["activityTaskScheduledEventAttributes"]["activityType"]["name"] = "something_else"
    altered = WorkflowHistory.from_json(history.workflow_id, raw)
    replayer = Replayer(workflows=[BuildWorkflow], data_converter=DATA_CONVERTER)
    with pytest.raises(workflow.NondeterminismError):
        await replayer.replay_workflow(altered)


async def test_a_build_does_not_sleep_on_into_a_day_that_has_begun() -> None:
    """If midnight had passed while it fell asleep, this build would have checked the new day's budget and not slept."""
    raw = json.loads((HISTORIES / "three_nights-build-1.json").read_text())
    for event in raw["events"]:
        for payload in event.get("activityTaskCompletedEventAttributes", {}).get("result", {}).get("payloads", []):
            said = json.loads(base64.b64decode(payload.get("data", "")) or "null")
            if isinstance(said, dict) and said.get("wind_down"):
                said["day"] = (date.fromisoformat(said["day"]) - timedelta(days=1)).isoformat()
                payload["data"] = base64.b64encode(json.dumps(said).encode()).decode()
    altered = WorkflowHistory.from_json("build-of-yesterday", raw)
    replayer = Replayer(workflows=[BuildWorkflow], data_converter=DATA_CONVERTER)
    with pytest.raises(workflow.NondeterminismError, match="UpsertWorkflowSearchAttributes"):
        await replayer.replay_workflow(altered)


async def test_an_encrypted_history_shows_nothing_and_is_not_replayed_without_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = HISTORIES / "encrypted-build-1.json"
    shown = b"".join(event.SerializeToString() for event in load_history(path).events)
    assert b"binary/encrypted" in shown
    assert b"json/plain" in shown, "its start and its wake come from clients without the key"
    assert [word for word in WORDS if word.encode() in shown] == []
    monkeypatch.delenv("PAYLOAD_KEY")
    result = await replay_file(path)
    assert not result.replays
