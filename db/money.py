"""Money: what a user may spend on a day, reservations and settlements in the ledger, top-ups.

Whoever reserves or settles locks the user's day. Locks are taken in this order, so that nobody waits in a circle: the
turn's row, the user's row, the day's row, the ledger's row, the build's row (which the feed takes). The user's row is
never locked against references (`for update`): a row that is added to the ledger refers to it, after the day's lock.
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
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Build, LedgerEntry, PlanTier, TopUp, User, UserDay
from db.transaction import Executor, session_of
from domain.budget import BudgetState, Permission, Verdict, cycle_of, daily_allowance
from domain.errors import BuildFailed, KeyReused
from domain.pricing import Tokens, WorstCase
from domain.status import Status, WaitingFor

_IMAGE_TOKENS = 2000
"""More than a screenshot costs: width times height / 750, so 1366 on a desktop and 439 on a phone."""

_REQUEST_TOKENS = 1000
"""What a request holds besides stored text."""


@dataclass(frozen=True)
class Call:
    """A model call that is about to be made. `claim` names its row in the ledger."""

    claim: uuid.UUID
    build_id: uuid.UUID
    user_id: str
    turn: int
    day: date
    model: str


# ---- what there is


async def budget_of(session: AsyncSession, user_id: str, day: date) -> BudgetState:
    """What the user may spend on the day, has spent, and has reserved. Locks and fixes nothing."""
    found = await session.scalar(select(UserDay).where(UserDay.user_id == user_id, UserDay.day == day))
    from_plan = found.from_plan if found is not None else await _share_of_cycle(session, user_id, day)
    return await _state(session, user_id, day, from_plan)


_STATE = text(
    """
    select
        coalesce(sum(cost) filter (where state <> 'open'), 0),
        coalesce(sum(cost) filter (where state = 'open'), 0),
        (select coalesce(sum(amount), 0) from top_ups where user_id = :user and day = :day)
    from ledger where user_id = :user and day = :day
    """
).bindparams(bindparam("user", type_=Text()), bindparam("day", type_=Date()))


async def _state(session: Executor, user_id: str, day: date, from_plan: int | None) -> BudgetState:
    spent, reserved, added = (await session.execute(_STATE, {"user": user_id, "day": day})).one()
    allowance = None if from_plan is None else from_plan + int(added)
    return BudgetState(allowance=allowance, spent=int(spent), reserved=int(reserved))


async def _share_of_cycle(session: AsyncSession, user_id: str, day: date) -> int | None:
    """The day's share of what is left of the cycle: the plan's budget and earlier top-ups, less what was spent."""
    budget, renewal_day = (
        await session.execute(
            select(PlanTier.cycle_budget, User.renewal_day)
            .join(User, User.plan == PlanTier.name)
            .where(User.id == user_id)
        )
    ).one()
    if budget is None:
        return None
    first, _ = cycle_of(day, renewal_day)
    spent = await session.scalar(
        select(func.coalesce(func.sum(LedgerEntry.cost), 0)).where(
            LedgerEntry.user_id == user_id, LedgerEntry.day >= first, LedgerEntry.day < day
        )
    )
    added = await session.scalar(
        select(func.coalesce(func.sum(TopUp.amount), 0)).where(
            TopUp.user_id == user_id, TopUp.day >= first, TopUp.day < day
        )
    )
    return daily_allowance(budget + int(added or 0), int(spent or 0), day, renewal_day)


async def lock_day(session: Executor, user_id: str, day: date) -> BudgetState:
    """Lock the user's day until the transaction ends; at its first use, fix its allowance."""
    from_plan = await _locked(session, user_id, day)
    # Another statement: what others have committed while this one waited for the lock is only seen by the next.
    return await _state(session, user_id, day, from_plan)


_LOCK = text("select from_plan from user_days where user_id = :user and day = :day for update")


async def _locked(session: Executor, user_id: str, day: date) -> int | None:
    """Lock the user's day; returns its share of the cycle."""
    of_day = {"user": user_id, "day": day}
    found = (await session.execute(_LOCK, of_day)).one_or_none()
    if found is None:
        # A change of plan waits for this, or this for it: the share is that of the plan that is in force afterwards.
        own = session_of(session)
        await own.execute(select(User.id).where(User.id == user_id).with_for_update(read=True))
        share = await _share_of_cycle(own, user_id, day)
        await own.execute(upsert(UserDay).values(user_id=user_id, day=day, from_plan=share).on_conflict_do_nothing())
        found = (await session.execute(_LOCK, of_day)).one()
    from_plan: int | None = found[0]
    return from_plan


# ---- calls


_RESERVE = text(
    """
    insert into ledger (id, build_id, user_id, turn, day, model, cost)
    select :claim, :build_id, :user_id, :turn, :day, :model, :cost
    from builds where id = :build_id and closed_at is null for share
    returning 1
    """
).bindparams(
    *(bindparam(name, type_=UUID(as_uuid=True)) for name in ("claim", "build_id")),
    *(bindparam(name, type_=Text()) for name in ("user_id", "model")),
    bindparam("turn", type_=Integer()),
    bindparam("day", type_=Date()),
    bindparam("cost", type_=BigInteger()),
)
"""With a lock that whoever closes the build waits for, so that it finds this row and closes it, too."""


async def reserve(
    session: Executor, call: Call, worst: WorstCase, max_tokens: int, lost: uuid.UUID | None = None
) -> tuple[Permission, BudgetState]:
    """Reserve the worst case of a call, if it fits; otherwise no row is added. The state is that of before.

    The row stays `open` until the call is settled or released; if the process dies in it, its estimate stays. `lost` is
    the claim of such a call, which this one takes over from.

    Raises:
        BuildFailed: the build has ended.
    """
    from_plan = await _locked(session, call.user_id, call.day)
    if lost is not None:
        await estimate(session_of(session), lost)
    state = await _state(session, call.user_id, call.day, from_plan)
    permission = state.permit(worst, max_tokens)
    if permission.verdict is Verdict.GO:
        made = await session.execute(_RESERVE, {**call.__dict__, "cost": permission.reserved})
        if made.first() is None:
            raise BuildFailed("The build has ended, so no more model calls are made for it.")
    return permission, state


_SETTLE = text(
    """
    update ledger set state = 'settled', request_id = :request_id, input_tokens = :input,
        cache_write_5m_tokens = :cache_write_5m, cache_write_1h_tokens = :cache_write_1h,
        cache_read_tokens = :cache_read, output_tokens = :output, cost = :cost, closed_at = now()
    where id = :claim and state in ('open', 'estimated')
    """
).bindparams(bindparam("claim", type_=UUID(as_uuid=True)))


async def settle(session: Executor, call: Call, tokens: Tokens, cost: int, request_id: str | None) -> BudgetState:
    """Put what was served in the place of the estimate, also when another attempt has marked it as lost since. The
    state is that of afterwards."""
    from_plan = await _locked(session, call.user_id, call.day)
    served = {"request_id": request_id, "cost": cost, **tokens.model_dump()}
    await session.execute(_SETTLE, {"claim": call.claim, **served})
    return await _state(session, call.user_id, call.day, from_plan)


async def estimate(session: AsyncSession, claim: uuid.UUID) -> None:
    """Nobody knows what the call came to; its estimate stays, so that the sum of the day is what it was."""
    await session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.id == claim, LedgerEntry.state == "open")
        .values(state="estimated", closed_at=func.now())
    )


async def estimate_all_of(session: AsyncSession, build_id: uuid.UUID) -> None:
    """What a build's calls came to that were cut short, nobody knows once it waits or has ended; their estimates stay.

    An attempt that hangs, and comes back to such a call later, still settles it.
    """
    await session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.build_id == build_id, LedgerEntry.state == "open")
        .values(state="estimated", closed_at=func.now())
    )


async def release(session: AsyncSession, call: Call) -> None:
    """The call was refused before it began, so it costs nothing, also when another attempt has marked it as lost."""
    await _locked(session, call.user_id, call.day)
    await session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.id == call.claim, LedgerEntry.state.in_(("open", "estimated")))
        .values(state="released", cost=0, closed_at=func.now())
    )


_IMAGE = '"data":"sha256:'
"""How an image stands in a stored tool result."""

_PROMPT_SIZE = text(
    """
    with counted as (
        select turn, input_tokens + cache_write_5m_tokens + cache_write_1h_tokens + cache_read_tokens + output_tokens
            as tokens
        from ledger
        where build_id = :build and state = 'settled' and turn <= :turn
            and input_tokens + cache_write_5m_tokens + cache_read_tokens > 0
        order by turn desc, output_tokens desc limit 1
    ), since as (
        select coalesce(max(turn), 0) as turn, coalesce(max(tokens), 0) as tokens from counted
    )
    select
        since.tokens,
        case when since.turn = 0 then
            (select octet_length(system) + octet_length(tools) from prompts where build_id = :build and prefix = 0)
        end as prefix,
        (select sum(octet_length(content)) from messages
            where build_id = :build and turn > since.turn and turn <= :turn) as said,
        results.bytes,
        results.images
    from since, lateral (
        select sum(octet_length(result)) as bytes,
            sum((length(result) - length(replace(result, :image, ''))) / length(:image)) as images
        from tool_calls where build_id = :build and turn >= since.turn and turn < :turn
    ) as results
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("image", type_=Text()))


async def prompt_tokens_at_most(session: Executor, build_id: uuid.UUID, turn: int) -> int:
    """An upper bound for the prompt of the turn's call, whose user message is stored, or is still to be said.

    What the server counted last for this conversation, and a token for every byte that has been added since: there are
    texts, such as figures, of which a tokenizer makes nearly so many.
    """
    found = (await session.execute(_PROMPT_SIZE, {"build": build_id, "turn": turn, "image": _IMAGE})).one()
    counted, prefix, said, results, images = (int(number or 0) for number in found)
    return counted + prefix + said + results + images * _IMAGE_TOKENS + _REQUEST_TOKENS


# ---- what operators change


async def top_up(
    session: AsyncSession, user_id: str, amount: int, day: date, *, note: str | None = None, key: str | None = None
) -> TopUp:
    """Add money (µ$) to the user's day. A repeat with the same key adds nothing and returns the first one.

    Raises:
        KeyReused: the key was used for another amount.
    """
    await _note_money_changed(session, user_id)
    await lock_day(session, user_id, day)
    rows = await session.scalars(
        upsert(TopUp)
        .values(id=uuid.uuid4(), user_id=user_id, day=day, amount=amount, note=note, idempotency_key=key)
        .on_conflict_do_nothing()
        .returning(TopUp)
    )
    if (made := rows.one_or_none()) is not None:
        return made
    earlier = (await session.scalars(select(TopUp).where(TopUp.user_id == user_id, TopUp.idempotency_key == key))).one()
    if earlier.amount != amount:
        raise KeyReused("This key was used for a top-up of another amount. Use a new key for a new top-up.")
    return earlier


async def recompute(session: AsyncSession, user_id: str, today: date) -> None:
    """After a change of plan or renewal day, whose transaction this is: today's share anew, but never less than what is
    spent and reserved."""
    await _note_money_changed(session, user_id)
    days = await session.scalars(select(UserDay.day).where(UserDay.user_id == user_id, UserDay.day >= today))
    for day in sorted(days):
        state = await lock_day(session, user_id, day)
        share = await _share_of_cycle(session, user_id, day)
        if share is not None:
            share = max(share, state.spent + state.reserved - await topped_up(session, user_id, day))
        await session.execute(
            update(UserDay).where(UserDay.user_id == user_id, UserDay.day == day).values(from_plan=share)
        )


async def topped_up(session: AsyncSession, user_id: str, day: date) -> int:
    """What was added to the user's day, in µ$."""
    found = await session.scalar(
        select(func.coalesce(func.sum(TopUp.amount), 0)).where(TopUp.user_id == user_id, TopUp.day == day)
    )
    return int(found or 0)


async def _note_money_changed(session: AsyncSession, user_id: str) -> None:
    """For the reaper, which repeats the nudge to the user's builds if the first one is lost.

    The time is that of the row's lock, not of the transaction's start: of two changes the later one has the later time.
    """
    await session.execute(update(User).where(User.id == user_id).values(money_changed_at=func.clock_timestamp()))


async def open_builds_of(session: AsyncSession, user_id: str) -> list[uuid.UUID]:
    """The user's builds that a change of money may concern, oldest first."""
    found = await session.scalars(
        select(Build.id)
        .where(Build.user_id == user_id, Build.started_at.is_not(None), Build.closed_at.is_(None))
        .order_by(Build.created_at, Build.id)
    )
    return list(found)


async def last_change(session: AsyncSession, user_id: str) -> datetime | None:
    """When the user's money or standing last changed."""
    return await session.scalar(select(User.money_changed_at).where(User.id == user_id))


@dataclass(frozen=True)
class MissedNotification:
    """A build that waits and was not notified of its user's last change, which was at `since`."""

    build_id: uuid.UUID
    since: datetime


async def missed_notifications(
    session: AsyncSession, before: datetime, *, switched_on: bool
) -> list[MissedNotification]:
    """Builds that wait and were not notified of the last change of their user's budget or standing, if that was before
    `before`; and with `switched_on`, those that the kill switch holds. Each once: see `mark_notified`.

    Whether a build began to wait after the change does not matter: it may have read the budget before it.
    """
    notified = func.greatest(Build.created_at, Build.nudged_at)
    changed = and_(User.money_changed_at > notified, User.money_changed_at < before)
    held = and_(
        literal(switched_on),
        Build.waiting_for == WaitingFor.KILL_SWITCH,
        Build.status_at < before,
        or_(Build.nudged_at.is_(None), Build.nudged_at < Build.status_at),
    )
    found = await session.execute(
        select(Build.id, func.greatest(User.money_changed_at, case((held, Build.status_at))))
        .join(User, User.id == Build.user_id)
        .where(
            Build.started_at.is_not(None),
            Build.closed_at.is_(None),
            Build.status.in_((Status.SLEEPING, Status.NEEDS_INPUT, Status.QUEUED)),
            or_(changed, held),
        )
        .order_by(Build.created_at)
    )
    return [MissedNotification(build_id, since) for build_id, since in found]


async def mark_notified(session: AsyncSession, build_ids: Sequence[uuid.UUID], since: datetime | None) -> None:
    """Note that the workflows of these builds received a change, so that it is not repeated: each signal is an event of
    a workflow's history. `since` is `User.money_changed_at` as it was when the signal was sent."""
    if since is not None and build_ids:
        notified = func.greatest(Build.nudged_at, since)
        await session.execute(update(Build).where(Build.id.in_(build_ids)).values(nudged_at=notified))
