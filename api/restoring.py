"""Having a workspace put back to what it was: the wish is a row first, then the signal that announces it."""

import uuid

from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Services, transaction_of
from api.errors import KEY_REUSED, RESTORE_WAITS, SNAPSHOT_NOT_STORED, Problem
from api.saying import announce, locked_build, require_accepts_messages
from db import restores
from db.builds import find_snapshot
from db.models import Restore
from domain.errors import Conflict, NotFound


async def ask_for_restore(
    services: Services,
    user_id: str,
    build_id: uuid.UUID,
    snapshot: int | None,
    commit: str | None,
    idempotency_key: str | None,
) -> tuple[Restore, bool]:
    """Commit the wish, then announce it; whether it is new. The build carries it out between two turns, once.

    Raises:
        NotFound, Conflict, Problem: refused; nothing was stored.
    """
    async with transaction_of(services.sessions) as session:
        build = await locked_build(session, user_id, build_id)
        earlier = None if idempotency_key is None else await restores.find_restore(session, build.id, idempotency_key)
        if earlier is not None:
            same_commit = commit is not None and _is_same(earlier.commit or "", commit)
            if not same_commit and (snapshot is None or earlier.snapshot_number != snapshot):
                raise Problem(KEY_REUSED, "This Idempotency-Key was used for another restore. Use a new key.")
            restore, is_new = earlier, False
        else:
            require_accepts_messages(build)
            if commit is not None:
                commit = await _known_commit(session, build.id, commit)
            else:
                await _check_snapshot(session, build.id, snapshot or 0)
            if waits := await restores.requested_restore(session, build.id):
                raise Problem(
                    RESTORE_WAITS,
                    f"The workspace is about to be put back to {restores.describe_target(waits)}, between two turns. "
                    "Ask again after that.",
                    more={"number": waits.number},
                )
            restore = await restores.add_restore(
                session, build.id, snapshot_number=snapshot, commit=commit, idempotency_key=idempotency_key
            )
            is_new = True
    if restore.state == "requested":
        await announce(services, build, lambda: services.workflows.tell_of_restore(build.id, restore.number))
    return restore, is_new


async def _check_snapshot(session: AsyncSession, build_id: uuid.UUID, number: int) -> None:
    found = await find_snapshot(session, build_id, number)
    if found is None:
        raise NotFound(f"Build {build_id} has no snapshot {number}.")
    if found.state != "stored":
        kept = "it is not kept any more" if found.state == "deleted" else f"its state is `{found.state}`"
        raise Problem(
            SNAPSHOT_NOT_STORED,
            f"Snapshot {number} of build {build_id} can't be restored: {kept}.",
            more={"state": found.state},
        )


async def _known_commit(session: AsyncSession, build_id: uuid.UUID, commit: str) -> str:
    """The commit as the build has it, in as few digits as it is known by."""
    known = [each for each in await restores.commits_of(session, build_id) if _is_same(each, commit)]
    if not known:
        raise NotFound(f"Build {build_id} has no phase that ended with commit {commit}.")
    shortest = min(known, key=len)
    if not all(_is_same(each, shortest) for each in known):
        raise Conflict(f"{commit} is the beginning of several commits of build {build_id}. Give more of it.")
    return shortest


def _is_same(one: str, other: str) -> bool:
    """Whether these are the same commit, each in as many digits as it was given."""
    return bool(one and other) and (one.startswith(other.lower()) or other.lower().startswith(one))
