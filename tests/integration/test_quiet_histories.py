"""Histories hold ids and counts: nothing that a founder or an agent has written."""

import json
from itertools import chain

from db import steering
from db.transaction import transaction
from domain.names import preview_workflow_id
from domain.status import Status
from tests.harness.history import chain_of
from tests.harness.scripts import PRODUCT, bash, steps
from tests.harness.worker import WorkerHarness, sample_brief

PLANTED = "quixotic"
"""In the project's name, the goal, the commands and their output, the question, the answer and a path."""

_FAILING = f"cd /tmp; KEY={PLANTED}-key python3 -c 'import {PLANTED}_module'"


async def test_a_build_that_asks_its_founder_leaves_no_word_in_its_histories(harness: WorkerHarness) -> None:
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
