"""HTTP through the gateway to a real server: whole messages, at the pace of the slower side, and nothing of ours."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from api.gateway.headers import Route
from api.gateway.proxy import AccessLost, ProductDown, Proxy, pieces_of
from api.gateway.upstream import Upstreams
from api.protocol import Protocol
from tests.harness.asgi_server import serving
from tests.harness.wait import DEADLINE

MEGABYTE = b"x" * (1 << 20)


class Product:
    """A product's server, and what it has seen."""

    def __init__(self) -> None:
        self.sent_megabytes = 0
        self.read_bytes = 0
        self.may_go_on = asyncio.Event()
        self.gone = asyncio.Event()
        paths = [
            Path("/echo", self.echo, methods=["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]),
            Path("/events", self.events),
            Path("/large", self.large),
            Path("/slow-upload", self.slow_upload, methods=["POST"]),
            Path("/nothing", lambda request: Response(status_code=204)),
            Path("/unchanged", lambda request: Response(status_code=304, headers={"etag": "x"})),
            Path("/packed", lambda request: Response(b"packed", headers={"content-encoding": "gzip"})),
        ]
        self.app = Starlette(routes=paths)

    async def echo(self, request: Request) -> Response:
        body = await request.body()
        scope = request.scope
        seen = {
            "method": request.method,
            "target": scope["raw_path"].decode() + "?" + scope["query_string"].decode(),
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
            "body": [len(body), hashlib.sha256(body).hexdigest()],
        }
        return JSONResponse(seen)

    async def events(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            try:
                yield "data: 1\n\n"
                await self.may_go_on.wait()
                yield "data: 2\n\n"
            finally:
                self.gone.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def large(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(60):
                yield MEGABYTE
                self.sent_megabytes += 1

        return StreamingResponse(pieces())

    async def slow_upload(self, request: Request) -> Response:
        async for piece in request.stream():
            self.read_bytes += len(piece)
            await self.may_go_on.wait()
        return Response(str(self.read_bytes))


@dataclass
class Gate:
    """A server that passes requests on. Tests set where to, and when the visitor loses access."""

    client: httpx2.AsyncClient
    upstream: str = ""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    product: Product = field(default_factory=Product)


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[tuple[Gate, str]]:
    """The gate, and the URL of a server that serves its product."""
    upstreams = Upstreams()
    proxy = Proxy(upstreams, lambda text: text == "ours")
    gates: list[Gate] = []

    async def passing(scope: Scope, receive: Receive, send: Send) -> None:
        gate = gates[0]
        route = Route("http://b.localhost:8000", gate.upstream, "traffic")
        lost = gate.lost

        async def wait_for_loss() -> None:
            await lost.wait()

        try:
            await proxy.serve(scope, receive, send, route, wait_for_loss)
        except ProductDown as down:
            await Response("down", down.status)(scope, receive, send)
        except AccessLost:
            await Response("lost", 403)(scope, receive, send)

    async def serving_product(scope: Scope, receive: Receive, send: Send) -> None:
        await gates[0].product.app(scope, receive, send)

    async with (
        serving(serving_product, ws="none", date_header=False) as product_port,
        serving(passing, http=Protocol, server_header=False) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE, trust_env=False) as client,
    ):
        gates.append(Gate(client))
        yield gates[0], f"http://3000-box.localhost:{product_port}"
    await upstreams.close()


@pytest.fixture
def gate(servers: tuple[Gate, str]) -> Iterator[Gate]:
    made = servers[0]
    made.upstream = servers[1]
    made.lost, made.product = asyncio.Event(), Product()
    yield made
    made.product.may_go_on.set()


@pytest.fixture
def product(gate: Gate) -> tuple[Product, str]:
    return gate.product, gate.upstream


@pytest.fixture
def client(gate: Gate) -> httpx2.AsyncClient:
    return gate.client


async def test_a_request_arrives_whole_and_without_anything_of_ours(
    client: httpx2.AsyncClient, product: tuple[Product, str]
) -> None:
    body = MEGABYTE * 3
    sent = {
        "Authorization": "Bearer ours",
        "Cookie": "a=1; __Host-cofounder-preview=x",
        "X-Cofounder-Key": "k",
        "E2B-Sandbox-Id": "other",
        "X-Own": "1",
    }
    answer = await client.put("/echo?a=%2F&b=%ff//", content=body, headers=sent)
    seen = answer.json()
    headers = dict(seen["headers"])
    assert (seen["method"], seen["target"]) == ("PUT", "/echo?a=%2F&b=%ff//")
    assert seen["body"] == [len(body), hashlib.sha256(body).hexdigest()]
    assert headers["host"] == product[1].removeprefix("http://")
    assert (headers["cookie"], headers["x-own"], headers["e2b-traffic-access-token"]) == ("a=1", "1", "traffic")
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert not {"authorization", "x-cofounder-key", "e2b-sandbox-id"} & set(headers)
    assert headers["content-length"] == str(len(body))


async def test_a_body_of_unknown_length_arrives_whole(client: httpx2.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield MEGABYTE

    seen = (await client.post("/echo", content=pieces())).json()
    assert seen["body"][0] == 5 << 20
    assert dict(seen["headers"])["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "HEAD", "POST"])
async def test_a_request_without_a_body(client: httpx2.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/echo")
    assert answer.status_code == 200
    assert method == "HEAD" or answer.json()["body"][0] == 0


async def test_answers_without_bodies_and_encoded_ones_pass_as_they_are(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/nothing")).status_code == 204
    unchanged = await client.get("/unchanged")
    assert (unchanged.status_code, unchanged.headers["etag"]) == (304, "x")
    async with client.stream("GET", "/packed") as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert b"".join([piece async for piece in answer.aiter_raw()]) == b"packed"
    assert (await client.get("/missing")).status_code == 404


async def test_events_arrive_as_they_are_sent_and_a_visitor_who_leaves_ends_them(
    client: httpx2.AsyncClient, product: tuple[Product, str]
) -> None:
    async with client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: 1"
        assert not product[0].gone.is_set()
    await asyncio.wait_for(product[0].gone.wait(), DEADLINE)


async def test_a_slow_visitor_slows_the_product_down(client: httpx2.AsyncClient, product: tuple[Product, str]) -> None:
    async with client.stream("GET", "/large") as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        before = -1
        while before != product[0].sent_megabytes:  # until nothing moves any more
            before = product[0].sent_megabytes
            await asyncio.sleep(0.2)
        assert before < 40
        assert sum([len(piece) async for piece in pieces]) > 59 << 20


async def test_a_slow_product_slows_an_upload_down(client: httpx2.AsyncClient, product: tuple[Product, str]) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(40):
            yield MEGABYTE
            sent += 1

    upload = asyncio.create_task(client.post("/slow-upload", content=pieces()))
    before = -1
    while before != sent or sent == 0:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < 30
    product[0].may_go_on.set()
    assert (await upload).text == str(40 << 20)


async def test_a_visitor_who_loses_access_is_cut_off(gate: Gate) -> None:
    async with gate.client.stream("GET", "/events") as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        gate.lost.set()
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(pieces)
        await asyncio.wait_for(gate.product.gone.wait(), DEADLINE)


@asynccontextmanager
async def raw_product(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each connection's first request with these bytes, then closes the connection."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 502),
        (b"nonsense\r\n\r\n", 502),
        (b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw", 502),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000 + b"\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 502),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200),
    ],
)
async def test_odd_answers(gate: Gate, answer: bytes, status: int) -> None:
    async with raw_product(answer) as (gate.upstream, _):
        got = await gate.client.post("/", content=b"")
        assert got.status_code == status
        assert got.text == ("down" if status == 502 else answer.decode().rpartition("\r\n\r\n")[2])


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(gate: Gate) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with raw_product(chunked) as (gate.upstream, _):
        with pytest.raises(httpx2.RemoteProtocolError):
            await gate.client.get("/")


async def test_a_product_that_does_not_listen(gate: Gate) -> None:
    async with raw_product(b"") as (gate.upstream, _):
        pass
    assert (await gate.client.get("/")).status_code == 502


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """The next request's head; empty if the connection has ended."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def test_a_stale_connection_is_replaced(gate: Gate) -> None:
    """Products close connections that are idle, just as the next request may be sent."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _read_head(reader):
            seen.append(head)
            if len(seen) == 2:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gate.upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert (await gate.client.get("/")).status_code == 200
    assert (await gate.client.get("/")).status_code == 200
    assert len(seen) == 3
    server.close()


async def test_two_products_on_one_address_never_share_a_connection() -> None:
    """The sandboxes of one machine differ in the name only. A connection belongs to the one that it first named."""
    owner: dict[Any, str] = {}
    mixed: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _read_head(reader):
            host = json.dumps([line for line in head.decode().lower().split("\r\n") if line.startswith("host:")])
            if owner.setdefault(writer, host) != host:
                mixed.append(host)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstreams = Upstreams()
    for name in ("a", "b", "a", "b"):
        host = f"{name}.localhost:{port}"
        answer = await upstreams.ask(f"http://{host}", "GET", b"/", [(b"host", host.encode())])
        assert [piece async for piece in pieces_of(answer)] == []
        await answer.aclose()
    assert len(owner) == 2
    assert mixed == []
    await upstreams.close()
    server.close()


async def test_the_visitor_can_read_an_early_refusal_of_a_large_upload(gate: Gate) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    async with raw_product(answer) as (gate.upstream, _):
        got = await gate.client.post("/", content=MEGABYTE * 20)
        assert got.status_code in (413, 502)  # the product may reset the connection before its answer is read
