"""One turn's model call: asked once, stored whole, paid for, and told to the founder while it is spoken."""

import asyncio
import base64
import re
import uuid
from collections import OrderedDict
from datetime import UTC, date
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.crash_point import crash_point
from activities.edge import edge
from activities.heartbeat import heartbeating
from clients.model import BrokenStream, ModelClient
from clients.shielded import to_the_end
from db import turns
from db.feed import append_events
from db.models import Build
from db.session import Sessions
from domain import prompt
from domain.answer import Answer, Reading, SentenceBuffer, read_answer
from domain.errors import CofounderError, StaleClaim
from domain.events import EventType, NewEvent
from domain.payloads import BudgetCheck, BuildRef, ThinkInput, ThinkOutcome, ThinkResult, TurnNote
from domain.pricing import PriceTable, Tokens, cost_microdollars, price_of
from domain.text import storable
from domain.tool_output import parse_stored_blocks

_IMAGE = re.compile(
    r'(\{"type":"image","source":\{"type":"base64","media_type":"image/webp","data":")sha256:([0-9a-f]{64})"'
)
_IMAGES_CACHED = 64

_TOLD_CHARACTERS = 500
"""So much of an error is shown in the feed."""

_GUARDS = {
    TurnNote.STEER_REPEATING: "The agent keeps making the same call. It was told to try something different.",
    TurnNote.LAST_TURN: "All tool calls of this build are used up. The agent has one more turn, to commit.",
}
"""What the founder is told when a guard steps in."""


class Images(Protocol):
    """Where images are kept, by the SHA-256 of their bytes."""

    async def get_image(self, sha256: str) -> bytes:
        """The image's bytes."""
        ...


class ThinkActivities:
    """`think`, with its clients."""

    def __init__(
        self, sessions: Sessions, model: ModelClient, images: Images, prices: PriceTable, max_output_tokens: int
    ) -> None:
        self._sessions = sessions
        self._model = model
        self._images = images
        self._prices = prices
        self._max_output_tokens = max_output_tokens
        self._encoded: OrderedDict[str, str] = OrderedDict()

    @activity.defn
    @edge
    async def think(self, given: ThinkInput) -> ThinkResult:
        """Ask the model for a turn, unless it has answered before.

        Returns:
            What the turn came to; `BUDGET` when the day's allowance is used up, in which case no call was made.

        Raises:
            TurnOfAnotherRun: the workflow was reset.
            ModelCallFailed, NeedsPerson: see `clients/model.py`.
        """
        build_id = uuid.UUID(given.build_id)
        info = activity.info()
        claim = uuid.uuid4()
        day = info.started_time.astimezone(UTC).date()
        async with self._sessions.begin() as session:
            build = await session.get_one(Build, build_id)
            run_id = info.workflow_run_id or ""
            if (outcome := await turns.answered_as(session, build_id, given.turn, run_id)) is not None:
                return await self._reread(session, build_id, given.turn, outcome)
            # Before the claim: a turn that waits for money is nobody's, and leaves nothing to withdraw.
            budget = await turns.budget_of(session, build.user_id, day)
            if budget.exhausted:
                return ThinkResult(outcome=ThinkOutcome.BUDGET, spent=budget.spent, allowance=budget.allowance)
            turn = await turns.claim_turn(session, build_id, given.turn, run_id, claim)
            if turn.outcome is not None:
                return await self._reread(session, build_id, given.turn, turn.outcome)
            if turn.lost is not None:
                await turns.withdraw_lost_attempt(session, build_id, given.turn, turn.lost)
            said = await self._what_to_say(session, build_id, given)
            await turns.store_user_message(session, build_id, given.turn, said)
            events = [NewEvent(EventType.TURN_STARTED, {"attempt": info.attempt}, turn=given.turn)]
            events += [NewEvent(EventType.GUARD, {"text": _GUARDS[n]}, given.turn) for n in given.notes if n in _GUARDS]
            await append_events(session, build_id, events)
        async with heartbeating():
            answer = await self._call(build_id, build.user_id, given.turn, claim, day)
            return await self._store(build_id, given.turn, claim, answer[0], answer[1])

    @activity.defn
    @edge
    async def check_budget(self, given: BuildRef) -> BudgetCheck:
        """Whether the build's owner may spend any more today; before a sleeping sandbox is woken for nothing."""
        async with self._sessions() as session:
            build = await session.get_one(Build, uuid.UUID(given.build_id))
            day = activity.info().started_time.astimezone(UTC).date()
            budget = await turns.budget_of(session, build.user_id, day)
            return BudgetCheck(exhausted=budget.exhausted, spent=budget.spent, allowance=budget.allowance)

    async def _reread(self, session: AsyncSession, build_id: uuid.UUID, number: int, outcome: str) -> ThinkResult:
        """What an answer comes to that an earlier attempt has stored."""
        stored = parse_stored_blocks(await turns.stored_answer(session, build_id, number))
        return _result(read_answer(Answer(stored, outcome, Tokens(), None)))

    async def _what_to_say(self, session: AsyncSession, build_id: uuid.UUID, given: ThinkInput) -> list[str]:
        """The text blocks of this turn's user message, after any tool results."""
        said: list[str] = []
        before = await turns.outcome_of(session, build_id, given.turn - 1) if given.turn > 1 else None
        if given.turn == 1:
            said.append(prompt.OPENING)
        elif before == "max_tokens":
            said.append(prompt.CUT_OFF)
        elif before == "pause_turn":
            said.append(prompt.GO_ON)
        for note in dict.fromkeys(given.notes):
            match note:
                case TurnNote.STEER_REPEATING:
                    said.append(prompt.STEER_REPEATING)
                case TurnNote.LAST_TURN:
                    said.append(prompt.LAST_TURN)
                case TurnNote.CONTINUE_AFTER_CAP:
                    said.append(prompt.continue_after_cap(given.allow_calls))
                case TurnNote.GATE_FINDINGS:
                    said.append(prompt.gate_findings(await turns.latest_findings(session, build_id)))
                case TurnNote.RESUMED:
                    if resumed := await turns.resumed_since_last_said(session, build_id, given.turn):
                        changes = [change for event in resumed for change in event.get("changes", [])]
                        said.append(prompt.resumed(resumed[-1].get("reason", ""), changes))
        if not said and before != "tool_use":
            said.append(prompt.NUDGE_EMPTY)
        return said

    async def _call(
        self, build_id: uuid.UUID, user_id: str, number: int, claim: uuid.UUID, day: date
    ) -> tuple[Answer, "_Narrator"]:
        """Make the call, with its row in the ledger around it."""
        async with self._sessions() as session:
            stored = await turns.load_conversation(session, build_id, number)
        price = price_of(self._prices, stored.model)
        max_tokens = min(self._max_output_tokens, price.max_output_tokens)
        body = await self._body(stored, max_tokens, price.adaptive_thinking)
        worst = Tokens(input=len(body) // 3, output=max_tokens)
        async with self._sessions.begin() as session:
            await turns.hold_claim(session, build_id, number, claim)
            await turns.open_ledger_entry(
                session,
                claim=claim,
                build_id=build_id,
                user_id=user_id,
                turn=number,
                day=day,
                model=stored.model,
                estimate=cost_microdollars(self._prices, stored.model, worst),
            )
        narrator = _Narrator(self._sessions, build_id, number, claim, stored.model)
        try:
            await crash_point("think.before_call")
            answer = await self._model.stream(body, narrator.hear, narrator.note_usage)
            await crash_point("think.after_call")
            return answer, narrator
        except BrokenStream as error:
            await self._settle(claim, stored.model, error.tokens, error.request_id)
            await self._tell_failure(build_id, number, error)
            raise
        except asyncio.CancelledError:
            # Whether or not the server has begun, it may bill the call: it is not stopped by our going away.
            await to_the_end(self._settle_seen(claim, narrator) if narrator.heard else self._estimate(claim))
            raise
        except CofounderError as error:
            if narrator.heard or isinstance(error, StaleClaim):
                await self._settle_seen(claim, narrator)
            else:
                await self._release(claim)
            await self._tell_failure(build_id, number, error)
            raise

    async def _tell_failure(self, build_id: uuid.UUID, number: int, error: CofounderError) -> None:
        """Say in the feed why a call failed. A stale attempt says nothing: another one speaks now."""
        if isinstance(error, StaleClaim):
            return
        async with self._sessions.begin() as session:
            told = {"error": storable(str(error), _TOLD_CHARACTERS)}
            await append_events(session, build_id, [NewEvent(EventType.TURN_FAILED, told, turn=number)])

    async def _settle_seen(self, claim: uuid.UUID, narrator: "_Narrator") -> None:
        await self._settle(claim, narrator.model, narrator.tokens, narrator.request_id)

    async def _estimate(self, claim: uuid.UUID) -> None:
        async with self._sessions.begin() as session:
            await turns.estimate_ledger_entry(session, claim)

    async def _release(self, claim: uuid.UUID) -> None:
        async with self._sessions.begin() as session:
            await turns.release_ledger_entry(session, claim)

    async def _settle(self, claim: uuid.UUID, model: str, tokens: Tokens, request_id: str | None) -> None:
        async with self._sessions.begin() as session:
            cost = cost_microdollars(self._prices, model, tokens)
            await turns.settle_ledger_entry(session, claim, tokens, cost, request_id)

    async def _store(
        self, build_id: uuid.UUID, number: int, claim: uuid.UUID, answer: Answer, narrator: "_Narrator"
    ) -> ThinkResult:
        """Message, cost and feed in one transaction, if this attempt still holds the turn."""
        reading = read_answer(answer)
        cost = cost_microdollars(self._prices, narrator.model, answer.tokens)
        summary = {
            "cost": cost,
            "tokens": answer.tokens.model_dump(),
            "tool_calls": len(reading.calls),
            "stop_reason": reading.stored_as,
        }
        events = [*narrator.last_lines(), NewEvent(EventType.TURN_ANSWERED, summary, turn=number)]
        try:
            async with self._sessions.begin() as session:
                await turns.settle_ledger_entry(session, claim, answer.tokens, cost, answer.request_id)
                await turns.store_answer(
                    session,
                    build_id=build_id,
                    number=number,
                    claim=claim,
                    stop_reason=reading.stored_as,
                    reading=reading,
                    events=events,
                )
        except StaleClaim:
            # The turn is another attempt's, but this call was served and has to be paid.
            await self._settle(claim, narrator.model, answer.tokens, answer.request_id)
            raise
        await crash_point("think.committed")
        return _result(reading)

    async def _body(self, stored: turns.StoredConversation, max_tokens: int, adaptive_thinking: bool) -> bytes:
        """The request: stored text between fixed text, so that its prefix is the same bytes at every turn."""
        messages = [await self._with_images(message) for message in stored.messages]
        thinking = '"thinking":{"type":"adaptive","display":"summarized"},' if adaptive_thinking else ""
        return (
            f'{{"model":"{stored.model}","max_tokens":{max_tokens},"stream":true,'
            f'"cache_control":{{"type":"ephemeral"}},{thinking}'
            f'"system":{stored.system},"tools":{stored.tools},"messages":[{",".join(messages)}]}}'
        ).encode()

    async def _with_images(self, message: str) -> str:
        """A message with its images in place. Only user messages hold images, in blocks that we rendered ourselves."""
        wanted = {found[2] for found in _IMAGE.finditer(message)}
        if not wanted or not message.startswith('{"role":"user"'):
            return message
        encoded = {sha256: await self._encoded_image(sha256) for sha256 in wanted}
        return _IMAGE.sub(lambda found: f'{found[1]}{encoded[found[2]]}"', message)

    async def _encoded_image(self, sha256: str) -> str:
        if sha256 not in self._encoded:
            self._encoded[sha256] = base64.b64encode(await self._images.get_image(sha256)).decode()
            while len(self._encoded) > _IMAGES_CACHED:
                self._encoded.popitem(last=False)
        return self._encoded[sha256]


def _result(reading: Reading) -> ThinkResult:
    fields: dict[str, object] = {"outcome": reading.outcome}
    if reading.calls:
        fields["calls"] = reading.calls
    if reading.reason:
        fields["reason"] = reading.reason
    return ThinkResult.model_validate(fields)


class _Narrator:
    """Tells the founder what the model says, sentence by sentence, for as long as this attempt holds the turn."""

    def __init__(self, sessions: Sessions, build_id: uuid.UUID, turn: int, claim: uuid.UUID, model: str) -> None:
        self._sessions = sessions
        self._build_id = build_id
        self._turn = turn
        self._claim = claim
        self._sentences = SentenceBuffer()
        self.model = model
        self.tokens = Tokens()
        self.request_id: str | None = None
        self.heard = False
        """Whether the server has begun to answer, and so to bill."""

    def note_usage(self, tokens: Tokens, request_id: str | None) -> None:
        """Keep what the server has said so far of what it bills."""
        self.tokens, self.request_id, self.heard = tokens, request_id, True

    async def hear(self, text: str) -> None:
        """Take a piece of text; writes the sentences that are complete to the feed.

        Raises:
            StaleClaim: another attempt speaks now.
        """
        if lines := self._lines(self._sentences.feed(text)):
            async with self._sessions.begin() as session:
                await turns.hold_claim(session, self._build_id, self._turn, self._claim)
                await append_events(session, self._build_id, lines)

    def last_lines(self) -> list[NewEvent]:
        """What was left unfinished when the text ended."""
        return self._lines(self._sentences.rest())

    def _lines(self, sentences: list[str]) -> list[NewEvent]:
        return [
            NewEvent(EventType.NARRATION, {"text": storable(sentence), "claim": str(self._claim)}, self._turn)
            for sentence in sentences
        ]
