"""The rehearsal model over HTTP with the vendor's SDK, and the product that it builds with real tools."""

import asyncio
import itertools
import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from html import unescape
from pathlib import Path
from typing import Any, get_args
from urllib.error import HTTPError
from urllib.request import urlopen

import anthropic
import httpx2
import psutil
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, Model

from domain.check_summary import read_tally
from domain.product import parse_product_manifest
from domain.prompt import gate_findings, resumed
from local.ports import Ports
from local.rehearsal.models import known_models
from local.rehearsal.product_files import CHECK_COMMAND, SABOTAGES, product, read_idea, sabotaged
from local.rehearsal.replies import PAUSE_TEXT
from scripts.cache_share import main as print_share
from tests.harness.processes import survivors
from tests.harness.wait import DEADLINE, wait_until, wait_until_blocking
from tests.integration.local.rehearsal_server import Server, minimal_request, steps
from tests.integration.local.rehearsal_tools import Answer, Session, Workspace

ROOT = Path(__file__).parents[3]
BRIEF: dict[str, Any] = {"name": "Plot", "problem": "Gardens are empty.", "features": ["Offer a plot.", "Find a plot."]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("rehearsal"))
    yield running
    running.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncAnthropic]:
    async with server.client() as client:
        yield client


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    directory = tmp_path / "project"
    directory.mkdir()
    opened = Workspace(directory)
    yield opened
    opened.close()


@pytest.fixture
def token() -> str:
    """A text that only this test's conversations have in their system prompt."""
    return secrets.token_hex(8)


SUMMARIZED = {"type": "adaptive", "display": "summarized"}
STEP: list[dict[str, Any]] = [
    {"thinking": "Hm."},
    {"text": "I list the files: “ü” 🌱."},
    {"tool": "bash", "input": {"command": "ls 🌱" * 40}},
]


class TestMessages:
    async def test_streams_thinking_text_and_tools(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        kinds: list[str] = []
        async with client.messages.stream(**minimal_request(token, thinking=SUMMARIZED)) as stream:
            async for event in stream:
                kinds.append(event.type)
            message = await stream.get_final_message()
            request_id = stream.request_id
        thought, text, tool = message.content
        assert (thought.type, text.type, tool.type) == ("thinking", "text", "tool_use")
        assert thought.type == "thinking"
        assert thought.thinking == "Hm."
        assert thought.signature
        assert text.type == "text"
        assert text.text == STEP[1]["text"]
        assert tool.type == "tool_use"
        assert tool.input == STEP[2]["input"]
        assert tool.id.startswith("toolu_")
        assert message.stop_reason == "tool_use"
        assert message.model == "claude-sonnet-5-5"
        assert {"thinking", "signature", "text", "input_json", "message_stop"} <= set(kinds)
        assert kinds.count("input_json") > 3
        line = server.served()[-1]
        assert line["request_id"] == request_id
        assert line["usage"]["output"] == message.usage.output_tokens
        assert line["usage"]["input"] == message.usage.input_tokens
        assert (line["stream"], line["status"], line["stop_reason"]) == ("completed", 200, "tool_use")

    async def test_answers_in_one_piece(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        message = await client.messages.create(**minimal_request(token))
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        beta = await client.beta.messages.create(**minimal_request(token))
        assert [block.type for block in beta.content] == ["thinking", "text", "tool_use"]

    async def test_ids_are_unique(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        one, two = [await client.messages.create(**minimal_request(token)) for _ in range(2)]
        assert one.id != two.id
        assert one._request_id != two._request_id
        assert one.content[-1].id != two.content[-1].id

    async def test_text_comes_in_time(self, tmp_path: Path, token: str) -> None:
        server = Server(tmp_path, "--think-ms", "60000")
        try:
            server.register("scripts", steps(token, [{"text": "word " * 400}]))
            async with server.client() as client, client.messages.stream(**minimal_request(token)) as stream:
                pieces = aiter(stream.text_stream)
                for _ in range(3):
                    assert await anext(pieces)
                assert server.served() == [], "the answer must still be streaming"
        finally:
            server.stop()

    async def test_what_a_short_limit_tears_is_said(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        message = await client.messages.create(**minimal_request(token, model="claude-sonnet-4-6", max_tokens=30))
        assert message.stop_reason == "max_tokens"
        assert message.usage.output_tokens <= 30

    async def test_bodies_are_kept_as_received(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        message = await client.messages.create(**minimal_request(token))
        (kept,) = server.bodies.glob(f"*-{message._request_id}.json")
        assert json.loads(kept.read_bytes())["system"] == token

    async def test_counts_tokens_as_it_bills_them(self, client: AsyncAnthropic, token: str) -> None:
        request = minimal_request(token)
        message = await client.messages.create(**request)
        del request["max_tokens"]
        assert (await client.messages.count_tokens(**request)).input_tokens == message.usage.input_tokens

    async def test_lists_models(self, client: AsyncAnthropic) -> None:
        listed = {model.id async for model in client.models.list()}
        assert listed == set(known_models()) == set(get_args(get_args(Model)[0]))
        assert (await client.models.retrieve("claude-opus-5-5")).id == "claude-opus-5-5"
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("claude-nobody")


class TestCache:
    async def test_a_growing_conversation_reads_what_it_wrote(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("scripts", {"match": token, "script": {"kind": "long", "turns": 9}})
        system = f"{token} " + "word " * 1500
        messages: list[Any] = [{"role": "user", "content": "Begin."}]
        usages = []
        for _ in range(4):
            request = minimal_request(token, system=system, messages=messages, cache_control={"type": "ephemeral"})
            message = await client.messages.create(**request)
            usages.append(message.usage)
            call = message.content[-1]
            assert call.type == "tool_use"
            messages.append({"role": "assistant", "content": [call.model_dump(exclude={"caller", "toolset_name"})]})
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "fine"}
            messages.append({"role": "user", "content": [result]})
        assert usages[0].cache_read_input_tokens == 0
        for earlier, later in itertools.pairwise(usages):
            written = earlier.cache_creation_input_tokens or 0
            assert later.cache_read_input_tokens == (earlier.cache_read_input_tokens or 0) + written
            assert later.input_tokens == 0
            assert later.cache_creation is not None
            assert later.cache_creation.ephemeral_5m_input_tokens == later.cache_creation_input_tokens

    async def test_an_hour_is_accounted_apart(self, client: AsyncAnthropic, token: str) -> None:
        hour = {"type": "ephemeral", "ttl": "1h"}
        message = await client.messages.create(
            **minimal_request(token, system=token + "word " * 1500, cache_control=hour)
        )
        assert message.usage.cache_creation is not None
        assert message.usage.cache_creation.ephemeral_1h_input_tokens > 1800
        assert message.usage.cache_creation.ephemeral_5m_input_tokens == 0


class TestRefusals:
    async def test_needs_a_key(self, server: Server, token: str) -> None:
        response = httpx2.post(server.address + "/v1/messages", json=minimal_request(token))
        assert response.status_code == 401
        body = response.json()
        assert body["type"] == "error"
        assert body["error"]["type"] == "authentication_error"
        assert body["request_id"] == response.headers["request-id"]

    async def test_says_what_is_wrong(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        with pytest.raises(anthropic.BadRequestError, match="at least one message"):
            await client.messages.create(**minimal_request(token, messages=[]))
        assert server.served()[-1]["status"] == 400
        with pytest.raises(anthropic.NotFoundError, match="claude-nobody"):
            await client.messages.create(**minimal_request(token, model="claude-nobody"))

    async def test_the_sent_prefix_is_frozen(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        request = minimal_request(token, thinking={"type": "adaptive"})
        message = await client.messages.create(**request)
        content = [block.model_dump(exclude_none=True, exclude={"caller"}) for block in message.content]
        result = {"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "fine"}
        request["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        await client.messages.create(**request)
        with pytest.raises(anthropic.BadRequestError, match="the system prompt changed"):
            await client.messages.create(**(request | {"system": token + "!"}))
        content[0]["thinking"] = "Hm?"
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
            await client.messages.create(**request)


class TestFaults:
    async def stream(self, client: AsyncAnthropic, token: str) -> tuple[Message, bool]:
        """Return the message that the SDK assembles from the stream, and whether message_stop arrived."""
        stopped = False
        async with client.messages.stream(**minimal_request(token)) as stream:
            async for event in stream:
                stopped = stopped or event.type == "message_stop"
            return await stream.get_final_message(), stopped

    @pytest.mark.parametrize(
        ("kind", "status", "error"),
        [
            ("overloaded", 529, "overloaded_error"),
            ("rate_limited", 429, "rate_limit_error"),
            ("spend_limit", 429, "rate_limit_error"),
            ("server_error", 500, "api_error"),
            ("authentication", 401, "authentication_error"),
        ],
    )
    async def test_errors_in_place_of_an_answer(
        self, server: Server, client: AsyncAnthropic, token: str, kind: str, status: int, error: str
    ) -> None:
        server.register("faults", {"kind": kind, "match": token, "retry_after": 7})
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(**minimal_request(token))
        assert (caught.value.status_code, caught.value.type) == (status, error)
        assert ("enforced_spend_limit_reached" in str(caught.value.body)) is (kind == "spend_limit")
        assert caught.value.response.headers.get("retry-after") == ("7" if kind == "rate_limited" else None)
        line = server.served()[-1]
        assert (line["status"], line["fault"], sum(line["usage"].values())) == (status, kind, 0)
        await client.messages.create(**minimal_request(token))

    async def test_an_error_in_the_stream(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        server.register("faults", {"kind": "stream_error", "match": token})
        with pytest.raises(anthropic.APIStatusError) as caught:
            await self.stream(client, token)
        assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
        line = server.served()[-1]
        assert (line["stream"], line["stop_reason"]) == ("cut", None)
        assert line["usage"]["input"] > 0

    async def test_a_cut_connection(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        server.register("faults", [{"kind": "cut", "match": token, "times": 2}])
        with pytest.raises(httpx2.RemoteProtocolError):
            await self.stream(client, token)
        with pytest.raises((httpx2.RemoteProtocolError, anthropic.APIConnectionError)):
            await client.messages.create(**minimal_request(token))
        assert [line["stream"] for line in server.served()[-2:]] == ["cut", "cut"]

    async def test_an_early_clean_end(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        server.register("faults", {"kind": "early_end", "match": token})
        message, stopped = await self.stream(client, token)
        assert (message.stop_reason, stopped) == (None, False)
        assert message.content[-1].type == "tool_use"

    async def test_a_stall(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        server.register("faults", [{"kind": "stall", "match": token, "seconds": 0.3}])
        began = time.monotonic()
        _, stopped = await self.stream(client, token)
        assert stopped
        assert time.monotonic() - began > 0.3
        server.register("faults", {"kind": "stall", "match": token, "seconds": 600})
        impatient = client.with_options(timeout=httpx2.Timeout(DEADLINE, read=3))
        with pytest.raises((httpx2.ReadTimeout, anthropic.APITimeoutError)):
            await self.stream(impatient, token)
        await wait_until(lambda: server.served()[-1]["stream"] == "cut")
        assert server.served()[-1]["fault"] == "stall"

    async def test_broken_tool_json(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        server.register("faults", {"kind": "broken_tool_json", "match": token})
        with pytest.raises(ValueError, match="JSON"):
            await self.stream(client, token)

    @pytest.mark.parametrize(
        ("kind", "stop_reason"),
        [
            ("max_tokens", "max_tokens"),
            ("refusal", "refusal"),
            ("empty", "end_turn"),
            ("pause_turn", "pause_turn"),
            ("context_exceeded", "model_context_window_exceeded"),
            ("unknown_stop_reason", "a_reason_of_tomorrow"),
        ],
    )
    async def test_other_ways_to_stop(
        self, server: Server, client: AsyncAnthropic, token: str, kind: str, stop_reason: str
    ) -> None:
        server.register("scripts", steps(token, STEP))
        server.register("faults", {"kind": kind, "match": token})
        message, stopped = await self.stream(client, token)
        assert (message.stop_reason, stopped) == (stop_reason, True)
        assert (message.content == []) is (kind == "empty")

    async def test_a_paused_turn_goes_on(self, server: Server, client: AsyncAnthropic, token: str) -> None:
        server.register("scripts", steps(token, STEP))
        server.register("faults", {"kind": "pause_turn", "match": token})
        request = minimal_request(token)
        await client.messages.create(**request)
        request["messages"].append({"role": "assistant", "content": PAUSE_TEXT})
        assert (await client.messages.create(**request)).stop_reason == "tool_use"

    async def test_others_are_spared_and_nonsense_is_refused(
        self, server: Server, client: AsyncAnthropic, token: str
    ) -> None:
        server.register("faults", {"kind": "overloaded", "match": token + "x"})
        await client.messages.create(**minimal_request(token))
        for where, value in [("faults", {"kind": "sunshine"}), ("scripts", {"script": {"kind": "x"}}), ("faults", 3)]:
            assert httpx2.post(f"{server.address}/_rehearsal/{where}", json=value).status_code == 422


class TestProcess:
    def test_stops_at_once_with_code_0(self, tmp_path: Path) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            server = Server(tmp_path)
            assert server.environment["ANTHROPIC_API_KEY"] == "rehearsal"
            server.process.send_signal(number)
            assert server.process.wait(DEADLINE) == 0

    async def test_stops_while_a_stream_stalls(self, tmp_path: Path, token: str) -> None:
        server = Server(tmp_path)
        server.register("faults", {"kind": "stall", "seconds": 600})
        async with server.client() as client:
            pending = asyncio.create_task(client.messages.create(**minimal_request(token)))
            await wait_until(lambda: list(server.bodies.glob("*.json")))
            assert server.stop() == 0
            with pytest.raises(anthropic.APIError):
                await pending

    def test_dies_with_its_parent(self, tmp_path: Path) -> None:
        command = f"{sys.executable} -m local.rehearsal --die-with-parent & echo $!; read -r _"
        shell = subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert shell.stdout
        server = psutil.Process(int(shell.stdout.readline()))
        assert "ANTHROPIC_BASE_URL" in shell.stdout.readline()
        shell.kill()
        shell.wait()
        for left in survivors([server]):
            left.kill()
            pytest.fail("the server outlived its parent")

    def test_says_why_it_cannot_start(self, server: Server, tmp_path: Path) -> None:
        port = server.address.rsplit(":", 1)[1]
        (tmp_path / "broken.json").write_text("{")
        for options in (["--port", port], ["--scripts", str(tmp_path / "broken.json")]):
            command = [sys.executable, "-m", "local.rehearsal", *options]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
            assert done.returncode == 1
            assert done.stderr.startswith("The rehearsal model cannot start: ")
            assert "Traceback" not in done.stderr

    async def test_scripts_from_a_file_and_a_restart_in_the_middle(
        self, tmp_path: Path, workspace: Workspace, token: str
    ) -> None:
        file = tmp_path / "scripts.json"
        file.write_text(json.dumps({"scripts": [{"script": {"kind": "long", "turns": 6, "text": "Step."}}]}))
        first = Server(tmp_path, "--scripts", str(file))
        session = Session(first.client(), workspace, BRIEF)
        for _ in range(3):
            await session.turn()
        await session.client.close()
        first.stop()
        second = Server(tmp_path, "--scripts", str(file))
        try:
            session.client = second.client()
            await session.until_end_of_turn()
            await session.client.close()
            commands = [given["command"] for _, given, _ in session.calls]
            assert commands == [f"true # {number}-1" for number in range(1, 7)]
            assert len(second.served()) == 7
            assert len(list(second.bodies.iterdir())) == 7
        finally:
            second.stop()


def served_page(workspace: Workspace) -> str:
    """Serve the last commit alone, and return the product's page."""
    checkout = workspace.directory.parent / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", workspace.directory, checkout], check=True)
    manifest = parse_product_manifest((checkout / "cofounder.json").read_text())
    ports = Ports()
    port = ports.choose(set())
    process = subprocess.Popen(
        ["bash", "-c", f"exec {manifest.start}"],
        cwd=checkout,
        env=workspace.environment | {"PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    try:
        return wait_until_blocking(lambda: _answer(port))
    finally:
        process.kill()
        process.wait()
        ports.release()


def _answer(port: int) -> str | None:
    """Return the page or what is wrong with it; None while nothing listens."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE) as response:
            return str(response.read().decode())
    except HTTPError as error:
        return f"{error.code}"
    except ConnectionResetError:
        return "no answer"
    except OSError:
        return None


def checks(session: Session) -> list[bool]:
    """Return whether each run of the product's check passed, in order."""
    return [not answer[1] for _, given, answer in session.calls if "unittest" in str(given.get("command"))]


class TestProduct:
    """The product that it builds with the agent's tools in a directory."""

    async def test_a_build_from_random_words_and_a_second_one(
        self, tmp_path: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def word(spice: str) -> str:
            return f"{secrets.token_hex(6)} {spice}"

        brief: dict[str, Any] = {
            "name": word("& <b>Söhne</b> 🌱"),
            "problem": word('says "it\'s" $name\nand breaks </script> lines'),
            "features": [
                word("<img onerror=x>"),
                word("100% {braces} ${x}"),
                word("日本語\n\ttabs"),
                word("&amp; 'q'"),
            ],
        }
        server = Server(tmp_path)
        try:
            async with server.client() as client:
                session = Session(client, workspace, brief)
                await session.until_end_of_turn()
            assert 18 <= len(session.replies) <= 25
            tools = {"bash", "read_file", "write_file", "edit_file", "glob", "grep", "take_screenshot"}
            assert tools <= {name for name, _, _ in session.calls}
            assert checks(session).count(False) == 1
            assert checks(session)[-1] is True
            assert sum(answer[1] for _, _, answer in session.calls) == 1
            history = workspace.run("git log --format=%s; git status --short").stdout.splitlines()
            assert len(history) == 4
            shown = unescape(served_page(workspace))
            for text in [brief["name"], brief["problem"], *brief["features"]]:
                assert text in shown
            manifest = parse_product_manifest((workspace.directory / "cofounder.json").read_text())
            checked = workspace.run(f"cd ../checkout && {manifest.install} && {manifest.check}")
            assert checked.returncode == 0
            assert read_tally(checked.stdout).passed == 11
            counted = [line["usage"] for line in server.served()][3:]
            total = sum(sum(usage.values()) - usage["output"] for usage in counted)
            assert sum(usage["cache_read"] for usage in counted) / total > 0.9
            shares = self.shares(server.bodies, tmp_path / "without", capsys)
            assert float(shares[0]) > 90
            assert shares[1] == "0"
            await self.build_again(server, workspace, brief)
        finally:
            server.stop()

    def shares(self, bodies: Path, stripped: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
        """Return what the script prints for the original bodies, and without `cache_control`."""
        stripped.mkdir()
        for file in bodies.iterdir():
            body = json.loads(file.read_bytes())
            del body["cache_control"]
            (stripped / file.name).write_text(json.dumps(body))
        capsys.readouterr()
        print_share([str(bodies)])
        print_share([str(stripped)])
        return capsys.readouterr().out.split()

    async def build_again(self, server: Server, workspace: Workspace, brief: dict[str, Any]) -> None:
        """A second build continues the product of the first one."""
        brief = brief | {"features": [*brief["features"], "Share the harvest."]}
        async with server.client() as client:
            session = Session(client, workspace, brief, goal="Let neighbours share the harvest.")
            await session.until_end_of_turn()
        assert len(session.replies) < 10
        page = served_page(workspace)
        assert "Share the harvest." in page
        assert "Let neighbours share the harvest." in page
        assert "Let neighbours share" in (workspace.directory / "CHANGELOG.md").read_text().splitlines()[2]
        assert workspace.run("git log --oneline").stdout.count("\n") == 5

    async def test_with_edits_that_fail_it_takes_another_way_and_arrives(
        self, client: AsyncAnthropic, workspace: Workspace
    ) -> None:
        def spoil(name: str, given: dict[str, Any]) -> Answer | None:
            return ("The edit failed.", True) if name == "edit_file" else None

        session = Session(client, workspace, BRIEF, spoil=spoil)
        reply = await session.until_end_of_turn()
        assert "runs" in reply.content[-1].text  # type: ignore[union-attr]
        assert checks(session)[-1]
        assert "Offer a plot." in served_page(workspace)

    async def test_a_withheld_fix_never_makes_the_check_pass(
        self, server: Server, client: AsyncAnthropic, workspace: Workspace, token: str
    ) -> None:
        server.register("scripts", {"match": token, "script": {"kind": "product", "withhold_fix": True}})
        session = Session(client, workspace, BRIEF, goal=token)
        for _ in range(3):
            await session.until_end_of_turn()
            session.tell(gate_findings(["check: exit code 1"]))
        assert workspace.run("python3 -m unittest discover -s tests -t .").returncode == 1
        assert checks(session).count(False) == 1

    async def test_findings_of_the_gate_are_fixed(
        self, server: Server, client: AsyncAnthropic, workspace: Workspace, token: str
    ) -> None:
        script = {"kind": "product", "sabotage": "uncommitted_file"}
        server.register("scripts", {"match": token, "script": script})
        session = Session(client, workspace, BRIEF, goal=token)
        await session.until_end_of_turn()
        assert self.wrong_with(workspace) == "uncommitted_file"
        session.tell(gate_findings(["It did not work."]))
        await session.until_end_of_turn()
        assert self.wrong_with(workspace) is None

    @pytest.mark.parametrize("sabotage", [sabotage for sabotage in SABOTAGES if sabotage != "uncommitted_file"])
    def test_every_sabotage_shows_only_where_the_gate_looks(self, workspace: Workspace, sabotage: str) -> None:
        for path, text in sabotaged(product(read_idea(BRIEF, [], ""), 4), sabotage).items():
            workspace.call("write_file", {"file_path": path, "content": text})
        assert workspace.run(CHECK_COMMAND).returncode == 0
        who = "-c user.name=x -c user.email=x@localhost"
        assert workspace.run(f"git init -q && git add -A && git {who} commit -qm x").returncode == 0
        assert self.wrong_with(workspace) == sabotage

    def wrong_with(self, workspace: Workspace) -> str | None:
        """Check the last commit as the evidence gate does, without files that only the workspace has."""
        page, checkout = served_page(workspace), workspace.directory.parent / "checkout"
        manifest = parse_product_manifest((checkout / "cofounder.json").read_text())
        done = workspace.run(f"cd ../checkout && {manifest.check}")
        if (workspace.directory / "build").exists() and done.returncode:
            return "left_out_file"
        if done.returncode:
            return "ignored_file" if "content.json" in (checkout / ".gitignore").read_text() else "uncommitted_file"
        if read_tally(done.stdout).passed == 0:
            return "check_true" if manifest.check == "true" else "no_tests"
        if "Plot" in page:
            return None
        return "serve_500" if page == "500" else "blank_page"

    async def test_after_loss_of_its_files_it_restores_them(self, client: AsyncAnthropic, workspace: Workspace) -> None:
        session = Session(client, workspace, BRIEF)
        for _ in range(12):
            await session.turn()
        workspace.run("git stash -qu; git stash drop -q; rm -rf tests")
        session.tell(resumed("the sandbox was replaced", ["restored from a snapshot"]))
        reply = await session.until_end_of_turn()
        assert "runs" in reply.content[-1].text  # type: ignore[union-attr]
        assert "Offer a plot." in served_page(workspace)
