"""Whatever a stream says becomes an answer that can be stored and sent back."""

import json
from typing import Any

import pytest

from clients.model.answer_stream import AnswerStream
from domain.answer import read_answer, to_stored_text
from domain.answer_blocks import ID, NAME
from domain.bill import bill_of
from domain.tools import TOOLS
from local.rehearsal.fuzz import FuzzBlock, fuzz_answer


def _events(index: int, block: FuzzBlock) -> list[dict[str, Any]]:
    match block.kind:
        case "call":
            started = {"type": "tool_use", "id": f"toolu_{index}" if block.id is None else block.id, "name": block.name}
            delta = {"type": "input_json_delta", "partial_json": block.text}
            return _block(index, {**started, "input": {}}, delta)
        case "text":
            return _block(index, {"type": "text", "text": ""}, {"type": "text_delta", "text": block.text})
        case "redacted":
            return _block(index, {"type": "redacted_thinking", "data": block.text})
        case _:
            started = {"type": "thinking", "thinking": "", "signature": "s"}
            return _block(index, started, {"type": "thinking_delta", "thinking": block.text})


def _block(index: int, started: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    start = {"type": "content_block_start", "index": index, "content_block": started}
    return [start, *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)]


@pytest.mark.parametrize("seed", range(20))
def test_a_hostile_answer_can_be_stored_and_sent(seed: int) -> None:
    for number in range(50):
        said = fuzz_answer(seed, number, list(TOOLS))
        stream = AnswerStream(updates=True)
        usage = {"input_tokens": 10, "output_tokens": 1} if said.has_usage else {"input_tokens": 0, "output_tokens": 0}
        stream.take({"type": "message_start", "message": {"usage": usage}})
        for index, block in enumerate(said.blocks):
            for event in _events(index, block):
                stream.take(event)
        stream.take({"type": "message_delta", "delta": {"stop_reason": said.stop_reason}, "usage": usage})
        answer = stream.answer()
        reading = read_answer(answer, number, {"toolu_the_same"})
        stored = json.loads(to_stored_text(reading.blocks), parse_constant=pytest.fail)
        asked = [block for block in stored if block["type"] == "tool_use"]
        assert [call.tool_use_id for call in reading.calls] == [block["id"] for block in asked]
        assert all(ID.fullmatch(block["id"]) and NAME.fullmatch(block["name"]) for block in asked)
        assert len({block["id"] for block in asked} - {"toolu_the_same"}) == len(asked)
        assert reading.blocks or reading.refusal is not None, "only a declined answer is not kept"
        assert bill_of(answer).tokens.prompt > 0


def test_a_block_that_is_cut_off_in_its_input_is_left_out() -> None:
    stream = AnswerStream(updates=False)
    started = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    for event in _block(0, started, {"type": "input_json_delta", "partial_json": '{"query": "ho'}):
        stream.take(event)
    assert stream.answer().blocks == []


def test_texts_and_lists_of_an_unknown_delta_grow() -> None:
    stream = AnswerStream(updates=False)
    started = {"type": "block_of_tomorrow", "words": "a", "marks": [1], "state": None}
    deltas = [{"type": "delta_of_tomorrow", "words": "b", "marks": [2], "state": {"n": n}} for n in range(2)]
    for event in _block(0, started, *deltas):
        stream.take(event)
    [block] = stream.answer().blocks
    assert block == {"type": "block_of_tomorrow", "words": "abb", "marks": [1, 2, 2], "state": {"n": 1}}
