"""The Compose file and the CI workflow: valid by their published schemas, pinned, and closed to the outside."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from domain import names

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.temporal.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def _load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def _validate(path: Path, schema: str) -> None:
    text = resources.files("check_jsonschema").joinpath("builtin_schemas", "vendor", f"{schema}.json").read_text()
    jsonschema.validate(_load(path), json.loads(text))


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = _load(COMPOSE)["services"]
    return found


@pytest.mark.parametrize(("path", "schema"), [(COMPOSE, "compose-spec"), (WORKFLOW, "github-workflows")])
def test_matches_its_published_schema(path: Path, schema: str) -> None:
    _validate(path, schema)


def test_images_are_pinned(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert re.search(r":\d+\.\d+", service["image"]), f"{name}: {service['image']}"


def test_ports_are_open_on_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert "ports" not in services["postgresql"]


def test_every_password_is_required_from_the_environment_with_a_message(services: dict[str, dict[str, Any]]) -> None:
    passwords = [
        value
        for service in services.values()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|PWD|SECRET|KEY", key)
    ]
    assert len(passwords) == 3
    assert all(re.fullmatch(r"\$\{\w+:\?.+\}", value) for value in passwords)


def test_a_variable_without_a_default_says_what_it_is_for() -> None:
    assert not re.findall(r"\$\{\w+\}|\$\w", COMPOSE.read_text())


def test_services_wait_for_what_they_need(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[needed]["restart"].startswith("on-failure")


def test_mounted_files_exist(services: dict[str, dict[str, Any]]) -> None:
    mounted = [volume for service in services.values() for volume in service.get("volumes", []) if volume[0] == "."]
    for volume in mounted:
        source, target, mode = volume.split(":")
        assert mode == "ro"
        assert (ROOT / source).is_dir()
        for service in services.values():
            used = [*service.get("entrypoint", []), *map(str, service.get("environment", {}).values())]
            for path in (word for word in used if word.startswith(f"{target}/")):
                assert (ROOT / source / path.removeprefix(f"{target}/")).is_file()


def test_the_search_attributes_are_those_of_the_program() -> None:
    script = (ROOT / "deploy" / "temporal" / "namespace.sh").read_text()
    listed = re.search(r"for attribute in (.*); do", script)
    assert listed is not None
    assert set(listed[1].split()) == {
        names.BUILD_STATUS,
        names.BUILD_WAITING_FOR,
        names.BUILD_USER,
        names.BUILD_PROJECT,
        names.BUILD_PLAN,
    }


def test_actions_are_pinned_and_call_make_test() -> None:
    for job in _load(WORKFLOW)["jobs"].values():
        for step in job["steps"]:
            assert "uses" not in step or re.search(r"@(v\d+\.\d+\.\d+|[0-9a-f]{40})$", step["uses"])
        assert "make test" in [step.get("run") for step in job["steps"]]
