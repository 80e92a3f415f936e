"""What the alert rules and dashboards ask of Prometheus."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from scripts.dashboards import DASHBOARDS

FILES = Path(__file__).parents[2] / "deploy" / "observability"

_METRIC = re.compile(r"(?<![\w:])(?:cofounder|temporal|process)_[a-z0-9_]+(?![\w:])")
_SELECTOR = re.compile(r"([a-z_:0-9]+)\{([^}]*)\}")
_MATCHER = re.compile(r"(\w+)(=~|!~|!=|=)\"([^\"]*)\"")
_LABELS = re.compile(r"\{[^}]*\}|\bby \([^)]*\)|\bon \([^)]*\)")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file."""
    document: dict[str, Any] = YAML(typ="safe").load(path)
    return document


def load_documents(path: Path) -> list[dict[str, Any]]:
    """Read a YAML file of several documents."""
    return list(YAML(typ="safe").load_all(path))


def rules() -> list[dict[str, Any]]:
    """All alert rules and recording rules."""
    documents = [load_yaml(path) for path in sorted((FILES / "rules").glob("*.yml"))]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """The queries of all rules and panels."""
    panels = [panel for dashboard in DASHBOARDS for panel in dashboard.panels]
    return [*(rule["expr"] for rule in rules()), *(query for panel in panels for query, _ in panel.queries)]


def matchers() -> set[tuple[str, str, str, str]]:
    """What they choose by labels: metric, label, operator and value."""
    return {
        (metric, *matcher)
        for query in queries()
        for metric, matchers in _SELECTOR.findall(query)
        for matcher in _MATCHER.findall(matchers)
    }


def metric_names() -> set[str]:
    """The metrics that they name."""
    return {name for query in queries() for name in _METRIC.findall(_LABELS.sub("", query))}
