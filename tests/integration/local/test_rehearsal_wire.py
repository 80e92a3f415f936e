"""The rehearsal model behaves on the wire as the vendor's API does, seen through the vendor's SDK."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.beta import BetaMessage

from local.rehearsal.error_faults import ErrorKind
from local.rehearsal.headers import BINDING_CONTROLS, COMPACTION, DISPLAY_UPDATES, FALLBACK_LISTS, FALLBACKS
from local.rehearsal.hostile_replies import HostileKind
from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.rehearsal_server import Server, minimal_request, steps

OPUS, SONNET, HAIKU = "claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"
SHORT = "I list the files."
LONG = "The tests pass. Now I add the page. After that comes the waitlist."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("wire"))
    yield running
    running.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncAnthropic]:
    async with server.client() as client:
        yield client


@pytest.fixture
def token() -> str:
    """A text that only this test's conversations have in their system prompt."""
    return secrets.token_hex(8)


def speaking(token: str, text: str, thinking: str = "Hm.", **more: Any) -> dict[str, Any]:
    """Return a script of one turn with reasoning, a note and a call."""
    turn: list[Any] = [{"thinking": thinking}, {"text": text}, {"tool": "bash", "input": {"command": "ls"}}]
    return steps(token, turn) | more


def shapes(message: Any) -> list[tuple[str, str]]:
    """Return type and text of each block."""
    return [
        (block.type, getattr(block, "thinking", "") or getattr(block, "text", "") or "") for block in message.content
    ]


def long(token: str, turns: int, **more: Any) -> dict[str, Any]:
    return {"match": token, "script": {"kind": "long", "turns": turns, **more}}


class Conversation:
    """A conversation that grows as an agent's does, with results that say nothing."""

    def __init__(self, client: AsyncAnthropic, token: str, **options: Any) -> None:
        self.client = client
        self.messages: list[Any] = [{"role": "user", "content": "Begin."}]
        self.options = minimal_request(token, cache_control={"type": "ephemeral"}, betas=[COMPACTION], **options)

    async def ask(self, **more: Any) -> BetaMessage:
        return await self.client.beta.messages.create(**self.options | {"messages": self.messages} | more)

    async def turn(self, result: str = "fine\n[exit code 0]") -> BetaMessage:
        """Ask, and answer the calls."""
        reply = await self.ask()
        self.messages.append({"role": "assistant", "content": [block.to_dict() for block in reply.content]})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": result}
            for block in reply.content
            if block.type == "tool_use"
        ]
        if results:
            self.messages.append({"role": "user", "content": results})
        return reply

    async def compact(self, covered: int, **more: Any) -> BetaMessage:
        """Ask for a summary of the first messages."""
        more = {"max_tokens": 8000, "compaction": {"type": "summarize"}} | more
        return await self.ask(messages=self.messages[:covered], **more)

    def swap(self, reply: BetaMessage, covered: int) -> None:
        """Put the block in place of the messages that it covers."""
        block = {"role": "assistant", "content": [entry.to_dict() for entry in reply.content]}
        self.messages = [block, *self.messages[covered:]]


def command(reply: BetaMessage) -> str:
    call = reply.content[-1]
    assert call.type == "tool_use"
    return str(call.input["command"])


class TestHeaders:
    @pytest.mark.parametrize(
        ("headers", "words"),
        [
            ({"anthropic-version": "2020-01-01"}, "not a valid version"),
            ({"anthropic-beta": "sunshine-2026-01-01"}, r"Unexpected value\(s\) `sunshine-2026-01-01`"),
            ({"anthropic-beta": f"{COMPACTION},rain-2026-01-01"}, r"Unexpected value\(s\) `rain-2026-01-01`"),
        ],
    )
    async def test_only_known_values(
        self, client: AsyncAnthropic, token: str, headers: dict[str, str], words: str
    ) -> None:
        with pytest.raises(anthropic.BadRequestError, match=words):
            await client.messages.create(**minimal_request(token), extra_headers=headers)

    async def test_known_values_pass(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        old = {"anthropic-version": "2023-06-01"}
        await client.messages.create(**minimal_request(token), extra_headers=old, extra_body={"temperature": 0.5})
        betas = [COMPACTION, FALLBACKS, DISPLAY_UPDATES]
        await client.beta.messages.create(**minimal_request(token), betas=betas)
        assert server.served()[-1]["status"] == 200

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"compaction": {"type": "summarize"}}, f"requires anthropic-beta: {COMPACTION}"),
            ({"fallbacks": "default"}, "fallbacks: Extra inputs are not permitted"),
            ({"thinking": {"type": "adaptive", "display": "updates"}}, "display: Input should be 'summarized' or"),
            ({"thinking": {"type": "adaptive", "block_binding": {}}}, "block_binding: Extra inputs"),
            ({"context_management": {"edits": []}}, "context_management: Extra inputs are not permitted"),
            ({"temperature": 1.0}, "temperature: Extra inputs are not permitted"),
            ({"sunshine": 1}, "sunshine: Extra inputs are not permitted"),
            (
                {"messages": [{"role": "assistant", "content": [{"type": "compaction", "content": "s"}]}]},
                "'compaction' found using 'type' does not match any of the expected tags",
            ),
        ],
    )
    async def test_a_beta_feature_needs_its_header(
        self, client: AsyncAnthropic, token: str, body: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(anthropic.BadRequestError, match=words):
            await client.messages.create(**minimal_request(token), extra_body=body)

    async def test_the_older_beta_of_fallbacks_takes_lists_only(self, client: AsyncAnthropic, token: str) -> None:
        request = minimal_request(token, betas=[FALLBACK_LISTS])
        await client.beta.messages.create(**request, fallbacks=[{"model": "claude-sonnet-5"}])
        with pytest.raises(anthropic.BadRequestError, match="fallbacks: Input should be a valid list"):
            await client.beta.messages.create(**request, fallbacks="default")

    async def test_updates_are_not_for_every_model(self, client: AsyncAnthropic, token: str) -> None:
        thinking: Any = {"type": "adaptive", "display": "updates"}
        with pytest.raises(anthropic.BadRequestError, match="not supported for this model"):
            await client.beta.messages.create(
                **minimal_request(token, model=HAIKU), thinking=thinking, betas=[DISPLAY_UPDATES]
            )


class TestProgressUpdates:
    @pytest.mark.parametrize(
        ("model", "display", "text", "expected"),
        [
            (OPUS, "omitted", SHORT, [("thinking", ""), ("thinking", ""), ("tool_use", "")]),
            (OPUS, "updates", SHORT, [("thinking", ""), ("thinking", SHORT), ("tool_use", "")]),
            (OPUS, "summarized", SHORT, [("thinking", "Hm."), ("thinking", SHORT), ("tool_use", "")]),
            (SONNET, "updates", SHORT, [("thinking", ""), ("text", SHORT), ("tool_use", "")]),
            (SONNET, "updates", LONG, [("thinking", ""), ("thinking", LONG), ("tool_use", "")]),
            (SONNET, "omitted", LONG, [("thinking", ""), ("thinking", ""), ("tool_use", "")]),
            (HAIKU, "summarized", LONG, [("thinking", "Hm."), ("text", LONG), ("tool_use", "")]),
        ],
    )
    async def test_notes_come_as_each_model_says_them(
        self,
        server: Server,
        client: AsyncAnthropic,
        token: str,
        model: str,
        display: str,
        text: str,
        expected: list[tuple[str, str]],
    ) -> None:
        server.register("scripts", speaking(token, text, notes="wire"))
        thinking: Any = {"type": "adaptive", "display": display}
        request = minimal_request(token, model=model, thinking=thinking, betas=[DISPLAY_UPDATES])
        assert shapes(await client.beta.messages.create(**request)) == expected
        async with client.beta.messages.stream(**request) as stream:
            assert shapes(await stream.get_final_message()) == expected

    async def test_until_told_otherwise_a_summary_has_notes_as_text(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", speaking(token, SHORT))
        thinking: Any = {"type": "adaptive", "display": "summarized"}
        message = await client.messages.create(**minimal_request(token, model=OPUS, thinking=thinking))
        assert shapes(message) == [("thinking", "Hm."), ("text", SHORT), ("tool_use", "")]

    async def test_between_tools_hides_reasoning_and_shows_notes(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", speaking(token, LONG, notes="wire"))
        message = await client.messages.create(**minimal_request(token, thinking={"type": "between_tools"}))
        assert shapes(message) == [("thinking", LONG), ("tool_use", "")]

    @pytest.mark.parametrize(
        ("notes", "expected"),
        [("updates", [("thinking", SHORT), ("tool_use", "")]), ("silent", [("tool_use", "")])],
    )
    async def test_a_script_that_never_speaks_in_text(
        self, server: Server, client: AsyncAnthropic, token: str, notes: str, expected: list[tuple[str, str]]
    ) -> None:
        server.register("scripts", speaking(token, SHORT, notes=notes))
        thinking: Any = {"type": "adaptive", "display": "updates"}
        request = minimal_request(token, thinking=thinking, betas=[DISPLAY_UPDATES])
        message = await client.beta.messages.create(**request)
        assert shapes(message)[1:] == expected, "after the reasoning"

    async def test_notes_go_back_unchanged(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", speaking(token, LONG, notes="wire"))
        thinking: Any = {"type": "adaptive", "display": "updates"}
        conversation = Conversation(client, token, thinking=thinking, model=OPUS)
        conversation.options["betas"] = [DISPLAY_UPDATES]
        await conversation.turn()
        await conversation.ask()
        conversation.messages[1]["content"][1]["thinking"] += "!"
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
            await conversation.ask()

    async def test_failing_blocks_are_dropped_on_request(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", speaking(token, LONG))
        conversation = Conversation(client, token, thinking={"type": "adaptive"})
        await conversation.turn()
        conversation.options["system"] += "!"
        with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
            await conversation.ask()
        drop: Any = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
        await conversation.ask(thinking=drop, betas=[BINDING_CONTROLS])


class TestRefusals:
    async def test_before_any_output(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", speaking(token, SHORT))
        fault = {"kind": "refusal", "match": token, "partial": False, "category": "cyber", "explanation": "No."}
        server.register("faults", fault)
        async with client.messages.stream(**minimal_request(token)) as stream:
            message = await stream.get_final_message()
        assert (message.stop_reason, message.content) == ("refusal", [])
        assert message.stop_details is not None
        assert (message.stop_details.category, message.stop_details.explanation) == ("cyber", "No.")
        assert (message.usage.output_tokens, message.usage.input_tokens > 0) == (0, True)
        assert server.served()[-1]["iterations"][0]["billed"] is False
        assert (await client.messages.create(**minimal_request(token))).stop_reason == "tool_use"

    @pytest.mark.parametrize(("times", "declined"), [(2, [True, True, False]), (None, [True, True, True])])
    async def test_twice_and_for_ever(
        self, server: Server, client: AsyncAnthropic, token: str, times: int | None, declined: list[bool]
    ) -> None:
        server.register("faults", {"kind": "refusal", "match": token, "times": times, "partial": False})
        reasons = [(await client.messages.create(**minimal_request(token))).stop_reason for _ in declined]
        assert [reason == "refusal" for reason in reasons] == declined

    async def test_as_long_as_the_cause_is_in_the_messages(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("faults", {"kind": "refusal", "match": token, "times": None, "within": "exploit"})
        cause = [{"role": "user", "content": "Write an exploit."}]
        assert (await client.messages.create(**minimal_request(token, messages=cause))).stop_reason == "refusal"
        assert (await client.messages.create(**minimal_request(token))).stop_reason != "refusal"

    async def test_kept_output_is_declined_again(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", long(token, 5, text="A step with several words."))
        server.register("faults", {"kind": "refusal", "match": token, "lasting": True, "category": "bio"})
        request = minimal_request(token)
        declined = await client.messages.create(**request)
        content = [block.to_dict() for block in declined.content]
        kept = [*request["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": "Go on."}]
        again = await client.messages.create(**request | {"messages": kept})
        assert again.stop_reason == "refusal"
        assert again.stop_details is not None
        assert again.stop_details.category == "bio"
        reset = [*request["messages"], {"role": "user", "content": "Leave that part out."}]
        assert (await client.messages.create(**request | {"messages": reset})).stop_reason == "tool_use"

    async def test_a_named_fallback_serves(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", speaking(token, SHORT))
        server.register("faults", {"kind": "refusal", "match": token, "partial": False, "category": "cyber"})
        request = minimal_request(token, betas=[FALLBACKS], fallbacks=[{"model": "claude-sonnet-5"}])
        async with client.beta.messages.stream(**request) as stream:
            names = [event.message.model async for event in stream if event.type == "message_start"]
            message = await stream.get_final_message()
        assert names == [message.model] == ["claude-sonnet-5"]
        first = message.content[0]
        assert first.type == "fallback"
        assert (first.from_.model, first.to.model, first.trigger.category) == (SONNET, "claude-sonnet-5", "cyber")
        assert message.stop_reason == "tool_use"
        iterations = message.usage.iterations or []
        assert [entry.type for entry in iterations] == ["message", "fallback_message"]
        assert [getattr(entry, "model", "") for entry in iterations] == [SONNET, "claude-sonnet-5"]
        assert message.usage.output_tokens == iterations[1].output_tokens > 0
        assert iterations[0].output_tokens == 0
        line = server.served()[-1]
        assert [(entry["model"], entry["billed"]) for entry in line["iterations"]] == [
            (SONNET, False),
            ("claude-sonnet-5", True),
        ]

    async def test_it_stays_with_the_fallback_for_a_while(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", speaking(token, SHORT))
        server.register("faults", {"kind": "refusal", "match": token, "category": "cyber"})
        request = minimal_request(token, betas=[FALLBACKS], fallbacks="default")
        await client.beta.messages.create(**request)
        message = await client.beta.messages.create(**request)
        assert message.model == "claude-sonnet-5"
        assert [entry.type for entry in message.usage.iterations or []] == ["fallback_message"]
        assert "fallback" not in {block.type for block in message.content}

    async def test_after_some_output_the_next_model_goes_on(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", speaking(token, SHORT))
        server.register("faults", {"kind": "refusal", "match": token, "category": "cyber"})
        conversation = Conversation(client, token, fallbacks="default")
        conversation.options["betas"] = [FALLBACKS]
        async with client.beta.messages.stream(**conversation.options | {"messages": conversation.messages}) as stream:
            names = [event.message.model async for event in stream if event.type == "message_start"]
            message = await stream.get_final_message()
        assert names == [SONNET]
        kinds = [block.type for block in message.content]
        assert kinds[:2] == ["text", "fallback"]
        content = [block.to_dict() for block in message.content]
        result = {"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "fine"}
        conversation.messages += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        assert (await conversation.ask()).stop_reason == "end_turn"

    async def test_every_model_may_decline(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        fault = {"kind": "refusal", "match": token, "partial": False, "models": ["*"], "category": "cyber"}
        server.register("faults", fault)
        request = minimal_request(token, betas=[FALLBACKS], fallbacks=[{"model": "claude-sonnet-5"}])
        message = await client.beta.messages.create(**request)
        assert (message.stop_reason, message.content) == ("refusal", [])
        assert [entry.type for entry in message.usage.iterations or []] == ["message", "fallback_message"]

    async def test_a_category_without_a_fallback_stays_declined(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("faults", {"kind": "refusal", "match": token, "partial": False, "category": "bio"})
        request = minimal_request(token, betas=[FALLBACKS], fallbacks="default")
        message = await client.beta.messages.create(**request)
        assert (message.stop_reason, message.model) == ("refusal", SONNET)
        assert server.served()[-1]["iterations"][0]["billed"] is True


class TestCompaction:
    async def test_one_block_whose_usage_is_in_iterations_only(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", long(token, 20))
        conversation = Conversation(client, token, system=token + " word" * 1500)
        for _ in range(3):
            await conversation.turn()
        request = conversation.options | {"messages": conversation.messages, "compaction": {"type": "summarize"}}
        async with client.beta.messages.stream(**request) as stream:
            events = [event.type async for event in stream]
            message = await stream.get_final_message()
        assert message.stop_reason == "compaction"
        (block,) = message.content
        assert block.type == "compaction"
        assert block.content is not None
        assert "3 turns" in block.content
        assert block.signature
        assert "content_block_delta" not in events
        assert (message.usage.input_tokens, message.usage.output_tokens) == (0, 0)
        (entry,) = message.usage.iterations or []
        assert entry.type == "compaction"
        assert entry.cache_read_input_tokens > 1800, "the summarizer reads what the last turn wrote"
        line = server.served()[-1]
        assert line["usage"]["cache_read"] == entry.cache_read_input_tokens
        assert line["usage"]["output"] == entry.output_tokens > 0
        assert (line["stop_reason"], line["iterations"][0]["kind"]) == ("compaction", "compaction")

    async def test_the_script_goes_on_behind_the_block(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", long(token, 12))
        conversation = Conversation(client, token, thinking={"type": "adaptive"})
        for _ in range(6):
            await conversation.turn()
        # All but the last two turns: the block ends with what the fourth turn's results said.
        covered = len(conversation.messages) - 4
        conversation.swap(await conversation.compact(covered), covered)
        assert [message["role"] for message in conversation.messages[:2]] == ["assistant", "assistant"]
        assert command(await conversation.turn()) == "true # 7-1"
        covered = len(conversation.messages)
        conversation.swap(await conversation.compact(covered), covered)
        conversation.messages.append({"role": "user", "content": "Summed up. Go on."})
        for number in range(8, 13):
            assert command(await conversation.turn()) == f"true # {number}-1"
        assert (await conversation.ask()).stop_reason == "end_turn"
        assert len({line["conversation"] for line in server.served()[-8:]}) == 1

    async def test_a_block_of_hundreds_of_turns_stays_small(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", long(token, 200))
        conversation = Conversation(client, token)
        sizes = []
        for _ in range(3):
            for _ in range(30):
                await conversation.turn("x" * 2000)
            covered = len(conversation.messages)
            reply = await conversation.compact(covered)
            conversation.swap(reply, covered)
            conversation.messages.append({"role": "user", "content": "Go on."})
            sizes.append(len(reply.content[0].to_json()))
        assert max(sizes) < 1500

    async def test_a_finished_turn_can_be_compacted(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        script: list[Any] = [
            [{"text": "One."}, {"tool": "bash", "input": {"command": "ls"}}],
            [{"text": "Two."}],
            [{"text": "3."}],
        ]
        server.register("scripts", steps(token, *script))
        conversation = Conversation(client, token)
        for _ in range(2):
            await conversation.turn()
        conversation.swap(await conversation.compact(4), 4)
        conversation.messages.append({"role": "user", "content": "And now?"})
        assert shapes(await conversation.ask())[-1] == ("text", "3.")

    async def test_kept_thinking_stays_valid_and_an_edited_tail_does_not(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        turn: list[Any] = [{"thinking": "Hm."}, {"tool": "bash", "input": {"command": "ls"}}]
        server.register("scripts", steps(token, *[turn] * 9))
        conversation = Conversation(client, token, thinking={"type": "adaptive"}, model=OPUS)
        for _ in range(4):
            await conversation.turn()
        covered = 5
        conversation.swap(await conversation.compact(covered), covered)
        await conversation.turn()
        await conversation.turn()
        kept = conversation.messages
        for index, change in ((2, "other"), (4, "other")):
            edited = json.loads(json.dumps(kept))
            edited[index]["content"][0]["content"] = change
            conversation.messages = edited
            with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
                await conversation.ask()
        conversation.messages = [kept[0], *kept[3:]]
        with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
            await conversation.ask()

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda block: block | {"content": block["content"] + " More."}, "compaction_content_mismatch"),
            (lambda block: block | {"signature": "AAAA"}, "compaction_signature_invalid"),
            (lambda block: block | {"signature": block["signature"][:-8]}, "compaction_signature_invalid"),
        ],
    )
    async def test_a_changed_block_is_refused(
        self, server: Server, client: AsyncAnthropic, token: str, change: Any, code: str
    ) -> None:
        server.register("scripts", long(token, 9))
        conversation = Conversation(client, token)
        await conversation.turn()
        conversation.swap(await conversation.compact(3), 3)
        conversation.messages.append({"role": "user", "content": "Go on."})
        await conversation.ask()
        block = conversation.messages[0]["content"][0]
        conversation.messages[0]["content"][0] = change(block)
        with pytest.raises(anthropic.BadRequestError) as caught:
            await conversation.ask()
        assert caught.value.error_code == code

    async def test_a_block_in_the_wrong_place_is_refused(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", long(token, 9))
        conversation = Conversation(client, token)
        await conversation.turn()
        reply = await conversation.compact(3)
        block = reply.content[0].to_dict()
        go_on = {"role": "user", "content": "Go on."}
        for messages, code in (
            ([*conversation.messages, {"role": "assistant", "content": [block]}, go_on], "compaction_block_misplaced"),
            ([{"role": "assistant", "content": [block, block]}, go_on], "compaction_block_ambiguous"),
        ):
            with pytest.raises(anthropic.BadRequestError) as caught:
                await conversation.ask(messages=messages)
            assert caught.value.error_code == code
        with pytest.raises(anthropic.BadRequestError, match=r"compaction\.citations: Extra inputs"):
            await conversation.ask(messages=[{"role": "assistant", "content": [block | {"citations": None}]}, go_on])
        inside = [{"role": "user", "content": [block, {"type": "text", "text": "Go on."}]}]
        assert command(await conversation.ask(messages=inside)) == "true # 2-1"

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"stop_sequences": ["x"]}, "stop_sequences: cannot be combined"),
            ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config.format: cannot be"),
            ({"tool_choice": {"type": "any"}}, "tool_choice"),
            ({"compaction": {"type": "summarize", "instructions": "x" * 16_385}}, "at most 16384 characters"),
            ({"compaction": {"type": "forget"}}, "compaction.type"),
            ({"model": "claude-haiku-4-5"}, "not supported for claude-haiku-4-5"),
        ],
    )
    async def test_what_cannot_be_combined(
        self, client: AsyncAnthropic, token: str, more: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(anthropic.BadRequestError, match=words):
            await Conversation(client, token).compact(1, **{"model": "claude-sonnet-5"} | more)

    async def test_open_calls_and_emptiness_are_refused(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", long(token, 9))
        conversation = Conversation(client, token)
        await conversation.turn()
        for covered, code in ((2, "compaction_incomplete_turn"), (0, "compaction_nothing_to_summarize")):
            with pytest.raises(anthropic.BadRequestError) as caught:
                await conversation.compact(covered)
            assert caught.value.error_code == code

    @pytest.mark.parametrize(
        ("kind", "stop_reason"),
        [
            ("compaction_max_tokens", "max_tokens"),
            ("compaction_refusal", "refusal"),
            ("compaction_tool_use", "tool_use"),
            ("compaction_end_turn", "end_turn"),
            ("compaction_context_exceeded", "model_context_window_exceeded"),
        ],
    )
    async def test_no_summary_is_billed_all_the_same(
        self, server: Server, client: AsyncAnthropic, token: str, kind: str, stop_reason: str
    ) -> None:
        server.register("scripts", long(token, 9))
        server.register("faults", {"kind": kind, "match": token})
        conversation = Conversation(client, token)
        await conversation.turn()
        reply = await conversation.compact(3)
        assert (reply.stop_reason, reply.content) == (stop_reason, [])
        (entry,) = reply.usage.iterations or []
        assert entry.input_tokens > 0
        assert (await conversation.compact(3)).stop_reason == "compaction"

    async def test_a_short_limit_cuts_the_summary_off(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        reply = await Conversation(client, token).compact(1, max_tokens=5)
        assert (reply.stop_reason, reply.content) == ("max_tokens", [])

    async def test_it_can_be_unavailable(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("faults", {"kind": "compaction_unavailable", "match": token})
        conversation = Conversation(client, token)
        await conversation.ask()
        with pytest.raises(anthropic.OverloadedError) as caught:
            await conversation.compact(1)
        assert caught.value.error_code == "compaction_unavailable"

    async def test_faults_of_turns_can_spare_compactions(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("faults", {"kind": "overloaded", "match": token, "request": "turn"})
        conversation = Conversation(client, token)
        await conversation.compact(1)
        with pytest.raises(anthropic.OverloadedError):
            await conversation.ask()

    async def test_counting_ignores_it(self, client: AsyncAnthropic, token: str) -> None:
        request = minimal_request(token)
        del request["max_tokens"]
        plain = await client.beta.messages.count_tokens(**request)
        compaction: Any = {"type": "summarize"}
        counted = await client.beta.messages.count_tokens(**request, compaction=compaction, betas=[COMPACTION])
        assert counted.input_tokens == plain.input_tokens


class TestLimits:
    async def test_the_window(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, [{"text": "word " * 400}]))
        request = minimal_request(token)
        count = (await client.messages.create(**request)).usage.input_tokens
        server.register("limits", {"match": token, "window_tokens": count + 100})
        cut = await client.messages.create(**request)
        assert (cut.stop_reason, cut.usage.output_tokens <= 100) == ("model_context_window_exceeded", True)
        compacted = await Conversation(client, token).compact(1)
        assert (compacted.stop_reason, compacted.content) == ("model_context_window_exceeded", [])
        server.register("limits", {"match": token, "window_tokens": count - 1})
        with pytest.raises(
            anthropic.BadRequestError, match=f"prompt is too long: {count} tokens > {count - 1} maximum"
        ):
            await client.messages.create(**request)

    async def test_a_script_can_fill_it(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", long(token, 50, text_bytes=8000))
        server.register("limits", {"match": token, "window_tokens": 20_000})
        conversation = Conversation(client, token, max_tokens=4000)
        reasons = [(await conversation.turn()).stop_reason for _ in range(10)]
        assert reasons == ["tool_use"] * 9 + ["model_context_window_exceeded"]

    async def test_the_size_of_the_body(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("limits", {"match": token, "body_bytes": 2000})
        with pytest.raises(anthropic.ContentTooLargeError, match="request_too_large"):
            await client.messages.create(**minimal_request(token, system=token + "x" * 2000))
        await client.messages.create(**minimal_request(token))

    async def test_the_number_of_images(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pixel}}
        server.register("limits", {"match": token, "images": 2})
        for count, allowed in ((2, True), (3, False)):
            request = minimal_request(token, messages=[{"role": "user", "content": [image] * count}])
            if allowed:
                await client.messages.create(**request)
            else:
                with pytest.raises(anthropic.BadRequestError, match="3 images > 2"):
                    await client.messages.create(**request)


ERRORS: dict[str, tuple[int, str, str | None]] = {
    "spend_limit": (429, "rate_limit_error", "enforced_spend_limit_reached"),
    "contract_spend_limit": (429, "rate_limit_error", "contract_spend_limit_reached"),
    "linked_organization_spend_limit": (402, "billing_error", "linked_organization_spend_limit_reached"),
    "linked_organization_billing": (402, "billing_error", "linked_organization_billing_unavailable"),
    "billing": (402, "billing_error", None),
    "usage_limit": (400, "invalid_request_error", None),
    "ramp_limit": (429, "rate_limit_error", "ramp_limit_exceeded"),
    "permission": (403, "permission_error", None),
    "prompt_too_long": (400, "invalid_request_error", None),
    "request_too_large": (413, "request_too_large", None),
    "too_many_images": (400, "invalid_request_error", None),
    "invalid_signature": (400, "invalid_request_error", None),
    "thinking_modified": (400, "invalid_request_error", None),
    "gateway_timeout": (504, "timeout_error", None),
    "unknown_error_code": (400, "invalid_request_error", "a_code_of_tomorrow"),
}


@pytest.mark.parametrize("kind", ERRORS)
async def test_errors_carry_their_codes(server: Server, client: AsyncAnthropic, token: str, kind: str) -> None:
    server.register("faults", {"kind": kind, "match": token})
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(**minimal_request(token))
    assert (caught.value.status_code, caught.value.type, caught.value.error_code) == ERRORS[kind]
    assert set(get_args(ErrorKind)) < set(ERRORS)


class TestHostileAnswers:
    """What models and gateways have been seen to say, and what a later version of the API may say."""

    async def raw_events(self, server: Server, token: str, kind: str, **more: Any) -> list[dict[str, Any]]:
        """Return the events of an answer as they went over the wire."""
        server.register("scripts", speaking(token, SHORT))
        server.register("faults", {"kind": kind, "match": token})
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
        body = minimal_request(token, stream=True, **more)
        async with httpx2.AsyncClient() as client:
            response = await client.post(f"{server.address}/v1/messages", json=body, headers=headers, timeout=DEADLINE)
        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines]

    def tools(self, events: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
        """Return each call's block and its input's text."""
        found: list[tuple[dict[str, Any], str]] = []
        for event in events:
            if event.get("content_block", {}).get("type") == "tool_use":
                found.append((event["content_block"], ""))
            elif event.get("delta", {}).get("type") == "input_json_delta" and found:
                found[-1] = (found[-1][0], found[-1][1] + event["delta"]["partial_json"])
        return found

    async def test_ids_and_names(self, server: Server, token: str) -> None:
        same = self.tools(await self.raw_events(server, token, "duplicate_tool_id"))
        assert len(same) == 2
        assert same[0][0]["id"] == same[1][0]["id"]
        for kind, field, value in (
            ("bad_tool_name", "name", "functions.bash"),
            ("long_tool_name", "name", "b" * 200),
            ("bad_call_id", "id", "functions.bash:0"),
        ):
            ((block, _),) = self.tools(await self.raw_events(server, token, kind))
            assert block[field] == value

    async def test_an_id_of_an_earlier_turn(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", long(token, 5))
        conversation = Conversation(client, token)
        first = await conversation.turn()
        server.register("faults", {"kind": "repeated_tool_id", "match": token})
        second = await conversation.turn()
        assert first.content[-1].id == second.content[-1].id  # type: ignore[union-attr]
        with pytest.raises(anthropic.BadRequestError, match="ids must be unique"):
            await conversation.ask()

    @pytest.mark.parametrize(
        ("kind", "part"),
        [("infinite_number", "1e999"), ("not_a_number", "NaN"), ("huge_integer", "7" * 5000), ("deep_nesting", "[[[")],
    )
    async def test_inputs_that_cannot_be_stored_as_they_are(
        self, server: Server, token: str, kind: str, part: str
    ) -> None:
        ((block, text),) = self.tools(await self.raw_events(server, token, kind))
        assert block["name"] == "read_file"
        assert part in text

    @pytest.mark.parametrize("kind", ["bad_tool_name", "long_tool_name", "bad_call_id"])
    async def test_the_api_does_not_take_them_back(
        self, server: Server, client: AsyncAnthropic, token: str, kind: str
    ) -> None:
        server.register("scripts", long(token, 5))
        server.register("faults", {"kind": kind, "match": token})
        conversation = Conversation(client, token)
        await conversation.turn()
        with pytest.raises(anthropic.BadRequestError, match="String should match pattern"):
            await conversation.ask()

    async def test_a_call_written_as_text(self, server: Server, token: str) -> None:
        events = await self.raw_events(server, token, "text_tool_call")
        text = "".join(event["delta"]["text"] for event in events if "text" in event.get("delta", {}))
        assert '<invoke name="bash">' in text
        assert events[-2]["delta"]["stop_reason"] == "end_turn"

    async def test_blocks_and_deltas_of_tomorrow(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        for kind, seen in (
            ("citations_delta", "citations_delta"),
            ("unknown_delta", "delta_of_tomorrow"),
            ("unknown_block", "block_of_tomorrow"),
            ("server_tool_use", "web_search_tool_result"),
        ):
            events = await self.raw_events(server, token, kind)
            kinds = {event.get(name, {}).get("type") for event in events for name in ("delta", "content_block")}
            assert seen in kinds

    @pytest.mark.parametrize("kind", ["server_tool_use", "unknown_block", "citations_delta"])
    async def test_they_may_go_back_as_they_came(
        self, server: Server, client: AsyncAnthropic, token: str, kind: str
    ) -> None:
        server.register("scripts", long(token, 5))
        server.register("faults", {"kind": kind, "match": token})
        conversation = Conversation(client, token, thinking={"type": "adaptive"})
        await conversation.turn()
        assert command(await conversation.ask()) == "true # 2-1"

    async def test_a_usage_of_zero(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("faults", {"kind": "zero_usage", "match": token})
        async with client.messages.stream(**minimal_request(token)) as stream:
            usage = (await stream.get_final_message()).usage
        assert (usage.input_tokens, usage.output_tokens) == (0, 0)
        line = server.served()[-1]
        assert line["usage"]["input"] > 0, "the log has what was served"
        assert line["fault"] == "zero_usage"

    async def test_pings_without_an_end(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("faults", {"kind": "endless_pings", "match": token, "interval": 0.05})
        kinds: list[str] = []
        async with client.messages.with_streaming_response.create(**minimal_request(token, stream=True)) as response:
            async for line in response.iter_lines():
                kinds += [line.removeprefix("event: ")] if line.startswith("event: ") else []
                if kinds.count("ping") == 5:
                    break
        assert kinds == ["message_start"] + ["ping"] * 5
        await wait_until(lambda: server.served()[-1]["fault"] == "endless_pings")
        assert server.served()[-1]["stream"] == "cut"

    def test_every_kind_is_tried(self) -> None:
        tried = Path(__file__).read_text()
        assert not [kind for kind in get_args(HostileKind) if f'"{kind}"' not in tried and kind != "blank_blocks"]


class TestModels:
    @pytest.mark.parametrize(
        ("model", "thinking", "line"),
        [
            (OPUS, {"adaptive"}, "opus"),
            (SONNET, {"adaptive", "between_tools"}, "sonnet"),
            (HAIKU, {"adaptive", "disabled"}, "haiku"),
        ],
    )
    async def test_say_what_they_take(self, client: AsyncAnthropic, model: str, thinking: set[str], line: str) -> None:
        info = await client.models.retrieve(model)
        assert (info.max_input_tokens, info.max_tokens, info.line) == (1_000_000, 128_000, line)
        assert info.capabilities is not None
        types = info.capabilities.thinking.types.to_dict()
        assert {name for name, value in types.items() if value["supported"]} == thinking  # type: ignore[index]
        effort = info.capabilities.effort
        assert all(level.supported for level in (effort.low, effort.medium, effort.high, effort.max))
        assert effort.xhigh is not None

    async def test_betas_show_more(self, client: AsyncAnthropic) -> None:
        info = await client.beta.models.retrieve(SONNET, betas=[COMPACTION, FALLBACKS])
        assert info.capabilities is not None
        assert info.capabilities.compaction is not None
        assert info.capabilities.compaction.summarize.supported
        assert "claude-sonnet-5" in (info.allowed_fallback_models or [])
