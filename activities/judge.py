"""Asks a model what the founder asked for and the product lacks or fakes: one call in the evidence gate.

The call is reserved and settled like a turn's, with its own kind in the ledger. Whatever keeps it from being answered
leaves the product unjudged and holds nothing back. A judgement is stored with the gate's run and never asked for again.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import structlog
from temporalio import activity

from activities.runtime.attempt import attempt_day
from activities.runtime.crash_point import crash_point
from activities.runtime.outlive import LOOK_SECONDS, LOST_AFTER_SECONDS, keep_call, outlive_run
from activities.runtime.paid_call import paid_call
from activities.sandbox.product import GIT, SMALL_SECONDS
from activities.turn.budget import CallBudget
from activities.turn.rates import Admission, CallRates
from activities.turn.usage import CallUsage
from clients.archive import read_beginning
from clients.cancellation import run_to_completion
from clients.model.protocol import BrokenStream, LostCall, ModelRequest, Providers, RequestSettings, StoredConversation
from clients.sandbox import Sandbox
from clients.sandbox_runner import WORKSPACE
from db import gate_runs, money, turns
from db.compactions import read_messages
from db.feed import append_events
from db.models import GateRun
from db.prompts import find_prompt
from db.session import Sessions
from db.steering import pending_input
from db.switches import find_off
from db.transaction import Transaction, transaction
from db.users import load_user_with_plan
from domain.answer import Answer
from domain.bill import bill_of
from domain.budget import Verdict
from domain.errors import (
    CallInFlight,
    CofounderError,
    InvalidInput,
    ModelCallFailed,
    RateLimited,
    StaleClaim,
    UnknownModel,
)
from domain.events import ProductJudgedEvent
from domain.judge import (
    MAX_RETURNS,
    OUTPUT_TOKENS,
    SCHEMA,
    Judgement,
    JudgeRequest,
    NotJudged,
    ProductEvidence,
    read_findings,
    render_request,
)
from domain.model_choice import JUDGE, ModelChoice, choose_model, label_of
from domain.models import DEFAULT_JUDGE
from domain.page_view import PageView
from domain.plan import MAX_PLAN_BYTES, PLAN_FILE
from domain.pricing import PriceTable, Tokens
from domain.prompt import quote_of_founder

_RATE_PATIENCE_SECONDS = 60.0
"""If the model's API takes no call for this long, the product is not judged."""

_TRIES = 3
"""How often a call is made that the API does not accept because it is overloaded."""

_PAUSE_SECONDS = 5.0
"""Between two tries, if the API names no time; and at most four times as long if it does."""

ANSWER_SECONDS = 300.0
"""A judgement that takes longer is given up: a product that passed the other checks does not wait for it."""

_README_BYTES = 50_000
_FILES_BYTES = 50_000

_ON_HOLD = "model calls are switched off at the moment"
_NO_MONEY = "today's budget does not pay for it"
_NO_MODEL = "the operator has to choose a model for it"
_NO_BRIEF = "the brief that the build began with is lost"
_BUSY = "the model's API is busy"
_AWAY = "the model's API did not answer"
_BROKE_OFF = "the model's answer broke off"
_TOO_SLOW = "the model took too long"
_REFUSED = "the model's API does not accept the call"
"""Why there is no judgement, for founders: each completes "The product was not judged: …"."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JudgedGate:
    """A run of the gate whose product is to be judged, and the attempt that runs it."""

    build_id: uuid.UUID
    number: int
    claim: uuid.UUID
    turn: int = 0
    """The last turn before the gate; 0 if the build's program did not say."""


@dataclass(frozen=True)
class _Asked:
    """A call whose money is reserved."""

    call: money.Call
    choice: ModelChoice
    request: JudgeRequest


class _Unanswered(Exception):
    """There was no answer. The text says why, for the founder."""

    def __init__(self, why: str, retry_after: float | None = None, *, again: bool = False, served: bool = False):
        super().__init__(why)
        self.retry_after = retry_after
        self.again = again
        """Another try may be accepted, and this one is free."""
        self.served = served
        """The call is, or may be, billed."""


class Judge:
    """The judge of the evidence gate, with its clients.

    `model` is what judges if neither the user nor the plan names one; `secrets` are values that no prompt may hold.
    """

    def __init__(
        self,
        sessions: Sessions,
        providers: Providers,
        prices: PriceTable,
        model: str | None = None,
        *,
        autonomous_agent: bool = True,
        rehearsal_model: bool = False,
        secrets: Sequence[str] = (),
        rates: CallRates | None = None,
    ) -> None:
        self._sessions = sessions
        self._providers = providers
        self._budget = CallBudget(prices, OUTPUT_TOKENS, autonomous_agent)
        self._model = model
        self._rehearsal_model = rehearsal_model
        self._secrets = secrets
        self._rates = rates or CallRates(sessions)

    async def judge(self, gate: JudgedGate, sandbox: Sandbox, pages: Sequence[PageView]) -> Judgement | None:
        """Ask the judge, unless that was done before, and tell the feed.

        Returns:
            The judgement; None if there is none because the founder has pending input, which comes first.

        Raises:
            StaleClaim: another attempt has taken over.
            SandboxUnavailable: the product's texts could not be read; another attempt may succeed.
        """
        evidence = await _read_product(sandbox, pages)
        began, tries = monotonic(), 0
        while True:
            try:
                return await self._try(gate, evidence, waits=monotonic() - began < LOST_AFTER_SECONDS)
            except CallInFlight:
                await asyncio.sleep(LOOK_SECONDS)
            except _Unanswered as why:
                tries += 1
                if not why.again or tries == _TRIES:
                    return await self._leave_unjudged(gate, str(why), called=why.served)
                await asyncio.sleep(min(4 * _PAUSE_SECONDS, why.retry_after or _PAUSE_SECONDS))

    # ---- before the call

    async def _try(self, gate: JudgedGate, evidence: ProductEvidence, *, waits: bool) -> Judgement | None:
        async with transaction(self._sessions) as tx:
            turn = gate.turn or await turns.last_turn(tx, gate.build_id)
            start = await turns.load_turn_start(tx, gate.build_id, turn + 1, attempt_day())
            choice = await self._choose(tx, start.user_id, start.model)
            request = await self._render(tx, gate, evidence)
        if choice is None or request is None:
            raise _Unanswered(_NO_MODEL if choice is None else _NO_BRIEF)
        tokens = request.text_bytes // 3
        admission = await self._rates.admit(choice.model, start.user_id, tokens, _RATE_PATIENCE_SECONDS)
        if admission is None:
            raise _Unanswered(_BUSY)
        try:
            async with transaction(self._sessions) as tx:
                claim = uuid.uuid4()
                call = money.Call(claim, gate.build_id, start.user_id, turn, attempt_day(), choice.model, kind="judge")
                asked = await self._reserve(tx, gate, _Asked(call, choice, request), waits=waits)
            if not isinstance(asked, _Asked):
                return asked
            with paid_call():
                return await outlive_run(
                    self._call_and_store(gate, asked, admission), lambda: keep_call(self._sessions, claim)
                )
        except RateLimited as error:
            await self._rates.note_refusal(choice.model, error)
            raise _Unanswered(_BUSY, error.retry_after_seconds, again=True) from error
        finally:
            admission.close()

    async def _choose(self, tx: Transaction, user_id: str, coder: str) -> ModelChoice | None:
        """The judge's model: the user's override, then the plan's, then the setting, or a cheap one. None if it has no
        price."""
        user, plan = await load_user_with_plan(tx, user_id)
        prices = self._budget.prices
        fallback = self._model or (DEFAULT_JUDGE if DEFAULT_JUDGE in prices else coder)
        try:
            return choose_model(JUDGE, user.model_overrides, plan.default_models, fallback, prices, "JUDGE_MODEL")
        except UnknownModel as error:
            _log.error("the judge has no usable model", user_id=user_id, error=error)
            return None

    async def _render(self, tx: Transaction, gate: JudgedGate, evidence: ProductEvidence) -> JudgeRequest | None:
        prompt = await find_prompt(tx, gate.build_id)
        if prompt is None:
            return None
        messages = await read_messages(tx, gate.build_id)
        return render_request(quote_of_founder(prompt.system), messages, evidence, self._secrets)

    async def _reserve(
        self, tx: Transaction, gate: JudgedGate, asked: _Asked, *, waits: bool
    ) -> _Asked | Judgement | None:
        """Take the call for this attempt and reserve its money; or return how the judge's part has ended.

        Raises:
            CallInFlight: an attempt of another run of the workflow may still be making the call.
        """
        call, run_id = asked.call, activity.info().workflow_run_id or ""
        run = await gate_runs.lock_claimed_run(tx, gate.build_id, gate.number, gate.claim)
        if run.judgement is not None:
            return Judgement.model_validate(run.judgement)
        if await pending_input(tx, gate.build_id):
            return None
        lost = run.judge_claim
        if lost is not None:
            other_run = waits and run.judge_run_id != run_id
            if await money.is_in_flight(tx, lost, other_run=other_run, seconds=LOST_AFTER_SECONDS):
                raise CallInFlight(f"an attempt of another run calls the judge of gate {gate.number}")
        start = await turns.load_turn_start(tx, gate.build_id, call.turn + 1, call.day)
        if await self._is_on_hold(tx, call, start):
            if lost is not None:
                await money.estimate(tx, lost)
            return await self._record(tx, run, Judgement(not_judged=_ON_HOLD, called=lost is not None))
        permission = await self._budget.reserve_judgement(
            tx, call, asked.request.tokens_at_most, lost, fleet_is_limited=start.fleet_is_limited
        )
        if permission.verdict is not Verdict.GO:
            return await self._record(tx, run, Judgement(not_judged=_NO_MONEY, called=lost is not None))
        await gate_runs.claim_judge(tx, run, call.claim, run_id)
        return asked

    async def _is_on_hold(self, tx: Transaction, call: money.Call, start: turns.TurnStart) -> bool:
        """Whether a kill switch, of the judge's model too, or a suspended account allows no call."""
        _, plan = await load_user_with_plan(tx, call.user_id)
        is_off = await find_off(tx, call.user_id, plan.name, [call.model])
        return is_off is not None or self._budget.is_on_hold(start.standing)

    # ---- the call

    async def _call_and_store(self, gate: JudgedGate, asked: _Asked, admission: Admission) -> Judgement:
        answer = await self._call(asked, admission)
        await crash_point("judge.after_call")
        return await self._store(gate, asked.call, answer)

    async def _call(self, asked: _Asked, admission: Admission) -> Answer:
        """Make the call. If it fails, settle what it cost as far as that is known.

        Raises:
            _Unanswered: it failed.
            RateLimited: the API takes no calls for now.
        """
        call, usage = asked.call, CallUsage()
        provider = self._providers[self._budget.price(call.model).provider]
        try:
            rendered = self._request(asked)
            await crash_point("judge.before_call")
            note_usage = admission.noting(usage.note)
            async with asyncio.timeout(ANSWER_SECONDS):
                return await provider.stream(rendered, usage.ignore_text, note_usage, admission.note_limits)
        except TimeoutError as error:
            await self._settle_usage(call, usage)
            raise _Unanswered(_TOO_SLOW, served=True) from error
        except asyncio.CancelledError:
            # The server may bill the call even if it has not begun to answer: it does not stop because we hang up.
            await run_to_completion(self._settle_usage(call, usage))
            raise
        except BrokenStream as error:
            await self._settle_usage(call, usage)
            raise _Unanswered(_BROKE_OFF, served=True) from error
        except LostCall as error:
            admission.count()
            await self._settle_usage(call, usage)
            raise _Unanswered(_AWAY, served=True) from error
        except RateLimited:
            await self._release(call)
            raise
        except ModelCallFailed as error:
            await self._release(call)
            raise _Unanswered(_AWAY, error.retry_after_seconds, again=True) from error
        except CofounderError as error:
            _log.warning("a judge could not be called", build_id=str(call.build_id), error=error)
            served = usage.tokens != Tokens()
            await (self._settle_usage(call, usage) if served else self._release(call))
            raise _Unanswered(_REFUSED, served=served) from error

    def _request(self, asked: _Asked) -> ModelRequest:
        """The request as bytes. It has no tools, and nothing of it is kept in the model's cache."""
        price = self._budget.price(asked.call.model)
        provider = self._providers[price.provider]
        settings = RequestSettings(asked.call.model, OUTPUT_TOKENS, prompt_cache=False)
        conversation = StoredConversation(
            asked.request.system.encode(),
            b"",
            (asked.request.message.encode(),),
            provider.freeze_answer(price, asked.choice, SCHEMA),
        )
        return provider.render(settings, conversation)

    async def _settle_usage(self, call: money.Call, usage: CallUsage) -> None:
        async with transaction(self._sessions) as tx:
            if usage.tokens == Tokens():
                await money.estimate(tx, call.claim)
            else:
                await self._budget.settle_partly(tx, call, usage.tokens, usage.request_id, usage.iterations)

    async def _release(self, call: money.Call) -> None:
        async with transaction(self._sessions) as tx:
            await money.release(tx, call)

    # ---- the judgement

    async def _store(self, gate: JudgedGate, call: money.Call, answer: Answer) -> Judgement:
        """Store the judgement, its cost and its event in one transaction.

        Raises:
            StaleClaim: another attempt has called the judge since; what this call cost is booked.
        """
        try:
            findings, why = read_findings(answer), None
        except NotJudged as error:
            findings, why = (), str(error)
        bill = bill_of(answer)
        try:
            async with transaction(self._sessions) as tx:
                run = await gate_runs.lock_run_of_judge(tx, gate.build_id, gate.number, call.claim)
                returned = bool(findings) and await gate_runs.count_returned(tx, gate.build_id) < MAX_RETURNS
                judgement = Judgement(
                    model=label_of(call.model, rehearsal=self._rehearsal_model),
                    findings=findings,
                    not_judged=why,
                    returned=returned,
                    called=True,
                )
                await self._budget.settle(tx, call, answer, bill)
                await self._record(tx, run, judgement)
        except StaleClaim:
            async with transaction(self._sessions) as tx:
                await self._budget.settle(tx, call, answer, bill)
            raise
        await crash_point("judge.stored")
        return judgement

    async def _leave_unjudged(self, gate: JudgedGate, why: str, *, called: bool) -> Judgement:
        """Store that the product is not judged, unless an earlier attempt has stored a judgement."""
        async with transaction(self._sessions) as tx:
            run = await gate_runs.lock_claimed_run(tx, gate.build_id, gate.number, gate.claim)
            if run.judgement is not None:
                return Judgement.model_validate(run.judgement)
            return await self._record(tx, run, Judgement(not_judged=why, called=called))

    async def _record(self, tx: Transaction, run: GateRun, judgement: Judgement) -> Judgement:
        await gate_runs.record_judgement(tx, run, judgement.model_dump(mode="json"))
        event = ProductJudgedEvent(
            number=run.number,
            model=judgement.model,
            findings=judgement.texts,
            returned=judgement.returned,
            reason=judgement.not_judged,
        )
        await append_events(tx, run.build_id, [event])
        return judgement


async def _read_product(sandbox: Sandbox, pages: Sequence[PageView]) -> ProductEvidence:
    """Read the texts of the commit that the gate runs."""
    listed = await sandbox.run(f"{GIT} ls-files | head --bytes={_FILES_BYTES}", timeout_seconds=SMALL_SECONDS, cwd="/")
    names = listed.stdout.splitlines()
    readme = next((name for name in names if name.lower() in ("readme.md", "readme", "readme.rst", "readme.txt")), None)
    return ProductEvidence(
        plan=await _read_text(sandbox, PLAN_FILE, MAX_PLAN_BYTES),
        readme="" if readme is None else await _read_text(sandbox, readme, _README_BYTES),
        files=listed.stdout,
        pages=pages,
    )


async def _read_text(sandbox: Sandbox, name: str, limit: int) -> str:
    """The beginning of a file of the workspace; empty if there is no such file."""
    try:
        return (await read_beginning(sandbox, f"{WORKSPACE}/{name}", limit)).decode("utf-8", "replace")
    except (FileNotFoundError, InvalidInput):
        return ""
