"""Keeps the gauges of the whole fleet. They are read when someone asks for metrics, and not again for some seconds.

Every worker shows them, so that no worker has to lead. Rules take the maximum over workers.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from clients.cancellation import cancel_and_wait
from db.drift import Drift, find_drift, looks_alone
from db.fleet_figures import FleetFigures, read_fleet_figures
from db.session import Sessions
from db.transaction import transaction
from domain.status import Dependency
from domain.worker_roles import WorkerRole
from observing import metrics

FRESH_SECONDS = 10.0
"""Figures that are younger are shown again."""

DRIFT_SECONDS = 3600.0
"""Compare totals with their rows this often: it reads the ledger of two days."""

DRIFT_AGAIN_SECONDS = 60.0
"""Compare them this often while one is wrong, so that the alert ends soon after a correction."""

_DRIFT_LIMIT_SECONDS = 50.0

_READ_SECONDS = 5.0
"""A database that takes longer counts as away."""

_PROBED = (Dependency.STORE, Dependency.SANDBOX, Dependency.MODEL)
"""Dependencies whose state the prober keeps."""

_UP = {"up": 1.0, "half_open": 0.5, "down": 0.0}

_log = structlog.get_logger(__name__)


class FleetGauges:
    """Reads the fleet's figures into the gauges of `observing/metrics.py`."""

    def __init__(
        self,
        sessions: Sessions,
        temporal_answers: Callable[[], Awaitable[bool]],
        quota: int | None,
        roles: Sequence[WorkerRole] = (WorkerRole.BUILD,),
        *,
        fresh_seconds: float = FRESH_SECONDS,
        drift_seconds: float = DRIFT_SECONDS,
    ) -> None:
        """
        Args:
            temporal_answers: asks Temporal for its health.
            quota: sandboxes that may run at once; None or 0 for no limit.
            roles: that workers must have.
        """
        self._sessions = sessions
        self._temporal_answers = temporal_answers
        self._fresh_seconds = fresh_seconds
        self._drift_seconds = drift_seconds
        self._read_at = -math.inf
        self._drift_at = -math.inf
        self._is_drift_known = False
        self._drift: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._roles = roles
        metrics.PERMITS_QUOTA.set(quota or math.inf)

    async def refresh(self) -> None:
        """Bring the gauges up to date. If the database does not answer, they keep their values and say so."""
        async with self._lock:
            if time.monotonic() - self._read_at < self._fresh_seconds:
                return
            temporal, figures = await asyncio.gather(self._temporal_answers(), self._read())
            metrics.DEPENDENCY_UP.labels("temporal").set(temporal)
            metrics.DEPENDENCY_UP.labels("database").set(figures is not None)
            if figures is not None:
                _show(figures)
                for role in self._roles:
                    metrics.ROLE_WORKERS.labels(role).set(figures.workers_by_role.get(role, 0))
            self._read_at = time.monotonic()
            self._begin_to_look_for_drift()

    async def close(self) -> None:
        """End what runs."""
        if self._drift is not None:
            await cancel_and_wait(self._drift)

    async def _read(self) -> FleetFigures | None:
        try:
            async with asyncio.timeout(_READ_SECONDS), transaction(self._sessions) as tx:
                return await read_fleet_figures(tx, datetime.now(UTC).date())
        except (OSError, SQLAlchemyError, TimeoutError) as error:
            _log.warning("the fleet's figures could not be read", error=type(error).__name__)
            return None

    def _begin_to_look_for_drift(self) -> None:
        is_running = self._drift is not None and not self._drift.done()
        every = min(DRIFT_AGAIN_SECONDS, self._drift_seconds) if self._is_drift_known else self._drift_seconds
        if not is_running and time.monotonic() - self._drift_at >= every:
            self._drift_at = time.monotonic()
            self._drift = asyncio.create_task(self._look_for_drift())

    async def _look_for_drift(self) -> None:
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        try:
            async with asyncio.timeout(_DRIFT_LIMIT_SECONDS), transaction(self._sessions) as tx:
                if not await looks_alone(tx):
                    return  # another process shows what it finds
                drifts = await find_drift(tx, yesterday)
        except (OSError, SQLAlchemyError, TimeoutError) as error:
            _log.warning("the ledger's sums could not be compared", error=type(error).__name__)
            return
        amount = sum(abs(each.spent - each.spent_sum) + abs(each.reserved - each.reserved_sum) for each in drifts)
        metrics.LEDGER_DRIFT.set(amount)
        self._is_drift_known = bool(drifts)
        for each in drifts:
            _log.error("a total is not the sum of its rows", day=str(each.day), **_owner_of(each))


def _owner_of(drift: Drift) -> dict[str, str]:
    return {"shard": drift.whose} if drift.is_of_fleet else {"user_id": drift.whose}


def _show(figures: FleetFigures) -> None:
    for gauge in (metrics.BUILDS, metrics.BUILDS_OLDEST, metrics.PROCESSES, metrics.REAPER_ALERT):
        gauge.clear()
    for group in figures.builds:
        labels = (group.status, group.waiting_for, group.dependency)
        metrics.BUILDS.labels(*labels).set(group.count)
        metrics.BUILDS_OLDEST.labels(*labels).set(group.oldest_seconds)
    metrics.BUILDS_SILENT.set(figures.silent_seconds)
    metrics.BUILDS_LOST.set(figures.lost)
    metrics.SLOTS_QUEUED.set(figures.slots_queued)
    metrics.PERMITS.labels("held").set(figures.permits_held)
    metrics.PERMITS.labels("queued").set(figures.permits_queued)
    metrics.PERMITS_OLDEST.set(figures.permits_oldest_seconds)
    metrics.PREVIEWS.set(figures.previews)
    metrics.SPEND_TODAY.labels("spent").set(figures.spent)
    metrics.SPEND_TODAY.labels("reserved").set(figures.reserved)
    metrics.SPEND_LIMIT.set(math.inf if figures.spend_limit is None else figures.spend_limit)
    metrics.WEBHOOKS_QUEUED.set(figures.deliveries_queued)
    metrics.WEBHOOKS_OLDEST.set(figures.deliveries_overdue_seconds)
    for dependency in _PROBED:
        metrics.DEPENDENCY_UP.labels(dependency).set(_UP[figures.dependencies.get(dependency, "up")])
    for step, alert in figures.reaper_alerts.items():
        metrics.REAPER_ALERT.labels(step).set(alert)
    for role, version, count in figures.processes:
        metrics.PROCESSES.labels(role, version).set(count)
    metrics.FLEET_READ.set_to_current_time()
