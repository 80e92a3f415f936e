"""Whether the database is the latest: it counts a generation up, and the object store has a copy of it.

The copy is written after the number is committed. If it is higher than the database's, the database was put back to an
earlier state, and its rows do not say what the store must keep.
"""

import uuid

from clients.object_store import ObjectStore
from db.deployment import advance_generation, read_generation
from db.session import Sessions
from db.transaction import transaction
from domain.errors import NotFound


async def count_generation(sessions: Sessions, store: ObjectStore) -> bool:
    """Count the generation up, in the database and then in the store, unless the store is ahead.

    Returns:
        Whether the rows are the latest. False also if the database is not bound.

    Raises:
        StoreUnavailable, NeedsPerson: the store did not take or give the copy.
    """
    async with transaction(sessions) as tx:
        ours = await read_generation(tx)
    if ours is None:
        return False
    stored = await _stored(store, ours.deployment_id)
    async with transaction(sessions) as tx:
        now = await read_generation(tx)  # after reading the store: another reaper may have counted on
        if now is None or stored > now.number:
            return False
        advanced = await advance_generation(tx)
    if advanced is not None:
        await store.put(_key(advanced.deployment_id), str(advanced.number).encode(), "text/plain")
    return True


async def trust_rows(sessions: Sessions, store: ObjectStore) -> None:
    """Declare the rows the latest, after a database that was put back has been compared with everything else.

    Until then the reaper deletes no object.

    Raises:
        StoreUnavailable, NeedsPerson: the store did not take or give the copy.
    """
    async with transaction(sessions) as tx:
        ours = await read_generation(tx)
    if ours is None:
        return
    stored = await _stored(store, ours.deployment_id)
    async with transaction(sessions) as tx:
        await advance_generation(tx, at_least=stored + 1)
    await count_generation(sessions, store)


def _key(deployment_id: uuid.UUID) -> str:
    return f"control/{deployment_id}/generation"


async def _stored(store: ObjectStore, deployment_id: uuid.UUID) -> int:
    """The store's copy; 0 if there is none."""
    try:
        return int(await store.get(_key(deployment_id), 100))
    except (NotFound, ValueError):
        return 0
