"""Shows how many connections to the database this process has."""

from db.session import Sessions
from observing import metrics


def show_pool(sessions: Sessions) -> None:
    """Bring the gauge of connections up to date."""
    pool = sessions.statements.pool
    for state, name in (("in_use", "checkedout"), ("idle", "checkedin")):
        if (count := getattr(pool, name, None)) is not None:  # not every kind of pool counts
            metrics.POOL.labels(state).set(count())
