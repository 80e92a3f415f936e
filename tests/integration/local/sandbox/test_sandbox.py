"""The official, unmodified SDK with the local sandbox server: it does the same as with E2B's cloud."""

import asyncio
import datetime
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import e2b
import httpx
import pytest
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    InvalidArgumentException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)
from e2b.exceptions import SandboxNotRunningException

from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.sandbox.sandbox_server import SandboxServer, new_sandbox, sandbox_server

BIG = os.urandom(20 << 20)
STARTED = "awk '{print $22}' /proc/1/stat; cat /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxServer]:
    async with sandbox_server(tmp_path_factory.mktemp("sandboxes") / "root") as running:
        yield running


@pytest.fixture
async def sandbox(server: SandboxServer) -> AsyncIterator[AsyncSandbox]:
    async with new_sandbox(server) as made:
        yield made


class TestFiles:
    async def test_text_goes_in_and_comes_back(self, sandbox: AsyncSandbox) -> None:
        written = await sandbox.files.write("dir/a b.txt", "héllo")
        assert (written.path, written.name) == ("/home/user/dir/a b.txt", "a b.txt")
        assert await sandbox.files.read("dir/a b.txt") == "héllo"
        assert (await sandbox.commands.run("cat ~/dir/*; stat -c %U:%G ~/dir/*")).stdout == "héllouser:user\n"

    async def test_several_files_go_in_one_form(self, sandbox: AsyncSandbox) -> None:
        paths = ["/home/user/m1.txt", "/tmp/sub/m2.bin", '/home/user/with "quotes" and é.txt']
        written = await sandbox.files.write_files(
            [{"path": paths[0], "data": ""}, {"path": paths[1], "data": b"\0\r\n--\1"}, {"path": paths[2], "data": "3"}]
        )
        assert [each.path for each in written] == paths
        assert await sandbox.files.read(paths[0]) == ""
        assert bytes(await sandbox.files.read(paths[1], "bytes")) == b"\0\r\n--\1"
        assert await sandbox.files.read(paths[2]) == "3"

    async def test_octet_stream_keeps_metadata(self, sandbox: AsyncSandbox) -> None:
        written = await sandbox.files.write("io.bin", io.BytesIO(b"x" * 100_000), metadata={"Kind": "t"})
        assert written.metadata == {"kind": "t"}
        assert (await sandbox.files.get_info("io.bin")).metadata == {"kind": "t"}
        await sandbox.files.write("io.bin", "again")
        assert not (await sandbox.files.get_info("io.bin")).metadata

    async def test_gzip_is_unpacked_on_the_way_in(self, sandbox: AsyncSandbox) -> None:
        text = "gzipped " * 200_000
        await sandbox.files.write("gz.txt", text, gzip=True)
        assert await sandbox.files.read("gz.txt", gzip=True) == text

    async def test_large_files_survive_both_ways(self, sandbox: AsyncSandbox) -> None:
        await sandbox.files.write("big.bin", BIG)
        assert bytes(await sandbox.files.read("big.bin", "bytes")) == BIG
        streamed = b"".join([chunk async for chunk in await sandbox.files.read("big.bin", "stream")])
        assert streamed == BIG

    async def test_a_streamed_upload(self, sandbox: AsyncSandbox) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(10):
                yield bytes([number]) * 50_000

        await sandbox.files.write("stream.bin", pieces())
        assert (await sandbox.files.get_info("stream.bin")).size == 500_000

    async def test_overwriting_leaves_nothing_of_the_old_file(self, sandbox: AsyncSandbox) -> None:
        await sandbox.files.write("f", "a long text")
        await sandbox.files.write("f", "short")
        assert await sandbox.files.read("f") == "short"

    async def test_listing(self, sandbox: AsyncSandbox) -> None:
        await sandbox.files.write("dir/inner.txt", "1")
        await sandbox.commands.run("ln -s dir link")
        shallow = {entry.name: entry for entry in await sandbox.files.list("/home/user")}
        assert shallow["dir"].type == e2b.FileType.DIR
        assert shallow["link"].symlink_target == "/home/user/dir"
        assert "inner.txt" not in shallow
        deep = [entry.path for entry in await sandbox.files.list("~", depth=2)]
        assert "/home/user/dir/inner.txt" in deep

    async def test_directories_are_made_moved_and_removed(self, sandbox: AsyncSandbox) -> None:
        assert await sandbox.files.make_dir("d1/d2") is True
        assert await sandbox.files.make_dir("d1/d2") is False
        await sandbox.files.write("m.txt", "1")
        moved = await sandbox.files.rename("m.txt", "d1/new/m.txt")
        assert moved.path == "/home/user/d1/new/m.txt"
        assert await sandbox.files.exists("d1/new/m.txt")
        await sandbox.files.remove("d1")
        assert not await sandbox.files.exists("d1")

    async def test_what_is_not_there_says_so(self, sandbox: AsyncSandbox) -> None:
        with pytest.raises(FileNotFoundException):
            await sandbox.files.read("nope")
        with pytest.raises(FileNotFoundException):
            await sandbox.files.list("/nope")
        with pytest.raises(NotFoundException):
            await sandbox.files.rename("nope", "other")
        assert not await sandbox.files.exists("nope")

    async def test_what_is_no_file_says_so(self, sandbox: AsyncSandbox) -> None:
        with pytest.raises(InvalidArgumentException, match="directory"):
            await sandbox.files.read("/tmp")
        with pytest.raises(InvalidArgumentException, match="directory"):
            await sandbox.files.write("/tmp", "1")
        with pytest.raises(SandboxException, match="Read-only"):
            await sandbox.files.write("/usr/x", "1")

    async def test_links_are_described_with_their_target(self, sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("mkdir d && touch d/file && ln -s ../d/file d/link && ln -s d dir && ln -s x gone")
        link = await sandbox.files.get_info("d/link")
        assert (link.type, link.symlink_target) == (e2b.FileType.SYMLINK, "/home/user/d/file")
        listed = {entry.name: entry for entry in await sandbox.files.list(".")}
        assert (listed["dir"].type, listed["dir"].symlink_target) == (e2b.FileType.SYMLINK, "/home/user/d")
        assert (await sandbox.files.get_info("gone")).symlink_target == "/home/user/x"
        assert listed["d"].symlink_target is None

    async def test_signed_addresses_open_one_file_without_a_token(
        self, server: SandboxServer, sandbox: AsyncSandbox
    ) -> None:
        """Nothing but the address is needed, as with E2B's."""
        await sandbox.files.write("a b.txt", "héllo")
        url = sandbox.download_url("a b.txt", use_signature_expiration=60)
        upload = sandbox.upload_url("up.txt", use_signature_expiration=60)
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            assert (await client.get(url)).text == "héllo"
            assert (await client.get(sandbox.download_url("a b.txt"))).text == "héllo"
            assert (await client.post(upload, files={"file": b"up"})).status_code == 200
            octets = {"Content-Type": "application/octet-stream"}
            assert (await client.post(sandbox.upload_url("to.txt"), content=b"to", headers=octets)).status_code == 200
            for other in (
                url.replace("a%20b", "other"),
                url.replace("signature_expiration=", "signature_expiration=9"),
                upload,  # may not read
                sandbox.download_url("a b.txt", use_signature_expiration=-60),
                f"{server.url}/files?path=a b.txt",
                f"{server.url}/files?path=a b.txt&signature=v1_",
            ):
                assert (await client.get(other)).status_code == 401
            assert (await client.post(url, files={"file": b"up"})).status_code == 401
            expired = await client.post(
                sandbox.upload_url("up.txt", use_signature_expiration=-60), files={"file": b"late"}
            )
            assert (expired.status_code, "expired" in expired.json()["message"]) == (401, True)
        assert await sandbox.files.read("up.txt") + await sandbox.files.read("to.txt") == "upto"

    async def test_a_signed_address_leads_to_nothing_of_the_host(
        self, server: SandboxServer, sandbox: AsyncSandbox
    ) -> None:
        await sandbox.commands.run(f"ln -s {server.root}/.lock lock; ln -s {server.root} out")
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            for path in ("lock", "out/.lock", f"{server.root}/.lock"):
                assert (await client.get(sandbox.download_url(path))).status_code == 404
            await client.post(sandbox.upload_url("out/planted"), files={"file": b"up"})
        assert not (server.root / "planted").exists()


class TestCommands:
    async def test_output_environment_and_directory(self, server: SandboxServer) -> None:
        async with new_sandbox(server, envs={"FOO": "bar"}) as sandbox:
            run = sandbox.commands.run
            result = await run("echo out; echo err >&2; echo $FOO $BAR; pwd", envs={"BAR": "baz"}, cwd="/tmp")
            assert (result.stdout, result.stderr, result.exit_code) == ("out\nbar baz\n/tmp\n", "err\n", 0)
            result = await run("echo $HOME $USER $LANG; pwd; python3 -c 'print(1)'; git --version; tar --version")
            assert result.stdout.startswith("/home/user user C.UTF-8\n/home/user\n1\ngit version")

    async def test_a_failing_command_tells_its_code_and_output(self, sandbox: AsyncSandbox) -> None:
        with pytest.raises(CommandExitException) as caught:
            await sandbox.commands.run("echo partial; echo bad >&2; exit 3")
        assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (3, "partial\n", "bad\n")

    async def test_a_directory_that_is_not_there(self, sandbox: AsyncSandbox) -> None:
        with pytest.raises(InvalidArgumentException, match="/nope"):
            await sandbox.commands.run("true", cwd="/nope")

    async def test_output_arrives_while_the_command_runs(self, sandbox: AsyncSandbox) -> None:
        first = asyncio.Event()
        handle = await sandbox.commands.run(
            "echo 1; until [ -e go ]; do sleep 0.02; done; echo 2",
            background=True,
            on_stdout=lambda _: first.set(),
        )
        waiting = asyncio.create_task(handle.wait())
        await asyncio.wait_for(first.wait(), DEADLINE)
        await sandbox.files.write("go", "")
        assert (await waiting).stdout == "1\n2\n"

    async def test_much_output_and_a_slow_listener_lose_nothing(self, sandbox: AsyncSandbox) -> None:
        assert len((await sandbox.commands.run("head -c 5000000 /dev/zero | tr '\\0' a")).stdout) == 5_000_000
        seen = []

        async def slowly(data: str) -> None:
            seen.append(len(data))
            await asyncio.sleep(0.001)

        await sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' b", on_stdout=slowly)
        assert sum(seen) == 3_000_000

    async def test_the_deadline_ends_the_command(self, sandbox: AsyncSandbox) -> None:
        with pytest.raises(TimeoutException):
            await sandbox.commands.run("echo $$ > pid; exec sleep 300", timeout=1)

        async def gone() -> bool:
            return (await sandbox.commands.run("kill -0 $(cat pid) 2>&- || echo dead")).stdout == "dead\n"

        await wait_until(gone)

    async def test_background_commands_are_listed_and_killed(self, sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run("exec sleep 100", background=True, envs={"A": "1"}, cwd="/tmp")
        listed = next(each for each in await sandbox.commands.list() if each.pid == handle.pid)
        assert (listed.args[-1], listed.envs, listed.cwd) == ("exec sleep 100", {"A": "1"}, "/tmp")
        assert await handle.kill() is True
        with pytest.raises(CommandExitException) as caught:
            await handle.wait()
        assert caught.value.exit_code == -1
        assert caught.value.error == "signal: SIGKILL"
        assert await sandbox.commands.kill(999_999) is False
        assert not await sandbox.commands.list()

    async def test_stdin(self, sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run("cat; echo eof", background=True, stdin=True)
        await handle.send_stdin("abc\n")
        await handle.close_stdin()
        assert (await handle.wait()).stdout == "abc\neof\n"

    async def test_stdin_without_a_reader_waits_without_harm(self, sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run("exec sleep 100", background=True, stdin=True)
        full = asyncio.create_task(handle.send_stdin("x" * 1_000_000))
        await asyncio.gather(*(sandbox.files.write(f"f{number}", "x" * 100_000) for number in range(20)))
        assert not full.done()
        await handle.kill()
        with pytest.raises(SandboxException, match="stdin"):
            await full

    async def test_streamed_stdin_keeps_its_order(self, sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run("cat", background=True, stdin=True)
        stream = sandbox.commands.stream_input(handle.pid)
        for number in range(50):
            await stream.send(f"{number}\n")
        await stream.close()
        await handle.close_stdin()
        assert (await handle.wait()).stdout.split() == [str(number) for number in range(50)]

    async def test_another_client_connects_to_a_running_command(self, sandbox: AsyncSandbox) -> None:
        script = "echo early; touch ready; until [ -e go ]; do sleep 0.02; done; head -c 4000000 /dev/zero; echo late"
        handle = await sandbox.commands.run(script, background=True)
        await wait_until(lambda: sandbox.files.exists("ready"))
        await handle.disconnect()
        again = await sandbox.commands.connect(handle.pid)
        await sandbox.files.write("go", "")
        result = await again.wait()
        assert result.stdout.endswith("late\n")
        assert "early" not in result.stdout  # no replay, as in E2B

    async def test_a_late_connection_learns_the_exit_code(self, sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run("exit 7", background=True)
        with pytest.raises(CommandExitException):
            await handle.wait()
        late = await sandbox.commands.connect(handle.pid)
        with pytest.raises(CommandExitException) as caught:
            await late.wait()
        assert caught.value.exit_code == 7

    async def test_many_commands_at_once(self, sandbox: AsyncSandbox) -> None:
        results = await asyncio.gather(*(sandbox.commands.run(f"sleep 0.1; echo {number}") for number in range(40)))
        assert [result.stdout.strip() for result in results] == [str(number) for number in range(40)]

    async def test_what_is_not_served_says_so(self, sandbox: AsyncSandbox) -> None:
        with pytest.raises(SandboxException, match="does not serve the user 'root'"):
            await sandbox.commands.run("id", user="root")
        with pytest.raises(SandboxException, match="does not serve the user 'root'"):
            await sandbox.files.write("f", "", user="root")
        with pytest.raises(SandboxException, match="does not serve POST"):
            await sandbox.create_snapshot()

    async def test_a_commands_variables_are_its_own(self, server: SandboxServer) -> None:
        async with new_sandbox(server, envs={"A": "sandbox", "B": "sandbox"}) as sandbox:
            own = await sandbox.commands.run("echo $A $B $C", envs={"A": "command", "C": "$(id)\n=x"})
            assert own.stdout == "command sandbox $(id) =x\n"
            assert (await sandbox.commands.run("echo $A $B $C")).stdout == "sandbox sandbox\n"


class TestTerminals:
    @pytest.fixture
    async def opened(self, sandbox: AsyncSandbox) -> "Terminal":
        terminal = Terminal()
        terminal.handle = await sandbox.pty.create(
            e2b.PtySize(rows=20, cols=70), on_data=terminal.output.extend, timeout=0, cwd="/tmp", envs={"OWN": "1"}
        )
        return terminal

    async def test_a_shell_has_a_terminal_of_its_own(self, sandbox: AsyncSandbox, opened: "Terminal") -> None:
        pid = opened.handle.pid
        await sandbox.pty.send_stdin(pid, b"stty size; tty; echo $OWN $PWD $TERM; kill -l >&2\n")
        await opened.until(b"20 70")
        await opened.until(b"/dev/pts/")
        await opened.until(b"1 /tmp xterm-256color")
        await opened.until(b"SIGHUP")
        await sandbox.pty.resize(pid, e2b.PtySize(rows=33, cols=99))
        await sandbox.pty.send_stdin(pid, b"stty size\n")
        await opened.until(b"33 99")
        # One process says that it runs and then sleeps: it holds the terminal by then, so that ^C ends it. With
        # `echo; sleep`, ^C could come while the shell was starting sleep, and was lost.
        await sandbox.pty.send_stdin(pid, b"sh -c 'echo $((20+2)) runs; exec sleep 1000'\n")
        await opened.until(b"22 runs")
        await sandbox.pty.send_stdin(pid, b"\x03")

        async def interrupted() -> bool:
            return b"$ " in opened.output.rpartition(b"22 runs")[2]

        await wait_until(interrupted)
        await sandbox.pty.send_stdin(pid, b"exit 3\n")
        with pytest.raises(CommandExitException) as ended:
            await opened.end()
        assert ended.value.exit_code == 3

    async def test_it_survives_its_client_and_a_pause(self, sandbox: AsyncSandbox, opened: "Terminal") -> None:
        pid = opened.handle.pid
        await opened.handle.disconnect()
        await sandbox.pause()
        await sandbox.connect()
        again = Terminal()
        again.handle = await sandbox.pty.connect(pid, on_data=again.output.extend, timeout=0)
        async with sandbox.pty.stream_input(pid) as keys:
            await keys.send(b"echo $((40+2)) again\n")
        await again.until(b"42 again")
        assert await sandbox.pty.kill(pid) is True
        with pytest.raises(CommandExitException):
            await again.end()

    async def test_what_has_none_refuses(self, sandbox: AsyncSandbox, opened: "Terminal") -> None:
        command = await sandbox.commands.run("sleep 1000", background=True, stdin=True)
        with pytest.raises(SandboxException, match="has no terminal"):
            await sandbox.pty.resize(command.pid, e2b.PtySize(80, 24))
        with pytest.raises(SandboxException, match="does not take input as pty"):
            await sandbox.pty.send_stdin(command.pid, b"x")
        with pytest.raises(SandboxException, match="does not take input as stdin"):
            await sandbox.commands.send_stdin(opened.handle.pid, "x")
        with pytest.raises(InvalidArgumentException, match="columns and rows"):
            await sandbox.pty.resize(opened.handle.pid, e2b.PtySize(rows=0, cols=80))
        with pytest.raises(InvalidArgumentException, match="columns and rows"):
            await sandbox.pty.create(e2b.PtySize(rows=1 << 20, cols=80), on_data=lambda _: None)


class Terminal:
    """A terminal's output, and the handle that it came with."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.handle: e2b.AsyncCommandHandle[str]

    async def until(self, expected: bytes) -> None:
        async def told() -> bool:
            return expected in self.output

        await wait_until(told)

    async def end(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.handle.wait()


class TestLifecycle:
    async def test_info_and_health(self, server: SandboxServer) -> None:
        async with new_sandbox(server, metadata={"run": "1"}) as sandbox:
            info = await sandbox.get_info()
            assert (info.state, info.metadata) == (SandboxState.RUNNING, {"run": "1"})
            assert await sandbox.is_running()

    async def test_a_pause_keeps_the_memory_and_ends_streams(self, sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run(
            "i=0; while true; do i=$((i+1)); echo $i > t; mv t tick; sleep 0.02; done", background=True, timeout=0
        )
        await wait_until(lambda: sandbox.files.exists("tick"))
        booted = (await sandbox.commands.run(STARTED)).stdout
        assert await sandbox.pause() is True
        assert await sandbox.pause() is False
        with pytest.raises(SandboxNotRunningException):
            await handle.wait()
        assert (await sandbox.get_info()).state == SandboxState.PAUSED
        assert await sandbox.is_running() is False
        with pytest.raises(SandboxNotRunningException):
            await sandbox.commands.run("true")
        with pytest.raises(SandboxNotRunningException):
            await sandbox.files.read("tick")
        await sandbox.connect()
        before = int(await sandbox.files.read("tick"))

        async def ticks() -> bool:
            return int(await sandbox.files.read("tick")) > before

        await wait_until(ticks)
        assert handle.pid in [each.pid for each in await sandbox.commands.list()]
        assert (await sandbox.commands.run(STARTED)).stdout == booted

    async def test_a_filesystem_pause_is_a_new_boot(self, sandbox: AsyncSandbox) -> None:
        await sandbox.files.write("kept", "1")
        await sandbox.files.write("/tmp/kept", "2")
        await sandbox.commands.run("sleep 100", background=True)
        booted = (await sandbox.commands.run(STARTED)).stdout.split()
        await sandbox.pause(mode="filesystem")
        await sandbox.connect()
        assert await sandbox.files.read("kept") + await sandbox.files.read("/tmp/kept") == "12"
        assert not await sandbox.commands.list()
        rebooted = (await sandbox.commands.run(STARTED)).stdout.split()
        assert rebooted[0] != booted[0]
        await sandbox.pause()
        await sandbox.connect(on_resume="reboot")
        assert (await sandbox.commands.run(STARTED)).stdout.split()[0] not in (booted[0], rebooted[0])

    async def test_many_pauses_lose_no_file(self, sandbox: AsyncSandbox) -> None:
        for cycle in range(5):
            await sandbox.files.write(f"cycle{cycle}", str(cycle))
            await sandbox.pause()
            await sandbox.connect()
        assert [await sandbox.files.read(f"cycle{cycle}") for cycle in range(5)] == list("01234")

    async def test_the_end_of_its_time_kills_it(self, server: SandboxServer) -> None:
        async with new_sandbox(server) as sandbox:
            await sandbox.set_timeout(1)

            async def ended() -> bool:
                return not await sandbox.is_running()

            await wait_until(ended)
            with pytest.raises(SandboxNotRunningException):
                await sandbox.commands.run("true")
            with pytest.raises(SandboxNotFoundException):
                await sandbox.get_info()

            async def removed() -> bool:
                return not (server.root / "sandboxes" / sandbox.sandbox_id).exists()

            await wait_until(removed)

    async def test_the_end_of_its_time_pauses_it(self, server: SandboxServer) -> None:
        async with new_sandbox(server, lifecycle={"on_timeout": "pause"}) as sandbox:
            await sandbox.files.write("k", "v")
            await sandbox.set_timeout(1)

            async def paused() -> bool:
                return (await sandbox.get_info()).state == SandboxState.PAUSED

            await wait_until(paused)
            await sandbox.connect()
            assert await sandbox.files.read("k") == "v"

    async def test_metrics(self, sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run(
            "exec python3 -c 'x = b\"x\" * (50 << 20)\nwhile True: pass'", background=True, timeout=0
        )

        async def measured() -> bool:
            metrics = await sandbox.get_metrics()
            return bool(metrics) and metrics[-1].mem_used > 50 << 20 and metrics[-1].cpu_used_pct > 0

        await wait_until(measured)
        latest = (await sandbox.get_metrics())[-1]
        assert latest.cpu_used_pct <= 100
        assert 0 < latest.disk_used <= latest.disk_total
        assert latest.mem_used <= latest.mem_total == 4 << 30
        assert await sandbox.get_metrics(end=latest.timestamp - datetime.timedelta(days=1)) == []
        assert latest in await sandbox.get_metrics(start=latest.timestamp - datetime.timedelta(seconds=2))
        await sandbox.pause(mode="filesystem")
        assert await sandbox.get_metrics() == []

    async def test_a_request_to_its_port_wakes_it(self, tmp_path: Path) -> None:
        lifecycle: e2b.SandboxLifecycle = {"on_timeout": "pause", "auto_resume": True}
        async with (
            sandbox_server(tmp_path / "root", "--max-running", "1") as server,
            new_sandbox(server, lifecycle=lifecycle) as sandbox,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.proxy_port}", timeout=DEADLINE) as client,
        ):
            await sandbox.commands.run("exec python3 -m http.server 8000", background=True, timeout=0)
            headers = {"Host": sandbox.get_host(8000)}

            async def answers() -> bool:
                return (await client.get("/", headers=headers)).status_code == 200

            await wait_until(answers)
            await sandbox.set_timeout(1)

            async def paused() -> bool:
                return (await sandbox.get_info()).state == SandboxState.PAUSED

            await wait_until(paused)
            assert (await client.get("/", headers=headers)).status_code == 200
            info = await sandbox.get_info()
            assert info.state == SandboxState.RUNNING
            assert info.end_at > datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=4)
            await sandbox.pause()
            async with new_sandbox(server):  # all that may run
                answer = await client.get("/", headers=headers)
                assert (answer.status_code, "maximum number" in answer.json()["message"]) == (429, True)
                with pytest.raises(RateLimitException):
                    await sandbox.files.read("x")
            assert await answers()

    async def test_traffic_resumes_it(self, server: SandboxServer) -> None:
        lifecycle: e2b.SandboxLifecycle = {"on_timeout": "pause", "auto_resume": True}
        async with new_sandbox(server, lifecycle=lifecycle) as sandbox:
            await sandbox.files.write("k", "v")
            await sandbox.pause()
            assert await sandbox.files.read("k") == "v"
            assert (await sandbox.get_info()).state == SandboxState.RUNNING

    async def test_connecting_extends_but_never_shortens(self, sandbox: AsyncSandbox) -> None:
        end = (await sandbox.get_info()).end_at
        await sandbox.connect(timeout=10)
        assert (await sandbox.get_info()).end_at == end
        await sandbox.connect(timeout=7200)
        assert (await sandbox.get_info()).end_at > end
        await sandbox.set_timeout(10)
        assert (await sandbox.get_info()).end_at < end

    async def test_a_kill_ends_everything(self, server: SandboxServer) -> None:
        async with new_sandbox(server) as sandbox:
            handle = await sandbox.commands.run("sleep 60", background=True)
            assert await sandbox.kill() is True
            assert await sandbox.kill() is False
            with pytest.raises(SandboxNotRunningException):
                await handle.wait()
            with pytest.raises(SandboxNotFoundException):
                await sandbox.get_info()
            with pytest.raises(SandboxNotFoundException):
                await AsyncSandbox.connect(sandbox.sandbox_id, **server.options)
            with pytest.raises(SandboxNotRunningException):
                await sandbox.commands.run("true")
            with pytest.raises(SandboxNotFoundException):
                await sandbox.set_timeout(10)

    async def test_an_idempotency_key_makes_one_sandbox(self, server: SandboxServer) -> None:
        key = {"idempotency_key": "build-1", **server.options}
        made = await asyncio.gather(*(AsyncSandbox.create(**key) for _ in range(3)))
        assert len({each.sandbox_id for each in made}) == 1
        with pytest.raises(SandboxException, match="different request"):
            await AsyncSandbox.create(metadata={"other": "1"}, **key)
        await made[0].kill()
        after = await AsyncSandbox.create(**key)
        assert after.sandbox_id != made[0].sandbox_id
        await after.kill()


class TestListing:
    async def test_filters_and_pages(self, server: SandboxServer) -> None:
        common = {"group": "100% é&="}
        made = [await AsyncSandbox.create(metadata={**common, "n": str(n)}, **server.options) for n in range(3)]
        await made[0].pause()

        async def listed(**arguments: object) -> list[str]:
            paginator = AsyncSandbox.list(**{**server.options, **arguments})
            found = []
            while paginator.has_next:
                found += [each.sandbox_id for each in await paginator.next_items()]
            return found

        ids = [each.sandbox_id for each in made]
        assert await listed(query=SandboxQuery(metadata=common), order="asc") == ids
        assert await listed(query=SandboxQuery(metadata=common), limit=2) == ids[::-1]
        running = SandboxQuery(metadata=common, state=[SandboxState.RUNNING])
        assert set(await listed(query=running)) == set(ids[1:])
        assert await listed(query=SandboxQuery(metadata={**common, "n": "1"})) == [ids[1]]
        assert await listed(query=SandboxQuery(metadata={**common, "n": "9"})) == []
        for each in made:
            await each.kill()

    async def test_a_wrong_key_is_refused(self, server: SandboxServer) -> None:
        with pytest.raises(AuthenticationException):
            await AsyncSandbox.create(**{**server.options, "api_key": "e2b_wrong"})
        with pytest.raises(AuthenticationException):
            await AsyncSandbox.list(**{**server.options, "api_key": "e2b_é".encode().hex()}).next_items()

    async def test_only_the_base_template_exists(self, server: SandboxServer) -> None:
        with pytest.raises(SandboxException, match="has only 'base'"):
            await AsyncSandbox.create("my-template", **server.options)
        with pytest.raises(SandboxException, match="does not serve network"):
            await AsyncSandbox.create(network={"deny_out": ["0.0.0.0/0"]}, **server.options)
        rules: e2b.SandboxNetworkOpts = {"allow_out": ["pypi.org"], "deny_out": ["0.0.0.0/0"]}
        with pytest.raises(SandboxException, match="does not serve network"):
            await AsyncSandbox.create(network=rules, **server.options)


class TestPorts:
    """A server inside is reached from outside by the name that `get_host` returns."""

    SERVER = """
import http.server, socketserver
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/sse":
            self.send_response(200); self.send_header("content-type", "text/event-stream"); self.end_headers()
            self.wfile.write(b"data: 1\\n\\n"); self.wfile.flush()
            self.rfile.read(1)
        elif self.headers.get("upgrade") == "websocket":
            self.send_response(101); self.send_header("upgrade", "websocket"); self.end_headers()
            self.wfile.write(self.rfile.read(4)[::-1]); self.close_connection = True
        else:
            super().do_GET()
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer): pass
Server(("127.0.0.1", 8000), Handler).serve_forever()
"""

    @pytest.fixture
    async def served(self, sandbox: AsyncSandbox) -> AsyncSandbox:
        await sandbox.files.write_files(
            [{"path": "server.py", "data": self.SERVER}, {"path": "page.html", "data": "<p>hi"}]
        )
        await sandbox.files.write("big.bin", BIG)
        await sandbox.commands.run("exec python3 server.py", background=True, timeout=0)
        ready = "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))' 2>&- && echo up || true"

        async def up() -> bool:
            return (await sandbox.commands.run(ready)).stdout == "up\n"

        await wait_until(up)
        return sandbox

    @staticmethod
    def client(server: SandboxServer, host: str) -> httpx.AsyncClient:
        url = f"http://127.0.0.1:{server.proxy_port}"
        return httpx.AsyncClient(base_url=url, headers={"Host": host}, timeout=DEADLINE)

    async def test_http(self, server: SandboxServer, served: AsyncSandbox) -> None:
        host = served.get_host(8000)
        assert host == f"8000-{served.sandbox_id}.localhost:{server.proxy_port}"
        async with self.client(server, host) as client:
            assert (await client.get("/page.html")).text == "<p>hi"
            assert (await client.get("/big.bin")).content == BIG
            assert (await client.post("/", content=BIG[: 1 << 20])).content == BIG[: 1 << 20]
        async with self.client(server, host.partition(":")[0].upper()) as client:
            assert (await client.get("/page.html")).text == "<p>hi"

    async def test_server_sent_events_and_websockets_pass(self, server: SandboxServer, served: AsyncSandbox) -> None:
        host = served.get_host(8000)
        async with self.client(server, host) as client, client.stream("GET", "/sse") as events:
            assert await anext(events.aiter_text()) == "data: 1\n\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.proxy_port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode())
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"abcd")
        assert await reader.read() == b"dcba"
        writer.close()

    async def test_a_server_inside_survives_a_pause(self, server: SandboxServer, served: AsyncSandbox) -> None:
        async with self.client(server, served.get_host(8000)) as client:
            await served.pause()
            assert (await client.get("/page.html")).status_code == 502
            await served.connect()
            assert (await client.get("/page.html")).text == "<p>hi"

    async def test_what_is_closed_or_unknown_answers_502_in_json(
        self, server: SandboxServer, sandbox: AsyncSandbox
    ) -> None:
        for host, message in (
            (sandbox.get_host(8001), "port is not open"),
            (sandbox.get_host(8001).replace(sandbox.sandbox_id, "i" + "0" * 20), "not found"),
        ):
            async with self.client(server, host) as client:
                answer = await client.get("/")
                assert answer.status_code == 502
                assert message in answer.json()["message"]

    async def test_a_connection_stays_with_its_sandbox(self, server: SandboxServer, served: AsyncSandbox) -> None:
        async with new_sandbox(server) as other:
            await other.files.write("page.html", "other")
            await other.commands.run("exec python3 -m http.server 8000", background=True, timeout=0)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.proxy_port)
            for host in (served.get_host(8000), other.get_host(8000)):
                writer.write(f"GET /page.html HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"200" in head.split(b"\r\n")[0]
                assert await reader.readexactly(5) == b"<p>hi"
            writer.close()

    async def test_a_bad_host_answers_400(self, server: SandboxServer, sandbox: AsyncSandbox) -> None:
        for host in ("localhost", "8000-../../etc.localhost", "99999-" + sandbox.sandbox_id):
            async with self.client(server, host) as client:
                answer = await client.get("/")
                assert (answer.status_code, answer.json()["code"]) == (400, 400)
