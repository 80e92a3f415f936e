"""Money: what a user may spend on a day, reservations and settlements in the ledger, top-ups.

Every write of the ledger locks the user's day, whose totals a trigger keeps. To avoid deadlocks, locks are always
taken in this order: the turn's row, the user's row, the days' rows (the earliest first), the fleet's day (in
`db/fleet.py`, if it is limited), the ledger's row, the build's row (which the feed locks), and at the commit the
fleet's day, which a trigger counts in. The user's row is never locked with `for update`, which blocks references to
it: a new row of the ledger refers to it while the day is locked.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import (
    UUID,
    BigInteger,
    Date,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    not_,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from db import fleet
from db.models import Build, LedgerEntry, Limit, PlanTier, TopUp, User, UserDay
from db.switches import is_off_for_build
from db.transaction import Transaction
from domain.budget import USEFUL_OUTPUT_TOKENS, BudgetState, Permission, Verdict, cycle_of, daily_allowance
from domain.errors import BuildFailed, KeyReused
from domain.limits import FLEET_LIMIT_REACHED
from domain.pricing import Iteration, Tokens, WorstCase
from domain.status import Status, WaitingFor
from domain.tools import TOOLS

_IMAGE_TOKENS = 2000
"""Upper bound for a screenshot. It costs width times height / 750: 1366 on a desktop, 439 on a phone."""

_BYTES_PER_TOKEN = 2.5
"""Bytes of text and code to a token; usually more."""

_REQUEST_TOKENS = 1000
"""Upper bound for the parts of a request that are not stored text."""


@dataclass(frozen=True)
class Call:
    """A model call that is about to be made."""

    claim: uuid.UUID
    """The claim of its attempt, and the id of its row in the ledger."""
    build_id: uuid.UUID
    user_id: str
    turn: int
    day: date
    model: str
    prefix: int = 0
    kind: str = "turn"
    """turn; compaction: the call that sums up a conversation, whose turn is the last one that it covers; or judge: the
    call that judges a product in the gate, whose turn is the last one before."""


# ---- the day


async def budget_of(tx: Transaction, user_id: str, day: date) -> BudgetState:
    """What the user may spend on the day, has spent, and has reserved. Locks nothing and does not fix the allowance."""
    row = await tx.session.scalar(select(UserDay).where(UserDay.user_id == user_id, UserDay.day == day))
    from_plan = row.from_plan if row is not None else await _share_of_cycle(tx, user_id, day)
    return await _state(tx, user_id, day, from_plan)


_STATE = text(
    """
    select
        (select spent from user_days where user_id = :user and day = :day),
        (select reserved from user_days where user_id = :user and day = :day),
        (select coalesce(sum(amount), 0) from top_ups where user_id = :user and day = :day)
    """
).bindparams(bindparam("user", type_=Text()), bindparam("day", type_=Date()))

_SUMS = text(
    """
    select coalesce(sum(cost) filter (where state <> 'open'), 0), coalesce(sum(cost) filter (where state = 'open'), 0)
    from ledger where user_id = :user and day = :day
    """
).bindparams(bindparam("user", type_=Text()), bindparam("day", type_=Date()))


async def _state(tx: Transaction, user_id: str, day: date, from_plan: int | None) -> BudgetState:
    key = {"user": user_id, "day": day}
    spent, reserved, added = (await tx.execute(_STATE, key)).one()
    if spent is None:  # a day without a row, or one before days had totals
        spent, reserved = (await tx.execute(_SUMS, key)).one()
    allowance = None if from_plan is None else from_plan + int(added)
    return BudgetState(allowance=allowance, spent=int(spent), reserved=int(reserved))


async def _share_of_cycle(tx: Transaction, user_id: str, day: date) -> int | None:
    """The day's share of what is left of the cycle: the plan's budget and earlier top-ups, less earlier spending."""
    budget, renewal_day = (
        await tx.session.execute(
            select(PlanTier.cycle_budget, User.renewal_day)
            .join(User, User.plan == PlanTier.name)
            .where(User.id == user_id)
        )
    ).one()
    if budget is None:
        return None
    first, _ = cycle_of(day, renewal_day)
    spent = await tx.session.scalar(
        select(func.coalesce(func.sum(LedgerEntry.cost), 0)).where(
            LedgerEntry.user_id == user_id, LedgerEntry.day >= first, LedgerEntry.day < day
        )
    )
    added = await tx.session.scalar(
        select(func.coalesce(func.sum(TopUp.amount), 0)).where(
            TopUp.user_id == user_id, TopUp.day >= first, TopUp.day < day
        )
    )
    return daily_allowance(budget + int(added or 0), int(spent or 0), day, renewal_day)


async def lock_day(tx: Transaction, user_id: str, day: date) -> BudgetState:
    """Lock the user's day until the transaction ends. The first lock of a day fixes its allowance."""
    from_plan = await _locked(tx, user_id, day)
    # A statement of its own: the one that waited for the lock does not see what others committed meanwhile.
    return await _state(tx, user_id, day, from_plan)


_LOCK = text("select from_plan from user_days where user_id = :user and day = :day for update")


async def _locked(tx: Transaction, user_id: str, day: date) -> int | None:
    """Lock the user's day; returns its share of the cycle, None for an unlimited plan."""
    key = {"user": user_id, "day": day}
    row = (await tx.execute(_LOCK, key)).one_or_none()
    if row is None:
        # The lock makes a change of plan wait, or waits for it. Either way the share is that of the plan in force.
        await tx.session.execute(select(User.id).where(User.id == user_id).with_for_update(read=True))
        share = await _share_of_cycle(tx, user_id, day)
        new = upsert(UserDay).values(user_id=user_id, day=day, from_plan=share)
        await tx.session.execute(new.on_conflict_do_nothing())
        row = (await tx.execute(_LOCK, key)).one()
    from_plan: int | None = row[0]
    return from_plan


# ---- calls


_RESERVE = text(
    """
    insert into ledger (id, build_id, user_id, turn, day, model, cost, prefix, kind)
    select :claim, :build_id, :user_id, :turn, :day, :model, :cost, :prefix, :kind
    from builds where id = :build_id and closed_at is null for share
    returning 1
    """
).bindparams(
    *(bindparam(name, type_=UUID(as_uuid=True)) for name in ("claim", "build_id")),
    *(bindparam(name, type_=Text()) for name in ("user_id", "model", "kind")),
    *(bindparam(name, type_=Integer()) for name in ("turn", "prefix")),
    bindparam("day", type_=Date()),
    bindparam("cost", type_=BigInteger()),
)
"""Locks the build's row, so that the transaction that closes the build waits, sees this row and closes it, too."""


async def reserve(
    tx: Transaction,
    call: Call,
    worst: WorstCase,
    max_tokens: int,
    lost: uuid.UUID | None = None,
    *,
    fleet_is_limited: bool = False,
) -> tuple[Permission, BudgetState]:
    """Reserve the worst case of a call if it fits; otherwise add no row.

    The row stays `open` until the call is settled or released. If the process dies first, its estimate stays. `lost` is
    the claim of such a call, which this one takes over from. With `fleet_is_limited` it has to fit into what all builds
    together may spend, too.

    Returns:
        The permission, and the state before the reservation.

    Raises:
        BuildFailed: the build has ended.
    """
    if lost is not None:
        await _lock_day_of(tx, lost)  # which may be an earlier day
    from_plan = await _locked(tx, call.user_id, call.day)
    if lost is not None:
        await estimate(tx, lost)
    state = await _state(tx, call.user_id, call.day, from_plan)
    permission = state.permit(worst, max_tokens)
    if permission.verdict is Verdict.GO and fleet_is_limited:
        permission = await _share_of_fleet(tx, call, worst, permission, has_lost_call=lost is not None)
    if permission.verdict is Verdict.GO:
        inserted = await tx.execute(_RESERVE, {**call.__dict__, "cost": permission.reserved})
        if inserted.first() is None:
            raise BuildFailed("The build has ended, so no more model calls are made for it.")
    return permission, state


_COUNT_IN_FLEET = text("set constraints user_days_fleet immediate")
_COUNT_AT_COMMIT = text("set constraints user_days_fleet deferred")


async def _share_of_fleet(
    tx: Transaction, call: Call, worst: WorstCase, permission: Permission, *, has_lost_call: bool
) -> Permission:
    """Shrink a permission to what the fleet's day has room for."""
    if has_lost_call:
        # It may be of the day before, and the fleet's days are locked in their order.
        await tx.execute(_COUNT_IN_FLEET, {})
        await tx.execute(_COUNT_AT_COMMIT, {})
    useful = min(permission.max_tokens, USEFUL_OUTPUT_TOKENS)
    share = await fleet.take(tx, call.user_id, call.day, worst.cost(useful), permission.reserved)
    if share.verdict is not Verdict.GO:
        return Permission(verdict=share.verdict)
    if share.amount >= permission.reserved:
        return permission
    affordable = min(permission.max_tokens, max(useful, worst.output_for(share.amount)))
    return Permission(verdict=Verdict.GO, max_tokens=affordable, reserved=worst.cost(affordable))


_SETTLE = text(
    """
    with locked as (
        select from_plan from user_days where user_id = :user_id and day = :day for update
    ), settled as (
        update ledger set state = :state, iterations = :iterations, request_id = :request_id, input_tokens = :input,
            cache_write_5m_tokens = :cache_write_5m, cache_write_1h_tokens = :cache_write_1h,
            cache_read_tokens = :cache_read, output_tokens = :output, closed_at = now(),
            cost = case :state when 'estimated' then least(cost, coalesce(:cost, cost)) else :cost end
        from locked
        where id = :claim and state in ('open', 'estimated')
    )
    select from_plan from locked
    """
).bindparams(
    bindparam("claim", type_=UUID(as_uuid=True)),
    bindparam("state", type_=Text()),
    bindparam("cost", type_=BigInteger()),
    bindparam("iterations", type_=JSONB(none_as_null=True)),
)
"""Locks the day before the call's row, as every write of the ledger does: the row is found through the lock. An
estimate is never above what was reserved, which the day's budget has room for."""


async def settle(
    tx: Transaction,
    call: Call,
    tokens: Tokens,
    cost: int | None,
    request_id: str | None,
    *,
    iterations: Sequence[Iteration] = (),
    estimated: bool = False,
) -> BudgetState:
    """Replace a call's reservation by what was served, even if another attempt has marked the call as lost since.

    Args:
        tokens: all that was served.
        cost: in µ$; None leaves what was reserved, and then `estimated` is set.
        iterations: the parts of the call, if there are any. They are stored if they say more than the tokens do.
        estimated: the server has not said what it served.

    Returns:
        The state afterwards.
    """
    says_more = len(iterations) > 1 or any(each.model not in (None, call.model) for each in iterations)
    parts = [{"type": each.kind, "model": each.model or call.model, **each.tokens.model_dump()} for each in iterations]
    served = {
        "state": "estimated" if estimated else "settled",
        "iterations": parts if says_more else None,
        "request_id": request_id,
        "cost": cost,
        **tokens.model_dump(),
    }
    values = {"claim": call.claim, "user_id": call.user_id, "day": call.day, **served}
    day = (await tx.execute(_SETTLE, values)).one_or_none()
    if day is None:  # its reservation made the row, which is gone
        await _locked(tx, call.user_id, call.day)
        day = (await tx.execute(_SETTLE, values)).one()
    from_plan: int | None = day[0]
    # A statement of its own: a trigger has changed the day's totals.
    return await _state(tx, call.user_id, call.day, from_plan)


async def _lock_day_of(tx: Transaction, claim: uuid.UUID) -> None:
    """Lock the day of a call before its row, which `estimate` changes."""
    of_call = select(LedgerEntry.user_id, LedgerEntry.day).where(LedgerEntry.id == claim)
    await _lock_days(tx, of_call)


async def _lock_days(tx: Transaction, keys: Select[str, date]) -> None:
    """Lock the days with these keys (user and day), the earliest first."""
    days = select(UserDay.day).where(tuple_(UserDay.user_id, UserDay.day).in_(keys)).order_by(UserDay.day)
    await tx.session.execute(days.with_for_update())


_IN_FLIGHT = text(
    """
    select coalesce(:other_run or kept_at > now() - make_interval(secs => :seconds), false)
    from ledger where id = :claim and state = 'open'
    """
).bindparams(bindparam("claim", type_=UUID(as_uuid=True)))


async def is_in_flight(tx: Transaction, claim: uuid.UUID, *, other_run: bool, seconds: float) -> bool:
    """Whether the attempt with this claim may still be making its call.

    Args:
        other_run: it is of another run of the workflow, and may not have learned yet that its run is gone.
        seconds: it is lost if it has not said for this long that it still makes the call.
    """
    found = await tx.execute(_IN_FLIGHT, {"claim": claim, "other_run": other_run, "seconds": seconds})
    return bool(found.scalar())


async def keep_call(tx: Transaction, claim: uuid.UUID) -> None:
    """Say that the call is still being made, by an attempt whose run is gone."""
    await _lock_day_of(tx, claim)
    await tx.session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.id == claim, LedgerEntry.state == "open")
        .values(kept_at=func.clock_timestamp())
    )


async def estimate(tx: Transaction, claim: uuid.UUID) -> None:
    """Mark the call as estimated: its real cost is unknown. The reservation stays as its cost, and so the day's sum."""
    await _lock_day_of(tx, claim)
    await tx.session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.id == claim, LedgerEntry.state == "open")
        .values(state="estimated", closed_at=func.now())
    )


async def estimate_all_of(tx: Transaction, build_id: uuid.UUID) -> None:
    """Mark the build's open calls as estimated. Called when it waits or ends: an interrupted call's cost is unknown.

    An attempt that hung and comes back to such a call later still settles it.
    """
    of_calls = select(LedgerEntry.user_id, LedgerEntry.day).where(
        LedgerEntry.build_id == build_id, LedgerEntry.state == "open"
    )
    await _lock_days(tx, of_calls)
    await tx.session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.build_id == build_id, LedgerEntry.state == "open")
        .values(state="estimated", closed_at=func.now())
    )


async def release(tx: Transaction, call: Call) -> None:
    """Mark the call as free: it was refused before it began. Also if another attempt has marked it as lost since."""
    await _locked(tx, call.user_id, call.day)
    await tx.session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.id == call.claim, LedgerEntry.state.in_(("open", "estimated")))
        .values(state="released", cost=0, closed_at=func.now())
    )


_IMAGE = '"data":"sha256:'
"""How an image begins in a stored tool result."""

_WITH_IMAGES = ", ".join(f"'{tool.name}'" for tool in TOOLS.values() if tool.images or tool.name == "read_file")
"""The tools whose results may have images, for a query."""

CACHE_SECONDS = 300
"""The cache keeps a prompt for this long after the start of the last request that used it."""

_EXPECTED_PERCENTILE = 0.95
_EXPECTED_CALLS = 20
"""Calls of the build whose output says what the next one may be."""

_PROMPT_SIZE = text(
    f"""
    with here as (
        select coalesce(
            (select prefix from turns where build_id = :build and number = :turn),
            (select max(prefix) from prompts where build_id = :build and covers < :turn), 0
        ) as prefix
    ), counted as (
        select turn, coalesce(sampled.prompt,
                input_tokens + cache_write_5m_tokens + cache_write_1h_tokens + cache_read_tokens) as prompt,
            coalesce(sampled.output, output_tokens) as output,
            opened_at > clock_timestamp() - interval '{CACHE_SECONDS} s' as warm
        from here, ledger left join lateral (
            select (part ->> 'input')::bigint + (part ->> 'cache_write_5m')::bigint
                + (part ->> 'cache_write_1h')::bigint + (part ->> 'cache_read')::bigint as prompt,
                (part ->> 'output')::bigint as output
            from jsonb_array_elements(ledger.iterations) with ordinality as parts (part, place)
            where part ->> 'type' in ('message', 'fallback_message')
            order by place desc limit 1
        ) as sampled on true
        where build_id = :build and state = 'settled' and kind = 'turn' and ledger.prefix = here.prefix
            and turn <= :turn and input_tokens + cache_write_5m_tokens + cache_read_tokens > 0
        order by turn desc, output_tokens desc limit 1
    ), since as (
        select coalesce(max(covers), 0) as covers, coalesce(max(turn), max(covers), 0) as turn,
            coalesce(max(prompt), 0) as prompt, coalesce(max(output), 0) as output,
            coalesce(bool_or(warm), false) as warm, max(turn) is null as fresh
        from here
        left join prompts on prompts.build_id = :build and prompts.prefix = here.prefix
        left join counted on true
    ), outputs as (
        select output_tokens from ledger where build_id = :build and state = 'settled' and kind = 'turn'
        order by turn desc limit {_EXPECTED_CALLS}
    )
    select
        since.prompt,
        since.output,
        since.warm,
        case when since.fresh then (
            select octet_length(system) + octet_length(tools) + coalesce(octet_length(opening), 0)
            from prompts, here where build_id = :build and prompts.prefix = here.prefix
        ) end as opening,
        (select sum(octet_length(content)) from messages
            where build_id = :build and messages.turn <= :turn and (
                messages.turn > since.turn
                or since.fresh and messages.turn = since.turn and role = 'assistant'
            )) as messages,
        results.bytes,
        results.images,
        (select percentile_disc({_EXPECTED_PERCENTILE}) within group (order by output_tokens) from outputs) as outputs,
        here.prefix,
        (select sum((length(result) - length(replace(result, :image, ''))) / length(:image)) from tool_calls
            where build_id = :build and tool_calls.turn >= since.covers and tool_calls.turn < :turn
                and name in ({_WITH_IMAGES})) as images_here,
        since.covers
    from here, since, lateral (
        select sum(octet_length(result)) as bytes,
            sum((length(result) - length(replace(result, :image, ''))) / length(:image)) as images
        from tool_calls where build_id = :build and tool_calls.turn >= since.turn and tool_calls.turn < :turn
    ) as results
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("image", type_=Text()))


@dataclass(frozen=True)
class PromptSize:
    """How long the prompt of a turn is, and what is known of the build's calls, in tokens."""

    at_most: int
    """An upper bound: the server's last count for this prefix plus a token for each byte added since. Some texts, such
    as figures, come close to that. Counts the turn's user message only if it is stored already."""
    counted: int
    """The part that the server has counted, the last answer included; 0 if it has not seen this prefix yet."""
    cached: int
    """The part that the cache holds by now, as far as the server has said; 0 if it is likely to be cold."""
    usual_output: int
    """What nearly all of the build's last calls stayed below."""
    prefix: int
    likely: int = 0
    """How long it is likely to be: as `at_most`, with the usual bytes to a token."""
    images: int = 0
    """Images in it."""
    covers: int = 0
    """The turn up to whose user message its opening stands for the conversation."""


async def prompt_size(tx: Transaction, build_id: uuid.UUID, turn: int) -> PromptSize:
    """Estimate the prompt of the turn's call."""
    row = (await tx.execute(_PROMPT_SIZE, {"build": build_id, "turn": turn, "image": _IMAGE})).one()
    prompt, output, warm, opening, messages, results, images, outputs, prefix, images_here, covers = row
    counted = int(prompt) + int(output)
    text_bytes, image_tokens = int(opening or 0) + int(messages or 0) + int(results or 0), int(images or 0)
    image_tokens *= _IMAGE_TOKENS
    return PromptSize(
        at_most=counted + text_bytes + image_tokens + _REQUEST_TOKENS,
        counted=counted,
        cached=int(prompt) if warm else 0,
        usual_output=int(outputs or 0),
        prefix=int(prefix),
        likely=counted + int(text_bytes / _BYTES_PER_TOKEN) + image_tokens,
        images=int(images_here or 0),
        covers=int(covers),
    )


# ---- what operators change


async def top_up(
    tx: Transaction, user_id: str, amount: int, day: date, *, note: str | None = None, key: str | None = None
) -> TopUp:
    """Add money (µ$) to the user's day. A repeat with the same key adds nothing and returns the first top-up.

    Raises:
        KeyReused: the key was used for another amount.
    """
    await _note_money_changed(tx, user_id)
    await lock_day(tx, user_id, day)
    rows = await tx.session.scalars(
        upsert(TopUp)
        .values(id=uuid.uuid4(), user_id=user_id, day=day, amount=amount, note=note, idempotency_key=key)
        .on_conflict_do_nothing()
        .returning(TopUp)
    )
    if (inserted := rows.one_or_none()) is not None:
        return inserted
    earlier = (
        await tx.session.scalars(select(TopUp).where(TopUp.user_id == user_id, TopUp.idempotency_key == key))
    ).one()
    if earlier.amount != amount:
        raise KeyReused("This key was used for a top-up of another amount. Use a new key for a new top-up.")
    return earlier


async def recompute(tx: Transaction, user_id: str, today: date) -> None:
    """Compute the allowance of today and later days again, in the transaction that changes the plan or renewal day.

    An allowance never falls below what the day has spent and reserved.
    """
    await _note_money_changed(tx, user_id)
    days = await tx.session.scalars(select(UserDay.day).where(UserDay.user_id == user_id, UserDay.day >= today))
    for day in sorted(days):
        state = await lock_day(tx, user_id, day)
        share = await _share_of_cycle(tx, user_id, day)
        if share is not None:
            share = max(share, state.spent + state.reserved - await topped_up(tx, user_id, day))
        await tx.session.execute(
            update(UserDay).where(UserDay.user_id == user_id, UserDay.day == day).values(from_plan=share)
        )


async def topped_up(tx: Transaction, user_id: str, day: date) -> int:
    """What was added to the user's day, in µ$."""
    amount = await tx.session.scalar(
        select(func.coalesce(func.sum(TopUp.amount), 0)).where(TopUp.user_id == user_id, TopUp.day == day)
    )
    return int(amount or 0)


async def _note_money_changed(tx: Transaction, user_id: str) -> None:
    """Note the time of a change, so that the reaper can repeat the nudge to the user's builds if the first one is lost.

    `clock_timestamp` is the time at which the row is locked, not the transaction's start: of two changes, the later one
    gets the later time.
    """
    await tx.session.execute(update(User).where(User.id == user_id).values(money_changed_at=func.clock_timestamp()))


async def open_builds_of(tx: Transaction, user_id: str) -> list[uuid.UUID]:
    """The user's open builds, which a change of money may concern, oldest first."""
    ids = await tx.session.scalars(
        select(Build.id)
        .where(Build.user_id == user_id, Build.started_at.is_not(None), Build.closed_at.is_(None))
        .order_by(Build.created_at, Build.id)
    )
    return list(ids)


async def last_change(tx: Transaction, user_id: str) -> datetime | None:
    """When the user's money or standing last changed."""
    return await tx.session.scalar(select(User.money_changed_at).where(User.id == user_id))


@dataclass(frozen=True)
class MissedNotification:
    """A build that waits and was not notified of a change of its user's money or standing."""

    build_id: uuid.UUID
    since: datetime
    """When the change was made; for a build that a kill switch stopped, no earlier than that."""


async def missed_notifications(tx: Transaction, before: datetime, *, switched_on: bool) -> list[MissedNotification]:
    """Builds that wait and were not notified of the last change of their user's money or standing, or of the limit that
    they wait for.

    Only changes before `before` count. With `switched_on`, also the builds that no kill switch holds any more. Each
    build is returned until `mark_notified`.

    A build that began to wait after the change is returned, too: it may have read the budget before the change.
    """
    notified_at = func.greatest(Build.created_at, Build.nudged_at)
    changed = and_(User.money_changed_at > notified_at, User.money_changed_at < before)
    raised_at = select(func.max(Limit.set_at)).where(Limit.set_at < before).scalar_subquery()
    raised = and_(Build.reason == FLEET_LIMIT_REACHED, raised_at > notified_at)
    on_hold = and_(
        literal(switched_on),
        Build.waiting_for == WaitingFor.KILL_SWITCH,
        not_(is_off_for_build()),
        Build.status_at < before,
        or_(Build.nudged_at.is_(None), Build.nudged_at < Build.status_at),
    )
    rows = await tx.session.execute(
        select(
            Build.id, func.greatest(User.money_changed_at, case((on_hold, Build.status_at)), case((raised, raised_at)))
        )
        .join(User, User.id == Build.user_id)
        .where(
            Build.started_at.is_not(None),
            Build.closed_at.is_(None),
            Build.status.in_((Status.SLEEPING, Status.NEEDS_INPUT, Status.QUEUED)),
            or_(changed, raised, on_hold),
        )
        .order_by(Build.created_at)
    )
    return [MissedNotification(build_id, since) for build_id, since in rows]


async def mark_notified(tx: Transaction, build_ids: Sequence[uuid.UUID], since: datetime | None) -> None:
    """Note that the workflows of these builds received a change. It is not repeated: each signal grows a history.

    `since` is `User.money_changed_at` as it was when the signals were sent.
    """
    if since is not None and build_ids:
        notified_at = func.greatest(Build.nudged_at, since)
        await tx.session.execute(update(Build).where(Build.id.in_(build_ids)).values(nudged_at=notified_at))
