"""The servers of a private sandbox: only requests with its token reach them, and they never see it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from e2b import AsyncSandbox, SandboxQuery

from domain.traffic import TRAFFIC_HEADER
from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.sandbox.sandbox_server import SandboxServer, new_sandbox, sandbox_server

# Writes down all that reaches it, and keeps connections open, although it is asked to close them.
ECHO = r"""
import socket, threading
def serve(conn):
    data = b""
    while (got := conn.recv(65536)):
        open("/tmp/seen", "ab").write(got)
        data += got
        if b"\r\n\r\n" not in data:
            continue
        head, _, body = data.partition(b"\r\n\r\n")
        head = head.lower()
        if b"upgrade: websocket" in head:
            conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            conn.sendall(conn.recv(4)[::-1])
            conn.close()
            return
        if b"expect: 100-continue" in head:
            conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if b"chunked" in head and not data.endswith(b"0\r\n\r\n"):
            continue
        if b"content-length: 4" in head and len(body) < 4:
            continue
        if head.startswith(b"get /events"):
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        else:
            conn.sendall(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=9\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        data = b""
listener = socket.create_server(("127.0.0.1", 8000))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxServer]:
    async with sandbox_server(tmp_path_factory.mktemp("private") / "root") as running:
        yield running


@pytest.fixture(scope="module")
async def private(server: SandboxServer) -> AsyncIterator[AsyncSandbox]:
    async with new_sandbox(server, network={"allow_public_traffic": False}) as sandbox:
        await sandbox.files.write("echo.py", ECHO)
        await sandbox.commands.run("exec python3 echo.py", background=True, timeout=0)

        async def answers() -> bool:
            async with client(server, sandbox) as asking:
                return (await asking.get("/")).status_code == 200

        await wait_until(answers)
        yield sandbox


def client(server: SandboxServer, sandbox: AsyncSandbox, *tokens: str | None) -> httpx.AsyncClient:
    """A client of port 8000 that sends these tokens; by default the right one."""
    sent = tokens or (sandbox.traffic_access_token,)
    headers = [("Host", sandbox.get_host(8000)), *((TRAFFIC_HEADER, token) for token in sent if token is not None)]
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.proxy_port}", headers=headers, timeout=DEADLINE)


async def seen(sandbox: AsyncSandbox) -> bytes:
    return bytes(await sandbox.files.read("/tmp/seen", format="bytes"))


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ((None,), "Token header 'e2b-traffic-access-token' is missing"),
        (("",), "Token header 'e2b-traffic-access-token' is missing"),
        (("wrong",), "Provided token in header 'e2b-traffic-access-token' is invalid"),
        (("right", "wrong"), "Provided token in header 'e2b-traffic-access-token' is invalid"),
    ],
)
async def test_a_request_without_the_token_is_refused_as_e2b_does(
    server: SandboxServer, private: AsyncSandbox, tokens: tuple[str | None, ...], problem: str
) -> None:
    sent = [private.traffic_access_token if token == "right" else token for token in tokens]
    async with client(server, private, *sent) as asking:
        answer = await asking.get("/secret-page")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    assert answer.json() == {
        "sandboxId": private.sandbox_id,
        "message": f"Sandbox is secured with traffic access token. {problem}",
        "code": 403,
    }
    assert b"secret-page" not in await seen(private)


async def test_the_server_does_not_see_the_token(server: SandboxServer, private: AsyncSandbox) -> None:
    token = private.traffic_access_token
    assert token is not None

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two" * 50_000

    async with client(server, private) as asking:
        answer = await asking.get("/page", headers={"X-Mine": "kept"})
        assert b"X-Mine: kept" in answer.content
        assert answer.headers["connection"] == "close"
        assert "keep-alive" not in answer.headers
        assert b"twotwo" in (await asking.post("/", content=chunks())).content
        assert b"\r\n\r\nbody" in (await asking.post("/", content=b"body", headers={"Expect": "100-continue"})).content
        async with asking.stream("GET", "/events") as events:
            assert await anext(events.aiter_text()) == "data: 1\n\n"
    # The server keeps the connection open, and the client sends a second request on it.
    reader, writer = await asyncio.open_connection("127.0.0.1", server.proxy_port)
    request = f"GET / HTTP/1.1\r\nHost: {private.get_host(8000)}\r\n{TRAFFIC_HEADER.upper()}: {token}\r\n\r\n".encode()
    writer.write(request + request.replace(b"GET /", b"GET /second"))
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    received = await seen(private)
    assert token.encode() not in received
    assert TRAFFIC_HEADER.encode() not in received.lower()
    assert b"/second" not in received


async def test_a_websocket_needs_the_token(server: SandboxServer, private: AsyncSandbox) -> None:
    for token, status in ((None, b"403"), (private.traffic_access_token, b"101")):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.proxy_port)
        line = f"{TRAFFIC_HEADER}: {token}\r\n" if token else ""
        writer.write(
            f"GET / HTTP/1.1\r\nHost: {private.get_host(8000)}\r\n{line}"
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1] == status
    writer.write(b"abcd")
    assert await reader.read() == b"dcba"
    writer.close()


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: +1",
        "Transfer-Encoding: gzip, chunked",
        f"{TRAFFIC_HEADER} : other",
    ],
)
async def test_an_unclear_request_is_refused(server: SandboxServer, private: AsyncSandbox, lines: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.proxy_port)
    token = f"{TRAFFIC_HEADER}: {private.traffic_access_token}"
    writer.write(f"POST / HTTP/1.1\r\nHost: {private.get_host(8000)}\r\n{token}\r\n{lines}\r\n\r\nx".encode())
    assert b" 400 " in await reader.readuntil(b"\r\n")
    writer.close()


async def test_connecting_returns_the_same_token_and_listing_none(tmp_path: Path) -> None:
    async with sandbox_server(tmp_path / "root") as server:
        made = await AsyncSandbox.create(
            network={"allow_public_traffic": False}, timeout=600, metadata={"a": "b"}, **server.options
        )
        token = made.traffic_access_token
        assert token
        assert token != (await AsyncSandbox.create(**server.options)).traffic_access_token is None
        listed = AsyncSandbox.list(query=SandboxQuery(metadata={"a": "b"}), **server.options)
        async with server.client() as api:
            details = [await api.get(f"/sandboxes/{made.sandbox_id}"), await api.get("/v2/sandboxes")]
        assert [each.sandbox_id for each in await listed.next_items()] == [made.sandbox_id]
        assert all(token not in answer.text for answer in details)
        await made.pause()
        assert (await AsyncSandbox.connect(made.sandbox_id, **server.options)).traffic_access_token == token
    async with sandbox_server(tmp_path / "root") as server:
        adopted = await AsyncSandbox.connect(made.sandbox_id, **server.options)
        assert adopted.traffic_access_token == token
        assert token not in server.log()
        await adopted.kill()
