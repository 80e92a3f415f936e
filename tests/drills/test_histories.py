"""What histories hold and what a change of the program does to them."""

import json
from collections.abc import Callable
from itertools import chain

import pytest

from db import steering
from db.transaction import transaction
from domain.names import preview_workflow_id
from domain.status import Status
from tests.harness.history import chain_of
from tests.harness.scripts import PRODUCT, bash, steps
from tests.harness.worker import WorkerHarness, sample_brief
from tests.replay.payloads import GOLDEN, merge

PLANTED = "quixotic"
"""In the project's name, the goal, the commands and their output, the question, the answer and a path."""

_FAILING = f"cd /tmp; KEY={PLANTED}-key python3 -c 'import {PLANTED}_module'"


@pytest.mark.fast
async def test_no_word_in_histories(harness: WorkerHarness, figure: Callable[[str], None]) -> None:
    """D18: a build with a key in its commands asks its founder: its histories hold ids and counts, and no word."""
    fails = [[bash(f"{_FAILING} # {attempt}")] for attempt in range(3)]
    write = {"tool": "write_file", "input": {"path": f"{PLANTED}.md", "content": PLANTED}}
    build_id = await harness.start(
        brief=sample_brief(name=f"The {PLANTED} shop"),
        goal=f"Build the {PLANTED} version.",
        script=steps(*fails, [write], [bash(f"echo {PLANTED}; {PRODUCT}")]),
    )
    row = await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    assert PLANTED in (row.reason or ""), "founders and operators still read what the agent asks"
    async with harness.session() as tx:
        asked = await steering.find_question(tx, build_id)
    assert asked is not None
    async with transaction(harness.sessions) as tx:
        build = await steering.lock_build(tx, build_id)
        assert build is not None
        message = await steering.add_message(tx, build, f"Use {PLANTED} paint.", question_id=asked.question.id)
        number = message.number
    await harness.builds.signal_message(build_id, number)
    assert (await harness.finished(build_id)).status == Status.READY

    preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    await preview.cancel()
    runs = [*await chain_of(harness.client, str(build_id)), (await preview.fetch_history()).events]
    events = list(chain.from_iterable(runs))
    assert len(events) > 50
    found = [str(event)[:500] for event in events if PLANTED.encode() in event.SerializeToString()]
    assert found == []
    described = json.dumps([str(event.user_metadata) for event in events])
    assert "summary" in described, "the timeline still names steps"
    figure(f"{len(events)} events, the word in none")


@pytest.mark.fast
def test_changed_default(figure: Callable[[str], None]) -> None:
    """D13: change the default of each field of each payload: the check of payloads refuses each."""
    stored = json.loads(GOLDEN.read_text())
    keys = [(name, key, field) for name, payload in stored.items() for key, field in payload.get("keys", {}).items()]
    fields, refused = [(name, key) for name, key, field in keys if "default" in field], 0
    for name, key in fields:
        changed = json.loads(json.dumps(stored))
        changed[name]["keys"][key]["default"] = "another"
        with pytest.raises(ValueError, match="default was"):
            merge(stored, changed)
        refused += 1
    figure(f"{refused} defaults of {len(stored)} payloads")
