"""The manifests for Kubernetes: what every cluster gets, rendered by Kustomize and compared with the program.

`make shapes` also validates them strictly against the schemas of Kubernetes, too large for the tests' environment.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from domain.worker_roles import SEPARABLE, WorkerRole, parse_separate_roles
from settings import Settings
from tests.harness.pools import OTHERS, RESERVED, connections_of

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
README = KUBERNETES / "README.md"
OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
CONTROLLER = json.loads((Path(__file__).parent / "schemas" / "temporal-worker-controller.json").read_text())

_OTHERS = frozenset({"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"})
"""Variables that Temporal's own configuration reads."""

Manifest = dict[str, Any]


def _load(path: Path) -> list[Manifest]:
    return [each for each in YAML(typ="safe", pure=True).load_all(path.read_text()) if each is not None]


def _rendered(overlay: str) -> list[Manifest]:
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            text = subprocess.run(
                [*command, KUBERNETES / "overlays" / overlay], check=True, capture_output=True, text=True
            ).stdout
            return [each for each in YAML(typ="safe", pure=True).load_all(text) if each is not None]
    pytest.skip("neither kubectl nor kustomize is on PATH")


def _pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    kinds = ("Deployment", "WorkerDeployment", "Job")
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in manifests if each["kind"] in kinds}


def _base() -> list[Manifest]:
    """What overlays are made of, with a worker that does all work."""
    names = _load(KUBERNETES / "base" / "kustomization.yaml")[0]["resources"]
    paths = [*(KUBERNETES / "base" / name for name in names), KUBERNETES / "worker" / "worker.yaml"]
    return [manifest for path in paths for manifest in _load(path)]


def test_every_setting_is_one_that_the_program_reads() -> None:
    [generated] = _load(KUBERNETES / "base" / "kustomization.yaml")[0]["configMapGenerator"]
    named = {literal.partition("=")[0] for literal in generated["literals"]}
    containers = [container for pod in _pods(_base()).values() for container in pod["containers"]]
    named |= {each["name"] for container in containers for each in container.get("env", [])}
    assert named.difference(Settings.variables(), _OTHERS) == set()


def test_no_secret_is_in_a_manifest() -> None:
    assert not [each for each in _base() if each["kind"] == "Secret"]
    for pod in _pods(_base()).values():
        for container in pod["containers"]:
            assert all("value" not in each for each in container.get("env", []))


def test_a_worker_has_time_to_end_its_calls() -> None:
    worker = _pods(_base())["cofounder-worker"]
    default = Settings.model_fields["graceful_shutdown_seconds"].default
    assert worker["terminationGracePeriodSeconds"] >= default + 60


def test_processes_can_do_no_more_than_they_need() -> None:
    for name, pod in _pods(_base()).items():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            profile = {**pod["securityContext"], **context}["seccompProfile"]["type"]
            assert profile == ("Unconfined" if name == "cofounder-worker" else "RuntimeDefault")
            assert {"requests", "limits"} == set(container["resources"])


def test_probes_ask_what_is_served() -> None:
    pods = _pods(_base())
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    asked = {
        name: [
            (container[probe]["httpGet"]["path"], container[probe]["httpGet"]["port"])
            for container in pod["containers"]
            for probe in probes
        ]
        for name, pod in pods.items()
        if name != "cofounder-migrate"
    }
    assert asked["cofounder-api"] == [("/healthz", "http"), ("/healthz", "http"), ("/readyz", "http")]
    assert asked["cofounder-worker"] == [("/livez", "metrics"), ("/livez", "metrics"), ("/readyz", "metrics")]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_whole(overlay: str) -> None:
    manifests = _rendered(overlay)
    names = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    assert len(names) == len(manifests)
    pods = _pods(manifests)
    roles = [""] if overlay == "small" else [f"-{role}" for role in WorkerRole]
    workers = {f"cofounder-worker{role}" for role in roles}
    assert set(pods) == {"cofounder-api", "cofounder-migrate", *workers}
    [settings] = [name for kind, name in names if kind == "ConfigMap"]
    for pod in pods.values():
        for container in pod["containers"]:
            assert container["image"] == "registry.example.com/cofounder:0.1.0"
            references = [each["configMapRef"]["name"] for each in container["envFrom"] if "configMapRef" in each]
            assert references == [settings]
    kind = "WorkerDeployment" if overlay == "versioned" else "Deployment"
    assert {(kind, name) for name in workers} <= names


@pytest.mark.parametrize("overlay", ["small", "production"])
def test_the_readme_says_how_many_connections_the_processes_open(overlay: str) -> None:
    manifests = _rendered(overlay)
    most = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]["maxReplicas"]
        for each in manifests
        if each["kind"] == "HorizontalPodAutoscaler"
    }
    running = replaced = 0
    for each in manifests:
        if each["kind"] == "Deployment":
            name, spec = each["metadata"]["name"], each["spec"]
            [container] = spec["template"]["spec"]["containers"]
            environment = {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
            connections = connections_of(container["command"][2], environment)
            replicas = most[name] if name in most else spec["replicas"]
            running += connections * replicas
            replaced += connections * (replicas + spec["strategy"]["rollingUpdate"]["maxSurge"])
    row = next(line for line in README.read_text().splitlines() if line.startswith(f"| `{overlay}`"))
    said = [int(number) for number in re.findall(r"\d+", row.split("|")[3])]
    assert said[:2] == [running, replaced]
    assert said[2] >= replaced + OTHERS + RESERVED, "max_connections"


def test_each_role_has_workers_of_its_own_and_chromium_runs_in_one_of_them() -> None:
    manifests = {each["metadata"]["name"]: each for each in _rendered("production") if each["kind"] == "Deployment"}
    [settings] = [each["data"] for each in _rendered("production") if each["kind"] == "ConfigMap"]
    assert parse_separate_roles(settings["SEPARATE_ROLES"]) == ",".join(SEPARABLE)
    for role in WorkerRole:
        manifest = manifests[f"cofounder-worker-{role}"]
        [container] = manifest["spec"]["template"]["spec"]["containers"]
        assert {"name": "WORKER_ROLES", "value": role} in container["env"]
        profile = container["securityContext"]["seccompProfile"]["type"]
        assert profile == ("Unconfined" if role is WorkerRole.BROWSER else "RuntimeDefault")
        labels = manifest["spec"]["selector"]["matchLabels"]
        assert labels["app.kubernetes.io/component"] == role, "its pods are not another role's"
        assert labels.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()


def test_the_controllers_kinds_follow_its_definitions() -> None:
    manifests = [each for each in _rendered("versioned") if each["kind"] in CONTROLLER]
    assert {each["kind"] for each in manifests} == {"WorkerDeployment", "Connection"}
    for each in manifests:
        jsonschema.validate(each, CONTROLLER[each["kind"]])
    worker, *_ = [each for each in manifests if each["kind"] == "WorkerDeployment"]
    broken = {**worker, "spec": {**worker["spec"], "rollouts": {}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, CONTROLLER["WorkerDeployment"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_accepts_every_field(overlay: str) -> None:
    """The controller makes Deployments of its own kind, so its pods are validated as those of one."""
    validation = pytest.importorskip("kubernetes_validate", reason="`make shapes` has the schemas of Kubernetes")
    validated = 0
    for manifest in _rendered(overlay):
        if manifest["kind"] == "Connection":
            continue
        if manifest["kind"] == "WorkerDeployment":
            labels = {"app.kubernetes.io/name": "worker"}
            spec = {"selector": {"matchLabels": labels}, "template": manifest["spec"]["template"]}
            manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": manifest["metadata"], "spec": spec}
        validation.validate(manifest, "1.34", strict=True)
        validated += 1
    assert validated >= 8
