"""One turn's model call: asked once, stored whole, paid for, and told to the founder while it is spoken."""

import asyncio
import base64
import re
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Protocol

import structlog
from sqlalchemy import select
from temporalio import activity

from activities.crash_point import crash_point
from activities.errors import application_errors
from activities.heartbeat import heartbeating
from activities.request_cache import PrefixCache, RequestPrefix
from clients.model import BrokenStream, LostCall, ModelClient
from clients.shielded import to_the_end
from db import money, restores, steering, turns
from db.feed import append_events
from db.models import Build, FounderMessage, Restore, User
from db.session import Sessions
from db.transaction import Executor, Transaction, autocommit, session_of, transaction
from domain import prompt
from domain.answer import Answer, Reading, SentenceBuffer, read_answer
from domain.budget import BudgetState, Verdict, cycle_of, may_go_on, too_small
from domain.errors import CofounderError, StaleClaim
from domain.events import EventType, NewEvent
from domain.payloads import BudgetCheck, CheckBudget, ThinkInput, ThinkOutcome, ThinkResult, TurnNote
from domain.pricing import PriceTable, Tokens, WorstCase, cost_microdollars, price_of, worst_case
from domain.status import WaitingFor
from domain.text import storable
from domain.tool_output import parse_stored_blocks, shown

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

_WINDS_DOWN = "Today's budget is nearly used up. The agent was told to finish, to commit, and to leave a handoff note."
_AT_THE_CEILING = "The next model call could have passed 110 % of today's budget, so it was not made."
_SUSPENDED = (
    "Your account is suspended, so this build was stopped where it is; its work is kept. Write to support to have the "
    "account reopened: the build then goes on by itself."
)
_SWITCHED_OFF = (
    "Builds are switched off here for now (AUTONOMOUS_AGENT is false). The work is kept, and the build goes on by "
    "itself when they are switched on again."
)

_log = structlog.get_logger(__name__)


class Images(Protocol):
    """Where images are kept, by the SHA-256 of their bytes."""

    async def get_image(self, sha256: str) -> bytes:
        """The image's bytes."""
        ...


class ThinkActivities:
    """`think`, with its clients. `secrets` are values that no prompt may hold."""

    def __init__(
        self,
        sessions: Sessions,
        model: ModelClient,
        images: Images,
        prices: PriceTable,
        max_output_tokens: int,
        *,
        autonomous_agent: bool = True,
        secrets: Sequence[str] = (),
    ) -> None:
        self._sessions = sessions
        self._model = model
        self._images = images
        self._prices = prices
        self._max_output_tokens = max_output_tokens
        self._autonomous_agent = autonomous_agent
        self._secrets = secrets
        self._encoded: OrderedDict[str, str] = OrderedDict()
        self._prefixes = PrefixCache()

    @activity.defn
    @application_errors
    async def think(self, request: ThinkInput) -> ThinkResult:
        """Ask the model for a turn, unless it has answered before.

        Returns:
            How the turn ended. With BUDGET, BUSY, TOO_SMALL and ON_HOLD no call was made and nothing is stored.

        Raises:
            TurnOfAnotherRun: the workflow was reset.
            ModelCallFailed, NeedsPerson: see `clients/model.py`.
        """
        build_id, claim, info = uuid.UUID(request.build_id), uuid.uuid4(), activity.info()
        try:
            async with transaction(self._sessions) as session:
                found = await turns.look(session, build_id, request.turn)
                call = money.Call(claim, build_id, found.user_id, request.turn, _day(), found.model)
                run_id = info.workflow_run_id or ""
                turn = await turns.claim_turn(session, build_id, request.turn, run_id, claim)
                if turn.outcome is not None:
                    return await self._reread(session, call, turn.outcome)
                begun = await self._begin(session, request, call, found, turn.lost, info.attempt)
        except _NoCall as stop:
            # Rolled back: a turn that waits for money is nobody's, and leaves nothing to withdraw.
            if stop.result.outcome is ThinkOutcome.BUDGET:
                await self._alert(build_id, request.turn, stop.state)
            return stop.result
        async with heartbeating():
            answer, narrator = await self._call(call, begun.max_tokens)
            return await self._store(call, answer, narrator, begun.read)

    @activity.defn
    @application_errors
    async def check_budget(self, request: CheckBudget) -> BudgetCheck:
        """Whether the build may go on; before a sandbox is opened or woken for nothing."""
        build_id, day = uuid.UUID(request.build_id), _day()
        async with self._sessions.begin() as session:
            build = await session.get_one(Build, build_id)
            suspended = await session.scalar(select(User.suspended).where(User.id == build.user_id))
            if (held := self._held(suspended=bool(suspended))) is not None:
                return BudgetCheck(
                    exhausted=True, outcome=ThinkOutcome.ON_HOLD, reason=held[1], waiting_for=held[0], day=day
                )
            state = await money.lock_day(session, build.user_id, day)
            worst = await self._worst(session, build_id, build.model or "", request.turn)
            verdict = may_go_on(state, day, worst, self._max_tokens(build.model or ""), request.last_wind_down)
            if verdict not in (Verdict.TOO_SMALL, Verdict.EXHAUSTED):
                return BudgetCheck(exhausted=False)
            stop = await self._no_money(session, build, day, state, verdict, worst)
        return BudgetCheck(
            exhausted=True,
            outcome=stop.outcome,
            reason=stop.reason,
            renews_on=stop.renews_on,
            day=day,
            spent=state.spent,
            allowance=state.allowance,
        )

    async def _begin(
        self,
        session: Transaction,
        request: ThinkInput,
        call: money.Call,
        found: turns.Found,
        lost: uuid.UUID | None,
        attempt: int,
    ) -> "_Begun":
        """Store what is said in the turn, what its founder has said among it, and reserve its money.

        Raises:
            _NoCall: no call may be made; the transaction has to be rolled back.
        """
        if (held := self._held(suspended=found.suspended)) is not None:
            raise _NoCall(ThinkResult(outcome=ThinkOutcome.ON_HOLD, reason=held[1], waiting_for=held[0]))
        unread = await steering.unread_messages(session.session, call.build_id) if found.has_unread else []
        untold = await restores.unreported_restores(session.session, call.build_id) if found.has_untold else []
        said = await self._what_to_say(session, call.build_id, request, found.before, unread, untold)
        read = 0
        if lost is not None:
            unread = []  # an earlier attempt has said what there is to say in this turn; these are for the next one
            read = await steering.last_message_read(session.session, call.build_id, call.turn)
        elif said:
            await turns.store_user_message(session, call.build_id, call.turn, said)
            if unread or untold:
                await steering.mark_read(session.session, unread, call.turn)
                await restores.mark_reported(session.session, untold, call.turn)
                read = unread[-1].number if unread else 0
        worst = await self._worst(session, call.build_id, call.model, call.turn)
        permission, state = await money.reserve(session, call, worst, self._max_tokens(call.model), lost)
        if permission.verdict is not Verdict.GO:
            build = await session.session.get_one(Build, call.build_id)
            raise _NoCall(await self._no_money(session, build, call.day, state, permission.verdict, worst), state)
        withdrawn = [] if lost is None else [NewEvent(EventType.TURN_WITHDRAWN, {"claim": str(lost)}, turn=call.turn)]
        events = [*withdrawn, NewEvent(EventType.TURN_STARTED, {"attempt": attempt}, turn=call.turn)]
        events += [NewEvent(EventType.GUARD, {"text": _GUARDS[n]}, call.turn) for n in request.notes if n in _GUARDS]
        if TurnNote.WIND_DOWN in request.notes:
            events.append(NewEvent(EventType.BUDGET, {"text": _WINDS_DOWN, **_share(state)}, call.turn))
        if unread:
            numbers = [message.number for message in unread]
            events.append(NewEvent(EventType.MESSAGES_READ, {"numbers": numbers}, call.turn))
        await append_events(session, call.build_id, events)
        return _Begun(permission.max_tokens, read)

    async def _no_money(
        self,
        session: Executor,
        build: Build,
        day: date,
        state: BudgetState,
        verdict: Verdict,
        worst: WorstCase,
    ) -> ThinkResult:
        """Why no call may be made, for the workflow and for people."""
        if verdict is Verdict.BUSY:
            return ThinkResult(outcome=ThinkOutcome.BUSY)
        figures = {"spent": state.spent, "allowance": state.allowance}
        if verdict is Verdict.EXHAUSTED:
            return ThinkResult(outcome=ThinkOutcome.BUDGET, day=day, **figures)
        renewal_day = await session_of(session).scalar(select(User.renewal_day).where(User.id == build.user_id))
        _, renews_on = cycle_of(day, renewal_day or 1)
        reason = too_small(state, worst, self._max_tokens(build.model or ""), renews_on)
        return ThinkResult(outcome=ThinkOutcome.TOO_SMALL, reason=reason, renews_on=renews_on, day=day, **figures)

    def _held(self, *, suspended: bool) -> tuple[WaitingFor, str] | None:
        """Whom a build has to wait for whatever money there is, and why."""
        if not self._autonomous_agent:
            return WaitingFor.KILL_SWITCH, _SWITCHED_OFF
        return (WaitingFor.OPERATOR, _SUSPENDED) if suspended else None

    async def _alert(self, build_id: uuid.UUID, turn: int, state: BudgetState | None) -> None:
        """Tell founder and operators that a call was not made because it would have passed the ceiling."""
        share = {} if state is None else _share(state)
        _log.warning("a model call would have passed the day's ceiling", build_id=str(build_id), turn=turn, **share)
        async with self._sessions.begin() as session:
            data = {"text": _AT_THE_CEILING, "alert": True, **share}
            await append_events(session, build_id, [NewEvent(EventType.BUDGET, data, turn)])

    async def _worst(self, session: Executor, build_id: uuid.UUID, model: str, turn: int) -> WorstCase:
        return worst_case(self._prices, model, await money.prompt_tokens_at_most(session, build_id, turn))

    def _max_tokens(self, model: str) -> int:
        return min(self._max_output_tokens, price_of(self._prices, model).max_output_tokens)

    async def _reread(self, session: Transaction, call: money.Call, outcome: str) -> ThinkResult:
        """What an answer comes to that an earlier attempt has stored."""
        stored = parse_stored_blocks(await turns.stored_answer(session.session, call.build_id, call.turn))
        state = await money.budget_of(session.session, call.user_id, call.day)
        reading = read_answer(Answer(stored, outcome, Tokens(), None))
        winds_down = await self._winds_down(session, call, state)
        read = await steering.last_message_read(session.session, call.build_id, call.turn)
        return _result(reading, call.day, state, winds_down=winds_down, read=read)

    async def _winds_down(self, session: Transaction, call: money.Call, state: BudgetState) -> bool:
        """Whether the turn after this one is to be the first of a wind-down."""
        worst = await self._worst(session, call.build_id, call.model, call.turn + 1)
        return state.winds_down(worst, self._max_tokens(call.model))

    async def _what_to_say(
        self,
        session: Transaction,
        build_id: uuid.UUID,
        request: ThinkInput,
        before: str | None,
        unread: Sequence[FounderMessage],
        untold: Sequence[tuple[Restore, str | None]],
    ) -> list[str]:
        """The text blocks of this turn's user message, after any tool results. `before`: how the last turn ended."""
        said: list[str] = []
        if request.turn == 1:
            said.append(prompt.OPENING)
        elif before == "max_tokens":
            said.append(prompt.CUT_OFF)
        elif before == "pause_turn":
            said.append(prompt.GO_ON)
        for note in dict.fromkeys(request.notes):
            match note:
                case TurnNote.STEER_REPEATING:
                    said.append(prompt.STEER_REPEATING)
                case TurnNote.LAST_TURN:
                    said.append(prompt.LAST_TURN)
                case TurnNote.CONTINUE_AFTER_CAP:
                    said.append(prompt.continue_after_cap(request.allow_calls))
                case TurnNote.GATE_FINDINGS:
                    said.append(prompt.gate_findings(await turns.latest_findings(session.session, build_id)))
                case TurnNote.RESUMED:
                    if resumed := await turns.resumed_since_last_said(session.session, build_id, request.turn):
                        changes = [change for event in resumed for change in event.get("changes", [])]
                        said.append(prompt.resumed(resumed[-1].get("reason", ""), changes))
                case TurnNote.WIND_DOWN:
                    said.append(prompt.WIND_DOWN)
                case TurnNote.WIND_DOWN_OVER:
                    said.append(prompt.WIND_DOWN_OVER)
                case TurnNote.HANDOFF:
                    left = await turns.last_words(session.session, build_id, request.turn)
                    said.append(prompt.handoff(left) if left else prompt.NO_HANDOFF)
                case TurnNote.ASKED:
                    asked = await steering.find_question(session.session, build_id)
                    if asked is not None and asked.answer is None:
                        said.append(prompt.no_answer(asked.question.problem))
        said += [prompt.restored(restores.describe_target(restore), commit) for restore, commit in untold]
        problems = await steering.problems_of(session.session, unread) if unread else {}
        for message in unread:
            text = shown(message.text, self._secrets)
            problem = problems.get(message.question_id) if message.question_id else None
            said.append(prompt.founder_message(text) if problem is None else prompt.founder_answer(problem, text))
        if not said and before != "tool_use":
            said.append(prompt.NUDGE_EMPTY)
        return said

    async def _call(self, call: money.Call, max_tokens: int) -> tuple[Answer, "_Narrator"]:
        """Make the call whose money is reserved, and settle what it came to if it fails."""
        try:
            body = await self._body(call, max_tokens, price_of(self._prices, call.model).adaptive_thinking)
        except BaseException:
            await to_the_end(self._release(call))
            raise
        narrator = _Narrator(self._sessions, call)
        try:
            await crash_point("think.before_call")
            answer = await self._model.stream(body, narrator.hear, narrator.note_usage)
            await crash_point("think.after_call")
            return answer, narrator
        except BrokenStream as error:
            # Before its first event nothing is known of what it costs, but it was accepted.
            known = error.tokens != Tokens()
            await (self._settle(call, error.tokens, error.request_id) if known else self._estimate(call))
            await self._tell_failure(call, error, narrator)
            raise
        except LostCall as error:
            await self._estimate(call)
            await self._tell_failure(call, error, narrator)
            raise
        except asyncio.CancelledError:
            # Whether or not the server has begun, it may bill the call: it is not stopped by our going away.
            await to_the_end(self._settle_seen(call, narrator) if narrator.heard else self._estimate(call))
            raise
        except CofounderError as error:
            await (self._settle_seen(call, narrator) if narrator.heard else self._release(call))
            await self._tell_failure(call, error, narrator)
            raise

    async def _tell_failure(self, call: money.Call, error: CofounderError, narrator: "_Narrator") -> None:
        """Say in the feed why a call failed. A stale attempt says nothing: another one speaks now."""
        if narrator.stale:
            return
        async with self._sessions.begin() as session:
            told = {"error": storable(str(error), _TOLD_CHARACTERS)}
            await append_events(session, call.build_id, [NewEvent(EventType.TURN_FAILED, told, turn=call.turn)])

    async def _settle_seen(self, call: money.Call, narrator: "_Narrator") -> None:
        await self._settle(call, narrator.tokens, narrator.request_id)

    async def _estimate(self, call: money.Call) -> None:
        async with self._sessions.begin() as session:
            await money.estimate(session, call.claim)

    async def _release(self, call: money.Call) -> None:
        async with self._sessions.begin() as session:
            await money.release(session, call)

    async def _settle(self, call: money.Call, tokens: Tokens, request_id: str | None) -> None:
        async with transaction(self._sessions) as session:
            cost = cost_microdollars(self._prices, call.model, tokens)
            await money.settle(session, call, tokens, cost, request_id)

    async def _store(self, call: money.Call, answer: Answer, narrator: "_Narrator", read: int) -> ThinkResult:
        """Message, cost and feed in one transaction, if this attempt still holds the turn."""
        reading = read_answer(answer)
        cost = cost_microdollars(self._prices, call.model, answer.tokens)
        try:
            async with transaction(self._sessions) as session:
                await turns.store_answer(
                    session,
                    build_id=call.build_id,
                    number=call.turn,
                    claim=call.claim,
                    stop_reason=reading.stored_as,
                    reading=reading,
                )
                state = await money.settle(session, call, answer.tokens, cost, answer.request_id)
                winds_down = await self._winds_down(session, call, state)
                summary = {
                    "tokens": answer.tokens.model_dump(exclude_defaults=True),
                    "tool_calls": len(reading.calls),
                    "stop_reason": reading.stored_as,
                    **_share(state),
                }
                answered = NewEvent(EventType.TURN_ANSWERED, summary, turn=call.turn)
                await append_events(session, call.build_id, [*narrator.last_lines(), answered])
        except StaleClaim:
            # The turn is another attempt's, but this call was served and has to be paid.
            await self._settle(call, answer.tokens, answer.request_id)
            raise
        await crash_point("think.committed")
        return _result(reading, call.day, state, winds_down=winds_down, read=read)

    async def _body(self, call: money.Call, max_tokens: int, adaptive_thinking: bool) -> bytes:
        """The request: stored text between fixed text, so that its prefix is the same bytes at every turn."""
        prefix = self._prefixes.pop(call.build_id, call.turn)
        if prefix is None:
            async with autocommit(self._sessions) as session:
                system, tools = await turns.load_prompt(session, call.build_id)
            prefix = RequestPrefix(bytearray(f'"system":{system},"tools":{tools},"messages":['.encode()))
        async with autocommit(self._sessions) as session:
            messages = await turns.load_messages(session, call.build_id, call.turn, prefix.turn)
        prefix.add(call.turn, [await self._with_images(message) for message in messages])
        self._prefixes.put(call.build_id, prefix)
        thinking = '"thinking":{"type":"adaptive","display":"summarized"},' if adaptive_thinking else ""
        head = (
            f'{{"model":"{call.model}","max_tokens":{max_tokens},"stream":true,'
            f'"cache_control":{{"type":"ephemeral"}},{thinking}'
        )
        return b"".join((head.encode(), prefix.text, b"]}"))

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


@dataclass(frozen=True)
class _Begun:
    """A turn whose call may be made, with so much output at most. `read` is the last message that it has read."""

    max_tokens: int
    read: int


class _NoCall(Exception):
    """No call may be made, so what was done in this transaction is taken back."""

    def __init__(self, result: ThinkResult, state: BudgetState | None = None) -> None:
        super().__init__(result.outcome)
        self.result = result
        self.state = state


def _day() -> date:
    """The UTC day of an attempt is that of its start, however long it takes."""
    return activity.info().started_time.astimezone(UTC).date()


def _share(state: BudgetState) -> dict[str, object]:
    """What the feed tells of the budget; nothing for an unlimited plan."""
    return {} if state.percent is None else {"budget_percent": state.percent, "budget_level": state.level}


def _result(reading: Reading, day: date, state: BudgetState, *, winds_down: bool, read: int) -> ThinkResult:
    fields: dict[str, object] = {"outcome": reading.outcome}
    if reading.calls:
        fields["calls"] = reading.calls
    if reading.reason:
        fields["reason"] = reading.reason
    if winds_down:
        fields |= {"wind_down": True, "day": day, "allowance": state.allowance}
    if read:
        fields["message_read"] = read
    return ThinkResult.model_validate(fields)


class _Narrator:
    """Tells the founder what the model says, sentence by sentence, for as long as this attempt holds the turn."""

    def __init__(self, sessions: Sessions, call: money.Call) -> None:
        self._sessions = sessions
        self._build_id = call.build_id
        self._turn = call.turn
        self._claim = call.claim
        self._sentences = SentenceBuffer()
        self.tokens = Tokens()
        self.request_id: str | None = None
        self.heard = False
        """Whether the server has begun to answer, and so to bill."""
        self.stale = False
        """Whether another attempt speaks now. The answer is heard to its end all the same: only that tells its cost."""

    def note_usage(self, tokens: Tokens, request_id: str | None) -> None:
        """Keep what the server has said so far of what it bills."""
        self.tokens, self.request_id, self.heard = tokens, request_id, True

    async def hear(self, text: str) -> None:
        """Take a piece of text; its complete sentences go to the feed, unless another attempt speaks now."""
        if self.stale or not (lines := self._lines(self._sentences.feed(text))):
            return
        try:
            async with autocommit(self._sessions) as session:
                await turns.narrate(session, self._build_id, self._turn, self._claim, lines)
        except StaleClaim:
            self.stale = True

    def last_lines(self) -> list[NewEvent]:
        """What was left unfinished when the text ended."""
        return self._lines(self._sentences.rest())

    def _lines(self, sentences: list[str]) -> list[NewEvent]:
        return [
            NewEvent(EventType.NARRATION, {"text": storable(sentence), "claim": str(self._claim)}, self._turn)
            for sentence in sentences
        ]
