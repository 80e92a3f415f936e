"""The bytes of a request that is made of a stored conversation."""

import base64
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.think import ThinkActivities
from db.models import Build, Message, Prompt, ToolCall, Turn
from db.transaction import transaction
from domain.models import default_prices
from domain.payloads import ThinkInput
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.model_server import speaking

GOLDEN = Path(__file__).with_name("golden")
"""The rows of a conversation, and the requests of its last turn. Recorded once: what was sent never changes."""


async def store_rows(harness: ActivityHarness, build: str, rows: dict[str, Any], turn: int, role: str) -> None:
    """Store what a recorded conversation holds of this turn: its user message, or its answer and the calls' results."""
    build_id, run_id = uuid.UUID(build), ActivityEnvironment.default_info().workflow_run_id
    async with transaction(harness.sessions) as tx:
        if role == "user":
            tx.session.add(Turn(build_id=build_id, number=turn, run_id=run_id, claim=uuid.uuid4()))
        else:
            calls = [row for row in rows["tool_calls"] if row["turn"] == turn]
            state = {"summary": "", "state": "done", "is_error": False}
            tx.session.add_all(ToolCall(build_id=build_id, **state, **row) for row in calls)
        await tx.session.flush()
        messages = [row for row in rows["messages"] if (row["turn"], row["role"]) == (turn, role)]
        tx.session.add_all(Message(build_id=build_id, **row) for row in messages)


async def send_turns(harness: ActivityHarness, rows: dict[str, Any], adaptive_thinking: bool) -> list[bytes]:
    """Send each turn's request by one worker, and the last one's by another, too. Returns the requests' bodies."""
    for image in map(base64.b64decode, rows["images"]):
        await harness.store.put_image(hashlib.sha256(image).hexdigest(), image)
    build = await harness.build()
    async with transaction(harness.sessions) as tx:
        (await tx.session.get_one(Build, uuid.UUID(build))).model = rows["model"]
        prompt = Prompt(build_id=uuid.UUID(build), system=rows["system"], tools=rows["tools"])
        if not adaptive_thinking:
            prompt.settings = ""  # as the migration writes it for a model that does not think
        tx.session.add(prompt)
    price = default_prices()[rows["model"]].model_copy(update={"adaptive_thinking": adaptive_thinking})
    received: list[bytes] = []
    async with speaking(received=received) as model:

        async def send(worker: ThinkActivities, turn: int) -> None:
            with pytest.raises(ApplicationError, match="The model's answer"):
                await ActivityEnvironment().run(worker.think, ThinkInput(build_id=build, turn=turn))

        one, other = (
            ThinkActivities(
                harness.sessions, {"anthropic": model}, harness.store, {rows["model"]: price}, rows["max_tokens"]
            )
            for _ in range(2)
        )
        for turn in range(1, rows["turns"] + 1):
            await store_rows(harness, build, rows, turn, "user")
            await send(one, turn)
            await store_rows(harness, build, rows, turn, "assistant")
        await send(other, rows["turns"])
    return received


@pytest.mark.parametrize("adaptive_thinking", [True, False], ids=["thinking", "without-thinking"])
async def test_a_stored_conversation_is_sent_in_the_recorded_bytes(stack: LocalStack, adaptive_thinking: bool) -> None:
    """Also by a worker that has sent the turns before, and so has most of the request in its cache."""
    rows = json.loads((GOLDEN / "stored_conversation.json").read_text())
    async with open_activity_harness(stack) as harness:
        received = await send_turns(harness, rows, adaptive_thinking)
    recorded = GOLDEN / ("request_thinking.json" if adaptive_thinking else "request_without_thinking.json")
    assert received[-2:] == [recorded.read_bytes()] * 2
