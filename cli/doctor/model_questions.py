"""What `cofounder doctor --paid` asks of the Messages API, through the provider that builds use."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cli.doctor.paid import NotAsked, Purse, Question, Verdict, cannot_ask, held, not_held
from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import (
    BrokenStream,
    FrozenSettings,
    LostCall,
    RequestSettings,
    StoredConversation,
)
from domain.answer import REFUSAL, Answer
from domain.errors import CofounderError, NeedsPerson
from domain.judge import SCHEMA, NotJudged, ProductEvidence, read_findings, render_request
from domain.model_choice import ModelChoice, check_choice
from domain.page_view import PageView
from domain.pricing import PriceTable, bill_microdollars, cost_microdollars, price_of, worst_case
from domain.prompt import UNATTENDED
from domain.summary import INSTRUCTIONS
from domain.tools import render_tools

VENDOR_PROMPT_TOKENS = 4000
"""At most this many tokens of a prompt are the vendor's own: its texts for tools and for a summary."""

OUTPUT_TOKENS = 2000
SUMMARY_TOKENS = 4000

REFUSED_TEXT = "ANTHROPIC_MAGIC_STRING_TRIGGER_REFUSAL_1FAEFB6177B4672DEE07F9D3AFC62588CCD2631EDCF22E8CCC1FB35B501C9C86"
"""The API refuses this on purpose, for tests: https://docs.claude.com/en/docs/test-and-evaluate/strengthen-guardrails/
handle-streaming-refusals."""

_CHECKING = "You check that an API works."
_WORD = "Answer with the word ready, and nothing else."
_UNKNOWN_MODEL = "claude-not-a-model"
_BYTES_A_TOKEN = 3

Message = dict[str, Any]


class ModelQuestions:
    """The questions about one model, in the order in which they build on each other."""

    def __init__(self, provider: AnthropicProvider, prices: PriceTable, model: str, purse: Purse) -> None:
        self._provider = provider
        self._prices = prices
        self._price = price_of(prices, model)
        self._choice = check_choice(ModelChoice(model=model), prices, "FALLBACK_MODEL")
        self._purse = purse
        self._nonce = uuid.uuid4().hex
        """Makes every prompt new, so that no cache of an earlier run answers."""
        self._cached: list[Message] = []
        """The conversation of the question about the cache; that about compaction goes on with it."""

    def all(self) -> list[Question]:
        """The questions."""
        return [
            Question("stream", "An answer ends with message_stop, and reports its usage and a request id", self.stream),
            Question("errors", "An unknown model is a 404, a wrong conversation a 400 about messages", self.errors),
            Question("merging", "A user message may follow another", self.merging),
            Question("early end", "The agent goes on by itself while its plan has open stories", self.early_end),
            Question("cache", "A prefix with equal bytes is read from the cache, and thinking comes back", self.cache),
            Question("compaction", "A summary reads the cache, and may begin a conversation", self.compaction),
            Question("display", "The model takes the display modes of thinking that the table says", self.display),
            Question("judgement", "An answer has the form of a JSON schema, as a judgement has to", self.judgement),
            Question("refusal", "A refusal has stop_details with category and explanation", self.refusal),
            *_not_askable(),
        ]

    async def stream(self) -> Verdict:
        """Whether a stream ends as the program expects."""
        answer = await self._ask(self._system(), [_says("user", _WORD)])
        if not answer.request_id:
            return not_held("the answer has no request-id header, so its ledger line can't be compared with a bill")
        if not answer.tokens.output or not answer.tokens.prompt:
            return not_held(f"the usage has a zero: {answer.tokens}")
        return held(f"{answer.stop_reason}, {answer.tokens.prompt} tokens in, {answer.tokens.output} out")

    async def errors(self) -> Verdict:
        """Whether errors are told apart. Refused requests are free."""
        expected = {
            "does not know the model": (_UNKNOWN_MODEL, [_says("user", _WORD)]),
            "messages": (self._choice.model, [_says("user", " ")]),
        }
        for text, (model, messages) in expected.items():
            try:
                await self._ask(self._system(), messages, model=model, frozen=FrozenSettings(""))
            except NeedsPerson as error:
                if text not in str(error):
                    return not_held(f"the error lacks the words '{text}': {error}")
            else:
                return not_held(f"the request to {model} with {messages[0]['content']} was accepted")
        return held("both are told apart")

    async def merging(self) -> Verdict:
        """Whether two messages of the user in a row are accepted, as after a refusal."""
        answer = await self._ask(self._system(), [_says("user", "The word is ready."), _says("user", _WORD)])
        return held(f"accepted, {answer.stop_reason}")

    async def early_end(self) -> Verdict:
        """Whether the model goes on after a step, as it is told to."""
        call: Message = {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "write_file",
            "input": {"path": "PLAN.md", "content": _PLAN},
        }
        done = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Wrote PLAN.md."}
        messages = [
            _says("user", "Build a page that counts visits, in Python without packages. Begin with the plan."),
            {"role": "assistant", "content": [{"type": "text", "text": "I write the plan first."}, call]},
            {"role": "user", "content": [done]},
        ]
        answer = await self._ask(self._system(UNATTENDED), messages, tools=render_tools())
        if answer.stop_reason == "tool_use":
            return held("it went on with a tool call")
        if answer.stop_reason == "end_turn":
            return not_held("it ended its turn with a report. Builds tell it which stories are open; that costs a turn")
        return not_held(f"the answer ended with {answer.stop_reason}")

    async def cache(self) -> Verdict:
        """Whether the second request of a conversation reads what the first one wrote."""
        system, first = self._long_system(), [_says("user", _WORD)]
        answer = await self._ask(system, first)
        messages = [*first, {"role": "assistant", "content": answer.blocks}, _says("user", "Once more.")]
        again = await self._ask(system, messages)
        self._cached = [*messages, {"role": "assistant", "content": again.blocks}]
        written, read = answer.tokens.cache_write_5m, again.tokens.cache_read
        if not written or read < written:
            return not_held(f"{written} tokens were written to the cache, and {read} read from it")
        return held(f"{read} of {again.tokens.prompt} tokens came from the cache")

    async def compaction(self) -> Verdict:
        """Whether a summary reads the cache, and whether the API takes it in place of what it covers."""
        if not self._price.compacts:
            raise NotAsked(f"the price table says that {self._choice.model} does not compact")
        if not self._cached:
            raise NotAsked("it goes on with the conversation of the question before")
        system = self._long_system()
        answer = await self._ask(system, self._cached, summarize=INSTRUCTIONS, max_tokens=SUMMARY_TOKENS)
        blocks = [block for block in answer.blocks if block.get("type") == "compaction"]
        if len(blocks) != 1 or not blocks[0].get("content"):
            return not_held(f"the answer has no summary ({answer.stop_reason})")
        after = await self._ask(
            system, [{"role": "assistant", "content": blocks}, _says("user", _WORD)], after_compaction=True
        )
        if not answer.tokens.cache_read:
            return not_held(f"a summary of {answer.tokens.prompt} tokens read nothing from the cache")
        return held(f"{answer.tokens.cache_read} tokens came from the cache; then {after.stop_reason}")

    async def display(self) -> Verdict:
        """Whether each display mode that the table promises is accepted."""
        modes = [("summarized", False), *([("updates", True)] if self._price.progress_updates else [])]
        for name, updates in modes:
            row = self._price.model_copy(update={"progress_updates": updates})
            try:
                await self._ask(self._system(), [_says("user", _WORD)], frozen=self._provider.freeze(row, self._choice))
            except NeedsPerson as error:
                return not_held(f"{name}: {error}")
        return held(f"accepted: {', '.join(name for name, _ in modes)}")

    async def judgement(self) -> Verdict:
        """Whether the judge's request is accepted, and its answer has the form that was asked for."""
        page = PageView("/", "desktop", 200, "Visits", "This page was visited 3 times.", (), (), (), 0, b"", 1280, 800)
        request = render_request(
            f"<goal>\nBuild a page that counts visits.\n</goal>\n\nRun {self._nonce}.",
            [],
            ProductEvidence(plan="", readme="", files="server.py", pages=[page]),
        )
        frozen = self._provider.freeze_answer(self._price, self._choice, SCHEMA)
        answer = await self._ask(request.system, [json.loads(request.message)], tools="", frozen=frozen)
        try:
            return held(f"{len(read_findings(answer))} findings, {answer.stop_reason}")
        except NotJudged as error:
            return not_held(f"{error} ({answer.stop_reason})")

    async def refusal(self) -> Verdict:
        """What a refusal looks like."""
        answer = await self._ask(self._system(), [_says("user", REFUSED_TEXT)])
        if answer.stop_reason != REFUSAL:
            return not_held(f"the text that has to be refused ended with {answer.stop_reason}")
        details = answer.details or {}
        if missing := [name for name in ("category", "explanation") if name not in details]:
            return not_held(f"stop_details lack {' and '.join(missing)}: {json.dumps(details)}")
        return held(f"category {details['category']}, explanation: {details['explanation'] or 'none'}")

    # ---- one call

    async def _ask(
        self,
        system: str,
        messages: Sequence[Message],
        *,
        tools: str = "[]",
        model: str | None = None,
        max_tokens: int = OUTPUT_TOKENS,
        summarize: str | None = None,
        frozen: FrozenSettings | None = None,
        after_compaction: bool = False,
    ) -> Answer:
        """Reserve the worst case, make the call, and book what it cost."""
        frozen = frozen or self._provider.freeze(self._price, self._choice)
        settings = RequestSettings(model or self._choice.model, max_tokens, prompt_cache=True, summarize=summarize)
        conversation = StoredConversation(
            system.encode(), tools.encode(), tuple(json.dumps(each).encode() for each in messages), frozen
        )
        request = self._provider.render(settings, conversation)
        if after_compaction:
            betas = self._provider.render(RequestSettings("", 1, True, INSTRUCTIONS), conversation).betas
            request = replace(request, betas=betas)
        # A token has at least one byte.
        prompt = len(request.body) + VENDOR_PROMPT_TOKENS
        with self._purse.reserve(worst_case(self._prices, self._choice.model, prompt).cost(max_tokens)) as bill:
            usage: list[object] = []
            try:
                answer = await self._provider.stream(request, _ignore_text, lambda *reported: usage.append(reported))
            except (BrokenStream, LostCall):
                raise  # it may have been served, so it counts as its worst case
            except CofounderError:
                if not usage:  # after an answer has begun, it may have been served as well
                    bill.microdollars = 0
                raise
            bill.microdollars = self._cost(answer)
        return answer

    def _cost(self, answer: Answer) -> int | None:
        """What an answer cost; None if one of its models has no price, so that the worst case stands."""
        model = self._choice.model
        if answer.iterations:
            unknown = [each for each in answer.iterations if (each.model or model) not in self._prices]
            return None if unknown else bill_microdollars(self._prices, model, answer.iterations)
        return cost_microdollars(self._prices, model, answer.tokens) or None

    def _system(self, text: str = _CHECKING) -> str:
        return json.dumps([{"type": "text", "text": f"{text}\n\nRun {self._nonce}."}])

    def _long_system(self) -> str:
        """A system prompt that is long enough for the cache."""
        line = f"This line fills the prompt of run {self._nonce}, and means nothing.\n"
        return self._system(
            f"{_CHECKING}\n" + line * (self._price.cacheable_tokens * 2 * _BYTES_A_TOKEN // len(line) + 1)
        )


_PLAN = "# Plan\n\n- [ ] A visitor sees how often the page was visited (check: test_page.py)\n"


def _not_askable() -> list[Question]:
    """Assumptions about the model's API that a few calls can't show."""
    reasons = {
        "limits": (
            "Spend and usage limits have the codes and texts that the program knows",
            "a limit would have to be reached",
        ),
        "lost calls": (
            "A call whose answer never came may have been served and billed",
            "compare the ledger with the usage report of Anthropic's console",
        ),
        "pings": ("While the model is silent, the stream carries a ping", "it takes minutes of thinking"),
        "prices": ("Prices are those of domain/models.py", "the API does not tell prices"),
        "fallbacks": (
            "The API takes the fallback models that a plan names",
            "which pairs it takes is published per model, and no plan names one by default",
        ),
    }
    return [cannot_ask(name, assumption, reason) for name, (assumption, reason) in reasons.items()]


def _says(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


async def _ignore_text(_: str) -> None:
    """The words of an answer are of no interest here."""
