"""`cofounder doctor` starts a sandbox, says what it lacks and how to install that, and ends it."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from checks.check import CheckContext, CheckSkipped
from cli.doctor import tools
from cli.doctor.tools import check_tools
from clients.sandbox import Role, Sandboxes, sandbox_config
from domain import sandbox_tools
from domain.sandbox_tools import TOOLS, Tool
from local.stack import LocalStack
from settings import Settings
from tests.harness.worker import settings_of


@pytest.fixture
def settings(stack: LocalStack) -> Settings:
    return settings_of(stack)


@pytest.fixture
async def sandboxes(settings: Settings) -> AsyncIterator[Sandboxes]:
    opened = Sandboxes(sandbox_config(settings))
    yield opened
    await opened.close()


async def _left(sandboxes: Sandboxes) -> list[str]:
    return [each.id for each in await sandboxes.list_all() if each.role == Role.DOCTOR]


async def test_it_says_what_the_machine_has_and_leaves_nothing(settings: Settings, sandboxes: Sandboxes) -> None:
    result = await check_tools(CheckContext(settings, None))
    assert result.state in ("ok", "warn"), result
    for name in ("bash", "git", "python3"):
        assert f"{name} is missing" not in result.detail
    if shutil.which("rg") is None:
        assert "rg is missing (fast searches" in result.detail
        assert "ripgrep" in (result.remedy or "")
    assert await _left(sandboxes) == []


async def test_without_a_server_it_says_the_same(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sandbox_tools, tools):
        monkeypatch.setattr(module, "PROBE_SECONDS", 60)  # the machine may be busy
    alone = CheckContext(settings.model_copy(update={"e2b_api_key": None}), None)
    assert await check_tools(alone) == await check_tools(CheckContext(settings, None))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CheckSkipped, match="no sandbox runs on this machine"):
        await check_tools(alone)


async def test_what_no_build_works_without_is_a_failure(
    settings: Settings, sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (
        Tool("bash", "every command", "no-such-program --version", "bash", essential=True),
        Tool("git", "history", "git --version", "git", oldest=(99,)),
        Tool("uv", "locks", "sleep 60", install="get uv"),
        Tool("hidden", "nothing", "echo unknown", "hidden", oldest=(1,)),
    )
    monkeypatch.setattr(sandbox_tools, "PROBE_SECONDS", 1)
    monkeypatch.setattr(tools, "probe_command", lambda: sandbox_tools.probe_command(wanted))
    monkeypatch.setattr(tools, "lacks", lambda found: sandbox_tools.lacks(found, wanted))
    result = await check_tools(CheckContext(settings, None))
    assert result.state == "fail"
    for phrase in (
        "bash is missing (every command)",
        "older than 99 (history)",
        "uv is missing (locks)",
        "hidden is missing",
    ):
        assert phrase in result.detail
    assert result.remedy is not None
    assert "`apt-get install bash git hidden`; `get uv`" in result.remedy
    assert await _left(sandboxes) == []


async def test_sandboxes_of_a_check_that_was_killed_are_ended(
    settings: Settings, sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sandboxes.create("left", Role.DOCTOR)
    await check_tools(CheckContext(settings, None))
    assert len(await _left(sandboxes)) == 1  # it may be at work
    monkeypatch.setattr(tools, "_LEFT_AFTER", timedelta())
    await check_tools(CheckContext(settings, None))
    assert await _left(sandboxes) == []


async def test_nothing_is_started_that_costs_money(settings: Settings) -> None:
    cloud = settings.model_copy(update={"e2b_api_url": None, "e2b_sandbox_url": None, "e2b_template": "mine"})
    result = await check_tools(CheckContext(cloud, None))
    assert (result.state, "the template mine lacks" in result.detail) == ("warn", True)
    assert "--paid" in (result.remedy or "")


async def test_a_template_that_is_not_there_is_named(settings: Settings) -> None:
    result = await check_tools(CheckContext(settings.model_copy(update={"e2b_template": "other"}), None))
    assert (result.state, "E2B_TEMPLATE" in result.detail) == ("fail", True)


def test_every_tool_says_how_to_get_it() -> None:
    assert len({tool.name for tool in TOOLS}) == len(TOOLS)
    assert all(bool(tool.package) != bool(tool.install) for tool in TOOLS)
