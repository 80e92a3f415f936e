"""Run the same turns in a plain loop without durability: no Temporal, no database, the conversation in a list.

The same clients talk to the same model and to a sandbox of the same kind, and a crash would lose everything. The time
that builds take beyond this loop is the cost of durability.
"""

import time
import uuid
from dataclasses import dataclass

from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import FrozenSettings, RequestSettings, StoredConversation
from clients.sandbox import CallOutcome, Role, Sandbox, Sandboxes, sandbox_config
from domain.answer import read_answer, to_stored_text
from domain.prompt import OPENING
from domain.tool_output import command_text, displayable, render_result
from domain.tools import BASH_TIMEOUT_DEFAULT_SECONDS, is_mutating
from settings import Settings


@dataclass(frozen=True)
class PlainTurn:
    """One turn: when it ended (monotonic clock), the seconds of its parts, and the process's CPU seconds at its end."""

    ended: float
    model_seconds: float
    tool_seconds: float
    cpu_ended: float


async def run_plainly(settings: Settings, *, model: str, system: str, tools: str) -> list[PlainTurn]:
    """Loop until the model ends its turn. `system` and `tools` are a build's stored JSON, as sent to the model."""
    client = AnthropicProvider("rehearsal", settings.anthropic_base_url, settings.stream_idle_seconds)
    sandboxes = Sandboxes(sandbox_config(settings))
    sandbox = await sandboxes.create(f"plain-{uuid.uuid4()}", Role.WORKSPACE)
    try:
        return await _loop(client, sandbox, settings.max_output_tokens, model, system, tools)
    finally:
        await sandboxes.kill(sandbox.id)
        await sandboxes.close()
        await client.close()


async def _loop(
    client: AnthropicProvider, sandbox: Sandbox, max_tokens: int, model: str, system: str, tools: str
) -> list[PlainTurn]:
    request = RequestSettings(model, max_tokens, prompt_cache=True)
    frozen = FrozenSettings('"thinking":{"type":"adaptive","display":"summarized"},')
    messages = [f'{{"role":"user","content":{to_stored_text([{"type": "text", "text": OPENING}])}}}']
    turns: list[PlainTurn] = []
    while True:
        start = time.monotonic()
        conversation = StoredConversation(system.encode(), tools.encode(), tuple(map(str.encode, messages)), frozen)
        answer = await client.stream(client.render(request, conversation), _ignore_text, _ignore_usage)
        answer_at = time.monotonic()
        reading = read_answer(answer)
        messages.append(f'{{"role":"assistant","content":{to_stored_text(reading.blocks)}}}')
        if not reading.calls:
            return turns
        results = []
        inputs = {block["id"]: block["input"] for block in reading.blocks if block["type"] == "tool_use"}
        tool_start = time.monotonic()
        for call, name in zip(reading.calls, reading.names, strict=True):
            assert is_mutating(name), "the benchmarks' scripts make only mutating calls"
            outcome = await sandbox.call(
                call.tool_use_id, name, inputs[call.tool_use_id], timeout_seconds=BASH_TIMEOUT_DEFAULT_SECONDS
            )
            results.append(render_result(call.tool_use_id, _result_text(name, outcome), outcome.is_error))
        ended = time.monotonic()
        messages.append(f'{{"role":"user","content":[{",".join(results)}]}}')
        turns.append(PlainTurn(ended, answer_at - start, ended - tool_start, time.process_time()))


async def _ignore_text(_: str) -> None:
    """Drop the narration; nothing shows it here."""


def _ignore_usage(*_: object) -> None:
    """Drop the token counts; nothing bills them here."""


def _result_text(name: str, outcome: CallOutcome) -> str:
    if name != "bash":
        return displayable(outcome.text)
    return command_text(
        head=outcome.text,
        tail=outcome.tail,
        output_bytes=outcome.output_bytes,
        output_path=outcome.output_path,
        exit_code=outcome.exit_code,
    )
