"""The buckets of requests, which all APIs share: a row for each identity and class. See `domain/request_limits.py`."""

from sqlalchemy import Double, Text, bindparam, text

from db.transaction import Transaction
from domain.request_limits import RequestClass, RequestLimit

_TAKE = text(
    """
    with before as (
        select least(:amount, tokens + :per_second * extract(epoch from clock_timestamp() - at)) as tokens
        from request_buckets where identity = :identity and kind = :kind
    ), taken as (
        insert into request_buckets as bucket (identity, kind, tokens, at)
        values (:identity, :kind, :amount - 1, clock_timestamp())
        on conflict (identity, kind) do update set at = clock_timestamp(),
            tokens = least(:amount, bucket.tokens + :per_second * extract(epoch from clock_timestamp() - bucket.at)) - 1
        where least(:amount, bucket.tokens + :per_second * extract(epoch from clock_timestamp() - bucket.at)) >= 1
        returning 1
    )
    select exists (select from taken), coalesce((select tokens from before), 0)
    """
).bindparams(
    bindparam("identity", type_=Text()),
    bindparam("kind", type_=Text()),
    bindparam("amount", type_=Double()),
    bindparam("per_second", type_=Double()),
)

_FORGET = text("delete from request_buckets where at < clock_timestamp() - interval '2 days'")


async def take_token(tx: Transaction, identity: str, kind: RequestClass, limit: RequestLimit) -> int | None:
    """Take a token of the identity's bucket, which is full if it has no row.

    Returns:
        None if there was one; else the seconds until there is.
    """
    parameters = {"identity": identity, "kind": kind, "amount": float(limit.amount), "per_second": limit.per_second}
    was_taken, tokens = (await tx.execute(_TAKE, parameters)).one()
    if was_taken:
        return None
    # More than were left were read before others took them, at the same moment: then nearly none is.
    return limit.retry_after(float(tokens) if tokens < 1 else 0.0)


async def forget_full_buckets(tx: Transaction) -> None:
    """Delete buckets that have been full for long: no row means the same."""
    await tx.execute(_FORGET, {})
