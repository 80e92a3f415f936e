"""Permits on a real database: never more than the quota, first come first served, and fair between users."""

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db import permits
from db.models import Build, Permit, Preview
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.build_rows import builds_of

NOW = timedelta()


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    """A database of its own: permits are counted over all builds."""
    engine = make_engine(await new_database(stack), pool_size=10)
    yield make_sessions(engine)
    await engine.dispose()


async def take(
    sessions: Sessions, build_id: uuid.UUID, quota: int | None, role: str = "workspace", pace: float | None = None
) -> permits.Place:
    async with transaction(sessions) as tx:
        return await permits.take_permit(tx, build_id, role, quota, pace)


async def give_back(sessions: Sessions, build_id: uuid.UUID) -> bool:
    async with transaction(sessions) as tx:
        return await permits.give_back_permit(tx, build_id)


async def change(sessions: Sessions, row: type[Any], key: uuid.UUID, **values: Any) -> None:
    async with transaction(sessions) as tx:
        found = await tx.session.get_one(row, key)
        for name, value in values.items():
            setattr(found, name, value)


async def queue(sessions: Sessions, quota: int | None) -> list[uuid.UUID]:
    async with transaction(sessions) as tx:
        return [build_id for build_id, _ in await permits.next_in_queue(tx, quota)]


async def test_builds_beyond_the_quota_queue_in_order(sessions: Sessions) -> None:
    first, second, third, fourth = await builds_of(sessions, "a", 4)
    assert (await take(sessions, first, 1)).held
    assert await take(sessions, second, 1) == permits.Place(held=False, ahead=0)
    assert await take(sessions, third, 1) == permits.Place(held=False, ahead=1)
    assert (await take(sessions, first, 1, "gate")).held, "the gate's sandbox uses the same permit"
    assert await queue(sessions, 1) == []
    assert await give_back(sessions, first)
    assert not await give_back(sessions, first)
    assert await queue(sessions, 1) == [second]
    assert not (await take(sessions, third, 1)).held, "it is not its turn"
    assert not (await take(sessions, fourth, 1)).held
    assert (await take(sessions, second, 1)).held
    assert (await take(sessions, third, None)).held, "without a quota there is always one"


async def test_a_user_with_fewer_permits_goes_first(sessions: Sessions) -> None:
    mine = await builds_of(sessions, "a", 4)
    for build_id in mine:
        await take(sessions, build_id, 1)
    theirs = await builds_of(sessions, "b", 2)
    for build_id in theirs:
        await take(sessions, build_id, 1)
    assert await queue(sessions, 6) == [theirs[0], mine[1], theirs[1], mine[2], mine[3]]
    assert await queue(sessions, 3) == [theirs[0], mine[1]]


async def test_users_take_turns(sessions: Sessions) -> None:
    mine = await builds_of(sessions, "a", 3)
    [theirs] = await builds_of(sessions, "b", 1)
    for build_id in (*mine, theirs):
        await take(sessions, build_id, 1)
    async with transaction(sessions) as tx:
        await tx.session.execute(
            text("update builds set status = 'failed', closed_at = now() where id = :id"), {"id": mine[0]}
        )
    await give_back(sessions, mine[0])
    assert await queue(sessions, 3) == [theirs, mine[1], mine[2]], "a's first build has had its turn"


async def test_a_place_that_is_not_checked_is_skipped_and_kept(sessions: Sessions) -> None:
    first, second, third = await builds_of(sessions, "a", 3)
    for build_id in (first, second, third):
        await take(sessions, build_id, 1)
    async with transaction(sessions) as tx:
        stale = text("update permits set checked_at = checked_at - interval '361 seconds' where build_id = :id")
        await tx.session.execute(stale, {"id": second})
    await give_back(sessions, first)
    assert await queue(sessions, 1) == [third]
    assert (await take(sessions, second, 1)).held, "it stands before the third again"


async def test_previews_come_last_and_close_first(sessions: Sessions) -> None:
    shown, other, waiting, later = await builds_of(sessions, "a", 4)
    for build_id in (other, shown):
        await take(sessions, build_id, 2)
        await take(sessions, build_id, 2, "preview")
    async with transaction(sessions) as tx:
        assert await permits.reclaim_previews(tx, 2) == [], "no build waits"
    assert not (await take(sessions, later, 2, "preview")).held
    async with transaction(sessions) as tx:
        assert await permits.reclaim_previews(tx, 2) == [], "a preview closes no other preview"
    assert await take(sessions, waiting, 2) == permits.Place(held=False, ahead=0), "builds come before previews"
    async with transaction(sessions) as tx:
        assert await permits.reclaim_previews(tx, 2) == [other], "the one that has been open the longest"
    async with transaction(sessions) as tx:
        assert await permits.reclaim_previews(tx, 2) == [], "one is enough"
        assert await permits.previews_to_close(tx, NOW) == [other]
        assert await permits.previews_to_close(tx, timedelta(hours=1)) == []
    await give_back(sessions, other)
    assert await queue(sessions, 2) == [waiting]


async def test_a_refusal_of_the_service_pauses_new_permits(sessions: Sessions) -> None:
    first, second, holder = await builds_of(sessions, "a", 3)
    await take(sessions, holder, None)
    await take(sessions, first, None)
    async with transaction(sessions) as tx:
        await permits.note_refusal(tx, first)
    assert await take(sessions, second, None) == permits.Place(held=False, ahead=1, refused=True)
    assert await take(sessions, first, None) == permits.Place(held=False, ahead=0, refused=True)
    assert (await take(sessions, holder, None)).held, "what runs goes on"
    assert await queue(sessions, None) == []
    await take(sessions, holder, None, "preview")
    async with transaction(sessions) as tx:
        assert await permits.reclaim_previews(tx, None) == [holder]
    await give_back(sessions, holder)
    assert await queue(sessions, None) == [first], "a sandbox has ended, so there is room for one"
    assert (await take(sessions, first, None)).held
    for expected in (30, 60):
        async with transaction(sessions) as tx:
            await permits.note_refusal(tx, first)
            seconds = await tx.session.scalar(
                text("select extract(epoch from refused_until - refused_at) from sandbox_fleet")
            )
            await tx.session.execute(text("update sandbox_fleet set refused_until = null"))
        assert float(seconds or 0) == pytest.approx(expected, abs=1)


async def test_starts_are_spaced(sessions: Sessions) -> None:
    waits = [(await take(sessions, each, None, pace=0.5)).wait_seconds for each in await builds_of(sessions, "a", 3)]
    assert waits[0] == 0
    assert waits[1] == pytest.approx(2, abs=1.5)
    assert waits[2] == pytest.approx(4, abs=1.5)


async def test_lost_permits_are_returned(sessions: Sessions) -> None:
    works, sleeps, runs, closed, shown, gone, queued = await builds_of(sessions, "a", 7)
    for build_id in (works, sleeps, runs, closed, shown, gone):
        await take(sessions, build_id, 6)
    await take(sessions, queued, 6)
    await change(sessions, Build, works, status="code")
    for build_id in (sleeps, runs):
        await change(sessions, Build, build_id, status="sleeping")
    async with transaction(sessions) as tx:
        await tx.session.execute(
            text("update builds set status = 'failed', closed_at = now() where id = any(:ids)"),
            {"ids": [closed, shown, gone]},
        )
        for build_id, state in ((shown, "open"), (gone, "closed")):
            tx.session.add(Preview(build_id=build_id, state=state))
    async with transaction(sessions) as tx:
        assert await permits.return_lost_permits(tx, [runs], timedelta(hours=1)) == [], "one may be starting"
    async with transaction(sessions) as tx:
        assert set(await permits.return_lost_permits(tx, [runs], NOW)) == {sleeps, closed, gone}
        assert await permits.count_permits(tx) == permits.PermitCounts(held=3, queued=1, previews=0)
    async with transaction(sessions) as tx:
        assert await permits.record_running(tx, sleeps, "workspace"), "an older worker has started it"
        assert not await permits.record_running(tx, sleeps, "workspace")
        assert not await permits.record_running(tx, uuid.uuid4(), "workspace"), "another deployment's"


async def test_never_more_than_the_quota(sessions: Sessions) -> None:
    """Twelve builds take permits and give them back side by side, with every kind of step between."""
    quota, peak, served = 3, 0, 0
    running: set[uuid.UUID] = set()
    builds = [*await builds_of(sessions, "a", 9), *await builds_of(sessions, "b", 3)]

    async def live(build_id: uuid.UUID) -> None:
        nonlocal peak, served
        for role in ("workspace", "gate", "preview"):
            while not (await take(sessions, build_id, quota, role)).held:
                await asyncio.sleep(random.uniform(0, 0.02))
            running.add(build_id)
            peak = max(peak, len(running))
            await asyncio.sleep(random.uniform(0, 0.02))
            if random.random() < 0.5 or role == "preview":
                running.discard(build_id)
                await give_back(sessions, build_id)
        served += 1

    await asyncio.gather(*(live(each) for each in builds))
    assert (peak, served) == (quota, len(builds))
    async with transaction(sessions) as tx:
        assert (await tx.session.get(Permit, builds[0])) is None


async def test_no_more_sandboxes_start_in_a_second_however_many_want_to(sessions: Sessions) -> None:
    shown, *crowd = await builds_of(sessions, "a", 31)
    await take(sessions, shown, None)
    await take(sessions, shown, None, "preview")
    places = [await take(sessions, build_id, None, pace=1) for build_id in crowd]
    waits = sorted(place.wait_seconds for place in places if place.held)
    assert all(after - before > 0.5 for before, after in itertools.pairwise(waits)), waits
    assert 15 < len(waits) < 25
    assert max(waits) < 30, "a claim has half a minute"
    assert await queue(sessions, 100) == crowd[len(waits) :], "the others are told as soon as they may"
    async with transaction(sessions) as tx:
        assert await permits.reclaim_previews(tx, None) == [], "they do not wait for a preview to close"


async def test_a_build_that_checks_rarely_keeps_its_place(sessions: Sessions) -> None:
    first, patient, other = await builds_of(sessions, "a", 3)
    assert (await take(sessions, first, 1)).held
    async with transaction(sessions) as tx:
        await permits.take_permit(tx, patient, "workspace", 1, patience=timedelta(hours=1))
    assert not (await take(sessions, other, 1)).held
    async with transaction(sessions) as tx:
        # Half an hour later.
        await tx.session.execute(text("update permits set checked_at = checked_at - interval '30 minutes'"))
    assert await give_back(sessions, first)
    assert await queue(sessions, 1) == [patient]


async def take_for_push(
    sessions: Sessions, build_id: uuid.UUID, quota: int | None, claim: uuid.UUID, lasts: timedelta = permits.STALE
) -> permits.PushPlace:
    async with transaction(sessions) as tx:
        return await permits.take_push_permit(tx, build_id, claim, lasts, quota)


async def end_push(sessions: Sessions, build_id: uuid.UUID, claim: uuid.UUID) -> None:
    async with transaction(sessions) as tx:
        await permits.give_back_push_permit(tx, build_id, claim)


async def test_a_push_counts_and_goes_behind_builds_that_wait(sessions: Sessions) -> None:
    first, second, third, pushed = await builds_of(sessions, "a", 4)
    claim, other = uuid.uuid4(), uuid.uuid4()
    assert (await take(sessions, first, 2)).held
    assert (await take_for_push(sessions, pushed, 2, claim)).held
    assert (await take_for_push(sessions, pushed, 9, other)).is_running, "one push of a build at a time"
    assert not (await take_for_push(sessions, second, 2, other)).held
    assert not (await take(sessions, second, 2)).held, "the push has the last permit"
    async with transaction(sessions) as tx:
        assert await permits.count_permits(tx) == permits.PermitCounts(held=2, queued=1, previews=0)
    await end_push(sessions, pushed, other)
    assert not (await take(sessions, second, 2)).held, "only its own claim ends a push"
    await end_push(sessions, pushed, claim)
    assert await queue(sessions, 2) == [second]
    assert not (await take_for_push(sessions, third, 2, other)).held, "a build waits for it"
    assert (await take(sessions, second, 2)).held
    assert (await take_for_push(sessions, third, None, other)).held


async def test_the_permit_of_a_killed_push_ends_by_itself(sessions: Sessions) -> None:
    first, second = await builds_of(sessions, "a", 2)
    assert (await take_for_push(sessions, first, 1, uuid.uuid4(), timedelta(0))).held
    assert (await take_for_push(sessions, first, 1, uuid.uuid4(), timedelta(0))).held
    assert (await take(sessions, second, 1)).held


async def test_no_push_begins_while_the_service_refuses_sandboxes(sessions: Sessions) -> None:
    refused, pushed = await builds_of(sessions, "a", 2)
    assert (await take(sessions, refused, None)).held
    async with transaction(sessions) as tx:
        await permits.note_refusal(tx, refused)
    assert not (await take_for_push(sessions, pushed, None, uuid.uuid4())).held
