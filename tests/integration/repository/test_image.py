"""The install steps of the image: read from the Dockerfile, run in a clean directory, and checked for their result."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.harness.dockerfile import ROOT, Stage, context, stages
from tests.harness.wait import DEADLINE

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def _uv() -> str:
    """Return the uv that scripts/setup used: the one on PATH or its own."""
    own = ROOT / ".cofounder" / "tools" / "uv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    assert found is not None, "run scripts/setup first"
    return found


def _below(root: Path, path: str) -> str:
    """Map an absolute path of the image to the clean directory."""
    return str(root / path.lstrip("/"))


def _environment(stage: Stage, root: Path) -> dict[str, str]:
    """Return the environment of the stage's RUN lines."""
    variables = dict(assignment.split("=", 1) for rest in stage.all("ENV") for assignment in shlex.split(rest))
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
    return {
        **kept,
        **({"UV_SYSTEM_CERTS": "true"} if CERTIFICATES.exists() else {}),
        **{name: _below(root, value) if value.startswith("/") else value for name, value in variables.items()},
        # Faster with the same result: half a gigabyte is neither copied nor compiled.
        "UV_COMPILE_BYTECODE": "0",
        "UV_LINK_MODE": "hardlink",
        "UV_PYTHON": sys.executable,
    }


def _copy(rest: str, to: Path) -> None:
    *sources, target = rest.split()
    assert target in (".", "./"), rest
    for source in context() if sources == ["."] else sources:
        assert source in context(), f"{source} is shut out by .dockerignore"
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules", "dist")
            shutil.copytree(ROOT / source, to / source, ignore=ignored)
        else:
            shutil.copy(ROOT / source, to / source)


def _copy_of_console(rest: str, to: Path) -> None:
    """Copy what scripts/setup has built in place of what the stage `console` builds with the same programs."""
    _, source, target = rest.split()
    built = ROOT / Path(source).relative_to("/src")
    assert (built / "index.html").exists(), "run scripts/setup --console first"
    shutil.copytree(built, to / target)


def _run(rest: str, directory: Path, environment: Mapping[str, str]) -> None:
    program, *arguments = shlex.split(re.sub(r"--mount=\S+ ", "", rest))
    assert program == "uv", f"this test does not know the step: {rest}"
    done = subprocess.run([_uv(), *arguments], cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The virtual environment that the Dockerfile's stage `build` creates."""
    root = tmp_path_factory.mktemp("image")
    [build] = [stage for stage in stages() if stage.name == "build"]
    environment = _environment(build, root)
    directory = root
    for instruction, rest in build.steps:
        if instruction == "WORKDIR":
            directory = Path(_below(root, rest))
            directory.mkdir(parents=True)
        elif instruction == "COPY" and rest.startswith("--from=console"):
            _copy_of_console(rest, directory)
        elif instruction == "COPY" and not rest.startswith("--from="):
            _copy(rest, directory)
        elif instruction == "RUN":
            _run(rest, directory, environment)
    shutil.rmtree(directory)  # the last stage of the image has only the installed files
    return Path(environment["UV_PROJECT_ENVIRONMENT"])


def _say(installed: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the image in its working directory, with the image's variables except PATH."""
    program, *arguments = command
    empty = installed.parent / "data"
    empty.mkdir(exist_ok=True)
    image = dict(assignment.split("=", 1) for rest in stages()[-1].all("ENV") for assignment in shlex.split(rest))
    return subprocess.run(
        [str(installed / "bin" / program), *arguments],
        cwd=empty,
        env={**image, "PATH": f"{installed / 'bin'}:{os.environ['PATH']}", "HOME": str(empty), **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_everything_of_the_package_is_installed(installed: Path) -> None:
    """Files that are not Python are installed too: the migrations' template, the rehearsal's product, the console."""
    [site] = (installed / "lib").glob("python3*/site-packages")
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in packaged["only-include"]:
        for path in (ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name]:
            if path.is_file() and "__pycache__" not in path.parts:
                assert (site / path.relative_to(ROOT)).is_file(), path


def test_the_web_console_is_found_where_it_is_installed(installed: Path) -> None:
    program = "from api.web import read_bundle; from settings import Settings; print(*read_bundle(Settings()).files)"
    found = _say(installed, "python", "-c", program)
    assert re.search(r"assets/index-\S+\.js", found.stdout), found.stderr


def test_the_tools_of_development_are_not(installed: Path) -> None:
    assert not [name for name in ("pytest", "mypy", "ruff") if (installed / "bin" / name).exists()]


def test_its_programs_start(installed: Path) -> None:
    """The worker imports nearly everything and reports missing settings; the others import little more."""
    [command] = stages()[-1].all("CMD")
    worker = _say(installed, *json.loads(command), TEMPORAL_ADDRESS="127.0.0.1:1")
    assert worker.returncode == 1
    assert worker.stderr.startswith("worker: Temporal does not answer at 127.0.0.1:1")
    assert "Usage: cofounder" in _say(installed, "cofounder", "--help").stdout


def test_a_directory_in_the_data_does_not_hide_a_package(installed: Path) -> None:
    [command] = stages()[-1].all("CMD")
    stranger = installed.parent / "data" / "db"
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").touch()
    worker = _say(installed, *json.loads(command), TEMPORAL_ADDRESS="127.0.0.1:1")
    hidden = _say(installed, *json.loads(command), TEMPORAL_ADDRESS="127.0.0.1:1", PYTHONSAFEPATH="")
    shutil.rmtree(stranger)
    assert worker.stderr.startswith("worker: Temporal does not answer at 127.0.0.1:1")
    assert re.search(r"(ModuleNotFoundError|ImportError): .*'db\b", hidden.stderr), "or PYTHONSAFEPATH is not needed"
