"""WebSockets through the gateway, with the same library at both ends: everything of the protocol passes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from api.gateway.headers import Route
from api.gateway.proxy import Lost, Proxy
from api.gateway.tunnel import Refusal, Tunnel
from api.gateway.upstream import Upstreams
from api.protocol import Protocol
from tests.harness.asgi_server import serving
from tests.harness.wait import DEADLINE

LARGE = b"\x00\xff" * (2 << 20)


class Gate:
    """The server with the tunnel, and what its tests set."""

    def __init__(self) -> None:
        self.route = Route("", "")
        self.refusal: Refusal | None = None
        self.lost = asyncio.Event()
        self.scopes: list[Scope] = []
        self.product_closed = asyncio.Event()
        self.product_requests: list[Request] = []
        self.port = 0

    def connect(self, path: str = "/ws", **options: object) -> connect:
        """A client of the product behind the tunnel."""
        options = {"max_size": None, "open_timeout": DEADLINE, "proxy": None, **options}
        return connect(f"ws://127.0.0.1:{self.port}{path}", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
async def gates() -> AsyncIterator[Gate]:
    gate = Gate()
    upstreams = Upstreams()

    async def product(connection: ServerConnection) -> None:
        try:
            async for message in connection:
                if message == "close":
                    await connection.close(4321, "as you wish")
                await connection.send(message)
        finally:
            gate.product_closed.set()

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        gate.product_requests.append(request)
        if request.path == "/refused":
            answer = connection.respond(418, "not here")
            answer.headers["Set-Cookie"] = "a=1; Domain=localhost"
            return answer
        return None

    def choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol("chat") if "chat" in offered else None

    async def wait_for_loss() -> None:
        await gate.lost.wait()

    async def admit(scope: Scope) -> tuple[Proxy, Route, Lost]:
        gate.scopes.append(scope)
        if gate.refusal is not None:
            raise gate.refusal
        return Proxy(upstreams, lambda text: text == "ours"), gate.route, wait_for_loss

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("no request of the tests is an ordinary one")

    async with (
        serve(product, "127.0.0.1", 0, process_request=refuse, max_size=None, select_subprotocol=choose) as own,
        serving(nothing, http=Protocol, ws=partial(Tunnel, admit)) as gate.port,
    ):
        gate.route = Route("http://b.localhost:8000", f"http://127.0.0.1:{own.sockets[0].getsockname()[1]}", "traffic")
        yield gate
    await upstreams.close()


@pytest.fixture
def gate(gates: Gate) -> Gate:
    gates.refusal, gates.lost, gates.product_closed = None, asyncio.Event(), asyncio.Event()
    gates.scopes.clear()
    gates.product_requests.clear()
    return gates


async def test_messages_pass_whole_in_both_directions(gate: Gate) -> None:
    async with gate.connect("/ws?a=%2F", subprotocols=[Subprotocol("x"), Subprotocol("chat")]) as client:
        assert client.subprotocol == "chat"
        assert client.protocol.extensions  # compression, agreed upon by the two ends
        for message in ("a text, ü", b"", LARGE):
            await client.send(message)
            got = await client.recv()
            assert got == message
        await (await client.ping())
    [request] = gate.product_requests
    assert request.path == "/ws?a=%2F"
    await asyncio.wait_for(gate.product_closed.wait(), DEADLINE)


async def test_a_product_sees_nothing_of_ours(gate: Gate) -> None:
    headers = {"Authorization": "Bearer ours", "Cookie": "__Host-cofounder-preview=x; a=1", "X-Cofounder-Key": "k"}
    async with gate.connect(additional_headers=headers, origin="http://b.localhost:8000"):
        pass
    [request] = gate.product_requests
    assert request.headers["Cookie"] == "a=1"
    assert request.headers["Origin"] == gate.route.upstream
    assert request.headers["E2B-Traffic-Access-Token"] == "traffic"
    assert not {"authorization", "x-cofounder-key"} & {name.lower() for name in request.headers}


async def test_close_codes_pass(gate: Gate) -> None:
    async with gate.connect() as client:
        await client.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")


async def test_a_visitor_who_loses_access_is_cut_off_on_both_sides(gate: Gate) -> None:
    async with gate.connect() as client:
        await client.send("a")
        assert await client.recv() == "a"
        gate.lost.set()
        with pytest.raises(ConnectionClosed):
            await client.recv()
    await asyncio.wait_for(gate.product_closed.wait(), DEADLINE)


async def test_a_visitor_who_vanishes_ends_the_products_side(gate: Gate) -> None:
    client: ClientConnection = await gate.connect()
    client.transport.abort()
    await asyncio.wait_for(gate.product_closed.wait(), DEADLINE)


async def test_a_refusal_of_the_product_passes(gate: Gate) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await gate.connect("/refused")
    assert refused.value.response.status_code == 418
    assert refused.value.response.body == b"not here"
    assert "set-cookie" not in refused.value.response.headers


async def test_a_refusal_of_ours_reaches_no_product(gate: Gate) -> None:
    gate.refusal = Refusal(403, "not you")
    with pytest.raises(InvalidStatus) as refused:
        await gate.connect()
    assert (refused.value.response.status_code, refused.value.response.body) == (403, b"not you")
    assert gate.product_requests == []


@pytest.mark.parametrize(
    "head",
    [
        b"POST /ws HTTP/1.1\r\nContent-Length: 0\r\n",
        b"GET /ws HTTP/1.1\r\nContent-Length: 5\r\n",
        b"GET /ws HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
        b"GET http://other/ws HTTP/1.1\r\n",
    ],
)
async def test_what_is_not_a_handshake_is_refused(gate: Gate, head: bytes) -> None:
    """Whatever follows a body's head would otherwise be a request that no one checks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    writer.write(head + b"Host: b.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1")
    answer = await asyncio.wait_for(reader.read(), DEADLINE)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert gate.product_requests == []
    writer.close()


async def test_a_stopping_server_ends_its_tunnels() -> None:
    upstreams = Upstreams()

    async def product(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(product, "127.0.0.1", 0) as own:
        route = Route("http://b.localhost", f"http://127.0.0.1:{own.sockets[0].getsockname()[1]}")

        async def forever() -> None:
            await asyncio.Event().wait()

        async def admit(scope: Scope) -> tuple[Proxy, Route, Lost]:
            return Proxy(upstreams, lambda text: False), route, forever

        async with serving(None, http=Protocol, ws=partial(Tunnel, admit)) as port:
            client = await connect(f"ws://127.0.0.1:{port}/", proxy=None)
        await asyncio.wait_for(client.wait_closed(), DEADLINE)
    await upstreams.close()
