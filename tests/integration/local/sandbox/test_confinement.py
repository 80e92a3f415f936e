"""Programs cannot escape from a sandbox or harm the server from inside."""

import asyncio
import json
import secrets
import socket
import subprocess
import textwrap
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import e2b
import psutil
import pytest
from e2b import AsyncSandbox, CommandExitException, FileNotFoundException, InvalidArgumentException, SandboxException

from clients.sandbox import Role, SandboxConfig, Sandboxes
from local.sandbox.addresses import AddressRules
from local.sandbox.confinement import NODE_PATH, Confinement, find_node
from local.sandbox.egress import EgressProxy
from local.sandbox.record import SandboxRecord
from local.sandbox.registry import Registry
from tests.harness.processes import command_line, survivors
from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.sandbox.sandbox_server import SandboxServer, new_sandbox, sandbox_server


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxServer]:
    async with sandbox_server(tmp_path_factory.mktemp("sandboxes") / "root") as running:
        yield running


@pytest.fixture(scope="module")
async def sandbox(server: SandboxServer) -> AsyncIterator[AsyncSandbox]:
    """Shared by tests that leave it unchanged."""
    async with new_sandbox(server) as made:
        yield made


async def output(sandbox: AsyncSandbox, command: str) -> str:
    """Run a command and return its output, however it ends."""
    return (await sandbox.commands.run(f"({command}) 2>&1 || true", timeout=DEADLINE)).stdout


async def python(sandbox: AsyncSandbox, program: str) -> str:
    await sandbox.files.write("/tmp/program.py", textwrap.dedent(program))
    return (await sandbox.commands.run("python3 /tmp/program.py 2>&1 || true", timeout=DEADLINE)).stdout


def namespaces(pid: int | str) -> set[Path]:
    return {Path(f"/proc/{pid}/ns/{name}").readlink() for name in ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")}


class TestFiles:
    async def test_a_link_to_a_file_of_the_host_leads_nowhere(self, sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run(
            "ln -sf /etc/shadow shadow; ln -sf /root/.ssh ssh; ln -sfn / up; ln -sf /proc/1/root r"
        )
        for path in ("shadow", "ssh", "up/etc/shadow", "up/root/.ssh", "up/../../../etc/shadow", "/etc/ssl/private"):
            with pytest.raises(FileNotFoundException):
                await sandbox.files.read(path)
        assert await sandbox.files.read("r/etc/passwd") == await sandbox.files.read("/etc/passwd")
        with pytest.raises(SandboxException):
            await sandbox.files.write("up/etc/cron.d/x", "")
        assert "x:0:0" in await sandbox.files.read("../../etc/passwd")  # its own file, created for it
        assert (await sandbox.files.read("/etc/passwd")).count("\n") == 2

    async def test_the_directories_of_the_host_are_not_there(
        self, server: SandboxServer, sandbox: AsyncSandbox
    ) -> None:
        top = {entry.name for entry in await sandbox.files.list("/")}
        assert top <= {
            "bin",
            "dev",
            "etc",
            "home",
            "lib",
            "lib32",
            "lib64",
            "opt",
            "proc",
            "run",
            "sbin",
            "tmp",
            "usr",
            "var",
        }
        assert [entry.name for entry in await sandbox.files.list("/home")] == ["user"]
        assert str(server.root) not in await output(sandbox, "mount | grep -v /home/user | grep -v ' /tmp '")

    async def test_no_sandbox_compiles_the_program_of_its_first_process(self, sandbox: AsyncSandbox) -> None:
        program = "import sys; sys.path.insert(0, '/opt/sandbox'); import local.sandbox.guest"
        imports = await output(sandbox, f'python3 -I -S -v -c "{program}" 2>&1 | grep "^# code object from"')
        for name in ("channel", "guest", "guest_entry", "guest_usage", "guest_watch"):
            assert f"/opt/sandbox/local/sandbox/__pycache__/{name}.cpython-" in imports

    def test_a_node_js_that_only_the_owner_can_reach_is_there_and_read_only(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        program = closed / "node" / "bin" / "node"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho it runs; echo x > /opt/node/bin/other")
        program.chmod(0o755)
        closed.chmod(0o700)
        for root in (tmp_path / "root", closed / "root"):
            confinement = Confinement(root, node=closed / "node")
            confinement.prepare()
            confinement.make_directories(root / "sandbox")
            command = confinement.command(root / "sandbox", [f"{NODE_PATH}/bin/node"])
            done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
            assert done.stdout == "it runs\n", done.stderr
            assert "Read-only file system" in done.stderr
            assert list(program.parent.iterdir()) == [program]

    async def test_the_node_js_of_this_checkout_is_used_and_installs_for_the_user(self, sandbox: AsyncSandbox) -> None:
        if find_node() is None:
            pytest.skip("there is no Node.js in this checkout: scripts/setup --node")
        assert await output(sandbox, "command -v npm") == f"{NODE_PATH}/bin/npm\n"
        assert await output(sandbox, "npm prefix --global") == "/home/user/.local\n", "and no warning"
        assert await output(sandbox, "ls $npm_package_config_node_gyp_nodedir/include/node/node.h") != ""

    async def test_another_sandbox_is_out_of_reach(self, server: SandboxServer, sandbox: AsyncSandbox) -> None:
        async with new_sandbox(server) as other:
            await other.files.write("secret", "1")
            secret = server.root / "sandboxes" / other.sandbox_id / "home" / "secret"
            assert secret.exists()
            await sandbox.commands.run(f"ln -sf {secret} theirs; ln -sf /mnt/sandboxes/{other.sandbox_id} staged")
            for path in ("theirs", "staged/home/secret", str(secret)):
                with pytest.raises(FileNotFoundException):
                    await sandbox.files.read(path)
            assert other.sandbox_id not in await output(sandbox, "ps ax; mount; ls -laR /mnt /run /tmp")

    async def test_a_fifo_or_device_is_refused_and_does_not_hang(self, sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("mkfifo -m 666 pipe; (sleep 100 < pipe &) > /dev/null 2>&1")
        for path in ("pipe", "/dev/zero"):
            with pytest.raises(InvalidArgumentException, match="regular file"):
                await sandbox.files.read(path)
            with pytest.raises(SandboxException):
                await sandbox.files.write(path, "x")

    async def test_proc_is_read_inside_and_never_written(self, sandbox: AsyncSandbox) -> None:
        assert (await sandbox.files.read("/proc/1/stat")).startswith("1 (")
        await sandbox.commands.run("ln -sf /proc/self/mem mem; ln -sf /proc/self/environ environ")
        await sandbox.commands.run("echo $$ > p; mv p pid; exec sleep 1000", background=True)
        await wait_until(lambda: sandbox.files.exists("pid"))
        pid = (await sandbox.files.read("pid")).strip()
        for path in ("mem", "environ", f"/proc/{pid}/oom_score_adj", f"/proc/{pid}/comm"):
            with pytest.raises(SandboxException):
                await sandbox.files.write(path, "x")
        with pytest.raises(SandboxException, match="Permission denied"):
            await sandbox.files.read("environ")
        assert "sleep" in await sandbox.files.read(f"/proc/{pid}/cmdline")

    async def test_names_that_are_not_text_are_shown_anyway(self, sandbox: AsyncSandbox) -> None:
        await python(sandbox, "import os; os.makedirs(b'/home/user/odd'); open(b'/home/user/odd/\\xff\\xfe', 'w')")
        assert [entry.name for entry in await sandbox.files.list("odd")] == ["\ufffd\ufffd"]

    async def test_a_huge_directory_is_refused(self, sandbox: AsyncSandbox) -> None:
        await sandbox.files.make_dir("/home/user/huge")
        await sandbox.commands.run("cd huge; seq 20001 | xargs touch")
        with pytest.raises(SandboxException, match="20000 entries"):
            await sandbox.files.list("huge")
        await sandbox.commands.run("cd huge; seq 2001 20001 | xargs rm")
        assert len(await sandbox.files.list("huge")) == 2000
        await sandbox.files.remove("huge")

    async def test_a_deep_directory_is_removed_with_its_sandbox(self, server: SandboxServer) -> None:
        async with new_sandbox(server) as sandbox:
            await python(
                sandbox,
                """
                import os
                for _ in range(3000):
                    os.mkdir("deep"); os.chdir("deep")
                os.chdir("/home/user"); os.mkdir("locked"); os.mkdir("locked/in"); os.chmod("locked", 0)
                """,
            )
            await sandbox.kill()
            assert not (server.root / "sandboxes" / sandbox.sandbox_id).exists()


class TestProcesses:
    async def test_only_its_own_processes_are_visible(self, sandbox: AsyncSandbox) -> None:
        pids = (await output(sandbox, "ls /proc | grep -E '^[0-9]+$'")).split()
        assert "1" in pids
        assert len(pids) < 20
        assert "local.sandbox --root" not in await output(sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    async def test_the_first_process_is_untouchable(self, sandbox: AsyncSandbox) -> None:
        said = await python(
            sandbox,
            """
            import ctypes, os, signal
            libc = ctypes.CDLL(None, use_errno=True)
            print("attached" if libc.ptrace(16, 1, 0, 0) == 0 else "no ptrace")
            for name in ("environ", "fd", "mem", "root", "cwd", "maps"):
                try:
                    path = f"/proc/1/{name}"
                    print("read", os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
                except OSError as error:
                    print("no", name)
            for name in ("KILL", "STOP", "INT", "TERM", "HUP", "CHLD"):
                os.kill(1, signal.Signals["SIG" + name])
            """,
        )
        assert said.split("\n")[:-1] == ["no ptrace", "no environ", "no fd", "no mem", "no root", "no cwd", "no maps"]
        assert await output(sandbox, "echo alive") == "alive\n"

    async def test_there_are_no_privileges_to_gain(self, sandbox: AsyncSandbox) -> None:
        status = await output(sandbox, "grep -E '^(Cap|NoNewPrivs|Uid)' /proc/self/status; id -u")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert fields["NoNewPrivs"] == "1"
        assert fields["Uid"].split()[0] == "1000"
        for forbidden in ("unshare -U true", "unshare -r true", "mount -t tmpfs x /tmp", "chroot / true", "su -c true"):
            assert "0" not in (await output(sandbox, f"{forbidden} >/dev/null 2>&1; echo $?")).split(), forbidden
        assert "Read-only" in await output(sandbox, "touch /usr/x")
        assert "Read-only" in await output(sandbox, "touch /x")

    async def test_on_the_host_it_is_nobody(self, server: SandboxServer, sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run("exec sleep 1234", background=True)

        async def seen() -> psutil.Process | None:
            return next((each for each in server.descendants() if command_line(each) == ["sleep", "1234"]), None)

        process = await wait_until(seen)
        assert process.uids().real != 0
        assert not namespaces(process.pid) & namespaces("self")
        await handle.kill()

    async def test_the_death_of_everything_inside_is_noticed(self, server: SandboxServer) -> None:
        others = set(server.descendants())
        async with new_sandbox(server) as sandbox:
            await sandbox.files.write("kept", "1")
            handle = await sandbox.commands.run("sleep 1000", background=True)
            commands = [(each, " ".join(command_line(each))) for each in server.descendants() if each not in others]
            first = next(each for each, command in commands if "guest" in command and each.name() != "bwrap")
            first.kill()
            with pytest.raises(e2b.TimeoutException):
                await handle.wait()

            async def paused() -> bool:
                return (await sandbox.get_info()).state == e2b.SandboxState.PAUSED

            await wait_until(paused)
            with pytest.raises(e2b.TimeoutException):
                await sandbox.commands.run("true")
            await sandbox.connect()
            assert await sandbox.files.read("kept") == "1"
            assert "stopped by itself" in server.log()

    async def test_a_fork_bomb_stays_inside(self, tmp_path: Path) -> None:
        async with (
            sandbox_server(tmp_path / "root", "--max-processes", "64") as server,
            new_sandbox(server) as bombed,
            new_sandbox(server) as other,
        ):
            count = await python(
                bombed,
                """
                import os, time
                made = []
                while len(made) < 500:
                    try:
                        pid = os.fork()
                    except BlockingIOError:
                        break
                    if pid == 0:
                        os.close(1), os.close(2), time.sleep(100)
                    made.append(pid)
                print(len(made), flush=True)
                for pid in made:
                    os.kill(pid, 9)
                """,
            )
            assert 0 < int(count.split()[0]) < 64
            await bombed.commands.run("bomb() { bomb | bomb & }; bomb", background=True)
            inside = server.descendants()
            assert await output(other, "echo unharmed") == "unharmed\n"
            assert await bombed.files.exists("/tmp")
            assert len(server.descendants()) < 200
            await bombed.kill()
            await wait_until(lambda: len(server.descendants()) < 10)
            remaining = {each.pid for each in server.descendants()}
            assert not survivors([each for each in inside if each.pid not in remaining])

    async def test_who_uses_too_much_memory_is_ended(self, tmp_path: Path) -> None:
        async with sandbox_server(tmp_path / "root", "--max-memory-bytes", str(200 << 20)) as server:
            sandboxes = Sandboxes(SandboxConfig(**server.options))
            made = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
            small = "import time; small = bytearray(20 << 20); time.sleep(600)"
            large = "import time; large = [b'x' * (1 << 20) for _ in range(400)]; time.sleep(600)"
            command = f"python3 -c '{small}' & python3 -c \"{large}\"; code=$?; kill -0 %1; kill %1; exit $code"
            outcome = await made.call("large", "bash", {"command": command}, timeout_seconds=DEADLINE)
            assert (outcome.exit_code, outcome.is_error, outcome.memory_limit) == (137, True, 200 << 20)
            assert (outcome.memory_peak or 0) > 100 << 20
            assert "No such" not in outcome.text  # the small one lived
            for command in ("exit 137", "false", "true"):
                outcome = await made.call(command.replace(" ", "-"), "bash", {"command": command}, timeout_seconds=60)
                assert outcome.memory_peak is None
            await sandboxes.close()

    async def test_a_large_file_is_stopped(self, tmp_path: Path) -> None:
        async with (
            sandbox_server(tmp_path / "root", "--max-file-bytes", "1000000") as server,
            new_sandbox(server) as one,
        ):
            assert "File size limit" in await output(one, "bash -c 'head -c 2000000 /dev/zero > f'; true")
            with pytest.raises(SandboxException, match="1000000 bytes"):
                await one.files.write("g", b"x" * 2_000_000)


class TestNetwork:
    async def test_there_is_none(self, server: SandboxServer, sandbox: AsyncSandbox) -> None:
        for address in ("1.1.1.1", f"127.0.0.1:{server.url.rpartition(':')[2]}"):
            with pytest.raises(CommandExitException):
                await sandbox.commands.run(f"curl -sS -m 3 http://{address}")
        assert (await output(sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1")).split() == ["lo"]

    async def test_abstract_sockets_of_the_host_are_out_of_reach(self, sandbox: AsyncSandbox) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            name = f"cofounder-test-{secrets.token_hex(8)}"  # the whole machine shares one namespace
            listening.bind(f"\0{name}")
            listening.listen()
            said = await python(sandbox, f"import socket; socket.socket(1).connect('\\0{name}')")
            assert "ConnectionRefused" in said

    async def test_the_proxy_lets_out_only_what_is_on_its_list(self, tmp_path: Path) -> None:
        arguments = ("--egress", "proxy", "--allow", "localhost", "127.0.0.1", "allowed.invalid")
        async with sandbox_server(tmp_path / "root", *arguments) as server:
            async with new_sandbox(server) as sandbox:
                port = server.url.rpartition(":")[2]
                for url, message in (
                    ("http://example.com/", "not on the list"),
                    ("http://localhost/", "localhost: its address is a loopback address"),
                    ("http://127.0.0.1/", "its address is a loopback address"),
                    (f"http://127.0.0.1:{port}/", "only 80 is allowed"),
                    ("http://allowed.invalid/", "could not be reached"),
                ):
                    said = await output(sandbox, f"curl -s -m 200 --noproxy '' -w '%{{http_code}}' {url}")
                    assert message in said
                    assert said[-3:] in ("403", "502")
                said = await output(sandbox, "curl -sS -m 200 --noproxy '' https://localhost/")
                assert "403" in said
                assert "not on the list" in server.log()
                await sandbox.pause(mode="filesystem")
                await sandbox.connect()
                assert "not on the list" in await output(sandbox, "curl -s -m 200 http://example.com/")
            same = {"allow_out": ["127.0.0.1", "localhost", "allowed.invalid"], "deny_out": ["0.0.0.0/0"]}
            async with new_sandbox(server, network=same) as asked:
                assert "not on the list" in await output(asked, "curl -s -m 200 http://example.com/")
            async with new_sandbox(server, allow_internet_access=False) as closed:
                assert "not on the list" not in await output(closed, "curl -sS -m 5 http://example.com/")

    async def test_what_is_on_the_list_is_reached(self, tmp_path: Path) -> None:
        """Runs in this process, because only a test may allow a loopback address."""
        requests = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            requests.append((head, await reader.readexactly(length)))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
            await writer.drain()
            requests.append((await reader.read(), b""))
            writer.close()

        upstream = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = upstream.sockets[0].getsockname()[1]
        egress = EgressProxy(["localhost"], AddressRules(also_allowed=["127.0.0.1"]), tls_port=port, http_port=port)
        registry = Registry(Confinement(tmp_path / "root"), egress, 1)
        await registry.open()
        try:
            record = SandboxRecord(
                id=SandboxRecord.new_id(), token="t", template="base", started_at=0, end_at=2**40, timeout=1
            )
            sandbox = await registry.create(record)
            listening = await sandbox.call("connect", port=3128)
            reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=listening.descriptors[0]))
            # Two requests at once, the second for a host that is not on the list.
            writer.write(
                f"POST http://localhost:{port}/a?b=c HTTP/1.1\r\nHost: evil\r\nProxy-Connection: keep-alive\r\n"
                "Content-Length: 2\r\n\r\nokGET http://evil/ HTTP/1.1\r\nHost: evil\r\n\r\n".encode()
            )
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
            writer.close()

            async def all_arrived() -> bool:
                return len(requests) == 2

            await wait_until(all_arrived)
            (head, body), (rest, _) = requests
            assert head.startswith(b"POST /a?b=c HTTP/1.1\r\nhost: localhost\r\n")
            assert b"evil" not in head + rest
            assert (body, rest) == (b"ok", b"")

            listening = await sandbox.call("connect", port=3128)
            reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=listening.descriptors[0]))
            writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"raw\r\n\r\n")
            assert b"hello" in await reader.readuntil(b"hello")
            writer.close()
        finally:
            await registry.close()
            upstream.close()


async def test_a_listener_that_does_not_read_costs_no_memory(server: SandboxServer, sandbox: AsyncSandbox) -> None:
    config = {"cmd": "/bin/bash", "args": ["-c", "echo $$; head -c 300000000 /dev/zero; echo done > /tmp/finished"]}
    body = json.dumps({"process": config, "stdin": False}).encode()
    envelope = b"\0" + len(body).to_bytes(4, "big") + body
    info = await AsyncSandbox.connect(sandbox.sandbox_id, **server.options)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    head = (
        "POST /process.Process/Start HTTP/1.1",
        "Host: localhost",
        f"E2b-Sandbox-Id: {sandbox.sandbox_id}",
        f"X-Access-Token: {info._envd_access_token}",
        "Content-Type: application/connect+json",
        "Connect-Protocol-Version: 1",
        f"Content-Length: {len(envelope)}",
    )
    before = psutil.Process(server.process.pid).memory_info().rss
    writer.write("\r\n".join((*head, "", "")).encode() + envelope)
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(2)  # enough for everything that would arrive without backpressure
    assert psutil.Process(server.process.pid).memory_info().rss < before + (64 << 20)
    assert not await sandbox.files.exists("/tmp/finished")
    writer.close()
