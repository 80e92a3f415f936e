"""The token buckets of models, which all workers share. One row for each limit; see `domain/rates.py`."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import UUID, Double, Integer, Text, bindparam, text

from db.transaction import Transaction
from domain.rates import BURST_SECONDS, Amounts, AssumedRates, Bucket, Lease, ModelRates, RateKind, Reading


@dataclass(frozen=True)
class Exchange:
    """What a worker gives back, what it has heard of the API, and what it asks for."""

    model: str
    assumed: AssumedRates
    """Limits of a model that has none yet."""
    need: Amounts
    queued: Amounts = field(default_factory=dict)
    back: Amounts = field(default_factory=dict)
    readings: Mapping[RateKind, Reading] | None = None
    """Of the last answer: its headers; empty if it had none. None without an answer since."""
    age: float = 0.0
    """Seconds since then."""
    blocked: float | None = None
    """The API has refused a call and takes others after this many seconds."""


@dataclass(frozen=True)
class Caller:
    """Who makes the call of a turn."""

    user_id: str
    model: str
    is_answered: bool
    """There is no call to make any more."""


_CALLER = text(
    """
    select user_id, coalesce(model, ''), exists (
        select from turns where build_id = :build and number = :turn and outcome is not null
    )
    from builds where id = :build
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("turn", type_=Integer()))


async def load_caller(tx: Transaction, build_id: uuid.UUID, turn: int) -> Caller:
    """Read who makes the turn's call."""
    return Caller(*(await tx.execute(_CALLER, {"build": build_id, "turn": turn})).one())


_INSERT = text(
    """
    insert into model_buckets (model, kind, per_minute, level)
    select :model, kind, per_minute, greatest(1, per_minute * :seconds / 60)
    from jsonb_to_recordset(cast(:rows as jsonb)) as new(kind text, per_minute bigint)
    on conflict do nothing
    """
).bindparams(bindparam("model", type_=Text()), bindparam("rows", type_=Text()), bindparam("seconds", type_=Double()))

_LOCK = text(
    """
    select kind, per_minute, level, refilled_at, learned, blocked_until, clock_timestamp()
    from model_buckets where model = :model order by kind for update
    """
).bindparams(bindparam("model", type_=Text()))

_UPDATE = text(
    """
    update model_buckets as here set per_minute = new.per_minute, level = coalesce(new.level, 0),
        refilled_at = new.refilled_at, learned = new.learned, blocked_until = new.blocked_until
    from jsonb_to_recordset(cast(:rows as jsonb)) as new(
        kind text, per_minute bigint, level double precision, refilled_at timestamptz, learned boolean,
        blocked_until timestamptz)
    where here.model = :model and here.kind = new.kind
    """
).bindparams(bindparam("model", type_=Text()), bindparam("rows", type_=Text()))


async def exchange(tx: Transaction, given: Exchange) -> Lease:
    """Return what was not used, take over what the API has said, and lease what calls need, under the rows' lock."""
    rates, now = await _locked(tx, given)
    rates = rates.refilled(now).put_back(given.back)
    if given.readings is not None:
        rates = rates.learn(given.readings, now, given.age)
    if given.blocked is not None:
        rates = rates.block(now, given.blocked)
    rates, lease = rates.lease(now, given.need, given.queued)
    await tx.execute(_UPDATE, {"model": given.model, "rows": json.dumps(_rows(rates, now))})
    return lease


async def _locked(tx: Transaction, given: Exchange) -> tuple[ModelRates, datetime]:
    rows = list(await tx.execute(_LOCK, {"model": given.model}))
    if not rows:
        full = [{"kind": kind, "per_minute": getattr(given.assumed, kind)} for kind in RateKind]
        await tx.execute(_INSERT, {"model": given.model, "rows": json.dumps(full), "seconds": BURST_SECONDS})
        rows = list(await tx.execute(_LOCK, {"model": given.model}))
    buckets = {
        RateKind(kind): Bucket(per_minute, level, refilled_at)
        for kind, per_minute, level, refilled_at, *_ in rows
        if per_minute is not None
    }
    *_, learned, blocked_until, now = rows[0]
    return ModelRates(buckets, learned, blocked_until), now


def _rows(rates: ModelRates, now: datetime) -> list[dict[str, object]]:
    blocked_until = rates.blocked_until if rates.blocked_until is not None and rates.blocked_until > now else None
    rows: list[dict[str, object]] = []
    for kind in RateKind:
        bucket = rates.buckets.get(kind)
        rows.append(
            {
                "kind": kind,
                "per_minute": None if bucket is None else bucket.per_minute,
                "level": 0.0 if bucket is None else bucket.level,
                "refilled_at": (now if bucket is None else bucket.at).isoformat(),
                "learned": rates.learned,
                "blocked_until": None if blocked_until is None else blocked_until.isoformat(),
            }
        )
    return rows
