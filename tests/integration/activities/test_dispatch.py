"""Tool calls on a real database and a real sandbox: each runs once and has one result, whatever happens."""

import asyncio
import io
import json
import shlex
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from sqlalchemy import select, update
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.dispatch import DispatchActivities
from activities.tool_outcome import ToolOutcome
from activities.worker_tools import WORKER_TOOLS, ToolContext
from clients.browser import Browser
from clients.cipher import Cipher
from clients.sandbox import Role, Sandbox, SandboxConfig, Sandboxes
from clients.sandbox_runner import WORKSPACE
from db.builds import BuildRequest, insert_build
from db.models import Build, Event, Message, Prompt, ToolCall, Turn
from db.projects import create_project
from db.session import Sessions, make_engine, make_sessions
from db.steering import find_question, has_open_question, open_agent_questions
from db.transaction import transaction
from db.users import ensure_user
from domain.egress import hosts_of
from domain.guards import error_signature
from domain.payloads import DispatchInput, DispatchResult, SandboxRef
from domain.prompt import render_system_prompt
from domain.question import MAX_OPEN_QUESTIONS
from domain.redaction import SECRET as BLANKED
from domain.tools import TOOLS, RunsIn, Tool, ToolInput, render_tools
from local.stack import LocalStack
from services.product_secrets import remove_secret, set_secret
from tests.harness.build_rows import NO_WORKFLOW
from tests.harness.misuses import MISUSES, PREPARE
from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.sandbox.sandbox_server import sandbox_server

GOLDEN = Path(__file__).parent / "golden"
SECRET = "sk-ant-0123456789-secret"
CANCELLED = ActivityCancellationDetails(cancel_requested=True)
PAUSED = ActivityCancellationDetails(paused=True)
SHUT_DOWN = ActivityCancellationDetails(worker_shutdown=True)


class MemoryImages:
    """Stands in for the object store, which has its own tests."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put_image(self, sha256_hex: str, webp: bytes) -> None:
        self.kept[sha256_hex] = webp


@dataclass
class DispatchHarness:
    """A build with a sandbox, and short methods to request and run tool calls."""

    sessions: Sessions
    sandboxes: Sandboxes
    browser: Browser
    sandbox: Sandbox
    boot: str
    build_id: uuid.UUID
    images: MemoryImages = field(default_factory=MemoryImages)
    turns: int = 0

    @property
    def activities(self) -> DispatchActivities:
        return DispatchActivities(
            self.sessions,
            self.sandboxes,
            self.browser,
            self.images,
            bash_timeout_max_seconds=120,
            secrets=[SECRET],
        )

    async def ask(self, name: str, **given: Any) -> str:
        """Store an answer of the model that calls the tool, and return the tool_use_id."""
        self.turns += 1
        tool_use_id = f"toolu_{uuid.uuid4().hex}"
        blocks = [
            {"type": "text", "text": "I am about to."},
            {"type": "tool_use", "id": tool_use_id, "name": name, "input": given},
        ]
        async with transaction(self.sessions) as tx:
            tx.session.add(Turn(build_id=self.build_id, number=self.turns, run_id="run", claim=uuid.uuid4()))
            tx.session.add(
                Message(build_id=self.build_id, turn=self.turns, role="assistant", content=json.dumps(blocks))
            )
            tx.session.add(
                ToolCall(
                    build_id=self.build_id,
                    tool_use_id=tool_use_id,
                    turn=self.turns,
                    position=0,
                    name=name,
                    summary=name,
                )
            )
        return tool_use_id

    async def bash(self, command: str, timeout_seconds: int | None = None) -> str:
        return await self.ask("bash", command=command, timeout_seconds=timeout_seconds)

    async def attempt(
        self, tool_use_id: str, environment: ActivityEnvironment | None = None, where: SandboxRef | None = None
    ) -> DispatchResult:
        """Run one attempt of the activity."""
        where = where or SandboxRef(sandbox_id=self.sandbox.id, boot=self.boot)
        given = DispatchInput(build_id=str(self.build_id), tool_use_id=tool_use_id, sandbox=where)
        return await (environment or ActivityEnvironment()).run(self.activities.dispatch_tool, given)

    async def row(self, tool_use_id: str) -> ToolCall:
        async with transaction(self.sessions) as tx:
            return await tx.session.get_one(ToolCall, (self.build_id, tool_use_id))

    async def result_text(self, tool_use_id: str) -> str:
        """Return the text of the stored result."""
        row = await self.row(tool_use_id)
        assert row.result is not None
        block = json.loads(row.result)
        assert (block["type"], block["tool_use_id"]) == ("tool_result", tool_use_id)
        assert block.get("is_error", False) is row.is_error
        return "".join(part.get("text", "") for part in block["content"])

    async def events(self, tool_use_id: str) -> list[str]:
        async with transaction(self.sessions) as tx:
            rows = await tx.session.scalars(select(Event).where(Event.build_id == self.build_id).order_by(Event.id))
            return [row.type for row in rows if row.data.get("tool_use_id") == tool_use_id]

    async def until_file(self, name: str) -> None:
        command = f"until [ -e {name} ]; do sleep 0.02; done"
        assert (await self.sandbox.run(command, timeout_seconds=DEADLINE)).exit_code == 0

    async def processes(self) -> str:
        return (await self.sandbox.run("ps axo args", timeout_seconds=DEADLINE)).stdout


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[DispatchHarness]:
    found = stack.environment
    engine = make_engine(found["DATABASE_URL"], pool_size=3)
    sessions = make_sessions(engine)
    sandboxes = Sandboxes(SandboxConfig(found["E2B_API_KEY"], found["E2B_API_URL"], found["E2B_SANDBOX_URL"]))
    browser = Browser()
    async with transaction(sessions) as tx:
        user_id = f"founder-{uuid.uuid4()}"
        await ensure_user(tx, user_id)
        brief = {"name": "Bench", "problem": "none", "features": ["one"]}
        project = await create_project(tx, user_id, "Bench", brief, None)
        build = await insert_build(tx, BuildRequest(project.id, user_id, "a goal"))
        assert build is not None
        build.created_at = NO_WORKFLOW
    sandbox = await sandboxes.create(str(build.id), Role.WORKSPACE)
    await sandbox.run(
        "git init -q -b main . && git config user.email a@b.c && git config user.name a",
        timeout_seconds=DEADLINE,
    )
    yield DispatchHarness(sessions, sandboxes, browser, sandbox, await sandbox.boot(), build.id)
    for sandbox_id in await sandboxes.find(str(build.id), Role.WORKSPACE):
        await sandboxes.kill(sandbox_id)
    await browser.close()
    await sandboxes.close()
    await engine.dispose()


async def test_a_refused_host_is_named_to_the_agent_each_time_and_to_the_founder_once(
    harness: DispatchHarness, tmp_path: Path
) -> None:
    async with sandbox_server(tmp_path / "root", "--egress", "proxy", "--allow", "packages") as server:
        config = SandboxConfig(**server.options, egress_hosts=hosts_of(["packages"]))
        sandboxes = Sandboxes(config)
        sandbox = await sandboxes.create(str(harness.build_id), Role.WORKSPACE)
        here = replace(harness, sandboxes=sandboxes, sandbox=sandbox, boot=await sandbox.boot(), turns=1000)
        # What programs print of a refusal is not needed: these print nothing.
        for host in ("github.com", "github.com", f"{SECRET}.example"):
            call = await here.bash(f"curl -s -m 100 https://{host}/ || true")
            await here.attempt(call)
            text = await here.result_text(call)
            assert f"refused to connect to {host}:" in text.replace(BLANKED, SECRET)
            assert "SANDBOX_EGRESS_HOSTS" in text
            assert SECRET not in text
        fine = await here.bash("curl -s -m 5 http://127.0.0.1:9/ || true; echo fine")
        await here.attempt(fine)
        assert await here.result_text(fine) == "fine"
        await sandboxes.close()
    async with transaction(harness.sessions) as tx:
        query = select(Event.data).where(Event.build_id == harness.build_id, Event.type == "host_refused")
        told = (await tx.session.scalars(query.order_by(Event.id))).all()
    assert [each["host"] for each in told] == ["github.com", f"{BLANKED}.example"]
    assert "its set `git`" in told[0]["remedy"]
    assert SECRET not in json.dumps(told)


async def test_a_call_is_checked_against_the_schema_of_its_own_prefix(harness: DispatchHarness) -> None:
    """Builds of another version go on: what that version told the model counts, not today's tools."""
    tools = json.loads(render_tools())
    bash = next(tool for tool in tools if tool["name"] == "bash")
    bash["input_schema"]["properties"] = {"command": {"type": "string"}}
    bash["input_schema"]["required"] = ["command"]
    call, refused = await harness.ask("bash", command="echo hello"), await harness.bash("echo never")
    async with transaction(harness.sessions) as tx:
        tx.session.add(Prompt(build_id=harness.build_id, prefix=7, system="[]", tools=json.dumps(tools)))
        await tx.session.execute(update(Turn).where(Turn.build_id == harness.build_id).values(prefix=7))
    assert not (await harness.attempt(call)).is_error
    assert await harness.result_text(call) == "hello"
    assert (await harness.attempt(refused)).is_error
    assert "timeout_seconds: Extra inputs are not permitted" in await harness.result_text(refused)
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(update(Turn).where(Turn.build_id == harness.build_id).values(prefix=0))


async def test_a_conversation_that_began_with_former_names_goes_on(harness: DispatchHarness) -> None:
    tools = json.loads((GOLDEN / "request_thinking.json").read_text())["tools"]
    async with transaction(harness.sessions) as tx:
        tx.session.add(Prompt(build_id=harness.build_id, prefix=8, system="[]", tools=json.dumps(tools)))

    async def run(name: str, **given: Any) -> str:
        call = await harness.ask(name, **given)
        async with transaction(harness.sessions) as tx:
            await tx.session.execute(
                update(Turn).where(Turn.build_id == harness.build_id, Turn.number == harness.turns).values(prefix=8)
            )
        await harness.attempt(call)
        return await harness.result_text(call)

    assert "Created former" in await run("write_file", path="former", content="one\ntwo\n")
    assert "Replaced 1" in await run("edit_file", path="former", old_text="one", new_text="1", replace_all=None)
    assert await run("read_file", path="former", start_line=2, line_count=1) == "     2\ttwo"
    assert await run("bash", command="cat former", timeout_seconds=5) == "1\ntwo"
    assert await run("glob", pattern="form*") == "former"
    assert await run("grep", pattern="two", glob=None) == "former:2: two"
    assert "Call it again with path, content" in await run("write_file", file_path="former", content="")


async def test_a_command_is_run_and_its_result_stored(harness: DispatchHarness) -> None:
    call = await harness.bash("echo hello; exit 3")
    error = error_signature("bash", "", "hello\n[exit code 3]")
    assert await harness.attempt(call) == DispatchResult(is_error=True, error_signature=error)
    assert await harness.attempt(call) == DispatchResult(is_error=True, error_signature=error)
    assert await harness.result_text(call) == "hello\n[exit code 3]"
    assert await harness.events(call) == ["tool_started", "tool_done"]
    row = await harness.row(call)
    assert (row.state, row.sandbox_id, row.boot) == ("done", harness.sandbox.id, harness.boot)


async def test_a_command_has_stand_ins_for_the_secrets_of_the_product(harness: DispatchHarness) -> None:
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, harness.build_id)
        cipher = Cipher({"main": bytes(32)})
        await set_secret(tx, cipher, build.user_id, build.project_id, "STRIPE_API_KEY", "a key that is real")
    call = await harness.bash('echo "$STRIPE_API_KEY"; env | grep -c real')
    await harness.attempt(call)
    assert await harness.result_text(call) == "stand-in-STRIPE_API_KEY\n0\n[exit code 1]"
    async with transaction(harness.sessions) as tx:
        await remove_secret(tx, build.user_id, build.project_id, "STRIPE_API_KEY")


class CountLinesInput(ToolInput):
    """The input of a tool that a contributor could add."""

    path: str


async def test_a_tool_is_added_in_one_place(harness: DispatchHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Tool(
        "count_lines",
        "Count the lines of a file.",
        CountLinesInput,
        RunsIn.COMMAND,
        mutating=True,
        command=lambda given: f"echo x >> counted; wc -l < {shlex.quote(given.path)}",
    )
    monkeypatch.setitem(TOOLS, tool.name, tool)
    assert tool.name in render_system_prompt({}, [], "goal", [])
    assert json.loads(render_tools())[-1]["input_schema"]["required"] == ["path"]
    await harness.sandbox.write(f"{WORKSPACE}/odd 'name", "one\ntwo\n")
    call = await harness.ask("count_lines", path="odd 'name")
    for _ in range(2):
        assert await harness.attempt(call) == DispatchResult()
    assert await harness.result_text(call) == "2"
    assert await harness.sandbox.read(f"{WORKSPACE}/counted") == b"x\n"
    wrong = await harness.ask("count_lines", file="counted")
    assert (await harness.attempt(wrong)).is_error
    assert "does not fit its schema" in await harness.result_text(wrong)


async def test_a_tool_of_the_worker_shows_no_secret(harness: DispatchHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def name_sandbox(context: ToolContext, request: ToolInput) -> ToolOutcome:
        assert not request.model_dump()
        return ToolOutcome([f"\x1b[1m{context.sandbox.id}\x1b[0m {SECRET}"])

    tool = Tool("name_sandbox", "Say which sandbox this is.", ToolInput, RunsIn.WORKER)
    monkeypatch.setitem(TOOLS, tool.name, tool)
    monkeypatch.setitem(WORKER_TOOLS, tool.name, name_sandbox)
    call = await harness.ask("name_sandbox")
    assert await harness.attempt(call) == DispatchResult()
    assert await harness.result_text(call) == f"{harness.sandbox.id} [secret]"


async def test_a_stored_result_is_returned_and_nothing_run(harness: DispatchHarness) -> None:
    call = await harness.bash("echo x >> stored")
    assert await harness.attempt(call) == DispatchResult()
    assert await harness.attempt(call, where=SandboxRef(sandbox_id="gone", boot="gone")) == DispatchResult()
    assert await harness.sandbox.read(f"{WORKSPACE}/stored") == b"x\n"
    assert await harness.events(call) == ["tool_started", "tool_done"]


async def test_history_has_only_values_that_differ_from_the_default(harness: DispatchHarness) -> None:
    call = await harness.bash("true")
    result = await harness.attempt(call)
    assert result.model_dump(exclude_unset=True) == {}


async def test_two_attempts_at_once(harness: DispatchHarness) -> None:
    call = await harness.bash("echo x >> both; sleep 0.4; wc -l < both")
    results = await asyncio.gather(*(harness.attempt(call) for _ in range(3)), return_exceptions=True)
    # Stale attempts write nothing: they return the result if it is stored by then, or fail as stale.
    for result in results:
        if isinstance(result, ApplicationError):
            assert result.type == "StaleClaim"
            assert not result.non_retryable
        else:
            assert result == DispatchResult()
    assert DispatchResult() in results
    assert (await harness.result_text(call)).strip() == "1"
    assert (await harness.events(call)).count("tool_started") == 1
    assert (await harness.events(call)).count("tool_done") == 1


@pytest.mark.parametrize("why", [SHUT_DOWN, PAUSED], ids=["shut-down", "paused"])
async def test_a_worker_that_stops_leaves_it_running_for_the_next(
    harness: DispatchHarness, why: ActivityCancellationDetails
) -> None:
    """The worker shuts down, or an operator has paused the activity."""
    await harness.sandbox.run("rm -f shut go", timeout_seconds=DEADLINE)
    call = await harness.bash("echo x >> shut; until [ -e go ]; do sleep 0.02; done; wc -l < shut")
    environment = ActivityEnvironment()
    first = asyncio.create_task(harness.attempt(call, environment))
    await harness.until_file("shut")
    environment.cancel(why)
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await harness.row(call)).state == "intended"
    await harness.sandbox.write(f"{WORKSPACE}/go", "")
    assert await harness.attempt(call) == DispatchResult()
    assert (await harness.result_text(call)).strip() == "1"
    assert await harness.events(call) == ["tool_started", "tool_done"]


async def test_a_cancelled_build_ends_the_tree_and_has_a_result(harness: DispatchHarness) -> None:
    call = await harness.bash("touch cut; sleep 61 & setsid sleep 61 & sleep 61")
    environment = ActivityEnvironment()
    running = asyncio.create_task(harness.attempt(call, environment))
    await harness.until_file("cut")
    environment.cancel(CANCELLED)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "cancelled" in await harness.result_text(call)
    assert (await harness.row(call)).is_error
    assert "sleep 61" not in await harness.processes()
    assert await harness.events(call) == ["tool_started", "tool_done"]


async def test_heartbeats_while_it_runs(harness: DispatchHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    monkeypatch.setattr("activities.runtime.heartbeat._FIRST_SECONDS", 3600)
    await harness.attempt(await harness.bash("true"), environment)
    assert not beats, "a short call needs no heartbeat"
    monkeypatch.setattr("activities.runtime.heartbeat._FIRST_SECONDS", 0.1)
    call = await harness.bash("until [ -e beaten ]; do sleep 0.02; done")
    running = asyncio.create_task(harness.attempt(call, environment))
    await wait_until(lambda: len(beats) >= 2)
    await harness.sandbox.write(f"{WORKSPACE}/beaten", "")
    assert await running == DispatchResult()


async def test_a_timeout_is_reported(harness: DispatchHarness) -> None:
    call = await harness.bash("echo slow; sleep 62 & sleep 62", timeout_seconds=3)
    assert (await harness.attempt(call)).is_error
    assert (await harness.result_text(call)).startswith("slow\n[timed out after 3 s; its processes were ended.")
    assert "sleep 62" not in await harness.processes()


async def test_output_is_cleaned_bounded_and_without_secrets(harness: DispatchHarness) -> None:
    call = await harness.bash(r"printf '\033[31mred\033[0m a\0b \377\n'; echo key " + SECRET)
    await harness.attempt(call)
    assert await harness.result_text(call) == "red a\ufffdb \ufffd\nkey [secret]"
    loud = await harness.bash("yes | head -c 5000000; echo the end")
    await harness.attempt(loud)
    result_text = await harness.result_text(loud)
    assert len(result_text) < 25_000
    assert f"/.cofounder/calls/{loud}/output" in result_text
    assert result_text.endswith("the end")


async def test_commits_end_phases(harness: DispatchHarness) -> None:
    call = await harness.bash("git commit -q --allow-empty -m 'Scaffold'")
    result = await harness.attempt(call)
    head = (await harness.sandbox.run("git rev-parse HEAD", timeout_seconds=DEADLINE)).stdout.strip()
    assert result == DispatchResult(commit=head[:12])
    assert (await harness.row(call)).commit == head[:12]
    assert await harness.attempt(call) == DispatchResult(commit=head[:12])
    assert await harness.attempt(await harness.bash("git log --oneline")) == DispatchResult()


async def test_files(harness: DispatchHarness) -> None:
    content = "ünï\n" * 200_000
    assert (
        await harness.attempt(await harness.ask("write_file", file_path="a/big", content=content)) == DispatchResult()
    )
    assert (await harness.sandbox.read(f"{WORKSPACE}/a/big")).decode() == content
    await harness.attempt(await harness.ask("write_file", file_path="f", content="one two two"))
    edit = await harness.ask("edit_file", file_path="f", old_string="one", new_string="1", replace_all=None)
    assert await harness.attempt(edit) == DispatchResult()
    for given, problem in (({"old_string": "three"}, "does not occur"), ({"old_string": "two"}, "occurs 2 times")):
        call = await harness.ask("edit_file", file_path="f", new_string="x", replace_all=None, **given)
        assert (await harness.attempt(call)).is_error
        assert problem in await harness.result_text(call)
    outside = await harness.ask("write_file", file_path="../../x", content="x")
    assert (await harness.attempt(outside)).is_error
    assert "outside the workspace" in await harness.result_text(outside)
    read = await harness.ask("read_file", file_path="f", view_range=None)
    assert await harness.attempt(read) == DispatchResult()
    assert await harness.result_text(read) == "     1\t1 two two"
    assert (await harness.attempt(await harness.ask("glob", pattern="**/*"))) == DispatchResult()
    assert (await harness.attempt(await harness.ask("grep", pattern="(", glob=None))).is_error


async def test_a_call_that_does_not_fit_is_not_run(harness: DispatchHarness) -> None:
    unknown = await harness.ask("rm_rf", path="/")
    assert (await harness.attempt(unknown)).is_error
    assert "no tool named rm_rf" in await harness.result_text(unknown)
    incomplete = await harness.ask("bash", command="touch never", cwd="/")
    assert (await harness.attempt(incomplete)).is_error
    assert "does not fit its schema" in await harness.result_text(incomplete)
    assert (await harness.sandbox.run("test -e never", timeout_seconds=DEADLINE)).exit_code == 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pkill python3; sleep 0.5; echo went on", "went on"),
        ("pkill -9 python3; sleep 0.5; echo went on", "went on"),
        ("kill $PPID; sleep 0.5; echo went on", "went on"),
        ("(sleep 600 & exec sleep 600) & pkill -9 cofounder; sleep 600", "your command ended its own supervisor"),
        ("exec pkill -9 -f -- '-IS -c'", "your command ended its own supervisor"),
    ],
)
async def test_a_command_that_ends_its_supervisor_loses_no_sandbox(
    harness: DispatchHarness, command: str, expected: str
) -> None:
    call = await harness.bash(command)
    result = await harness.attempt(call)
    assert not result.lost
    text = await harness.result_text(call)
    assert expected in text
    assert "founder cancelled" not in text
    again = await harness.bash("echo fine")
    assert await harness.attempt(again) == DispatchResult()
    assert "sleep 600" not in await harness.processes()


@pytest.mark.parametrize("tool", MISUSES)
async def test_an_agent_that_misuses_a_tool_is_told_what_to_do(harness: DispatchHarness, tool: str) -> None:
    prepared = await harness.sandbox.run(f"[ -d misuse ] || {{ {PREPARE} }}", timeout_seconds=DEADLINE)
    assert prepared.exit_code == 0, prepared.stderr
    assert len(MISUSES[tool]) >= 10
    for given, remedy in MISUSES[tool]:
        call = await harness.ask(tool, **given)
        result = await harness.attempt(call)
        text = await harness.result_text(call)
        assert remedy in text, f"{tool} {str(given)[:200]}: {text}"
        assert not result.lost, "nothing was lost"
        assert result.is_error or tool in ("glob", "grep"), "to find nothing is not an error"


async def begin(harness: DispatchHarness, tool_use_id: str, where: SandboxRef) -> None:
    """Leave what an attempt leaves that died after it had begun."""
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(
            update(ToolCall)
            .where(ToolCall.tool_use_id == tool_use_id)
            .values(state="intended", claim=uuid.uuid4(), sandbox_id=where.sandbox_id, boot=where.boot)
        )


@pytest.mark.parametrize("ref", [{"sandbox_id": "another"}, {"boot": "another"}])
async def test_after_a_reboot_the_outcome_is_unknown(harness: DispatchHarness, ref: dict[str, str]) -> None:
    call = await harness.bash("touch twice")
    before = SandboxRef(sandbox_id=harness.sandbox.id, boot=harness.boot).model_copy(update=ref)
    await begin(harness, call, before)
    assert await harness.attempt(call) == DispatchResult(is_error=True)
    assert "outcome of this call is unknown" in await harness.result_text(call)
    assert (await harness.sandbox.run("test -e twice", timeout_seconds=DEADLINE)).exit_code == 1
    reading = await harness.ask("glob", pattern="*")
    await begin(harness, reading, before)
    assert await harness.attempt(reading) == DispatchResult()


async def test_a_call_that_began_and_never_reached_the_sandbox_is_run(harness: DispatchHarness) -> None:
    call = await harness.bash("echo x >> reached; cat reached")
    await begin(harness, call, SandboxRef(sandbox_id=harness.sandbox.id, boot=harness.boot))
    assert await harness.attempt(call) == DispatchResult()
    assert await harness.result_text(call) == "x"


async def test_a_sandbox_that_was_restarted_or_is_gone(harness: DispatchHarness) -> None:
    own = await harness.sandboxes.create(str(harness.build_id), Role.WORKSPACE)
    here = SandboxRef(sandbox_id=own.id, boot=await own.boot())
    lost = await harness.bash("sleep 63")
    environment = ActivityEnvironment()
    running = asyncio.create_task(harness.attempt(lost, environment, where=here))
    await own.run("until pgrep -f '^sleep 63$'; do sleep 0.02; done", timeout_seconds=DEADLINE)
    environment.cancel(SHUT_DOWN)
    with pytest.raises(asyncio.CancelledError):
        await running
    await harness.sandboxes.pause(own.id)
    config = harness.sandboxes.config
    async with httpx2.AsyncClient(headers={"X-API-KEY": config.api_key}, trust_env=False) as client:
        body = {"timeout": 300, "memory": False}
        (await client.post(f"{config.api_url}/v2/sandboxes/{own.id}/connect", json=body)).raise_for_status()
    assert await harness.attempt(lost, where=here) == DispatchResult(is_error=True, lost=True)
    assert "outcome of this call is unknown" in await harness.result_text(lost)

    refused = await harness.bash("touch refused")
    assert await harness.attempt(refused, where=here) == DispatchResult(is_error=True, lost=True)
    assert "was not run" in await harness.result_text(refused)
    # The worker died before it could report it: the next attempt reports it.
    assert await harness.attempt(refused, where=here) == DispatchResult(is_error=True, lost=True)

    await harness.sandboxes.kill(own.id)
    for name, given in (("bash", {"command": "true", "timeout_seconds": None}), ("glob", {"pattern": "*"})):
        call = await harness.ask(name, **given)
        assert await harness.attempt(call, where=here) == DispatchResult(is_error=True, lost=True)
        assert "was not run" in await harness.result_text(call)
    begun = await harness.bash("true")
    await begin(harness, begun, here)
    assert await harness.attempt(begun, where=here) == DispatchResult(is_error=True, lost=True)
    assert "is unknown" in await harness.result_text(begun)


async def test_a_service_that_does_not_answer_is_worth_another_attempt(harness: DispatchHarness) -> None:
    call = await harness.bash("echo late")
    away = DispatchHarness(
        harness.sessions,
        Sandboxes(SandboxConfig("k", "http://127.0.0.1:9", "http://127.0.0.1:9")),
        harness.browser,
        harness.sandbox,
        harness.boot,
        harness.build_id,
    )
    with pytest.raises(ApplicationError) as failed:
        await away.attempt(call)
    assert failed.value.type == "SandboxUnavailable"
    assert not failed.value.non_retryable
    assert await harness.attempt(call) == DispatchResult()
    assert await harness.result_text(call) == "late"
    assert await harness.events(call) == ["tool_started", "tool_done"]


def _png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (width, height), (200, 30, 30, 128)).save(buffer, "PNG")
    return buffer.getvalue()


async def test_an_image_of_the_workspace_is_shown(harness: DispatchHarness) -> None:
    await harness.sandbox.write(f"{WORKSPACE}/logo.png", _png(3000, 1500))
    await harness.sandbox.write(f"{WORKSPACE}/torn.png", _png(300, 300)[:60])
    call = await harness.ask("read_file", file_path="logo.png", view_range=None)
    assert await harness.attempt(call) == DispatchResult()
    assert await harness.result_text(call) == "logo.png: 3000x1500 pixels, shown as 1568x784."
    content = json.loads((await harness.row(call)).result or "")["content"]
    [name] = [part["source"]["data"].removeprefix("sha256:") for part in content if part["type"] == "image"]
    with Image.open(io.BytesIO(harness.images.kept[name])) as shown:
        assert (shown.format, shown.size) == ("WEBP", (1568, 784))
    for path, view_range, problem in (
        ("torn.png", None, "could not be decoded"),
        ("logo.png", [1, 2], "Leave out view_range"),
    ):
        call = await harness.ask("read_file", file_path=path, view_range=view_range)
        assert (await harness.attempt(call)).is_error
        assert problem in await harness.result_text(call)


QUESTION = {"question": f"Which price, {SECRET}?", "options": ["5 EUR", "9 EUR"], "default": "9 EUR"}


async def test_the_founder_is_asked_once_and_nothing_waits(harness: DispatchHarness) -> None:
    call = await harness.ask("ask_founder", **QUESTION)
    results = await asyncio.gather(*(harness.attempt(call) for _ in range(2)), return_exceptions=True)
    assert DispatchResult() in results
    assert await harness.attempt(call) == DispatchResult()
    assert "Go on now with your default: 9 EUR" in await harness.result_text(call)
    async with transaction(harness.sessions) as tx:
        asked = [each for each in await open_agent_questions(tx, [harness.build_id]) if each.tool_use_id == call]
        events = await tx.session.scalars(
            select(Event).where(Event.build_id == harness.build_id, Event.type == "question")
        )
        shown = [event.data for event in events if event.data["question_id"] == str(asked[0].id)]
        assert not await has_open_question(tx, harness.build_id), "the build waits for none"
        assert await find_question(tx, harness.build_id) is None
    assert [(each.problem, each.options, each.default_option) for each in asked] == [
        ("Which price, [secret]?", ["5 EUR", "9 EUR"], "9 EUR")
    ]
    assert [(data["options"], data["default"]) for data in shown] == [(["5 EUR", "9 EUR"], "9 EUR")]


async def test_questions_beyond_the_limit_are_refused(harness: DispatchHarness) -> None:
    async def count() -> int:
        async with transaction(harness.sessions) as tx:
            return len(await open_agent_questions(tx, [harness.build_id]))

    while await count() < MAX_OPEN_QUESTIONS:
        assert await harness.attempt(await harness.ask("ask_founder", **QUESTION)) == DispatchResult()
    call = await harness.ask("ask_founder", **QUESTION)
    assert (await harness.attempt(call)).is_error
    assert "This was not asked: 5 of your questions" in await harness.result_text(call)
    assert await count() == MAX_OPEN_QUESTIONS


async def test_a_question_needs_no_sandbox(harness: DispatchHarness) -> None:
    call = await harness.ask("ask_founder", **QUESTION)
    gone = await harness.attempt(call, where=SandboxRef(sandbox_id="gone", boot="b"))
    assert not gone.lost


async def serve(harness: DispatchHarness, page: str) -> None:
    """Serve a page of a product on port 8321."""
    product = {"install": "true", "check": "true", "start": "true", "port": 8321}
    await harness.sandbox.write(f"{WORKSPACE}/cofounder.json", json.dumps(product))
    await harness.sandbox.write(f"{WORKSPACE}/www/index.html", f"<meta name=viewport content=width=device-width>{page}")
    start = "cd www && nohup python3 -m http.server 8321 --bind 127.0.0.1 >/tmp/log 2>&1 & "
    wait = "until exec 3<>/dev/tcp/127.0.0.1/8321; do sleep 0.05; done 2>/dev/null"
    assert await harness.attempt(await harness.bash(start + wait)) == DispatchResult()


async def test_screenshots(harness: DispatchHarness) -> None:
    missing = await harness.ask("take_screenshot", path="/")
    assert (await harness.attempt(missing)).is_error
    assert "No server answers on port 8000" in await harness.result_text(missing)
    await serve(harness, "<h1>Shown</h1>")
    kept_before = list(harness.images.kept)
    call = await harness.ask("take_screenshot", path="/")
    assert await harness.attempt(call) == DispatchResult()
    assert await harness.result_text(call) == "/ on port 8321: desktop 1280x800 and mobile 390x844; HTTP status 200."
    row = await harness.row(call)
    assert row.result is not None
    pictures = [part["source"] for part in json.loads(row.result)["content"] if part["type"] == "image"]
    new = list(harness.images.kept)[len(kept_before) :]
    assert [picture["data"].removeprefix("sha256:") for picture in pictures] == new
    assert {picture["media_type"] for picture in pictures} == {"image/webp"}
    assert "toolu" not in json.dumps([*harness.images.kept])


FORM = f"""<h1>Waitlist</h1><form onsubmit="event.preventDefault(); document.title = email.value; tell()">
<input name=email><button>Join</button></form><p id=answer></p>
<script>function tell() {{ answer.textContent = 'Thank you'; fetch('/missing');
throw new Error('{SECRET}') }}</script>"""

JOIN = [
    {"action": "fill", "selector": "input[name=email]", "text": "ada@example.org"},
    {"action": "click", "selector": "text=Join", "text": ""},
    {"action": "wait", "selector": "", "text": "Thank you"},
]


async def look(harness: DispatchHarness, steps: list[dict[str, str]], path: str = "/") -> str:
    return await harness.ask("look", path=path, viewport="mobile", steps=steps, full_page=True)


async def test_looking_at_a_page(harness: DispatchHarness) -> None:
    await serve(harness, FORM)
    call = await look(harness, JOIN)
    assert not (await harness.attempt(call)).is_error
    text = await harness.result_text(call)
    assert text.startswith("/ on port 8321, mobile 390x844, HTTP status 200, title 'ada@example.org'.")
    assert "Console errors:\n- Uncaught Error: [" in text
    assert SECRET not in text
    assert "Failed requests:\n- fetch /missing: status 404" in text
    assert "Visible text:\nWaitlist\nJoin\n\nThank you" in text
    row = await harness.row(call)
    [picture] = [part["source"] for part in json.loads(row.result or "")["content"] if part["type"] == "image"]
    assert picture["data"].removeprefix("sha256:") in harness.images.kept

    wrong = await look(harness, [{"action": "click", "selector": "text=Leave", "text": ""}])
    assert (await harness.attempt(wrong)).is_error
    told = await harness.result_text(wrong)
    assert told.startswith(
        "Step 1 of 1 (click text=Leave) could not be done: nothing on the page matches this selector."
    )
    assert 'What can be clicked or filled in: input[name="email"], text="Join".' in told


async def test_steps_are_not_taken_again(harness: DispatchHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker dies while it looks. The next attempt can't know what the steps have done; it may look without any."""
    await serve(harness, FORM)

    async def dies(*_: object, **__: object) -> None:
        raise ConnectionError("the worker died")

    acting, only_looking = await look(harness, JOIN), await look(harness, [])
    with monkeypatch.context() as patched:
        patched.setattr(harness.browser, "view", dies)
        for call in (acting, only_looking):
            with pytest.raises(ApplicationError, match="the worker died"):
                await harness.attempt(call)
    assert await harness.attempt(acting) == DispatchResult(is_error=True)
    assert "The outcome of this call is unknown" in await harness.result_text(acting)
    assert "not done again" in await harness.result_text(acting)
    assert not (await harness.attempt(only_looking)).is_error
    assert "Visible text:\nWaitlist" in await harness.result_text(only_looking)


async def test_a_cancelled_look_has_its_result(harness: DispatchHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await serve(harness, FORM)
    looked = asyncio.Event()

    async def hangs(*_: object, **__: object) -> None:
        looked.set()
        await asyncio.sleep(DEADLINE)

    call, environment = await look(harness, JOIN), ActivityEnvironment()
    with monkeypatch.context() as patched:
        patched.setattr(harness.browser, "view", hangs)
        running = asyncio.create_task(harness.attempt(call, environment))
        await looked.wait()
        environment.cancel(CANCELLED)
        with pytest.raises(asyncio.CancelledError):
            await running
    assert "cancelled" in await harness.result_text(call)


@pytest.mark.parametrize("steps", [3, 10, 30, 100])
async def test_cancelled_at_any_moment_it_has_one_result(harness: DispatchHarness, steps: int) -> None:
    call = await harness.bash("sleep 64")
    environment = ActivityEnvironment()
    running = asyncio.create_task(harness.attempt(call, environment))
    for _ in range(steps):
        await asyncio.sleep(0)
    environment.cancel(CANCELLED)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "cancelled" in await harness.result_text(call)
    assert (await harness.events(call)).count("tool_done") == 1
    # A late attempt finds the result, and the sandbox starts nothing.
    assert await harness.attempt(call) == DispatchResult(is_error=True)
    assert "sleep 64" not in await harness.processes()
