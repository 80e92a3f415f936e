"""Records the stored histories afresh: `make histories`, or `make histories ARGS="ready preview"` for some of them.

Histories are the contract with builds that are running when a new worker starts. Record new paths; record an old one
again only when its workflow change was versioned, or when no such build can be alive.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from temporalio.client import Client

from db.migrate import migrate
from local.stack import LocalStack
from tests.harness.worker import worker_harness
from tests.workflows.money_scenarios import MONEY_SCENARIOS
from tests.workflows.scenarios import SCENARIOS, Ended, Scenario
from tests.workflows.steering_scenarios import STEERING_SCENARIOS

HISTORIES = Path(__file__).parent / "histories"
MANIFEST = HISTORIES / "manifest.json"


def _without_traces(value: Any) -> Any:
    """Without stack traces: replay does not read them, and they name paths of the machine that recorded them."""
    if isinstance(value, dict):
        return {key: "" if key == "stackTrace" else _without_traces(item) for key, item in value.items()}
    return [_without_traces(item) for item in value] if isinstance(value, list) else value


async def _export(client: Client, scenario: Scenario, ended: Ended, stored: int) -> list[dict[str, Any]]:
    """Store every run of a workflow's chain, and say what they are. Files of its kind are numbered after `stored`."""
    kind = ended.workflow_id.split("-")[0]
    entries = []
    runs = [run async for run in client.list_workflows(f'WorkflowId = "{ended.workflow_id}"')]
    runs.sort(key=lambda run: run.start_time)
    for number, run in enumerate(runs, 1):
        history = await client.get_workflow_handle(ended.workflow_id, run_id=run.run_id).fetch_history()
        file = f"{scenario.name}-{kind}-{stored + number}.json"
        (HISTORIES / file).write_text(json.dumps(_without_traces(json.loads(history.to_json())), indent=1) + "\n")
        status = ended.status if number == len(runs) else "closed" if kind == "preview" else "continued as new"
        entries.append({"file": file, "path": scenario.path, "status": status, "events": len(history.events)})
    return entries


async def record(names: list[str]) -> None:
    """Drive the scenarios and replace their histories and their lines in the manifest."""
    HISTORIES.mkdir(exist_ok=True)
    kept = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else []
    async with LocalStack(durable=False, time_skipping=True) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        for scenario in [*SCENARIOS, *MONEY_SCENARIOS, *STEERING_SCENARIOS]:
            if names and scenario.name not in names:
                continue
            sys.stderr.write(f"{scenario.name}: {scenario.path}\n")
            async with worker_harness(stack, **scenario.settings) as harness:
                ended = await scenario.drive(harness)
                await asyncio.sleep(1)  # visibility follows the workflows a moment later
                for old in HISTORIES.glob(f"{scenario.name}-*.json"):
                    old.unlink()
                kept = [entry for entry in kept if not entry["file"].startswith(f"{scenario.name}-")]
                for each in ended:
                    kind = f"{scenario.name}-{each.workflow_id.split('-')[0]}-"
                    stored = sum(entry["file"].startswith(kind) for entry in kept)
                    kept += await _export(harness.client, scenario, each, stored)
            MANIFEST.write_text(json.dumps(sorted(kept, key=lambda entry: str(entry["file"])), indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1:]))
    # Not through the interpreter's shutdown: the SDKs' native threads sometimes abort it (sdk-python#300).
    sys.stderr.flush()
    os._exit(0)
