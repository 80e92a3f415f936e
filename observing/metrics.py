"""The metrics of this program, by their Prometheus names. Labels never hold ids: each value is a series of its own.

`observing/fleet.py` reads gauges of the whole fleet when someone asks; the rest is counted in the process where it
happens. Temporal's SDK adds its own, which begin with `temporal_`.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of all series, which no one reads

REGISTRY = CollectorRegistry()
"""Everything that `/metrics` shows, apart from what Temporal's SDK counts."""

ProcessCollector(registry=REGISTRY)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# ---- the fleet, read from the database

BUILDS = Gauge("cofounder_builds", "Open builds", ["status", "waiting_for", "dependency"], registry=REGISTRY)
BUILDS_OLDEST = Gauge(
    "cofounder_builds_oldest_seconds",
    "Time since the longest of these builds has had its status",
    ["status", "waiting_for", "dependency"],
    registry=REGISTRY,
)
BUILDS_SILENT = Gauge(
    "cofounder_builds_silent_seconds",
    "Time since the last event of the working build that has been silent for longest",
    registry=REGISTRY,
)
BUILDS_LOST = Gauge("cofounder_builds_lost", "Open builds whose workflow Temporal does not know", registry=REGISTRY)
SLOTS_QUEUED = Gauge("cofounder_slots_queued", "Builds that wait for another one of their user", registry=REGISTRY)
PERMITS = Gauge("cofounder_permits", "Permits for sandboxes", ["state"], registry=REGISTRY)
PERMITS_QUOTA = Gauge(
    "cofounder_permits_quota", "Sandboxes that may run at once; infinite without a limit", registry=REGISTRY
)
PERMITS_OLDEST = Gauge(
    "cofounder_permits_queue_oldest_seconds",
    "Time for which the first in the queue has waited",
    registry=REGISTRY,
)
PREVIEWS = Gauge("cofounder_previews", "Open previews", registry=REGISTRY)
DEPENDENCY_UP = Gauge(
    "cofounder_dependency_up",
    "Whether a dependency answers: 1, 0, or 0.5 while builds that have waited for it go on",
    ["dependency"],
    registry=REGISTRY,
)
SPEND_TODAY = Gauge(
    "cofounder_spend_today_microdollars",
    "What all builds have spent and reserved in this UTC day",
    ["state"],
    registry=REGISTRY,
)
SPEND_LIMIT = Gauge(
    "cofounder_spend_limit_microdollars", "The fleet's limit of a day; infinite without one", registry=REGISTRY
)
LEDGER_DRIFT = Gauge(
    "cofounder_ledger_drift_microdollars",
    "How far the totals of today and yesterday are from the sums of their rows",
    registry=REGISTRY,
)
REAPER_ALERT = Gauge(
    "cofounder_reaper_alert", "Whether a step of the reaper has something for operators", ["step"], registry=REGISTRY
)
PROCESSES = Gauge("cofounder_processes", "Programs that run", ["role", "version"], registry=REGISTRY)
ROLE_WORKERS = Gauge(
    "cofounder_role_workers", "Workers that take the work of a role that builds need", ["role"], registry=REGISTRY
)
WEBHOOKS_QUEUED = Gauge("cofounder_webhook_deliveries_queued", "Deliveries that have not ended", registry=REGISTRY)
WEBHOOKS_OLDEST = Gauge(
    "cofounder_webhook_deliveries_overdue_seconds", "Time since the first delivery was due", registry=REGISTRY
)
FLEET_READ = Gauge("cofounder_fleet_read_timestamp_seconds", "When these were last read", registry=REGISTRY)

# ---- builds

TURNS = Counter("cofounder_turns_total", "Turns, by how they ended", ["outcome"], registry=REGISTRY)
TURN_OVERHEAD = Histogram(
    "cofounder_turn_overhead_seconds",
    "Time of a turn's activity without its model call",
    buckets=_SECONDS,
    registry=REGISTRY,
)
START_TO_CALL = Histogram(
    "cofounder_start_to_call_seconds",
    "Time from a build's admission to its first model call",
    buckets=_SECONDS,
    registry=REGISTRY,
)
WAKE_TO_CALL = Histogram(
    "cofounder_wake_to_call_seconds",
    "Time from the last check of its budget or permit to a build's next model call, after it has slept or waited",
    buckets=_SECONDS,
    registry=REGISTRY,
)
SNAPSHOTS = Counter("cofounder_snapshots_total", "Attempts to take a snapshot", ["result"], registry=REGISTRY)
SNAPSHOT_SECONDS = Histogram(
    "cofounder_snapshot_seconds", "Time that a stored snapshot has taken", buckets=_SECONDS, registry=REGISTRY
)
GATES = Counter("cofounder_gates_total", "Runs of the evidence gate", ["result"], registry=REGISTRY)

# ---- model calls

MODEL_CALLS = Counter("cofounder_model_calls_total", "Model calls", ["model", "outcome"], registry=REGISTRY)
MODEL_SECONDS = Histogram(
    "cofounder_model_call_seconds", "Time of a model call", ["model"], buckets=_SECONDS, registry=REGISTRY
)
MODEL_FIRST_CHUNK = Histogram(
    "cofounder_model_first_chunk_seconds",
    "Time to the first event of a model call",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
MODEL_TOKENS = Counter("cofounder_model_tokens_total", "Tokens that were billed", ["model", "kind"], registry=REGISTRY)

# ---- the reaper and the prober

REAPER_SECONDS = Histogram(
    "cofounder_reaper_step_seconds", "Time of a step of the reaper", ["step"], buckets=_SECONDS, registry=REGISTRY
)
REAPER_FAILURES = Counter(
    "cofounder_reaper_failures_total", "Steps of the reaper that failed", ["step"], registry=REGISTRY
)
SCHEDULE_AT = Gauge(
    "cofounder_schedule_timestamp_seconds",
    "When this worker last ended a step of the reaper or a run of the prober",
    ["step"],
    registry=REGISTRY,
)

# ---- the API

API_REQUESTS = Counter(
    "cofounder_api_requests_total", "Requests that were answered", ["method", "route", "status"], registry=REGISTRY
)
API_SECONDS = Histogram(
    "cofounder_api_request_seconds",
    "Time to the beginning of the response",
    ["method", "route"],
    buckets=_SECONDS,
    registry=REGISTRY,
)

FEED_LAG = Histogram(
    "cofounder_feed_lag_seconds",
    "Time from the writing of an event of a build until it is offered to a viewer",
    buckets=_SECONDS,
    registry=REGISTRY,
)
FEED_VIEWERS = Gauge(
    "cofounder_feed_viewers", "Live feeds that are open, of a build or of an account", ["feed"], registry=REGISTRY
)
for _feed in ("build", "account"):
    FEED_VIEWERS.labels(_feed)

# ---- this process

POOL = Gauge("cofounder_pool_connections", "Connections to the database of this process", ["state"], registry=REGISTRY)
