"""The parts of the local sandbox server that work without a sandbox."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.addresses import is_public
from local.sandbox import channel
from local.sandbox.confinement import Confinement, explain, passable
from local.sandbox.egress import parse_request
from local.sandbox.guest_link import GuestLink, GuestLost
from local.sandbox.http_head import Refused
from local.sandbox.multipart import MalformedMultipart, boundary_of, read_parts
from local.sandbox.ports import BadHead, addressed
from local.sandbox.record import SandboxRecord
from tests.harness.wait import DEADLINE

SANDBOX_ID = "i" + "0a" * 10


class TestEgress:
    @pytest.mark.parametrize(
        "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
    )
    def test_public_addresses(self, address: str) -> None:
        assert is_public(address)

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
            "100.64.0.1", "fec0::1",
            "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
            "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1",
            "localhost", "",
        ],
    )  # fmt: skip
    def test_all_others_are_out_of_reach(self, address: str) -> None:
        assert not is_public(address)

    def test_a_tunnel(self) -> None:
        request = parse_request(b"CONNECT PyPI.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (request.host, request.port, request.tunnel) == ("pypi.org", 443, True)

    def test_a_plain_request_is_rewritten_for_its_host(self) -> None:
        request = parse_request(
            b"GET http://pypi.org/simple/?q=1 HTTP/1.1\r\nHost: evil.example\r\nAccept: */*\r\n"
            b"Proxy-Authorization: secret\r\nConnection: keep-alive\r\nProxy-Connection: keep-alive\r\n\r\n"
        )
        assert (request.host, request.port, request.tunnel, request.body_bytes) == ("pypi.org", 80, False, 0)
        assert request.head == (
            b"GET /simple/?q=1 HTTP/1.1\r\nhost: pypi.org\r\naccept: */*\r\nconnection: close\r\n\r\n"
        )

    @pytest.mark.parametrize(
        "head",
        [
            b"\r\n\r\n",
            b"GET /simple/ HTTP/1.1\r\nHost: pypi.org\r\n\r\n",
            b"GET https://pypi.org/ HTTP/1.1\r\n\r\n",
            b"GET http://pypi.org:8080/ HTTP/1.1\r\n\r\n",
            b"GET http://user@pypi.org/ HTTP/1.1\r\n\r\n",
            b"GET http://[::1]/ HTTP/1.1\r\n\r\n",
            b"GET http:///x HTTP/1.1\r\n\r\n",
            b"GET http://pypi.org/ HTTP/2\r\n\r\n",
            b"GET http://pypi.org/\t HTTP/1.1\r\n\r\n",
            b"GET http://pypi.org/\x00 HTTP/1.1\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1 x\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1\r\nno header\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1\r\n folded: x\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1\r\nA: x\nHost: evil\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            b"GET http://pypi.org/ HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            b"CONNECT pypi.org:80 HTTP/1.1\r\n\r\n",
            b"CONNECT pypi.org:22 HTTP/1.1\r\n\r\n",
            b"CONNECT pypi.org:x HTTP/1.1\r\n\r\n",
            b"CONNECT http://pypi.org:443 HTTP/1.1\r\n\r\n",
        ],
    )
    def test_what_is_unusual_is_refused(self, head: bytes) -> None:
        with pytest.raises(Refused):
            parse_request(head)

    @given(st.binary(max_size=300))
    def test_any_bytes_are_a_request_or_refused(self, head: bytes) -> None:
        with pytest.raises(Refused):
            parse_request(head + b"\x01\r\n\r\n")


class TestPorts:
    @pytest.mark.parametrize(
        "host", [f"8000-{SANDBOX_ID}.localhost:3001", f"8000-{SANDBOX_ID.upper()}.LOCALHOST", f"8000-{SANDBOX_ID}:80"]
    )
    def test_hosts(self, host: str) -> None:
        assert addressed(f"GET / HTTP/1.1\r\nA: b\r\nhOsT:  {host} \r\n\r\n".encode()) == (8000, SANDBOX_ID)

    @pytest.mark.parametrize(
        "head",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: 0-{SANDBOX_ID}.x\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\nHost: 65536-{SANDBOX_ID}.x\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\nHost: 80-{SANDBOX_ID}0.x\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\nHost: 80-{SANDBOX_ID}.x\r\nHost: 81-{SANDBOX_ID}.x\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\nX-Host: 80-{SANDBOX_ID}.x\r\n\r\n".encode(),
        ],
    )
    def test_hosts_that_name_no_port_of_a_sandbox(self, head: bytes) -> None:
        with pytest.raises(BadHead):
            addressed(head)


class TestMultipart:
    @staticmethod
    async def read(body: bytes, step: int) -> list[tuple[str, str | None, bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), step):
                yield body[start : start + step]

        return [
            (part.name, part.filename, b"".join([chunk async for chunk in part.chunks]))
            async for part in read_parts(pieces(), b"b")
        ]

    @pytest.mark.parametrize("step", [1, 2, 7, 1000])
    async def test_parts_come_in_any_pieces(self, step: int) -> None:
        body = (
            b'preamble\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a %22b%22 \\\\ \xc3\xa9"\r\n'
            b"Content-Type: text/plain\r\n\r\none\r\n--c\r\n\r\n--b\r\n"
            b'content-disposition: form-data; name="file"\r\n\r\n\r\n--b--\r\nepilogue'
        )
        assert await self.read(body, step) == [("file", 'a "b" \\ é', b"one\r\n--c\r\n"), ("file", None, b"")]

    @given(st.binary(max_size=200).filter(lambda data: b"\r\n--b" not in b"\r\n" + data), st.integers(1, 50))
    async def test_any_contents_come_back(self, data: bytes, step: int) -> None:
        body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + data + b"\r\n--b--"
        assert await self.read(body, step) == [("file", None, data)]

    @pytest.mark.parametrize("body", [b"", b"--b", b"--bx", b"--b\r\n\r\n\r\n--b--", b'--b\r\nX: "\r\n\r\nhello'])
    async def test_what_is_none_is_refused(self, body: bytes) -> None:
        with pytest.raises(MalformedMultipart):
            await self.read(body, 10)

    def test_boundaries(self) -> None:
        assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
        assert boundary_of('Multipart/Form-Data; charset=x; Boundary="a b"') == b"a b"
        for kind in (
            "multipart/form-data",
            "multipart/form-data; boundary=",
            f"multipart/form-data; boundary={'x' * 300}",
        ):
            with pytest.raises(MalformedMultipart):
                boundary_of(kind)


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class TestChannel:
    @pytest.mark.parametrize("size", [0, 1000, 70_000, 5_000_000])
    def test_messages_of_any_size_with_descriptors(self, pair: tuple[socket.socket, socket.socket], size: int) -> None:
        ours, theirs = pair
        reading, writing = os.pipe()
        channel.send(ours, {"text": "x" * size}, [writing])
        message, descriptors = channel.receive(theirs)
        assert message == {"text": "x" * size}
        os.write(descriptors[0], b"through")
        assert os.read(reading, 7) == b"through"
        channel.close_all([reading, writing, *descriptors])

    def test_a_message_that_is_too_large_is_not_sent(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with pytest.raises(channel.MalformedMessage):
            channel.send(pair[0], {"text": "x" * channel.MAX_MESSAGE_BYTES})

    @pytest.mark.parametrize("data", [b"X{}", b"J", b"Jnull", b"J[1]", b"J" + b"[" * 50_000, b"M", b"J\xff"])
    def test_what_is_no_message_is_refused(self, pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
        pair[0].send(data)
        with pytest.raises(channel.MalformedMessage):
            channel.receive(pair[1])

    def test_only_a_sealed_memfd_is_read(self, pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("{}")
        reading, writing = os.pipe()
        unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
        on_disk = os.open(tmp_path / "file", os.O_RDONLY)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for descriptor in (reading, unsealed, on_disk):
            socket.send_fds(pair[0], [b"M"], [descriptor])
            with pytest.raises(channel.MalformedMessage):
                channel.receive(pair[1])
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        channel.close_all([reading, writing, unsealed, on_disk])


class TestGuestLink:
    """The other end is the test, which can be as hostile as it likes."""

    async def test_a_call_is_answered(self, pair: tuple[socket.socket, socket.socket]) -> None:
        link = GuestLink(pair[0], lambda reason: None)
        calling = asyncio.create_task(link.call("stat", path="/"))
        await asyncio.sleep(0)
        message, _ = channel.receive(pair[1])
        assert message == {"id": 1, "operation": "stat", "arguments": {"path": "/"}}
        channel.send(pair[1], {"id": 1, "error": [2, "no such thing"]})
        with pytest.raises(FileNotFoundError, match="no such thing"):
            await calling
        link.close("over")

    async def test_a_guest_serves_a_channel_of_any_number(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """A server with a thousand sandboxes uses descriptors that `select` does not accept."""
        number = os.dup2(pair[1].fileno(), 1500)
        program = "import sys; from local.sandbox import guest; guest.main()"
        guest = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(number), "{}"), pass_fds=[number], cwd=Path(__file__).parents[4]
        )
        os.close(number)
        pair[1].close()
        lost: list[str] = []
        link = GuestLink(pair[0], lost.append)
        async with asyncio.timeout(DEADLINE):
            assert (await link.call("stat", path="/")).value is not None
            link.close("over")
            await guest.wait()
        assert not lost

    @pytest.mark.parametrize("message", [{"id": 99, "value": 1}, {}, {"id": 1}, {"id": []}, {"id": 1, "error": 5}])
    async def test_nonsense_ends_it(
        self, pair: tuple[socket.socket, socket.socket], message: dict[str, object]
    ) -> None:
        lost: list[str] = []
        link = GuestLink(pair[0], lost.append)
        calling = asyncio.create_task(link.call("stat", path="/"))
        await asyncio.sleep(0)
        channel.send(pair[1], message)
        with pytest.raises(OSError):  # noqa: PT011 - any will do
            await asyncio.wait_for(calling, DEADLINE)
        assert len(lost) == 1
        with pytest.raises(GuestLost):
            await link.call("stat", path="/")

    async def test_a_flood_ends_at_its_first_message(self, pair: tuple[socket.socket, socket.socket]) -> None:
        lost = asyncio.Event()
        GuestLink(pair[0], lambda reason: lost.set())
        with pytest.raises(OSError):  # noqa: PT011, PT012 - it depends on how far the flood gets
            for number in range(100_000):
                channel.send(pair[1], {"id": 1000 + number, "value": None})
                await asyncio.sleep(0)
        assert lost.is_set()

    async def test_an_answer_without_a_caller_is_dropped(self, pair: tuple[socket.socket, socket.socket]) -> None:
        lost: list[str] = []
        link = GuestLink(pair[0], lost.append)
        calling = asyncio.create_task(link.call("open_for_reading", path="x"))
        await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait([calling])
        reading, writing = os.pipe()
        channel.send(pair[1], {"id": 1, "value": "x"}, [writing])
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 1) == b""  # the end that was passed on has been closed
        assert not lost
        link.close("over")
        os.close(reading)

    async def test_many_calls_wait_for_a_slow_guest(self, pair: tuple[socket.socket, socket.socket]) -> None:
        link = GuestLink(pair[0], lambda reason: None)
        calls = [asyncio.create_task(link.call("stat", path="x" * 50_000)) for _ in range(200)]
        for _ in range(200):
            message, _ = await asyncio.to_thread(channel.receive, pair[1])
            channel.send(pair[1], {"id": message["id"], "value": message["id"]})
        assert sorted([(await call).value for call in calls]) == list(range(1, 201))
        link.close("over")


class TestRecord:
    RECORD = SandboxRecord(
        id=SANDBOX_ID, token="t", template="base", started_at=1, end_at=2, timeout=1, metadata={"a": "b"}
    )

    def test_it_comes_back(self, tmp_path: Path) -> None:
        directory = tmp_path / SANDBOX_ID
        directory.mkdir()
        self.RECORD.save(directory)
        assert SandboxRecord.load(directory) == self.RECORD
        assert [path.name for path in directory.iterdir()] == ["meta.json"]

    @pytest.mark.parametrize("change", [{"id": "../etc"}, {"id": "i" + "1" * 20}, {"end_at": "x"}, {"extra": 1}])
    def test_what_does_not_belong_is_refused(self, tmp_path: Path, change: dict[str, object]) -> None:
        directory = tmp_path / SANDBOX_ID
        directory.mkdir()
        (directory / "meta.json").write_text(json.dumps(self.RECORD.model_dump() | change))
        with pytest.raises(ValueError):  # noqa: PT011 - pydantic's or ours
            SandboxRecord.load(directory)


class TestConfinement:
    def test_it_never_shares_what_it_should_not(self, tmp_path: Path) -> None:
        command = Confinement(tmp_path).command(tmp_path / "sandboxes" / "x", ["/bin/true"])
        assert "--share-net" not in command
        assert {"--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--as-pid-1"} <= set(
            command
        )
        sources = [command[at + 1] for at, argument in enumerate(command) if argument in ("--bind", "--ro-bind")]
        assert not {"/", "/etc", "/home", "/root", "/var", "/run", "/tmp"} & set(sources)

    def test_a_directory_that_others_cannot_pass_is_known(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        (closed / "in").mkdir(parents=True)
        closed.chmod(0o700)
        assert not passable(closed / "in")
        assert passable(Path("/usr/bin"))

    @pytest.mark.parametrize(
        ("sysctls", "remedy"),
        [
            ({"kernel.apparmor_restrict_unprivileged_userns": "1"}, "apparmor_restrict_unprivileged_userns=0"),
            ({"kernel.unprivileged_userns_clone": "0"}, "unprivileged_userns_clone=1"),
            ({"user.max_user_namespaces": "0"}, "max_user_namespaces="),
            ({}, "--cap-add SYS_ADMIN"),
        ],
    )
    def test_reasons_come_with_remedies(self, sysctls: dict[str, str], remedy: str) -> None:
        found = explain("bwrap: No permissions", sysctls, is_root=False)
        assert not found.ok
        assert "No permissions" in found.reason
        assert remedy in found.remedy
        assert "E2B_API_KEY" in found.remedy
