"""The provider against the rehearsal model: what it reads of fallbacks, compactions and strange answers."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from clients.model.anthropic import FALLBACK_BETA, UPDATES_BETA, AnthropicProvider
from clients.model.protocol import FrozenSettings, RequestSettings, StoredConversation
from domain.answer import Answer, read_answer, to_stored_text
from domain.bill import bill_of
from domain.tool_output import render_result
from tests.harness.wait import DEADLINE
from tests.integration.local.rehearsal_server import BASH, Server

FALLBACKS = FrozenSettings('"fallbacks":[{"model":"claude-sonnet-5"}],', FALLBACK_BETA)
UPDATES = FrozenSettings('"thinking":{"type":"adaptive","display":"updates"},', UPDATES_BETA)
MODEL = "claude-sonnet-5-5"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("answers"))
    yield running
    running.stop()


@pytest.fixture
async def provider(server: Server) -> AsyncIterator[AnthropicProvider]:
    opened = AnthropicProvider("a-key", server.address, DEADLINE)
    yield opened
    await opened.close()


class Talk:
    """A conversation with the rehearsal model."""

    def __init__(self, provider: AnthropicProvider, server: Server, frozen: FrozenSettings) -> None:
        self.token, self.said = secrets.token_hex(8), list[str]()
        self._provider, self._server, self._frozen = provider, server, frozen
        self._messages = [b'{"role":"user","content":[{"type":"text","text":"Begin."}]}']
        turns = [[{"text": "The tests pass. Now I add the page."}, {"tool": "bash", "input": {"command": "ls"}}]] * 3
        server.register(
            "scripts", {"match": self.token, "script": {"kind": "steps", "turns": turns}, "notes": "updates"}
        )

    async def ask(self, summarize: str | None = None) -> Answer:
        """Ask for the next answer, and add it and its results as they are stored and sent."""

        async def hear(text: str) -> None:
            self.said.append(text)

        system = json.dumps([{"type": "text", "text": self.token}]).encode()
        settings = RequestSettings(MODEL, 1000, prompt_cache=True, summarize=summarize)
        tools = json.dumps([BASH]).encode()
        conversation = StoredConversation(system, tools, tuple(self._messages), self._frozen)
        answer = await self._provider.stream(self._provider.render(settings, conversation), hear, lambda *_: None)
        if summarize is None:
            reading = read_answer(answer, len(self._messages))
            results = [render_result(call.tool_use_id, "ran", is_error=False) for call in reading.calls]
            content = ",".join(results) or '{"type":"text","text":"Go on."}'
            self._messages += [
                f'{{"role":"assistant","content":{to_stored_text(reading.blocks)}}}'.encode(),
                f'{{"role":"user","content":[{content}]}}'.encode(),
            ]
        return answer

    def served(self, answer: Answer) -> dict[str, Any]:
        [line] = [line for line in self._server.served() if line["request_id"] == answer.request_id]
        return line


@pytest.mark.parametrize("partial", [True, False])
async def test_a_fallback_is_read_billed_and_sent_back(
    server: Server, provider: AnthropicProvider, partial: bool
) -> None:
    talk = Talk(provider, server, FALLBACKS)
    server.register("faults", {"kind": "refusal", "match": talk.token, "times": 1, "partial": partial})
    answer = await talk.ask()
    line = talk.served(answer)
    assert "fallback" in [block["type"] for block in answer.blocks]
    assert answer.tokens.model_dump() == line["usage"]
    billed = [part for part in line["iterations"] if part["billed"]]
    assert [(part.model, part.tokens.output) for part in bill_of(answer).billed] == [
        (part["model"], part["output"]) for part in billed
    ]
    assert len(billed) == 1 + partial
    await talk.ask()


async def test_a_compaction_is_read_whole(server: Server, provider: AnthropicProvider) -> None:
    talk = Talk(provider, server, UPDATES)
    await talk.ask()
    answer = await talk.ask(summarize="Sum up the work.")
    assert answer.stop_reason == "compaction"
    [block] = answer.blocks
    assert block["content"]
    assert block["signature"]
    assert bill_of(answer).tokens.model_dump() == talk.served(answer)["usage"]


async def test_progress_updates_are_heard(server: Server, provider: AnthropicProvider) -> None:
    talk = Talk(provider, server, UPDATES)
    answer = await talk.ask()
    assert "".join(talk.said).strip() == "The tests pass. Now I add the page."
    assert "text" not in [block["type"] for block in answer.blocks]


@pytest.mark.parametrize(
    "kind", ["citations_delta", "unknown_block", "server_tool_use", "bad_tool_name", "bad_call_id"]
)
async def test_a_strange_answer_is_taken_back(server: Server, provider: AnthropicProvider, kind: str) -> None:
    talk = Talk(provider, server, UPDATES)
    server.register("faults", {"kind": kind, "match": talk.token, "times": 1})
    await talk.ask()
    assert (await talk.ask()).stop_reason == "tool_use"
