"""The sandbox server as a process: it starts, ends and starts again, and refuses invalid requests."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2b import AsyncSandbox, RateLimitException, SandboxException, SandboxState

from tests.harness.processes import command_line, survivors
from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.sandbox.sandbox_server import (
    API_KEY,
    REPOSITORY,
    SandboxServer,
    new_sandbox,
    sandbox_server,
)


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxServer]:
    async with sandbox_server(tmp_path_factory.mktemp("sandboxes") / "root") as running:
        yield running


@pytest.fixture(scope="module")
async def sandbox(server: SandboxServer) -> AsyncIterator[AsyncSandbox]:
    """Shared by tests that leave it unchanged."""
    async with new_sandbox(server) as made:
        yield made


def record_of(server: SandboxServer, sandbox: AsyncSandbox) -> Path:
    return server.root / "sandboxes" / sandbox.sandbox_id / "meta.json"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


async def run_server(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a server that is expected to end by itself."""

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "local.sandbox", *map(str, arguments)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env={**os.environ, **environment},
            check=False,
        )

    return await asyncio.to_thread(run)


class TestProcess:
    async def test_it_announces_itself_in_one_line(self, server: SandboxServer) -> None:
        assert server.announced == {
            "E2B_API_KEY": API_KEY,
            "E2B_API_URL": server.url,
            "E2B_SANDBOX_URL": server.url,
            "proxy_port": server.proxy_port,
        }
        listening = [
            each.laddr for each in psutil.Process(server.process.pid).net_connections() if each.status == "LISTEN"
        ]
        assert {address.ip for address in listening} == {"127.0.0.1"}

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_ends_every_process(self, tmp_path: Path, number: signal.Signals) -> None:
        async with sandbox_server(tmp_path / "root") as server:
            made = [await AsyncSandbox.create(**server.options) for _ in range(2)]
            handle = await made[0].commands.run("sleep 1000 & setsid sleep 1000 & sleep 1000", background=True)
            await made[1].pause()

            async def all_started() -> bool:
                return [command_line(each) for each in server.descendants()].count(["sleep", "1000"]) == 3

            await wait_until(all_started)
            processes = server.descendants()
            assert await server.end(number) == 0
            assert not survivors(processes)
            with pytest.raises(SandboxException):
                await handle.wait()

    async def test_sigkill_ends_every_process_and_a_new_server_adopts_the_sandboxes(self, tmp_path: Path) -> None:
        lifecycle: Any = {"on_timeout": "pause"}
        began = time.time()
        async with sandbox_server(tmp_path / "root") as server:
            took_to_start = time.time() - began
            common = server.options
            running = await AsyncSandbox.create(metadata={"name": "running"}, idempotency_key="key", **common)
            paused = await AsyncSandbox.create(**common)
            to_kill = await AsyncSandbox.create(**common)
            to_pause = await AsyncSandbox.create(lifecycle=lifecycle, **common)
            soon = await AsyncSandbox.create(**common)
            corrupt = await AsyncSandbox.create(**common)
            for each in (running, paused, to_kill, to_pause, soon):
                await each.files.write("kept", each.sandbox_id)
            booted = (await running.commands.run("awk '{print $22}' /proc/1/stat")).stdout
            await running.commands.run("sleep 1000", background=True)
            await paused.pause()
            processes = server.descendants()
            await server.end(signal.SIGKILL)
            assert not survivors(processes)
            edit(record_of(server, to_kill), end_at=1.0)
            edit(record_of(server, to_pause), end_at=1.0)
            edit(record_of(server, paused), end_at=1.0)
            # Late enough that the next server has started by then, even on a busy machine.
            edit(record_of(server, soon), end_at=time.time() + 4 + 4 * took_to_start)
            record_of(server, corrupt).write_text('{"id": "../../etc"')
            unfinished = server.root / "sandboxes" / ("i" + "0" * 20)
            unfinished.mkdir()
        async with sandbox_server(tmp_path / "root") as server:
            common = server.options

            async def listed() -> dict[str, SandboxState]:
                return {each.sandbox_id: each.state for each in await AsyncSandbox.list(**common).next_items()}

            async def settled() -> bool:
                return set(await listed()) == {running.sandbox_id, paused.sandbox_id, to_pause.sandbox_id}

            assert soon.sandbox_id in await listed()
            await wait_until(settled)
            assert set((await listed()).values()) == {SandboxState.PAUSED}
            for each in (running, paused, to_pause):
                again = await AsyncSandbox.connect(each.sandbox_id, timeout=600, **common)
                assert await again.files.read("kept") == each.sandbox_id
                assert not await again.commands.list()
            again = await AsyncSandbox.connect(running.sandbox_id, **common)
            assert (await again.commands.run("awk '{print $22}' /proc/1/stat")).stdout != booted
            assert (await again.get_info()).metadata == {"name": "running"}
            same = await AsyncSandbox.create(metadata={"name": "running"}, idempotency_key="key", **common)
            assert same.sandbox_id == running.sandbox_id
            assert f"leaving {record_of(server, corrupt).parent} alone" in server.log()
            assert record_of(server, corrupt).exists()
            assert not unfinished.exists()

    async def test_it_ends_with_the_process_that_started_it(self, tmp_path: Path) -> None:
        """The parent starts the server in a thread. The thread's end must not end the server; the parent's must."""
        parent = tmp_path / "parent.py"
        parent.write_text(
            textwrap.dedent(
                """
                import subprocess, sys, threading, time
                def start():
                    arguments = ["-m", "local.sandbox", "--root", sys.argv[1], "--api-key", "k", "--die-with-parent"]
                    global server
                    server = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
                    print(server.pid, server.stdout.readline(), flush=True)
                thread = threading.Thread(target=start)
                thread.start()
                thread.join()
                time.sleep(1000)
                """
            )
        )
        starting = subprocess.Popen(  # noqa: ASYNC220 - the test is about this process and its threads
            [sys.executable, parent, tmp_path / "root"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert starting.stdout is not None
        pid, _, line = (await asyncio.to_thread(starting.stdout.readline)).partition(" ")
        server = psutil.Process(int(pid))
        variables = json.loads(line)
        options = {"api_key": "k", "api_url": variables["E2B_API_URL"], "sandbox_url": variables["E2B_SANDBOX_URL"]}
        sandbox = await AsyncSandbox.create(**options)
        assert (await sandbox.commands.run("echo up")).stdout == "up\n"
        processes = [server, *server.children(recursive=True)]
        starting.kill()
        starting.wait()
        starting.stdout.close()
        assert not survivors(processes)

    async def test_two_servers_do_not_disturb_each_other(self, server: SandboxServer, tmp_path: Path) -> None:
        async with (
            sandbox_server(tmp_path / "root") as second,
            new_sandbox(server) as first_sandbox,
            new_sandbox(second) as second_sandbox,
        ):
            assert (await first_sandbox.commands.run("echo 1")).stdout == "1\n"
            assert (await second_sandbox.commands.run("echo 2")).stdout == "2\n"
            ids = [each.sandbox_id for each in await AsyncSandbox.list(**second.options).next_items()]
            assert ids == [second_sandbox.sandbox_id]

    async def test_one_root_has_one_server(self, server: SandboxServer) -> None:
        done = await run_server("--root", server.root)
        assert done.returncode == 1
        assert "another sandbox server is using" in done.stderr
        assert "Traceback" not in done.stderr

    async def test_a_taken_port_is_reported(self, server: SandboxServer, tmp_path: Path) -> None:
        done = await run_server("--root", tmp_path / "root", "--port", server.url.rpartition(":")[2])
        assert done.returncode == 1
        assert "could not start" in done.stderr
        assert "Traceback" not in done.stderr

    async def test_the_probe_answers(self) -> None:
        done = await run_server("--probe")
        assert (done.returncode, done.stdout) == (0, "Sandboxes can run here: bubblewrap confines a program.\n")

    async def test_the_probe_says_what_to_install(self, tmp_path: Path) -> None:
        done = await run_server("--probe", PATH=str(tmp_path))
        assert done.returncode == 1
        assert "apt-get install bubblewrap" in done.stdout
        assert "E2B_API_KEY" in done.stdout

    async def test_the_number_of_sandboxes_is_limited(self, tmp_path: Path) -> None:
        async with sandbox_server(tmp_path / "root", "--max-sandboxes", "1") as server:
            async with new_sandbox(server) as sandbox:
                await sandbox.pause()
                with pytest.raises(RateLimitException, match="--max-sandboxes"):
                    await AsyncSandbox.create(**server.options)
            async with new_sandbox(server):
                pass

    async def test_the_number_of_running_sandboxes_is_limited(self, tmp_path: Path) -> None:
        async with (
            sandbox_server(tmp_path / "root", "--max-running", "1") as server,
            new_sandbox(server) as sandbox,
        ):
            with pytest.raises(RateLimitException, match="maximum number of concurrent E2B sandboxes"):
                await AsyncSandbox.create(**server.options)
            await sandbox.connect()
            await sandbox.pause()
            async with new_sandbox(server) as other:
                with pytest.raises(RateLimitException, match="maximum number of concurrent E2B sandboxes"):
                    await sandbox.connect()
                await other.pause()
                await sandbox.connect()

    async def test_a_root_that_is_closed_to_others_will_do(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        async with sandbox_server(closed / "root") as server, new_sandbox(server) as sandbox:
            assert (await sandbox.commands.run("echo hi > f; cat f")).stdout == "hi\n"
        assert closed.stat().st_mode & 0o777 == 0o700


class TestRefusals:
    """Every refusal is JSON with a code and a message, and none is a 500."""

    @staticmethod
    def headers(sandbox: AsyncSandbox) -> dict[str, str]:
        return {"E2b-Sandbox-Id": sandbox.sandbox_id, "X-Access-Token": str(sandbox._envd_access_token)}

    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("POST", "/v2/sandboxes", b"{", 400),
            ("POST", "/v2/sandboxes", b"[]", 400),
            ("POST", "/v2/sandboxes", b"\xff\xfe", 400),
            ("POST", "/v2/sandboxes", b"[" * 100_000, 400),
            ("POST", "/v2/sandboxes", b" " * (2 << 20), 413),
            ("POST", "/v2/sandboxes", b"{}", 400),
            ("POST", "/v2/sandboxes", b'{"templateID": 1}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "timeout": -1}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "timeout": 1e99}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "timeout": "5"}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "timeout": 86401}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "metadata": {"a": 1}}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "envVars": {"a=b": "1"}}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "envVars": {"a": "\\u0000"}}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "envVars": {"a": "\\ud800"}}', 400),
            ("POST", "/v2/sandboxes", b'{"templateID": "../../etc"}', 404),
            ("POST", "/v2/sandboxes", b'{"templateID": "base", "mcp": {"a": {}}}', 501),
            ("POST", "/sandboxes/ID/timeout", b"{}", 400),
            ("POST", "/sandboxes/ID/timeout", b'{"timeout": -5}', 400),
            ("POST", "/sandboxes/ID/timeout", b'{"timeout": null}', 400),
            ("POST", "/sandboxes/ID/pause", b'{"memory": "no"}', 400),
            ("POST", "/v2/sandboxes/ID/connect", b'{"timeout": true}', 400),
            ("POST", "/sandboxes/unknown/connect", b"{}", 404),
            ("POST", "/sandboxes/unknown/timeout", b'{"timeout": 5}', 404),
            ("GET", "/sandboxes/unknown", b"", 404),
            ("GET", "/sandboxes/..%2f..%2fetc%2fpasswd", b"", 501),
            ("DELETE", "/sandboxes/%00", b"", 404),
            ("GET", "/v2/sandboxes?limit=0", b"", 400),
            ("GET", "/v2/sandboxes?limit=x", b"", 400),
            ("GET", "/v2/sandboxes?nextToken=-1", b"", 400),
            ("GET", "/v2/sandboxes?state=dead", b"", 400),
            ("GET", "/v2/sandboxes?order=up", b"", 400),
            ("GET", "/v2/sandboxes?startedAfter=yesterday", b"", 400),
            ("GET", "/templates", b"", 501),
            ("GET", "/sandboxes/i00000000000000000000/metrics", b"", 404),
            ("GET", "/sandboxes/ID/metrics?start=soon", b"", 400),
            ("GET", "/sandboxes/ID/metrics?end=-1", b"", 400),
            ("GET", "/sandboxes/ID/logs", b"", 501),
            ("POST", "/sandboxes/ID/fork", b"{}", 501),
            ("PUT", "/sandboxes/ID/network", b"{}", 501),
            ("PATCH", "/sandboxes/ID", b"{}", 501),
            ("GET", "/volumes", b"", 501),
            ("GET", "/", b"", 404),
            ("GET", "/favicon.ico", b"", 404),
        ],
    )
    async def test_control_plane(
        self, server: SandboxServer, sandbox: AsyncSandbox, method: str, path: str, body: bytes, status: int
    ) -> None:
        async with server.client() as client:
            answer = await client.request(method, path.replace("ID", sandbox.sandbox_id), content=body)
            assert (answer.status_code, answer.json()["code"]) == (status, status), answer.text
            assert answer.json()["message"]
        assert await sandbox.is_running()

    @pytest.mark.parametrize("key", [None, "", "e2b_wrong", "é".encode("latin-1")])
    async def test_without_the_key_there_is_nothing(self, server: SandboxServer, key: str | None) -> None:
        async with server.client() as client:
            client.headers.pop("X-API-KEY")
            headers = {"X-API-KEY": key} if key is not None else {}
            for path in ("/v2/sandboxes", "/templates", "/sandboxes/x"):
                answer = await client.get(path, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, 401)

    async def test_another_sandboxes_token_is_refused(self, server: SandboxServer, sandbox: AsyncSandbox) -> None:
        async with new_sandbox(server) as other, server.client() as client:
            wrong = {**self.headers(sandbox), "X-Access-Token": str(other._envd_access_token)}
            for method, path in (
                ("GET", "/files?path=x"),
                ("POST", "/process.Process/List"),
                ("POST", "/filesystem.Filesystem/Stat"),
            ):
                for headers in (wrong, {"E2b-Sandbox-Id": sandbox.sandbox_id}):
                    answer = await client.request(method, path, headers=headers, json={})
                    assert (answer.status_code, answer.json()["code"]) == (401, 401)

    @pytest.mark.parametrize(
        ("method", "path", "kind", "body", "status"),
        [
            ("GET", "/files", "", b"", 400),
            ("GET", "/files?path=%00", "", b"", 400),
            ("GET", f"/files?path={'x/' * 5000}", "", b"", 400),
            ("GET", "/files?path=x&username=root", "", b"", 501),
            ("POST", "/files?path=x", "text/plain", b"x", 400),
            ("POST", "/files", "application/octet-stream", b"x", 400),
            ("POST", "/files?path=x", "multipart/form-data", b"x", 400),
            ("POST", "/files?path=x", "multipart/form-data; boundary=b", b"", 400),
            ("POST", "/files?path=x", "multipart/form-data; boundary=b", b"--b\r\nX: y\r\n\r\nz", 400),
            ("POST", "/files?path=x", "multipart/form-data; boundary=b", b"--b\r\n" + b"X" * 100_000, 400),
            ("DELETE", "/files?path=x", "", b"", 404),
            ("GET", "/nothing", "", b"", 404),
            ("POST", "/process.Process/SendSignal", "application/json", b"{", 400),
            ("POST", "/process.Process/SendSignal", "application/json", b"{}", 400),
            ("POST", "/process.Process/SendSignal", "application/json", b'{"process": {"pid": "x"}}', 400),
            ("POST", "/process.Process/SendSignal", "application/proto", b"\xff\xff\xff", 400),
            ("POST", "/process.Process/SendInput", "application/json", b'{"process": {"pid": 999999}}', 404),
            ("POST", "/filesystem.Filesystem/Stat", "application/json", b'{"path": 5}', 400),
            ("POST", "/filesystem.Filesystem/Stat", "application/json", b'{"path": "\\u0000"}', 400),
            ("POST", "/filesystem.Filesystem/Stat", "application/json", b'{"path": "/nope"}', 404),
            ("POST", "/filesystem.Filesystem/CreateWatcher", "application/json", b'{"path": "/nope"}', 404),
            ("POST", "/filesystem.Filesystem/GetWatcherEvents", "application/json", b'{"watcherId": "x"}', 404),
            ("POST", "/filesystem.Filesystem/RemoveWatcher", "application/json", b"{}", 404),
            ("GET", "/files?path=x&signature=v1_x&signature_expiration=99999999999", "", b"", 404),
        ],
    )
    async def test_sandbox_traffic(
        self, server: SandboxServer, sandbox: AsyncSandbox, method: str, path: str, kind: str, body: bytes, status: int
    ) -> None:
        async with server.client() as client:
            headers = {**self.headers(sandbox), "Content-Type": kind}
            answer = await client.request(method, path, headers=headers, content=body)
            assert answer.status_code == status, answer.text
            assert answer.json()["message"]
        assert (await sandbox.commands.run("echo up")).stdout == "up\n"

    async def test_what_is_no_gzip_is_refused(self, server: SandboxServer, sandbox: AsyncSandbox) -> None:
        headers = {**self.headers(sandbox), "Content-Type": "application/octet-stream"}
        async with server.client() as client:
            for encoding, body in (("gzip", b"plain"), ("gzip", b""), ("br", b"x")):
                headers["Content-Encoding"] = encoding
                answer = await client.post("/files?path=x", headers=headers, content=body)
                assert (answer.status_code, answer.json()["code"]) == (400, 400)

    async def test_an_unknown_sandbox_is_not_running(self, server: SandboxServer) -> None:
        async with server.client() as client:
            for sandbox_id in ("i" + "0" * 20, "../..", "x" * 1000):
                for path in ("/health", "/files?path=x"):
                    answer = await client.get(path, headers={"E2b-Sandbox-Id": sandbox_id})
                    assert answer.status_code == 502
                    assert "was not found" in answer.json()["message"]

    async def test_broken_streams_are_refused(self, server: SandboxServer, sandbox: AsyncSandbox) -> None:
        headers = {**self.headers(sandbox), "Content-Type": "application/connect+json", "Connect-Protocol-Version": "1"}
        bodies: Iterator[bytes] = iter(
            (b"", b"\0\0\0\0\x05abcde", b"\0\xff\xff\xff\xff", b"\x01\0\0\0\x01x", b"\0\0\0\0\x02{}", b"\0\0\0\0\x02[]")
        )
        async with server.client() as client:
            for body in bodies:
                answer = await client.post("/process.Process/Start", headers=headers, content=body)
                end = json.loads(answer.content[5:])
                assert end["error"]["code"] in (
                    "invalid_argument",
                    "unimplemented",
                    "resource_exhausted",
                    "internal",
                ), (body, end)

    async def test_nothing_of_this_was_logged_as_a_failure(self, server: SandboxServer) -> None:
        assert "Traceback" not in server.log()
        assert " ERROR " not in server.log()


async def test_the_record_is_whole_and_private(server: SandboxServer) -> None:
    async with new_sandbox(server) as sandbox:
        path = record_of(server, sandbox)
        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(path.read_text())["id"] == sandbox.sandbox_id
        with (server.root / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
