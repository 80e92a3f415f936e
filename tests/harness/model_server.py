"""A model that sends exactly what a test specifies, and the activity that asks it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.think import ThinkActivities
from clients.model.anthropic import AnthropicProvider
from domain.models import default_prices
from domain.notes import TurnNote
from domain.payloads import ThinkInput, ThinkResult
from tests.harness.activities import ActivityHarness
from tests.harness.wait import DEADLINE

MODEL = "claude-sonnet-5-5"
SYSTEM = json.dumps([{"type": "text", "text": "Build."}])
START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 1},
    },
}
STOP = {"type": "message_stop"}


def ends(stop_reason: str) -> dict[str, Any]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 20}}


def declines(category: str | None, explanation: str | None) -> dict[str, Any]:
    """Return the end of an answer that a safety check declined."""
    event = ends("refusal")
    event["delta"]["stop_details"] = {"type": "refusal", "category": category, "explanation": explanation}
    return event


def block(index: int, started: dict[str, Any], delta: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": started},
        {"type": "content_block_delta", "index": index, "delta": delta},
        {"type": "content_block_stop", "index": index},
    ]


def says(index: int, text: str) -> list[dict[str, Any]]:
    return block(index, {"type": "text", "text": ""}, {"type": "text_delta", "text": text})


def calls(index: int, tool: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    started = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": tool, "input": {}}
    return block(index, started, {"type": "input_json_delta", "partial_json": json.dumps(given)})


@asynccontextmanager
async def speaking(
    *events: dict[str, Any],
    silent: asyncio.Event | None = None,
    received: list[bytes] | None = None,
    asked: asyncio.Event | None = None,
    answer: asyncio.Event | None = None,
) -> AsyncIterator[AnthropicProvider]:
    """Return a client of a server that streams these events to every request. With `silent` it sets that event and
    never answers. With `asked` it sets that event and waits for `answer`. The bodies of the requests are added to
    `received`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        given = await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        if received is not None:
            received.append(given)
        if asked is not None and answer is not None:
            asked.set()
            await answer.wait()
        if silent is not None:
            silent.set()
            await reader.read()
        else:
            body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n")
            writer.write(f"Request-Id: req_{uuid.uuid4().hex}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = AnthropicProvider("a-key", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", idle_seconds=DEADLINE)
    yield client
    await client.close()
    server.close()


async def think(
    harness: ActivityHarness,
    model: AnthropicProvider,
    build: str,
    turn: int = 1,
    *notes: TurnNote,
    max_tokens: int = 1000,
) -> ThinkResult:
    activities = ThinkActivities(harness.sessions, {"anthropic": model}, harness.store, default_prices(), max_tokens)
    given = ThinkInput(build_id=build, turn=turn, notes=list(notes))
    return await ActivityEnvironment().run(activities.think, given)
