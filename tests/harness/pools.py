"""How many connections to PostgreSQL processes may open, as `cofounder doctor` counts them."""

from collections.abc import Mapping

from db.session import API_POOL, LISTENERS, WORKER_POOL, pool_of

RESERVED = 3
"""Of max_connections, PostgreSQL keeps these for superusers by default."""

OTHERS = 5
"""Connections of a migration, of commands and of backups at the same time as processes."""


def connections_of(module: str, environment: Mapping[str, object]) -> int:
    """What a process opens at most. `module`: `api` or `worker`."""
    given = environment.get("DATABASE_CONNECTIONS")
    kept = pool_of(None if given is None else int(str(given)), {"api": API_POOL, "worker": WORKER_POOL}[module])
    return 2 * kept + LISTENERS
