"""Writes the dashboards in `deploy/observability/dashboards/`, as JSON that Grafana imports.

python -m scripts.dashboards           # --check: only say whether they are up to date
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "deploy" / "observability" / "dashboards"

_WIDTH, _HEIGHT = 8, 8
"""Of a panel, in Grafana's grid of 24 columns."""


@dataclass(frozen=True)
class Panel:
    """A graph of one or several queries. `unit` is Grafana's name of it."""

    title: str
    queries: Sequence[tuple[str, str]]
    """PromQL and legend."""
    unit: str = "short"


@dataclass(frozen=True)
class Dashboard:
    """A page of panels."""

    name: str
    title: str
    panels: Sequence[Panel]


def _percentile(share: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket[5m])))"


FLEET = Dashboard(
    "fleet",
    "Cofounder: fleet",
    [
        Panel(
            "Open builds",
            [
                (
                    "max by (status, waiting_for, dependency) (cofounder_builds)",
                    "{{status}} {{waiting_for}}{{dependency}}",
                )
            ],
        ),
        Panel(
            "Longest in a status",
            [
                (
                    "max by (status, waiting_for, dependency) (cofounder_builds_oldest_seconds)",
                    "{{status}} {{waiting_for}}{{dependency}}",
                ),
                ("max(cofounder_builds_silent_seconds)", "without an event"),
            ],
            "s",
        ),
        Panel("Turns", [("sum by (outcome) (rate(cofounder_turns_total[5m])) * 60", "{{outcome}}")], "opm"),
        Panel(
            "Sandboxes",
            [
                ("max by (state) (cofounder_permits)", "{{state}}"),
                ("max(cofounder_permits_quota)", "quota"),
                ("max(cofounder_previews)", "previews"),
                ("max(cofounder_slots_queued)", "wait for a slot"),
            ],
        ),
        Panel(
            "Spent today",
            [
                ("max by (state) (cofounder_spend_today_microdollars) / 1e6", "{{state}}"),
                ("max(cofounder_spend_limit_microdollars) / 1e6", "limit"),
            ],
            "currencyUSD",
        ),
        Panel("Dependencies", [("max by (dependency) (cofounder_dependency_up)", "{{dependency}}")]),
        Panel(
            "Start to first call",
            [
                (_percentile(0.5, "cofounder_start_to_call_seconds"), "half"),
                (_percentile(0.99, "cofounder_start_to_call_seconds"), "99 %"),
            ],
            "s",
        ),
        Panel(
            "Wake to call",
            [
                (_percentile(0.5, "cofounder_wake_to_call_seconds"), "half"),
                (_percentile(0.99, "cofounder_wake_to_call_seconds"), "99 %"),
            ],
            "s",
        ),
        Panel(
            "Turns without model and tools",
            [
                (_percentile(0.5, "cofounder_turn_overhead_seconds"), "half"),
                (_percentile(0.99, "cofounder_turn_overhead_seconds"), "99 %"),
            ],
            "s",
        ),
        Panel("Model calls", [("sum by (outcome) (rate(cofounder_model_calls_total[5m])) * 60", "{{outcome}}")], "opm"),
        Panel(
            "Length of model calls",
            [(_percentile(0.95, "cofounder_model_call_seconds", "model"), "{{model}}, 95 %")],
            "s",
        ),
        Panel(
            "Tokens",
            [("sum by (model, kind) (rate(cofounder_model_tokens_total[5m])) * 60", "{{model}} {{kind}}")],
            "opm",
        ),
        Panel("Snapshots", [("sum by (result) (rate(cofounder_snapshots_total[5m])) * 60", "{{result}}")], "opm"),
        Panel("Evidence gates", [("sum by (result) (increase(cofounder_gates_total[1h]))", "{{result}}")]),
        Panel(
            "Reaper and prober",
            [("time() - max by (step) (cofounder_schedule_timestamp_seconds)", "{{step}}, last ended")],
            "s",
        ),
    ],
)

PROGRAMS = Dashboard(
    "programs",
    "Cofounder: workers and APIs",
    [
        Panel("Programs", [("max by (role, version) (cofounder_processes)", "{{role}} {{version}}")]),
        Panel(
            "Activities wait to start",
            [(_percentile(0.95, "temporal_activity_schedule_to_start_latency_seconds"), "95 %")],
            "s",
        ),
        Panel(
            "Activities run",
            [
                (
                    _percentile(0.95, "temporal_activity_execution_latency_seconds", "activity_type"),
                    "{{activity_type}}, 95 %",
                )
            ],
            "s",
        ),
        Panel(
            "Workflow tasks",
            [
                (_percentile(0.95, "temporal_workflow_task_execution_latency_seconds"), "run, 95 %"),
                (_percentile(0.95, "temporal_workflow_task_replay_latency_seconds"), "replay, 95 %"),
            ],
            "s",
        ),
        Panel(
            "Slots that are free", [("sum by (worker_type) (temporal_worker_task_slots_available)", "{{worker_type}}")]
        ),
        Panel("Cached workflows", [("sum(temporal_sticky_cache_size)", "cached")]),
        Panel("CPU", [("rate(process_cpu_seconds_total[5m])", "{{job}} {{instance}}")], "percentunit"),
        Panel("Memory", [("process_resident_memory_bytes", "{{job}} {{instance}}")], "bytes"),
        Panel("Open files", [("process_open_fds", "{{job}} {{instance}}")]),
        Panel(
            "Connections to the database",
            [("sum by (instance, state) (cofounder_pool_connections)", "{{instance}} {{state}}")],
        ),
        Panel("Requests", [("sum by (status) (rate(cofounder_api_requests_total[5m]))", "{{status}}")], "reqps"),
        Panel("Slow routes", [(_percentile(0.95, "cofounder_api_request_seconds", "route"), "{{route}}, 95 %")], "s"),
        Panel(
            "Events of builds to their viewers",
            [
                (_percentile(0.5, "cofounder_feed_lag_seconds"), "half"),
                (_percentile(0.99, "cofounder_feed_lag_seconds"), "99 %"),
            ],
            "s",
        ),
        Panel("Open feeds", [("sum by (feed) (cofounder_feed_viewers)", "{{feed}}")]),
        Panel("Webhooks", [("max(cofounder_webhook_deliveries_queued)", "not delivered")]),
    ],
)

DASHBOARDS = (FLEET, PROGRAMS)


def rendered(dashboard: Dashboard) -> str:
    """The dashboard as Grafana's JSON."""
    document: dict[str, Any] = {
        "uid": f"cofounder-{dashboard.name}",
        "title": dashboard.title,
        "schemaVersion": 39,
        "tags": ["cofounder"],
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}],
        },
        "panels": list(_panels(dashboard.panels)),
    }
    return json.dumps(document, indent=1) + "\n"


def _panels(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    source = {"type": "prometheus", "uid": "${source}"}
    for number, panel in enumerate(panels):
        row, column = divmod(number, 24 // _WIDTH)
        yield {
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": source,
            "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": source,
                    "expr": query,
                    "legendFormat": legend,
                    "exemplar": query.startswith("histogram_quantile("),
                }
                for index, (query, legend) in enumerate(panel.queries)
            ],
        }


def main() -> int:
    """Write the files; with `--check`, return 1 if one is not up to date."""
    outdated = []
    for dashboard in DASHBOARDS:
        path, text = DIRECTORY / f"{dashboard.name}.json", rendered(dashboard)
        if not path.exists() or path.read_text() != text:
            outdated.append(path)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    return 1 if outdated and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
