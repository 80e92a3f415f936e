"""The sandbox adapter: the real SDK with the real local server."""

import asyncio
import dataclasses
import gc
import json
import uuid
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from clients.sandbox import Role, Sandbox, SandboxConfig, Sandboxes
from clients.sandbox_runner import JOURNAL, WORKSPACE
from domain.errors import InvalidInput, NeedsPerson, SandboxGone, SandboxOverloaded, SandboxUnavailable
from local.stack import LocalStack
from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.sandbox.sandbox_server import sandbox_server


@pytest.fixture(scope="module")
async def sandboxes(stack: LocalStack) -> AsyncIterator[Sandboxes]:
    found = stack.environment
    made = Sandboxes(
        SandboxConfig(found["E2B_API_KEY"], found["E2B_API_URL"], found["E2B_SANDBOX_URL"], ttl_seconds=300)
    )
    yield made
    await made.close()


@pytest.fixture(scope="module")
async def sandbox(sandboxes: Sandboxes) -> AsyncIterator[Sandbox]:
    made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
    yield made
    await sandboxes.kill(made.id)


async def bash(sandbox: Sandbox, call_id: str, command: str) -> str:
    outcome = await sandbox.call(call_id, "bash", {"command": command}, timeout_seconds=DEADLINE)
    assert outcome.state == "done"
    return outcome.text


async def restart_without_memory(sandboxes: Sandboxes, sandbox_id: str) -> None:
    """Pause the sandbox and boot it again from its files, as a provider does after losing its memory."""
    await sandboxes.pause(sandbox_id)
    async with httpx2.AsyncClient(headers={"X-API-KEY": sandboxes.config.api_key}, trust_env=False) as client:
        answer = await client.post(
            f"{sandboxes.config.api_url}/v2/sandboxes/{sandbox_id}/connect", json={"timeout": 300, "memory": False}
        )
        assert answer.status_code == 201, answer.text


async def runners(sandbox: Sandbox) -> list[int]:
    """The pids of the runners that wait for requests in the sandbox."""
    listed = await sandbox.run("pgrep -f runner.main.*serve", timeout_seconds=DEADLINE)
    return [int(pid) for pid in listed.stdout.split()]


async def test_one_runner_answers_many_requests(sandboxes: Sandboxes) -> None:
    made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
    large = "x" * 90_000
    written = {"file_path": "large", "content": large}
    calls = [bash(made, f"side-{number}", f"sleep 0.2; echo {number}") for number in range(4)]
    assert await asyncio.gather(*calls) == ["0\n", "1\n", "2\n", "3\n"]
    assert (await made.call("large", "write_file", written, timeout_seconds=DEADLINE)).state == "done"
    assert (await made.read(f"{WORKSPACE}/large")).decode() == large
    assert "does not exist" in (await made.query("read_file", {"file_path": "missing"})).text
    assert len(found := await runners(made)) == 1
    # Without a command that is the runner's own child, nothing of a call is left.
    assert await bash(made, "zombies", "ps -o stat= --ppid $(ps -o ppid= -p $PPID) | grep -c Z || true") == "0\n"
    assert await runners(made) == found
    await sandboxes.kill(made.id)


async def test_a_runner_that_is_ended_or_replaced_is_done_without(sandboxes: Sandboxes) -> None:
    made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
    assert await bash(made, "first", "echo 1") == "1\n"
    [pid] = await runners(made)
    running = asyncio.create_task(bash(made, "second", "until [ -e go ]; do sleep 0.1; done; echo once | tee -a times"))
    await wait_until(lambda: exists(made, f"{JOURNAL}/calls/second/keeper"))
    await made.run(f"kill -9 {pid}; touch go", timeout_seconds=DEADLINE)
    assert await running == "once\n"
    assert await bash(made, "third", "cat times") == "once\n"
    await made.install_runner()  # as another version of Cofounder would install its own
    assert await bash(made, "fourth", "echo 4") == "4\n"
    await sandboxes.pause(made.id)
    again = await sandboxes.connect(made.id)
    assert await bash(again, "fifth", "cat times") == "once\n"
    await sandboxes.kill(made.id)


async def test_sandboxes_that_another_worker_ended_are_forgotten(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Sandboxes(sandboxes.config)
    first, second = [await mine.create(str(uuid.uuid4()), Role.WORKSPACE) for _ in range(2)]
    ids = first.id, second.id
    assert [await bash(each, "first", "echo 1") for each in (first, second)] == ["1\n", "1\n"]
    await sandboxes.kill(first.id)  # as another worker
    forgotten = weakref.ref(first)
    del first
    await mine.resume(second.id)
    assert forgotten() is not None
    monkeypatch.setattr("clients.sandbox.UNUSED_SECONDS", -1.0)
    assert await mine.resume(second.id) is second

    async def is_gone() -> bool:
        gc.collect()
        return forgotten() is None

    await wait_until(is_gone)
    with pytest.raises(SandboxGone):
        await mine.connect(ids[0])
    assert await bash(await mine.connect(ids[1]), "second", "echo 2") == "2\n"
    await mine.kill(ids[1])
    await mine.close()


async def test_a_session_ends_for_another_once_it_was_not_used_for_a_while(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.sandbox.max_connections", 2)  # room for one session
    mine = Sandboxes(sandboxes.config)
    first, second = [await mine.create(str(uuid.uuid4()), Role.WORKSPACE) for _ in range(2)]

    assert await bash(first, "1", "echo 1") == "1\n"
    assert await bash(second, "2", "echo 2") == "2\n"
    assert (len(await runners(first)), await runners(second)) == (1, [])
    monkeypatch.setattr("clients.sandbox.SPARED_SECONDS", -1.0)
    assert await bash(second, "3", "echo 3") == "3\n"
    assert len(await runners(second)) == 1

    async def has_ended() -> bool:
        return await runners(first) == []

    await wait_until(has_ended)
    assert await bash(first, "4", "echo 4") == "4\n"
    assert len(await runners(first)) == 1
    for each in (first, second):
        await mine.kill(each.id)
    await mine.close()


async def exists(sandbox: Sandbox, path: str) -> bool:
    return (await sandbox.run(f"test -e {path}", timeout_seconds=DEADLINE)).exit_code == 0


async def test_find_and_list(sandboxes: Sandboxes) -> None:
    build = str(uuid.uuid4())
    assert await sandboxes.find(build, Role.WORKSPACE) == []
    first = await sandboxes.create(build, Role.WORKSPACE)
    gate = await sandboxes.create(build, Role.GATE)
    second = await sandboxes.create(build, Role.WORKSPACE)
    assert await sandboxes.find(build, Role.WORKSPACE) == [second.id, first.id]
    assert await sandboxes.find(build, Role.GATE) == [gate.id]
    await sandboxes.pause(first.id)
    await sandboxes.pause(first.id)
    assert await sandboxes.find(build, Role.WORKSPACE) == [second.id, first.id]
    listed = {one.id: one for one in await sandboxes.list_all()}
    assert (listed[first.id].state, listed[first.id].build_id, listed[first.id].role) == ("paused", build, "workspace")
    assert listed[gate.id].state == "running"
    for one in (first, second, gate):
        await sandboxes.kill(one.id)
        await sandboxes.kill(one.id)
        await sandboxes.pause(one.id)
    assert await sandboxes.find(build, Role.WORKSPACE) == []


async def test_programs_print_at_once_ask_nothing_and_report_to_no_one(sandbox: Sandbox) -> None:
    # Without a terminal, Python would keep the line until its buffer is full, and lose it at the signal.
    hanging = "timeout --signal=KILL 2 python3 -c 'print(1); import time; time.sleep(60)' || true"
    assert (await sandbox.run(hanging, timeout_seconds=DEADLINE)).stdout.strip() == "1"
    shown = (await sandbox.run("env", timeout_seconds=DEADLINE)).stdout.splitlines()
    assert {"NEXT_TELEMETRY_DISABLED=1", "GIT_TERMINAL_PROMPT=0", "npm_config_update_notifier=false"} <= set(shown)
    assert not [line for line in shown if line.startswith("CI=")]


async def test_a_gone_sandbox_is_said_to_be_gone(sandboxes: Sandboxes) -> None:
    made = await sandboxes.create(str(uuid.uuid4()), Role.GATE)
    await sandboxes.kill(made.id)
    with pytest.raises(SandboxGone):
        await sandboxes.connect(made.id)
    with pytest.raises(SandboxGone):
        await made.call("x", "bash", {"command": "true"}, timeout_seconds=DEADLINE)
    with pytest.raises(SandboxGone):
        await made.read("/etc/hostname")


async def test_connecting_is_rate_limited_and_resumes(sandboxes: Sandboxes) -> None:
    made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
    assert await sandboxes.connect(made.id) is made
    boot = await made.boot()
    await made.write(f"{WORKSPACE}/f", "kept")
    await sandboxes.pause(made.id)
    again = await sandboxes.connect(made.id)
    assert await again.boot() == boot
    assert await again.read(f"{WORKSPACE}/f") == b"kept"
    await sandboxes.kill(made.id)


async def test_a_sandbox_does_not_expire_while_it_is_used(sandboxes: Sandboxes) -> None:
    brief = Sandboxes(dataclasses.replace(sandboxes.config, ttl_seconds=5))

    async def runs() -> None:
        made = await brief.create(str(uuid.uuid4()), Role.GATE)
        before = await made.boot()
        assert (await made.run("sleep 8; echo there", timeout_seconds=DEADLINE)).stdout == "there\n"
        assert await made.boot() == before
        await brief.kill(made.id)

    async def calls() -> None:
        made = await brief.create(str(uuid.uuid4()), Role.GATE)
        before = await made.boot()
        call = await made.call("long", "bash", {"command": "sleep 8; echo there"}, timeout_seconds=DEADLINE)
        assert (call.state, call.text) == ("done", "there\n")
        assert await made.boot() == before

        async def is_paused() -> bool:
            return {one.id: one.state for one in await brief.list_all()}[made.id] == "paused"

        await wait_until(is_paused)  # left unused, but not killed
        await brief.kill(made.id)

    await asyncio.gather(runs(), calls())
    await brief.close()


async def test_a_sandbox_that_another_process_paused_is_resumed_in_the_middle(sandboxes: Sandboxes) -> None:
    made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
    other = Sandboxes(sandboxes.config)
    await other.pause(made.id)
    assert await bash(made, "after-pause", "echo awake") == "awake\n"
    await other.pause(made.id)
    with pytest.raises(SandboxUnavailable, match="runs again now"):
        await made.run("true", timeout_seconds=DEADLINE)
    assert (await made.run("echo $((6*7))", timeout_seconds=DEADLINE)).stdout == "42\n"
    await other.close()
    await sandboxes.kill(made.id)


async def test_a_new_boot_is_another_boot(sandboxes: Sandboxes) -> None:
    made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
    boot = await made.boot()
    waiting = asyncio.create_task(made.call("cut", "bash", {"command": "sleep 600"}, timeout_seconds=2 * DEADLINE))
    begun = f"until [ -e {JOURNAL}/calls/cut/keeper ]; do sleep 0.02; done"
    await made.run(begun, timeout_seconds=DEADLINE)
    waiting.cancel()  # it would resume the sandbox including its memory
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await restart_without_memory(sandboxes, made.id)
    assert await made.boot() != boot
    assert (await made.call("new", "bash", {"command": "true"}, timeout_seconds=DEADLINE, boot=boot)).state == "not_run"
    assert (await made.call("cut", "bash", {"command": "true"}, timeout_seconds=DEADLINE, boot=boot)).state == "lost"
    await sandboxes.kill(made.id)


async def test_run_tells_exit_code_and_both_outputs(sandbox: Sandbox) -> None:
    output = await sandbox.run("echo $X; pwd; echo err >&2; exit 3", timeout_seconds=DEADLINE, env={"X": "ünï"})
    assert (output.exit_code, output.stdout, output.stderr) == (3, f"ünï\n{WORKSPACE}\n", "err\n")
    with pytest.raises(SandboxUnavailable):
        await sandbox.run("sleep 20", timeout_seconds=0.3)
    with pytest.raises(InvalidInput):
        await sandbox.run("true", timeout_seconds=DEADLINE, cwd="/nowhere")


async def test_files(sandbox: Sandbox) -> None:
    await sandbox.write("/tmp/a/b", "ünï")
    assert (await sandbox.read("/tmp/a/b")).decode() == "ünï"

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 100_000

    await sandbox.write("/tmp/streamed", pieces())
    assert sum([len(piece) async for piece in sandbox.stream("/tmp/streamed")]) == 4_000_000
    for path in ("/tmp/missing", "/tmp/missing/deeper"):
        with pytest.raises(FileNotFoundError):
            await sandbox.read(path)
    with pytest.raises(FileNotFoundError):
        _ = [piece async for piece in sandbox.stream("/tmp/missing")]
    with pytest.raises(InvalidInput):
        await sandbox.read("/tmp")


async def test_two_attempts_at_once_run_it_once(sandbox: Sandbox, sandboxes: Sandboxes) -> None:
    other_process = Sandboxes(sandboxes.config)
    other = await other_process.connect(sandbox.id)
    command = "echo x >> counter; sleep 0.3; wc -l < counter"
    texts = await asyncio.gather(*(bash(one, "twice", command) for one in (sandbox, other, sandbox)))
    assert {text.strip() for text in texts} == {"1"}
    await other_process.close()


async def test_it_goes_on_without_the_client_and_is_attached_to(sandbox: Sandbox) -> None:
    command = "echo x >> left; until [ -e go ]; do sleep 0.02; done; wc -l < left"
    attempt = asyncio.create_task(bash(sandbox, "left", command))
    await sandbox.run("until grep -q x left; do sleep 0.02; done", timeout_seconds=DEADLINE)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await sandbox.write(f"{WORKSPACE}/go", "")
    assert (await bash(sandbox, "left", command)).strip() == "1"


async def test_a_timeout_and_an_end_leave_no_process(sandbox: Sandbox) -> None:
    tree = "sleep 71 & setsid sleep 71 & (nohup sleep 71 &) ; sleep 71"
    timed_out = await sandbox.call("slow", "bash", {"command": tree}, timeout_seconds=0.6)
    assert timed_out.timed_out
    running = asyncio.create_task(sandbox.call("ended", "bash", {"command": tree}, timeout_seconds=DEADLINE))
    await sandbox.run("until pgrep -f '^sleep 71$'; do sleep 0.02; done", timeout_seconds=DEADLINE)
    await sandbox.end_call("ended")
    assert (await running).ended
    assert "sleep 71" not in (await sandbox.run("ps axo args", timeout_seconds=DEADLINE)).stdout
    await sandbox.end_call("ended")


async def test_the_caller_hears_while_it_waits(sandbox: Sandbox) -> None:
    beats: list[None] = []
    await sandbox.call(
        "beats", "bash", {"command": "sleep 2.5"}, timeout_seconds=DEADLINE, on_wait=lambda: beats.append(None)
    )
    assert beats


async def test_a_background_server_survives_and_is_reached(sandbox: Sandbox) -> None:
    await sandbox.write(f"{WORKSPACE}/site/index.html", "<h1>served</h1>")
    serve = "cd site && nohup python3 -m http.server 8123 --bind 127.0.0.1 > /tmp/log 2>&1 & echo started"
    assert await bash(sandbox, "serve", serve) == "started\n"
    answer = await wait_until(lambda: sandbox.http_get(8123, "/", DEADLINE))
    assert (answer.status, answer.body) == (200, b"<h1>served</h1>")
    assert answer.content_type.startswith("text/html")
    missing = await sandbox.http_get(8123, "/missing", DEADLINE, max_bytes=10)
    assert missing is not None
    assert (missing.status, len(missing.body)) == (404, 10)
    assert await sandbox.http_get(8124, "/", DEADLINE) is None
    assert sandbox.upstream(8123).url.startswith("http://8123-")
    refused = await sandbox.http_get(8123, "/", DEADLINE, authorized=False)
    assert refused is not None
    assert refused.status == 403


async def test_a_service_that_keeps_nothing_private_gets_no_sandbox() -> None:
    """It ignores what it does not know, and returns no token. What it has made is killed."""
    requests: list[bytes] = []
    made = {"templateID": "base", "sandboxID": "i1", "clientID": "c", "envdVersion": "0.6.13", "envdAccessToken": "t"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        creates = requests[-1].startswith(b"POST")
        status, body = (b"201 Created", json.dumps(made).encode()) if creates else (b"204 No Content", b"")
        writer.write(b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n" % status)
        writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(NeedsPerson, match="no traffic token"):
        await Sandboxes(SandboxConfig("k", url, url)).create("b", Role.WORKSPACE)
    assert [request.split(b" HTTP")[0] for request in requests] == [b"POST /v2/sandboxes", b"DELETE /sandboxes/i1"]
    server.close()


async def test_large_inputs_and_outputs(sandbox: Sandbox) -> None:
    content = "é" * 500_000
    written = await sandbox.call(
        "big", "write_file", {"file_path": "big", "content": content}, timeout_seconds=DEADLINE
    )
    assert not written.is_error
    assert (await sandbox.read(f"{WORKSPACE}/big")).decode() == content
    printed = await sandbox.call("loud", "bash", {"command": "yes | head -c 5000000"}, timeout_seconds=DEADLINE)
    assert printed.output_bytes == 5_000_000
    assert len(printed.text) + len(printed.tail) < 25_000
    assert len(await sandbox.read(printed.output_path)) == 5_000_000


async def test_queries(sandbox: Sandbox) -> None:
    await sandbox.write(f"{WORKSPACE}/q.txt", "one\ntwo\n")
    assert (await sandbox.query("read_file", {"file_path": "q.txt"})).text == "     1\tone\n     2\ttwo"
    assert (await sandbox.query("grep", {"pattern": "tw.", "glob": "q.*"})).text == "q.txt:2: two"
    assert (await sandbox.query("read_file", {"file_path": "../x"})).is_error


async def test_the_runner_is_put_back_where_it_lacks(sandbox: Sandbox) -> None:
    await sandbox.run(f"rm -rf {JOURNAL}", timeout_seconds=DEADLINE)
    assert await bash(sandbox, "fresh", "echo back") == "back\n"


async def test_a_noisy_login_profile_is_no_answer(sandbox: Sandbox) -> None:
    await sandbox.run("printf 'echo noise; printf more' > ~/.bash_profile", timeout_seconds=DEADLINE)
    assert await bash(sandbox, "noise", "echo fine") == "fine\n"
    await sandbox.run("echo 'exit 9' > ~/.bash_profile", timeout_seconds=DEADLINE)
    await sandbox.end_session()  # the next one starts with this profile
    broken = await sandbox.call("broken", "bash", {"command": "true"}, timeout_seconds=DEADLINE)
    assert broken.state == "lost"
    assert "exit code 9" in broken.text
    assert (await sandbox.query("read_file", {"file_path": "q.txt"})).is_error
    await sandbox.write("/home/user/.bash_profile", "")


async def test_call_ids_are_checked(sandbox: Sandbox) -> None:
    for call_id in ("../x", "", "a" * 129, "a b"):
        with pytest.raises(InvalidInput):
            await sandbox.call(call_id, "bash", {"command": "true"}, timeout_seconds=DEADLINE)
        with pytest.raises(InvalidInput):
            await sandbox.end_call(call_id)


async def test_what_is_wrong_with_the_service_is_said(sandboxes: Sandboxes) -> None:
    good = sandboxes.config
    wrong_key = Sandboxes(SandboxConfig("e2b_wrong", good.api_url, good.sandbox_url))
    with pytest.raises(NeedsPerson, match="E2B_API_KEY") as refused:
        await wrong_key.list_all()
    assert refused.value.waiting_for == "operator"
    unreachable = Sandboxes(SandboxConfig("k", "http://127.0.0.1:9", "http://127.0.0.1:9"))
    with pytest.raises(SandboxUnavailable, match=r"http://127\.0\.0\.1:9 .*E2B_API_URL"):
        await unreachable.list_all()


async def test_a_sandbox_that_can_start_no_process_is_told_from_a_service_that_fails(tmp_path: Path) -> None:
    fill = "import os, time\nwhile True:\n  try:\n    os.fork() or time.sleep(600)\n  except OSError: time.sleep(0.01)"
    async with sandbox_server(tmp_path / "root", "--max-processes", "64") as server:
        sandboxes = Sandboxes(SandboxConfig(**server.options))
        made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
        await made.run(f"python3 -c '{fill}' > /dev/null 2>&1 &", timeout_seconds=DEADLINE)

        async def is_full() -> bool:
            try:
                await made.run("true", timeout_seconds=DEADLINE)
            except SandboxOverloaded:
                return True
            return False

        await wait_until(is_full)
        with pytest.raises(SandboxOverloaded):
            await made.call("x", "bash", {"command": "true"}, timeout_seconds=DEADLINE)
        await sandboxes.close()


async def test_an_answer_that_is_no_json_is_the_service_s_failure() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<html")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    broken = Sandboxes(SandboxConfig("k", url, url))
    with pytest.raises(SandboxUnavailable):
        await broken.connect("anything")
    with pytest.raises(SandboxUnavailable):
        await broken.list_all()
    server.close()


async def test_a_cancelled_creation_is_over_before_the_clean_up() -> None:
    asked, made = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await asyncio.sleep(0.3)
        made.set()
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    creating = asyncio.ensure_future(Sandboxes(SandboxConfig("k", url, url)).create("b", Role.WORKSPACE))
    await asked.wait()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert made.is_set()
    server.close()
