"""Rules and dashboards choose by values that labels can have, and each gauge of the fleet has a figure."""

import re
from collections.abc import Mapping
from http import HTTPStatus

import pytest
from prometheus_client import Gauge
from prometheus_client.registry import Collector

from db.fleet_figures import BuildGroup, FleetFigures
from domain.status import Dependency, WaitingFor
from observing import fleet, metrics
from observing.activities import COUNTS, STEPS, CallTime
from observing.model_calls import OUTCOMES
from tests.harness.promql import FILES, load_yaml, matchers

FIGURES = FleetFigures(
    builds=[BuildGroup("waiting", "", "model", 3, 5.0)],
    silent_seconds=1.0,
    lost=2,
    slots_queued=3,
    permits_held=4,
    permits_queued=5,
    permits_oldest_seconds=6.0,
    previews=7,
    spent=8,
    reserved=9,
    spend_limit=10,
    deliveries_queued=11,
    deliveries_overdue_seconds=12.0,
    dependencies={"model": "half_open"},
    reaper_alerts={"builds": True},
    processes=[("worker", "0.1.0", 2)],
)


def _values(metric: Collector, label: str) -> set[str]:
    return {each.labels[label] for family in metric.collect() for each in family.samples if label in each.labels}


@pytest.fixture
def shown() -> None:
    """All that a worker shows with these figures, and after each result of a snapshot."""
    fleet._show(FIGURES)
    for result in (None, object()):
        COUNTS["snapshot_workspace"]("snapshot_workspace", result, 1.0, CallTime())


def _known(metric: str, label: str) -> set[str]:
    """The values that the label can have."""
    jobs = {each["job_name"] for each in load_yaml(FILES / "prometheus.yml")["scrape_configs"]}
    known: Mapping[str, set[str]] = {
        "job": jobs,
        "dependency": {*Dependency, "database", "temporal"},
        "waiting_for": set(WaitingFor),
        "outcome": set(OUTCOMES),
        "step": set(STEPS),
        "status": {str(each.value) for each in HTTPStatus},
    }
    if label in known:
        return known[label]
    if label == "le":
        [histogram] = [
            each for each in vars(metrics).values() if getattr(each, "_name", None) == metric.removesuffix("_bucket")
        ]
        return {str(each) for each in histogram._upper_bounds}
    by_name = {
        "cofounder_snapshots_total": metrics.SNAPSHOTS,
        "cofounder_spend_today_microdollars": metrics.SPEND_TODAY,
    }
    return _values(by_name[metric], label)


@pytest.mark.usefixtures("shown")
def test_rules_and_dashboards_choose_by_values_that_labels_have() -> None:
    chosen = matchers()
    assert {label for _, label, _, _ in chosen} >= {
        "outcome",
        "step",
        "waiting_for",
        "dependency",
        "result",
        "le",
        "job",
    }
    for metric, label, operator, value in chosen:
        alternatives = value.split("|") if operator.endswith("~") else [re.escape(value)]
        for alternative in alternatives:
            known = _known(metric, label)
            assert any(re.fullmatch(alternative, each) for each in known), f"{metric}: {label} is none of {known}"


@pytest.mark.usefixtures("shown")
def test_each_gauge_of_the_fleet_has_its_figure() -> None:
    elsewhere = {metrics.LEDGER_DRIFT, metrics.PERMITS_QUOTA, metrics.ROLE_WORKERS, metrics.POOL}
    elsewhere |= {metrics.SCHEDULE_AT, metrics.FEED_VIEWERS}
    gauges = {each for each in vars(metrics).values() if isinstance(each, Gauge)} - elsewhere
    assert len(gauges) > 12
    for gauge in gauges:
        assert [each for family in gauge.collect() for each in family.samples if each.value], gauge
