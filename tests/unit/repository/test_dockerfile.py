"""The Dockerfile is pinned, has no secrets, does not run as root, and copies everything that the package needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.harness.dockerfile import ROOT, context, stages


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_images_are_pinned_to_a_patch_version() -> None:
    names = {stage.name for stage in stages()}
    for stage in stages():
        assert stage.image in names or re.search(r":\d+\.\d+\.\d+(-|$)", stage.image), stage.image


def test_uv_is_the_one_that_the_set_up_uses() -> None:
    [version] = re.findall(r'^UV = "uv==(.*)"$', (ROOT / "scripts" / "setup").read_text(), re.M)
    assert [stage.image for stage in stages() if stage.name == "uv"] == [f"ghcr.io/astral-sh/uv:{version}"]


def test_python_is_the_same_where_it_is_built_and_where_it_runs() -> None:
    """A virtual environment names its interpreter by path and version."""
    assert stages()[-1].image == next(stage.image for stage in stages() if stage.name == "build")


def test_dependencies_are_those_of_the_lock() -> None:
    [build] = [stage for stage in stages() if stage.name == "build"]
    syncs = [step for step in build.all("RUN") if "uv sync" in step]
    assert len(syncs) == 2
    assert all("--locked" in step and "--no-dev" in step for step in syncs)
    assert "pip install" not in (ROOT / "Dockerfile").read_text()


def test_it_does_not_run_as_root() -> None:
    steps = stages()[-1].steps
    last_user = max(index for index, (word, _) in enumerate(steps) if word == "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", steps[last_user][1])
    assert not [word for word, _ in steps[last_user:] if word in ("RUN", "COPY", "ADD")]


def test_no_secret_and_nothing_from_the_network_but_packages() -> None:
    for stage in stages():
        assert not stage.all("ADD")
        assert not stage.all("ARG")
        for word, rest in stage.steps:
            assert word != "ENV" or not re.search("KEY|TOKEN|SECRET|PASSWORD", rest), rest
            assert not re.search(r"\b(curl|wget)\b", rest), rest


def test_apt_leaves_nothing_behind() -> None:
    for step in (step for stage in stages() for step in stage.all("RUN") if "apt-get install" in step):
        assert "apt-get update" in step
        assert "--no-install-recommends" in step
        assert "rm -rf /var/lib/apt/lists/*" in step


def test_what_comes_in_is_what_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    beside = {"pyproject.toml", "uv.lock", project["project"]["readme"], *project["project"].get("license-files", [])}
    sources = {name.partition("/")[0] for name in packaged}  # of web/ the package has what is built from it
    assert set(context()) == {*sources, *beside}


def test_the_console_is_built_from_its_locks_and_only_its_files_are_kept() -> None:
    [console] = [stage for stage in stages() if stage.name == "console"]
    commands = console.all("RUN")
    assert ["uv sync --locked --only-group node" in commands[0], " ci " in commands[1]] == [True, True]
    assert "--omit=dev" in commands[1]
    assert [rest for stage in stages() for rest in stage.all("COPY") if "--from=console" in rest] == [
        "--from=console /src/web/dist web/dist"
    ]
