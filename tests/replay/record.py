"""Records the stored histories again: `make histories`, or `make histories ARGS="ready preview"` for some of them.

Histories are the contract with builds that are running when a new worker starts. Record new paths; record an old one
again only when its workflow change was versioned, or when no such build can be alive.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus

from db.migrate import migrate
from local.stack import LocalStack
from tests.workflows.admission_scenarios import ADMISSION_SCENARIOS
from tests.workflows.bulk_scenarios import BULK_SCENARIOS
from tests.workflows.encrypted_scenarios import ENCRYPTED_SCENARIOS
from tests.workflows.erasure_scenarios import ERASURE_SCENARIOS
from tests.workflows.export_scenarios import EXPORT_SCENARIOS
from tests.workflows.money_scenarios import MONEY_SCENARIOS
from tests.workflows.outage_scenarios import OUTAGE_SCENARIOS
from tests.workflows.permit_scenarios import PERMIT_SCENARIOS
from tests.workflows.plan_scenarios import PLAN_SCENARIOS
from tests.workflows.reaper_scenarios import REAPER_SCENARIOS
from tests.workflows.recovery_scenarios import RECOVERY_SCENARIOS
from tests.workflows.scenarios import SCENARIOS, EndedWorkflow, Scenario, scenario_harness
from tests.workflows.steering_scenarios import STEERING_SCENARIOS
from tests.workflows.upgrade_scenarios import UPGRADE_SCENARIOS
from tests.workflows.webhook_scenarios import WEBHOOK_SCENARIOS

HISTORIES = Path(__file__).parent / "histories"
MANIFEST = HISTORIES / "manifest.json"

EVERY_SCENARIO = [
    *SCENARIOS,
    *ADMISSION_SCENARIOS,
    *MONEY_SCENARIOS,
    *STEERING_SCENARIOS,
    *PLAN_SCENARIOS,
    *OUTAGE_SCENARIOS,
    *PERMIT_SCENARIOS,
    *REAPER_SCENARIOS,
    *RECOVERY_SCENARIOS,
    *UPGRADE_SCENARIOS,
    *WEBHOOK_SCENARIOS,
    *BULK_SCENARIOS,
    *ENCRYPTED_SCENARIOS,
    *ERASURE_SCENARIOS,
    *EXPORT_SCENARIOS,
]

_EARLIER_RUNS: dict[WorkflowExecutionStatus | None, str] = {
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "continued as new",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.COMPLETED: "ready",
}
"""What the manifest says of a build's earlier runs. A reset terminates a run that is open."""


def _without_traces(value: Any) -> Any:
    """Remove stack traces: replay does not read them, and they name paths of the recording machine."""
    if isinstance(value, dict):
        return {key: "" if key == "stackTrace" else _without_traces(item) for key, item in value.items()}
    return [_without_traces(item) for item in value] if isinstance(value, list) else value


def _minified(history: Any) -> str:
    return json.dumps(history, separators=(",", ":")) + "\n"


def _course(file: str) -> tuple[str, ...]:
    """What a history replays: its events in order, with the names of activities and signals."""
    events = json.loads((HISTORIES / file).read_text())["events"]
    return tuple(f"{event['eventType']} {_name_in(event)}" for event in events)


def _name_in(event: dict[str, Any]) -> str:
    attributes: dict[str, Any] = next((value for key, value in event.items() if key.endswith("EventAttributes")), {})
    return str(attributes.get("activityType", {}).get("name") or attributes.get("signalName") or "")


def drop_repeated_previews(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Delete histories of previews that take the same course as an earlier one, and return the others' lines.

    Every build that becomes ready starts a preview, so nearly all of them are alike. Its build's history stays.
    """
    courses: set[tuple[str, ...]] = set()
    kept = []
    # Those of the scenarios about previews come first.
    for entry in sorted(entries, key=lambda entry: (not entry["file"].startswith("preview"), entry["file"])):
        if entry["file"].split("-")[1] == "preview":
            course = _course(entry["file"])
            if course in courses:
                (HISTORIES / entry["file"]).unlink()
                continue
            courses.add(course)
        kept.append(entry)
    return kept


def _earlier(kind: str, status: WorkflowExecutionStatus | None) -> str:
    """What the manifest says of an earlier run."""
    is_closed = kind == "preview" and status is WorkflowExecutionStatus.COMPLETED
    return "closed" if is_closed else _EARLIER_RUNS[status]


async def _export(client: Client, scenario: Scenario, workflow: EndedWorkflow, stored: int) -> list[dict[str, Any]]:
    """Store every run of a workflow's chain, and return their lines for the manifest.

    `stored` files of this scenario and kind exist already; numbers continue after them.
    """
    kind = workflow.workflow_id.split("-")[0]
    entries = []
    runs = [run async for run in client.list_workflows(f'WorkflowId = "{workflow.workflow_id}"')]
    runs.sort(key=lambda run: run.start_time)
    for number, run in enumerate(runs, 1):
        history = await client.get_workflow_handle(workflow.workflow_id, run_id=run.run_id).fetch_history()
        file = f"{scenario.name}-{kind}-{stored + number}.json"
        (HISTORIES / file).write_text(_minified(_without_traces(json.loads(history.to_json()))))
        status = workflow.status if number == len(runs) else _earlier(kind, run.status)
        entries.append({"file": file, "path": scenario.path, "status": status, "events": len(history.events)})
    return entries


async def record(names: list[str]) -> None:
    """Run the scenarios and replace their histories and their lines in the manifest."""
    HISTORIES.mkdir(exist_ok=True)
    kept = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else []
    async with LocalStack(durable=False, time_skipping=True) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        for scenario in EVERY_SCENARIO:
            if names and scenario.name not in names:
                continue
            sys.stderr.write(f"{scenario.name}: {scenario.path}\n")
            async with scenario_harness(stack, scenario) as harness:
                workflows = await scenario.drive(harness)
                await asyncio.sleep(1)  # workflows become visible a moment later
                for old in HISTORIES.glob(f"{scenario.name}-*.json"):
                    old.unlink()
                kept = [entry for entry in kept if not entry["file"].startswith(f"{scenario.name}-")]
                for each in workflows:
                    kind = f"{scenario.name}-{each.workflow_id.split('-')[0]}-"
                    stored = sum(entry["file"].startswith(kind) for entry in kept)
                    kept += await _export(harness.client, scenario, each, stored)
            kept = drop_repeated_previews(kept)
            MANIFEST.write_text(json.dumps(sorted(kept, key=lambda entry: str(entry["file"])), indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1:]))
    # Skip the interpreter's shutdown: the SDKs' native threads sometimes abort it (sdk-python#300).
    sys.stderr.flush()
    os._exit(0)
