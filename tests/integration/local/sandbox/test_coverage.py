"""docs/local-sandbox.md says of everything that the SDK offers whether the local server serves it.

A new version of the SDK with another method or parameter fails here until someone has decided about it.
"""

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import e2b
import pytest
from e2b import AsyncSandbox, SandboxException
from e2b.envd.filesystem.filesystem_connect import Filesystem as FilesystemRpc
from e2b.envd.process.process_connect import Process as ProcessRpc
from e2b.sandbox_async.commands.command import Commands
from e2b.sandbox_async.commands.pty import Pty
from e2b.sandbox_async.filesystem.filesystem import Filesystem
from e2b.sandbox_async.git import Git

from tests.integration.local.sandbox.sandbox_server import SandboxServer, new_sandbox, sandbox_server

DOCUMENT = Path(__file__).parents[4] / "docs" / "local-sandbox.md"
VERDICTS = ("served", "not served", "needs no server")
OFFERED: dict[str, type] = {
    "AsyncSandbox": AsyncSandbox,
    "files": Filesystem,
    "commands": Commands,
    "pty": Pty,
    "git": Git,
    "AsyncCommandHandle": e2b.AsyncCommandHandle,
    "AsyncCommandInputHandle": e2b.AsyncCommandInputHandle,
    "AsyncWatchHandle": e2b.AsyncWatchHandle,
    "WatchHandle": e2b.WatchHandle,
    "AsyncTemplate": e2b.AsyncTemplate,
    "AsyncVolume": e2b.AsyncVolume,
    "AsyncSecret": e2b.AsyncSecret,
    "process RPC": ProcessRpc,
    "filesystem RPC": FilesystemRpc,
}
"""What the document's table calls the classes of the SDK."""

_NOT_ASKED_FOR = ("self", "opts", "request", "ctx", "request_timeout")
"""Parameters that every method has, or that only this program sees."""

_ROW = re.compile(r"\| `([^`]+)` \| (.+) \| ([a-z ]+) \|")
_NAME = re.compile(r"`([^`]+)`")

_REFUSALS = (SandboxException, e2b.BuildException, e2b.VolumeException, e2b.SecretException)

NOT_SERVED: dict[str, Callable[[AsyncSandbox, dict[str, Any]], Awaitable[object]]] = {
    "AsyncSandbox.fork": lambda sandbox, _: sandbox.fork(),
    "AsyncSandbox.create_snapshot": lambda sandbox, _: sandbox.create_snapshot(),
    "AsyncSandbox.list_snapshots": lambda _, options: AsyncSandbox.list_snapshots(**options).next_items(),
    "AsyncSandbox.delete_snapshot": lambda _, options: AsyncSandbox.delete_snapshot("s", **options),
    "AsyncSandbox.update_network": lambda sandbox, _: sandbox.update_network({"deny_out": ["0.0.0.0/0"]}),
    "AsyncSandbox.get_mcp_token": lambda sandbox, _: sandbox.get_mcp_token(),
    "AsyncTemplate.build": lambda _, options: e2b.AsyncTemplate.build(_template(), "name", **options),
    "AsyncTemplate.build_in_background": lambda _, options: e2b.AsyncTemplate.build_in_background(
        _template(), "name", **options
    ),
    "AsyncTemplate.get_build_status": lambda _, options: e2b.AsyncTemplate.get_build_status(
        e2b.BuildInfo(alias="a", name="n", tags=[], template_id="t", build_id="b"), **options
    ),
    "AsyncTemplate.exists": lambda _, options: e2b.AsyncTemplate.exists("name", **options),
    "AsyncTemplate.alias_exists": lambda _, options: e2b.AsyncTemplate.alias_exists("name", **options),
    "AsyncTemplate.assign_tags": lambda _, options: e2b.AsyncTemplate.assign_tags("name", "tag", **options),
    "AsyncTemplate.remove_tags": lambda _, options: e2b.AsyncTemplate.remove_tags("name", "tag", **options),
    "AsyncTemplate.get_tags": lambda _, options: e2b.AsyncTemplate.get_tags("t", **options),
    "AsyncVolume.create": lambda _, options: e2b.AsyncVolume.create("name", **options),
    "AsyncVolume.connect": lambda _, options: e2b.AsyncVolume.connect("v", **options),
    "AsyncVolume.destroy": lambda _, options: e2b.AsyncVolume.destroy("v", **options),
    "AsyncVolume.get_info": lambda _, options: e2b.AsyncVolume.get_info("v", **options),
    "AsyncVolume.list": lambda _, options: e2b.AsyncVolume.list(**options),
    "AsyncSecret.create": lambda _, options: e2b.AsyncSecret.create("n", "v", **options),
    "AsyncSecret.destroy": lambda _, options: e2b.AsyncSecret.destroy("s", **options),
    "AsyncSecret.exists": lambda _, options: e2b.AsyncSecret.exists("s", **options),
    "AsyncSecret.get_info": lambda _, options: e2b.AsyncSecret.get_info("s", **options),
    "AsyncSecret.list": lambda _, options: e2b.AsyncSecret.list(**options).next_items(),
    "AsyncSecret.update": lambda _, options: e2b.AsyncSecret.update("s", "v", **options),
}
"""How to ask for each thing that is not served."""

NEEDS_ANOTHER_FIRST = {
    f"AsyncVolume.{name}" for name in ("exists", "make_dir", "read_file", "remove", "update_metadata", "write_file")
}
"""They need a volume, which can't be made here."""


def _template() -> e2b.TemplateClass:
    return e2b.AsyncTemplate().from_base_image()


def _described(member: object, name: str) -> str:
    """A method with its parameters, or the name of anything else."""
    if not callable(member):
        return name
    names = [each for each in inspect.signature(member).parameters if each not in _NOT_ASKED_FOR]
    return f"{name}({', '.join(names)})"


def _offered() -> dict[str, set[str]]:
    return {
        title: {
            _described(getattr(offered, name), name)
            for name, _ in inspect.getmembers_static(offered)
            if not name.startswith("_") and name != "desc"
        }
        for title, offered in OFFERED.items()
    }


def _documented() -> list[tuple[str, str, str]]:
    """Class, method and verdict of the document's table."""
    return [
        (row[1], name, row[3])
        for row in _ROW.finditer(DOCUMENT.read_text())
        if row[1] in OFFERED
        for name in _NAME.findall(row[2])
    ]


def test_the_document_has_everything_that_the_sdk_offers() -> None:
    documented = _documented()
    assert {verdict for _, _, verdict in documented} == set(VERDICTS)
    for title, offered in _offered().items():
        names = [name for row_title, name, _ in documented if row_title == title]
        assert sorted(names) == sorted(offered), f"{DOCUMENT.name} and the SDK's {title} differ"


def test_the_client_without_asyncio_offers_the_same() -> None:
    for synchronous, other in ((e2b.Sandbox, AsyncSandbox), (e2b.Template, e2b.AsyncTemplate)):
        assert {name for name in dir(synchronous) if name[0] != "_"} == {name for name in dir(other) if name[0] != "_"}


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxServer]:
    async with sandbox_server(tmp_path_factory.mktemp("sandboxes") / "root") as running:
        yield running


async def test_what_is_not_served_is_named(server: SandboxServer) -> None:
    refused = {f"{title}.{name.partition('(')[0]}" for title, name, verdict in _documented() if verdict == "not served"}
    assert refused == set(NOT_SERVED) | NEEDS_ANOTHER_FIRST
    async with new_sandbox(server) as sandbox:
        for name, ask in NOT_SERVED.items():
            with pytest.raises(_REFUSALS) as refusal:
                await ask(sandbox, server.options)
            assert "does not serve" in str(refusal.value), name


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"mcp": {"exa": {}}, "template": "base"}, "MCP servers"),
        ({"iam": {"tokens": {"a": e2b.AsyncSecret.iam_token(audience="a", token_type="JWT-SVID")}}}, "identities"),
        ({"volume_mounts": {"/mnt": "volume"}}, "volumes"),
        ({"network": {"deny_out": ["1.1.1.1"]}}, "network rules"),
    ],
)
async def test_parameters_that_are_not_served_are_named(
    server: SandboxServer, options: dict[str, Any], what: str
) -> None:
    with pytest.raises(SandboxException, match=f"does not serve .*{what}"):
        await AsyncSandbox.create(**options, **server.options)
