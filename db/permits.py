"""Permits limit how many sandboxes run at once, over all builds, previews and workers.

A permit is the right to have one sandbox running now. A build has at most one row: it is queued until `held_since` is
set. The row moves with the build from its workspace to the gate's sandbox, back, and on to its preview. A push of the
build's code has a permit of its own in `push_permits`, for a few minutes: it never queues, and counts like the others.

Lock order: each function that changes a permit locks the only row of `sandbox_fleet` first, then rows of `permits`; a
new row also locks its build's row against deletion. So call these functions in a transaction of their own.

The database's clock orders the queue: workers' clocks differ.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Interval, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from db.transaction import Transaction

STALE = timedelta(seconds=360)
"""A place in the queue is skipped if it has not been checked for this long. It counts again at the next check."""

COOL_DOWN = timedelta(seconds=15)
"""After the service has refused a sandbox, take no new permit for this long; twice as long after each refusal that
follows, up to `COOL_DOWN_MAX`."""

COOL_DOWN_MAX = timedelta(minutes=5)

FORGET_REFUSAL = timedelta(minutes=15)
"""A refusal that is older than this does not count as the one before."""

START_WAIT_MAX = timedelta(seconds=20)
"""The longest that a build with a permit waits before it starts its sandbox, if many start at once. Beyond that builds
stay in the queue. Shorter than the timeout of a claim."""

PREVIEW = "preview"


@dataclass(frozen=True)
class Place:
    """What an attempt to take a permit came to."""

    held: bool
    ahead: int = 0
    """How many others come first, if it is not held."""
    refused: bool = False
    """The sandbox service has just refused a sandbox, so that no permit is given out for a while."""
    wait_seconds: float = 0.0
    """Wait this long before the sandbox is started, so that not too many start in a second."""


_LOCK = text("select next_start_at from sandbox_fleet for update")

_STAND_IN_LINE = text(
    """
    insert into permits as permit (build_id, role, queued_at, checked_at)
    values (:build_id, :role, clock_timestamp(), clock_timestamp() + :patience)
    on conflict (build_id) do update set
        role = excluded.role,
        checked_at = excluded.checked_at,
        held_since = case
            when excluded.role = 'preview' and permit.role <> 'preview' and permit.held_since is not null
            then excluded.queued_at else permit.held_since end,
        reclaimed_at = case when excluded.role = 'preview' then permit.reclaimed_at end
    returning held_since is not null
    """
).bindparams(bindparam("build_id", type_=UUID(as_uuid=True)), bindparam("patience", type_=Interval()))

_QUEUE = """
    holders as (
        select build.user_id, count(*) as held
        from permits as permit join builds as build on build.id = permit.build_id
        where permit.held_since is not null
        group by build.user_id
    ),
    served as (
        select user_id, max(closed_at) as last_at
        from builds
        where closed_at > clock_timestamp() - interval '1 day'
            and user_id in (
                select build.user_id from permits as permit join builds as build on build.id = permit.build_id
                where permit.held_since is null
            )
        group by user_id
    ),
    candidates as (
        select permit.build_id, permit.role, permit.queued_at, permit.role = 'preview' as is_preview, served.last_at,
            coalesce(holders.held, 0) + row_number() over (
                partition by build.user_id, permit.role = 'preview' order by permit.queued_at, permit.build_id
            ) as round
        from permits as permit
        join builds as build on build.id = permit.build_id
        left join holders on holders.user_id = build.user_id
        left join served on served.user_id = build.user_id
        where permit.held_since is null and permit.checked_at > clock_timestamp() - :stale
    ),
    queue as (
        select build_id, role, is_preview,
            row_number() over (order by is_preview, round, last_at nulls first, queued_at, build_id) as place
        from candidates
    ),
    counts as (
        select (select count(*) from permits where held_since is not null)
            + (select count(*) from push_permits where expires_at > clock_timestamp()) as held
    )
"""
"""The queue: builds before previews; among builds, the one whose user has the fewest permits; then the one whose user's
last build ended the longest ago; then the oldest."""

_TAKE = text(
    f"""
    with {_QUEUE},
    fleet as (
        select coalesce(refused_until > clock_timestamp(), false) as refused,
            cast(:per_second as float8) is not null and next_start_at >= clock_timestamp() + :longest as is_crowded
        from sandbox_fleet
    ),
    taken as (
        update permits set held_since = clock_timestamp(), checked_at = clock_timestamp()
        from queue, counts, fleet
        where permits.build_id = :build_id and queue.build_id = :build_id and not fleet.refused and not fleet.is_crowded
            and (cast(:quota as integer) is null or counts.held + queue.place <= cast(:quota as integer))
        returning permits.build_id
    )
    select exists (select 1 from taken) as held, queue.place - 1 as ahead, fleet.refused
    from queue, fleet where queue.build_id = :build_id
    """
).bindparams(
    bindparam("build_id", type_=UUID(as_uuid=True)),
    bindparam("stale", type_=Interval()),
    bindparam("longest", type_=Interval()),
)

_TAKE_ANYWAY = text(
    "update permits set held_since = clock_timestamp() where build_id = :build_id and held_since is null"
).bindparams(bindparam("build_id", type_=UUID(as_uuid=True)))

_SPACE_STARTS = text(
    """
    update sandbox_fleet set next_start_at =
        greatest(next_start_at, clock_timestamp()) + make_interval(secs => 1.0 / cast(:per_second as float8))
    returning greatest(0, extract(epoch from next_start_at - clock_timestamp())
        - 1.0 / cast(:per_second as float8))
    """
)

_GIVE_BACK = text("delete from permits where build_id = :build_id returning held_since is not null").bindparams(
    bindparam("build_id", type_=UUID(as_uuid=True))
)

_CALM = text("update sandbox_fleet set refused_until = null where refused_until is not null")

_REFUSED = text(
    """
    with fleet as (
        update sandbox_fleet set
            refusals = case when refused_at > clock_timestamp() - :forget then refusals + 1 else 1 end,
            refused_at = clock_timestamp(),
            refused_until = clock_timestamp() + least(:longest, :shortest * power(2,
                case when refused_at > clock_timestamp() - :forget then least(refusals, 20) else 0 end))
        where refused_until is null or refused_until < clock_timestamp()
        returning refused_until
    )
    update permits set held_since = null, checked_at = clock_timestamp()
    where build_id = :build_id
    """
).bindparams(
    bindparam("build_id", type_=UUID(as_uuid=True)),
    bindparam("forget", type_=Interval()),
    bindparam("longest", type_=Interval()),
    bindparam("shortest", type_=Interval()),
)

_NEXT = text(
    f"""
    with {_QUEUE},
    fleet as (select coalesce(refused_until > clock_timestamp(), false) as refused from sandbox_fleet)
    select queue.build_id, queue.is_preview
    from queue, counts, fleet
    where not fleet.refused and queue.place <= coalesce(cast(:quota as integer) - counts.held, :unlimited)
    order by queue.place
    """
).bindparams(bindparam("stale", type_=Interval()))

_RECLAIM = text(
    f"""
    with {_QUEUE},
    room as (
        select case when refused_until > clock_timestamp() then 0
            else greatest(0, coalesce(cast(:quota as integer) - (select held from counts), 1000000)) end as permits
        from sandbox_fleet
    ),
    wanted as (
        select (select count(*) from queue where not is_preview)
            - (select permits from room)
            - (select count(*) from permits where reclaimed_at is not null and held_since is not null) as previews
    ),
    oldest as (
        select build_id from permits
        where role = 'preview' and held_since is not null and reclaimed_at is null
        order by held_since, build_id
        limit (select greatest(0, coalesce(previews, 0)) from wanted)
    )
    update permits set reclaimed_at = clock_timestamp()
    from oldest where permits.build_id = oldest.build_id
    returning permits.build_id
    """
).bindparams(bindparam("stale", type_=Interval()))

_TO_CLOSE = text(
    "select build_id from permits where reclaimed_at < clock_timestamp() - :age and held_since is not null"
).bindparams(bindparam("age", type_=Interval()))

_LOST = text(
    """
    delete from permits using builds as build
    where build.id = permits.build_id
        and (
            (build.status in ('sleeping', 'needs_input', 'waiting') and permits.held_since is not null)
            or (
                build.closed_at is not null
                and not exists (
                    select 1 from previews
                    where previews.build_id = build.id and previews.state in ('opening', 'open')
                )
            )
        )
        and greatest(permits.held_since, permits.checked_at) < clock_timestamp() - :age
        and not (permits.build_id = any(:running))
    returning permits.build_id
    """
).bindparams(bindparam("age", type_=Interval()), bindparam("running", type_=ARRAY(UUID(as_uuid=True))))

_RECORD_RUNNING = text(
    """
    insert into permits (build_id, role, queued_at, checked_at, held_since)
    select builds.id, :role, clock_timestamp(), clock_timestamp(), clock_timestamp()
    from builds where builds.id = :build_id
    on conflict (build_id) do update set held_since = excluded.held_since, checked_at = excluded.checked_at
    where permits.held_since is null
    returning build_id
    """
).bindparams(bindparam("build_id", type_=UUID(as_uuid=True)))

_COUNT = text(
    """
    select count(*) filter (where held_since is not null)
            + (select count(*) from push_permits where expires_at > clock_timestamp()),
        count(*) filter (where held_since is null),
        count(*) filter (where held_since is not null and role = 'preview')
    from permits
    """
)

_FORGET_PUSHES = text("delete from push_permits where expires_at <= clock_timestamp()")

_PUSH_RUNS = text("select 1 from push_permits where build_id = :build_id").bindparams(
    bindparam("build_id", type_=UUID(as_uuid=True))
)

_TAKE_FOR_PUSH = text(
    f"""
    with {_QUEUE}
    insert into push_permits (build_id, claim, expires_at)
    select :build_id, :claim, clock_timestamp() + :lasts
    from counts, sandbox_fleet as fleet
    where not coalesce(fleet.refused_until > clock_timestamp(), false)
        and (cast(:per_second as float8) is null or fleet.next_start_at < clock_timestamp() + :longest)
        and (cast(:quota as integer) is null
            or counts.held + (select count(*) from queue where not is_preview) < cast(:quota as integer))
    returning build_id
    """
).bindparams(
    bindparam("build_id", type_=UUID(as_uuid=True)),
    bindparam("claim", type_=UUID(as_uuid=True)),
    bindparam("lasts", type_=Interval()),
    bindparam("stale", type_=Interval()),
    bindparam("longest", type_=Interval()),
)

_GIVE_BACK_PUSH = text("delete from push_permits where build_id = :build_id and claim = :claim").bindparams(
    bindparam("build_id", type_=UUID(as_uuid=True)), bindparam("claim", type_=UUID(as_uuid=True))
)


async def take_permit(
    tx: Transaction,
    build_id: uuid.UUID,
    role: str,
    quota: int | None,
    starts_per_second: float | None = None,
    patience: timedelta = timedelta(),
) -> Place:
    """Take a permit for the build's sandbox of this role if one is free for it; otherwise stand in line.

    A build that holds one keeps it, for this role.

    Args:
        tx: a transaction of its own.
        build_id: the build.
        role: what the sandbox is for.
        quota: sandboxes that may run at once; None for no limit.
        starts_per_second: so many may start; if more want to than can start within `START_WAIT_MAX`, the others queue.
        patience: the place in the queue is kept this much longer than `STALE`.
    """
    await _lock(tx)
    held = (await tx.execute(_STAND_IN_LINE, {"build_id": build_id, "role": role, "patience": patience})).scalar()
    if held:
        return Place(held=True)
    pace = starts_per_second or None
    values = {"build_id": build_id, "quota": quota, "stale": STALE, "per_second": pace, "longest": START_WAIT_MAX}
    row = (await tx.execute(_TAKE, values)).one()
    if not row["held"]:
        return Place(held=False, ahead=int(row["ahead"]), refused=bool(row["refused"]))
    if pace is None:
        return Place(held=True)
    [wait] = (await tx.execute(_SPACE_STARTS, {"per_second": pace})).one()
    return Place(held=True, wait_seconds=float(wait))


async def take_permit_anyway(tx: Transaction, build_id: uuid.UUID, role: str) -> None:
    """Take a permit even if none is free, for the last step of a build, which must not wait."""
    await _lock(tx)
    await tx.execute(_STAND_IN_LINE, {"build_id": build_id, "role": role, "patience": timedelta()})
    await tx.execute(_TAKE_ANYWAY, {"build_id": build_id})


async def give_back_permit(tx: Transaction, build_id: uuid.UUID) -> bool:
    """Give the build's permit back, or leave the queue. Return whether it held one.

    Call it only once none of the build's sandboxes runs.
    """
    await _lock(tx)
    held = bool((await tx.execute(_GIVE_BACK, {"build_id": build_id})).scalar())
    if held:
        await tx.execute(_CALM, {})
    return held


async def note_refusal(tx: Transaction, build_id: uuid.UUID) -> None:
    """Put a build back to its place in the queue: the sandbox service has refused its sandbox, permit or not."""
    await _lock(tx)
    await tx.execute(
        _REFUSED,
        {"build_id": build_id, "forget": FORGET_REFUSAL, "longest": COOL_DOWN_MAX, "shortest": COOL_DOWN},
    )


@dataclass(frozen=True)
class PushPlace:
    """What an attempt to take a permit for a push came to."""

    held: bool
    is_running: bool = False
    """Another push of the build holds one."""
    wait_seconds: float = 0.0
    """Wait this long before the sandbox is started, so that not too many start in a second."""


async def take_push_permit(
    tx: Transaction,
    build_id: uuid.UUID,
    claim: uuid.UUID,
    lasts: timedelta,
    quota: int | None,
    starts_per_second: float | None = None,
) -> PushPlace:
    """Take a permit for a push if one is free that no build waits for. A push has no place in the queue.

    Args:
        tx: a transaction of its own.
        build_id: the build; it has one push at a time.
        claim: names the push.
        lasts: the permit ends by itself after this long.
        quota: sandboxes that may run at once; None for no limit.
        starts_per_second: so many may start.
    """
    await _lock(tx)
    await tx.execute(_FORGET_PUSHES, {})
    if (await tx.execute(_PUSH_RUNS, {"build_id": build_id})).first() is not None:
        return PushPlace(held=False, is_running=True)
    pace = starts_per_second or None
    values = {"build_id": build_id, "claim": claim, "lasts": lasts, "quota": quota, "per_second": pace}
    row = (await tx.execute(_TAKE_FOR_PUSH, {**values, "stale": STALE, "longest": START_WAIT_MAX})).first()
    if row is None:
        return PushPlace(held=False)
    if pace is None:
        return PushPlace(held=True)
    [wait] = (await tx.execute(_SPACE_STARTS, {"per_second": pace})).one()
    return PushPlace(held=True, wait_seconds=float(wait))


async def give_back_push_permit(tx: Transaction, build_id: uuid.UUID, claim: uuid.UUID) -> None:
    """Give the permit of this push back. Its sandbox may not be running."""
    await _lock(tx)
    await tx.execute(_GIVE_BACK_PUSH, {"build_id": build_id, "claim": claim})


async def next_in_queue(tx: Transaction, quota: int | None, unlimited: int = 1) -> list[tuple[uuid.UUID, bool]]:
    """Return the builds for which a permit is free now, in order, each with whether it is for its preview.

    `unlimited`: how many to return if there is no quota. Then builds queue only after the service has refused one.
    """
    rows = await tx.execute(_NEXT, {"quota": quota, "unlimited": unlimited, "stale": STALE})
    return [(row["build_id"], bool(row["is_preview"])) for row in rows]


async def reclaim_previews(tx: Transaction, quota: int | None) -> list[uuid.UUID]:
    """Mark as many previews to be closed as builds wait, those first that have been open the longest; return them.

    Without a quota, builds wait only while the service refuses sandboxes.
    """
    await _lock(tx)
    return [row["build_id"] for row in await tx.execute(_RECLAIM, {"quota": quota, "stale": STALE})]


async def previews_to_close(tx: Transaction, older_than: timedelta) -> list[uuid.UUID]:
    """Return the previews that were to be closed longer ago than this and still hold a permit."""
    return [row["build_id"] for row in await tx.execute(_TO_CLOSE, {"age": older_than})]


async def return_lost_permits(
    tx: Transaction, running: Collection[uuid.UUID], older_than: timedelta
) -> list[uuid.UUID]:
    """Give back the permits of builds that need none now and have no sandbox running, and return these builds.

    A crash between a pause and its record leaves one. A build that works keeps its permit, also while its sandbox is
    paused for want of use: its next call resumes it.

    Args:
        running: builds with a running sandbox, listed before this transaction began.
        older_than: spare a permit that was taken, or asked for, less long ago: its sandbox may be starting.
    """
    await _lock(tx)
    rows = await tx.execute(_LOST, {"running": list(running), "age": older_than})
    return [row["build_id"] for row in rows]


async def record_running(tx: Transaction, build_id: uuid.UUID, role: str) -> bool:
    """Count a sandbox that runs without a permit, such as one that an older worker has started."""
    await _lock(tx)
    return (await tx.execute(_RECORD_RUNNING, {"build_id": build_id, "role": role})).first() is not None


@dataclass(frozen=True)
class PermitCounts:
    """How many permits are held, how many of these by previews, and how many builds and previews wait for one."""

    held: int
    queued: int
    previews: int


async def count_permits(tx: Transaction) -> PermitCounts:
    """Count the permits."""
    held, queued, previews = (await tx.execute(_COUNT, {})).one()
    return PermitCounts(int(held), int(queued), int(previews))


async def _lock(tx: Transaction) -> None:
    await tx.execute(_LOCK, {})
