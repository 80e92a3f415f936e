"""The same turns in a plain loop without durability: no Temporal, no database, the conversation in a list.

The same clients talk to the same model and to a sandbox of the same kind; a crash would lose everything. What builds
take beyond this is what durability costs.
"""

import time
import uuid
from dataclasses import dataclass

from clients.model import ModelClient
from clients.sandbox import CallOutcome, Role, Sandbox, Sandboxes
from domain.answer import read_answer, to_stored_text
from domain.pricing import Tokens
from domain.prompt import OPENING
from domain.tool_output import command_text, render_result, shown
from domain.tools import BASH_TIMEOUT_DEFAULT_SECONDS, is_mutating
from settings import Settings
from worker import sandbox_config


@dataclass(frozen=True)
class PlainTurn:
    """One turn: when it ended (monotonic), and seconds of its parts."""

    ended: float
    model_seconds: float
    tool_seconds: float
    cpu_ended: float


async def run_plainly(settings: Settings, *, model: str, system: str, tools: str) -> list[PlainTurn]:
    """Loop until the model ends its turn; `system` and `tools` are those of a build, as they are sent."""
    client = ModelClient("rehearsal", settings.anthropic_base_url, settings.stream_idle_seconds)
    sandboxes = Sandboxes(sandbox_config(settings))
    sandbox = await sandboxes.create(f"plain-{uuid.uuid4()}", Role.WORKSPACE)
    try:
        return await _loop(client, sandbox, settings.max_output_tokens, model, system, tools)
    finally:
        await sandboxes.kill(sandbox.id)
        await sandboxes.close()
        await client.close()


async def _loop(
    client: ModelClient, sandbox: Sandbox, max_tokens: int, model: str, system: str, tools: str
) -> list[PlainTurn]:
    messages = [f'{{"role":"user","content":{to_stored_text([{"type": "text", "text": OPENING}])}}}']
    turns: list[PlainTurn] = []
    while True:
        began = time.monotonic()
        body = (
            f'{{"model":"{model}","max_tokens":{max_tokens},"stream":true,"cache_control":{{"type":"ephemeral"}},'
            f'"thinking":{{"type":"adaptive","display":"summarized"}},'
            f'"system":{system},"tools":{tools},"messages":[{",".join(messages)}]}}'
        ).encode()
        answer = await client.stream(body, _hear, _note)
        answered = time.monotonic()
        reading = read_answer(answer)
        messages.append(f'{{"role":"assistant","content":{to_stored_text(reading.blocks)}}}')
        if not reading.calls:
            return turns
        results = []
        inputs = {block["id"]: block["input"] for block in reading.blocks if block["type"] == "tool_use"}
        tool_began = time.monotonic()
        for call, name in zip(reading.calls, reading.names, strict=True):
            assert is_mutating(name), "the benchmarks' scripts make no other calls"
            ran = await sandbox.call(
                call.tool_use_id, name, inputs[call.tool_use_id], timeout_seconds=BASH_TIMEOUT_DEFAULT_SECONDS
            )
            results.append(render_result(call.tool_use_id, _told(name, ran), ran.is_error))
        ended = time.monotonic()
        messages.append(f'{{"role":"user","content":[{",".join(results)}]}}')
        turns.append(PlainTurn(ended, answered - began, ended - tool_began, time.process_time()))


async def _hear(_: str) -> None:
    """Nobody listens."""


def _note(_: Tokens, __: str | None) -> None:
    """Nobody counts."""


def _told(name: str, ran: CallOutcome) -> str:
    if name != "bash":
        return shown(ran.text)
    return command_text(
        head=ran.text,
        tail=ran.tail,
        output_bytes=ran.output_bytes,
        output_path=ran.output_path,
        exit_code=ran.exit_code,
    )
