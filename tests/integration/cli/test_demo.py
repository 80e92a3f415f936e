"""`cofounder demo` leads from a brief to a running preview and leaves nothing behind, however it ends."""

import asyncio
import json
import os
import re
import shlex
import signal
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx2
import psutil
import pytest
from PIL import Image

from cli.doctor.checklist import CHECKS, run_checks
from cli.stack.demo import EXAMPLES
from local.prometheus import INSTALL, find_prometheus
from tests.harness.demo import Demo, demo
from tests.harness.processes import command_line, processes_naming
from tests.harness.prometheus import until_targets_are_up
from tests.harness.wait import DEADLINE


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short name, as the path of a socket below it, such as Chromium's, may have only 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cf-", dir="/tmp") as made:
        yield Path(made)


async def test_two_demos_at_once_one_of_them_interrupted_in_a_terminal(directory: Path) -> None:
    brief = directory / "own.json"
    brief.write_text('{"name": "Zq7 Pantry", "problem": "Food is forgotten.", "features": ["A list"]}')
    async with (
        demo(directory / "piped", BRIEF=str(brief)) as piped,
        demo(directory / "terminal", terminal=True) as shown,
    ):
        interrupting = asyncio.create_task(_interrupt(shown, "phase done", signal.SIGINT))
        assert await piped.end() == 0, piped.text
        for words in ("rehearsal model", "always builds the same kind of product", "Zq7 Pantry", "phase done: "):
            assert words in piped.text
        for words in (
            "status       ready",
            "preview      http://",
            "Temporal UI  http://127.0.0.1:",
            "/sign-in#code=",
            "nothing was paid",
        ):
            assert words in piped.text
        assert "\x1b[" not in piped.text
        for picture, width in (("desktop.webp", 1280), ("mobile.webp", 390)):
            with Image.open(piped.results / picture) as image:
                assert (image.format, image.width) == ("WEBP", width)
        with tarfile.open(piped.results / "workspace.tar.gz") as archive:
            assert any(name.endswith("cofounder.json") for name in archive.getnames())
        await piped.assert_nothing_is_left()
        await interrupting
        assert "\x1b[" in shown.text


async def _interrupt(running: Demo, moment: str, number: signal.Signals) -> None:
    """Send the signal, twice, as an impatient user does, once the demo has printed these words."""
    await running.until(moment)
    for _ in range(2):
        running.process.send_signal(number)
        await asyncio.sleep(0.05)
    assert await running.end() == 130
    assert "Traceback" not in running.text
    await running.assert_nothing_is_left()


@pytest.mark.thorough
async def test_stopped_before_anything_is_built(directory: Path) -> None:
    async with demo(directory) as running:
        await _interrupt(running, "ready after", signal.SIGTERM)


@pytest.mark.thorough
async def test_a_demo_in_a_terminal_stays_up_until_ctrl_c(directory: Path) -> None:
    async with demo(directory, terminal=True) as shown:
        await shown.until("Everything stays up until Ctrl-C")
        assert "\x1b[" in shown.text
        shown.process.send_signal(signal.SIGINT)
        assert await shown.end() == 0, shown.text
        await shown.assert_nothing_is_left()


async def test_up_serves_until_ctrl_c_and_keeps_its_data(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = directory / ".cofounder" / "up"
    async with demo(directory, command="up", options=["--observe"]) as running:
        await running.until("Everything stays up until Ctrl-C")
        assert ". .cofounder/up/env.sh" in running.text
        await _prometheus_looks_at_both(running.text)
        for line in environment_of(data):
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, *shlex.split(value))
        database = await asyncpg.connect(os.environ["DATABASE_URL"])  # as `psql` takes it
        await database.close()
        monkeypatch.setattr("cli.doctor.checklist.DEADLINE_SECONDS", DEADLINE)  # the machine may be busy
        monkeypatch.setattr("checks.services._REQUEST_SECONDS", DEADLINE)
        results = await run_checks([name for name, _ in CHECKS], None, lambda _: None)
        assert [each for each in results if each.state != "ok" and each.name not in ("disk", "tools")] == []
        assert any("rehearsal model" in each.detail for each in results)
        async with demo(directory, command="up") as second:
            assert await second.end() == 1
            assert "Another stack" in second.text
        running.process.send_signal(signal.SIGINT)
        assert await running.end() == 0, running.text
        await running.assert_nothing_is_left()
    assert (data / "env.sh").stat().st_mode & 0o777 == 0o600
    names = ["database", "temporal", "api", "previews"]
    assert [each.state for each in await run_checks(names, None, lambda _: None)] == ["fail"] * 4


async def _prometheus_looks_at_both(text: str) -> None:
    found = re.search(r"http://127\.0\.0\.1:\d+(?=/alerts)", text)
    if found is None:
        assert find_prometheus() is None
        assert INSTALL in text
        return
    await until_targets_are_up(found[0])
    async with httpx2.AsyncClient(base_url=found[0], timeout=DEADLINE, trust_env=False) as http:
        rules = (await http.get("/api/v1/rules")).json()["data"]["groups"]
        assert all(rule["health"] != "err" for group in rules for rule in group["rules"])


@pytest.mark.thorough
async def test_up_says_what_to_do_after_losing_only_the_file_of_temporal(directory: Path) -> None:
    data = directory / ".cofounder" / "up"
    async with demo(directory, command="up") as running:
        await running.until("Everything stays up until Ctrl-C")
        variables = dict(line.removeprefix("export ").split("=", 1) for line in environment_of(data))
        url = variables["COFOUNDER_API_URL"].strip("'")
        headers = {"Authorization": f"Bearer {variables['API_TOKEN'].strip(chr(39))}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=DEADLINE, trust_env=False) as http:
            brief = json.loads((EXAMPLES / "brief.json").read_text())
            project = (await http.post("/v1/projects", json={"brief": brief})).json()["id"]
            (await http.post(f"/v1/projects/{project}/builds", json={"goal": "Build it."})).raise_for_status()
        code = running.text.partition(f"{url}/sign-in#code=")[2].split()[0]
        page = {"Sec-Fetch-Site": "same-origin"}
        async with httpx2.AsyncClient(base_url=url, headers=page, timeout=DEADLINE, trust_env=False) as http:
            (await http.post("/v1/sign-ins", json={"code": code})).raise_for_status()
            assert [each["id"] for each in (await http.get("/v1/projects")).json()["projects"]] == [project]
        running.process.send_signal(signal.SIGINT)
        assert await running.end() == 0, running.text
    for file in (data / "temporal").glob("temporal.db*"):
        file.unlink()
    async with demo(directory, command="up") as again:
        assert await again.end() == 1
        assert "was created again and has lost the builds" in again.text.replace("\n", " ")
        assert "cofounder recover --temporal" in again.text.replace("\n", " ")


def environment_of(data: Path) -> list[str]:
    """Parse the lines for a shell."""
    return (data / "env.sh").read_text().splitlines()


@pytest.mark.thorough
async def test_killed(directory: Path) -> None:
    async with demo(directory) as running:
        await running.until("status: scaffold")
        running.process.kill()
        await running.process.wait()
        await running.assert_nothing_is_left()


async def test_worker_that_dies_is_reported_with_its_last_output(directory: Path) -> None:
    async with demo(directory) as running:
        await running.until("status: scaffold")
        # For a moment its children have the same command line.
        worker = min(filter(_is_worker, processes_naming(directory)), key=psutil.Process.create_time)
        worker.kill()
        assert await running.end() == 1
        assert "The worker ended by itself" in running.text
        assert "worker started" in running.text
        await running.assert_nothing_is_left()


def _is_worker(process: psutil.Process) -> bool:
    command = command_line(process)
    return command[-2:] == ["-m", "worker"] and "guard.py" not in str(command)
