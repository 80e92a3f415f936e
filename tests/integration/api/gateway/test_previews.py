"""Private previews, from the API's own server: who gets in, how, and how fast that ends."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx2
import pytest
from sqlalchemy import delete, func, update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.gateway import visitor
from db.models import ApiKey, Membership, PreviewLink, PreviewVisit, SignIn
from db.transaction import transaction
from domain.identity import FOUNDER_SCOPES
from local.stack import LocalStack
from services.preview_access import state_of
from tests.harness.api_server import (
    AS_OPERATOR,
    OPERATORS,
    TOKEN,
    RunningApi,
    new_database,
    running_api,
    settings_for,
)
from tests.harness.asgi_server import serving
from tests.harness.build_rows import builds_of
from tests.harness.preview_gateway import AS_PAGE, Gateway, link_of, open_preview
from tests.harness.wait import DEADLINE


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=OPERATORS)
    async with running_api(settings, stack.environment) as running:
        yield running


@pytest.fixture(scope="module")
async def product() -> AsyncIterator[str]:
    async def echo(request: Request) -> Response:
        return JSONResponse({"path": request.url.path, "headers": dict(request.headers)})

    async def events(request: Request) -> Response:
        async def forever() -> AsyncIterator[str]:
            while True:
                yield "data: 1\n\n"
                await asyncio.sleep(0.1)

        return StreamingResponse(forever(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/events", events), Route("/{path:path}", echo, methods=["GET", "POST"])])
    async with serving(app, ws="none") as port:
        yield f"http://3000-box.localhost:{port}"


@pytest.fixture
async def gateway(api: RunningApi, product: str) -> Gateway:
    user = f"founder-{uuid.uuid4().hex[:8]}"
    [build] = await builds_of(api.sessions, user, 1)
    await open_preview(api, build, product)
    return Gateway(api, build, user)


def sign_in_of(user: str) -> SignIn:
    """A sign-in that works."""
    return SignIn(
        id=uuid.uuid4(),
        token_hash=uuid.uuid4().bytes,
        user_id=user,
        method="link",
        scopes=sorted(FOUNDER_SCOPES),
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )


async def revoke(gateway: Gateway, link: str) -> int:
    """Revoke a preview link for the founder."""
    headers = AS_OPERATOR | {"X-Cofounder-User": gateway.user}
    answer = await gateway.api.http.delete(f"/v1/builds/{gateway.build}/preview/links/{link}", headers=headers)
    return answer.status_code


async def test_a_member_gets_in_and_the_product_sees_nothing_of_ours(gateway: Gateway) -> None:
    async with gateway.browser() as browser:
        visit = await gateway.visit(browser)
        answer = await browser.get("/a?b=1", headers=visit | {"Cookie": f"a=1; {visit['Cookie']}"})
    seen = answer.json()
    assert (answer.status_code, seen["path"]) == (200, "/a")
    assert seen["headers"]["cookie"] == "a=1"
    assert seen["headers"]["e2b-traffic-access-token"] == "traffic"
    assert "cofounder" not in str(seen["headers"]).lower()


async def test_without_a_visit_pages_lead_to_the_sign_in_and_all_else_is_refused(gateway: Gateway) -> None:
    async with gateway.browser() as browser:
        for headers in ({}, {"Cookie": "__Host-cofounder-preview=wrong"}, {"Sec-Fetch-Mode": "cors"}):
            answer = await browser.get("/", headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")
        assert (await browser.post("/", headers=AS_PAGE)).status_code == 401
        cookie, state = await gateway.begin(browser, "/a%2Fb?c=d&e=%20")
        assert len(state) == 64
        assert cookie.startswith("__Host-cofounder-preview-entry-")
    page = await gateway.api.http.get(
        f"/previews/{gateway.build}/enter", params={"state": state}, headers={"Authorization": ""}
    )
    assert page.status_code == 403
    assert "This preview is private" in page.text


async def test_the_cookies_are_for_this_host_and_hidden_from_scripts(gateway: Gateway) -> None:
    async with gateway.browser() as browser:
        cookie, state = await gateway.begin(browser)
        code = await gateway.code(state)
        entered = await browser.get(
            "/.cofounder/enter", params={"code": str(code), "state": state}, headers={"Cookie": cookie}
        )
    lines = entered.headers.get_list("set-cookie")
    assert len(lines) == 2
    for line in lines:
        attributes = {each.strip().partition("=")[0].lower() for each in line.split(";")[1:]}
        assert attributes == {"path", "max-age", "httponly", "secure", "samesite", "partitioned"}


@pytest.mark.parametrize("change", ["used", "other state", "no cookie", "other build", "expired", "wrong"])
async def test_a_code_works_once_in_one_browser_for_one_build(gateway: Gateway, change: str) -> None:
    async with gateway.browser() as browser:
        cookie, state = await gateway.begin(browser)
        code = await gateway.code(state)
        given = {"code": str(code), "state": state}
        if change == "used":
            used = await browser.get("/.cofounder/enter", params=given, headers={"Cookie": cookie})
            assert used.status_code == 303
        elif change == "other state":
            cookie, given["state"] = await gateway.begin(browser)
        elif change == "no cookie":
            cookie = "a=1"
        elif change == "other build":
            [other] = await builds_of(gateway.api.sessions, gateway.user, 1)
            gateway = Gateway(gateway.api, other, gateway.user)
        elif change == "expired":
            async with transaction(gateway.api.sessions) as tx:
                await tx.session.execute(
                    update(PreviewVisit)
                    .where(PreviewVisit.build_id == gateway.build)
                    .values(expires_at=func.now() - timedelta(seconds=1))
                )
        else:
            given["code"] += "x"
        refused = await browser.get("/.cofounder/enter", params=given, headers={"Cookie": cookie, "Host": gateway.host})
    assert refused.status_code == 403
    assert "__Host-cofounder-preview=" not in str(refused.headers)


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x=1", "a"]
)
async def test_the_way_in_leads_to_no_other_host(gateway: Gateway, to: str) -> None:
    async with gateway.browser() as browser:
        cookie, state = await gateway.begin(browser)
        given = {"code": str(await gateway.code(state)), "state": state, "to": to}
        entered = await browser.get("/.cofounder/enter", params=given, headers={"Cookie": cookie})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "x=1" not in str(entered.headers)


async def test_another_user_gets_no_code_and_can_make_no_link(gateway: Gateway) -> None:
    other = f"other-{uuid.uuid4().hex[:8]}"
    await builds_of(gateway.api.sessions, other, 1)
    assert await gateway.code(state_of("x"), user=other) is None
    headers = AS_OPERATOR | {"X-Cofounder-User": other}
    links = f"/v1/builds/{gateway.build}/preview/links"
    for method, path in (("POST", links), ("GET", links), ("DELETE", f"{links}/{uuid.uuid4()}")):
        answer = await gateway.api.http.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 404, path


async def test_a_link_lets_anyone_in_until_it_is_revoked(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "_TRUSTED_SECONDS", 0)
    link = await link_of(gateway, hours=1)
    async with gateway.browser() as browser:
        visit = await gateway.visit_by_link(browser, link["url"])
        assert (await browser.get("/", headers=visit)).status_code == 200
        listed = await gateway.api.http.get(
            f"/v1/builds/{gateway.build}/preview/links", headers=AS_OPERATOR | {"X-Cofounder-User": gateway.user}
        )
        [shown] = listed.json()["links"]
        assert shown["id"] == link["id"]
        assert urlsplit(link["url"]).fragment not in listed.text
        assert await revoke(gateway, link["id"]) == 204
        assert (await browser.get("/", headers=visit)).status_code == 401
        _, state = await gateway.begin(browser)
        body = {"secret": urlsplit(link["url"]).fragment, "state": state}
        refused = await gateway.api.http.post(f"/previews/{gateway.build}/enter", json=body)
        assert refused.status_code == 403
    assert await revoke(gateway, link["id"]) == 404


async def test_a_link_shows_its_own_build_only(gateway: Gateway) -> None:
    link = await link_of(gateway)
    [other] = await builds_of(gateway.api.sessions, gateway.user, 1)
    async with gateway.browser() as browser:
        visit = await gateway.visit_by_link(browser, link["url"])
        theirs = Gateway(gateway.api, other, gateway.user)
        assert (await browser.get("/", headers=visit | {"Host": theirs.host})).status_code == 401
    body = {"secret": urlsplit(link["url"]).fragment, "state": state_of("x")}
    assert (await gateway.api.http.post(f"/previews/{other}/enter", json=body)).status_code == 403


@pytest.mark.parametrize(
    "loss", ["link expired", "signed out", "sign-in ended", "key revoked", "removed", "visit expired"]
)
async def test_a_visit_ends_with_what_made_it(gateway: Gateway, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "_TRUSTED_SECONDS", 0)
    past = func.now() - timedelta(seconds=1)
    sign_in = sign_in_of(gateway.user)
    key = ApiKey(
        id=uuid.uuid4().hex, user_id=gateway.user, name="a key", secret_hash=b"", scopes=[], created_by=gateway.user
    )
    async with transaction(gateway.api.sessions) as tx:
        tx.session.add(key)
        await tx.session.flush()
        sign_in.api_key_id = key.id
        tx.session.add(sign_in)
    async with gateway.browser() as browser:
        if loss == "link expired":
            visit = await gateway.visit_by_link(browser, (await link_of(gateway))["url"])
        else:
            visit = await gateway.visit(browser, sign_in.id)
        assert (await browser.get("/", headers=visit)).status_code == 200
        statement = {
            "link expired": update(PreviewLink).where(PreviewLink.build_id == gateway.build).values(expires_at=past),
            "signed out": delete(SignIn).where(SignIn.id == sign_in.id),
            "sign-in ended": update(SignIn).where(SignIn.id == sign_in.id).values(revoked_at=past),
            "key revoked": update(ApiKey).where(ApiKey.id == key.id).values(revoked_at=past),
            "removed": delete(Membership).where(Membership.user_id == gateway.user),
            "visit expired": update(PreviewVisit).where(PreviewVisit.build_id == gateway.build).values(expires_at=past),
        }[loss]
        async with transaction(gateway.api.sessions) as tx:
            await tx.session.execute(statement)
        assert (await browser.get("/", headers=visit)).status_code == 401


async def test_streams_and_websockets_end_with_the_visit(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "_TRUSTED_SECONDS", 0)
    monkeypatch.setattr(visitor, "_CHECK_SECONDS", 0.05)

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    link = await link_of(gateway)
    async with gateway.browser() as browser:
        visit = await gateway.visit_by_link(browser, link["url"])
        async with browser.stream("GET", "/events", headers=visit) as stream:
            pieces = stream.aiter_raw()
            await anext(pieces)
            async with serve(echo, "127.0.0.1", 0) as product:
                port = product.sockets[0].getsockname()[1]
                await open_preview(gateway.api, gateway.build, f"http://3000-box.localhost:{port}")
                async with socket_of(gateway, visit) as socket:
                    await socket.send("a")
                    assert await socket.recv() == "a"
                    assert await revoke(gateway, link["id"]) == 204
                    with pytest.raises(ConnectionClosed):
                        await asyncio.wait_for(socket.recv(), DEADLINE)
            with pytest.raises(httpx2.RemoteProtocolError):
                await read_to_the_end(pieces)


async def read_to_the_end(pieces: AsyncIterator[bytes]) -> None:
    """Read what is left of a stream."""
    async for _ in pieces:
        pass


def socket_of(gateway: Gateway, headers: dict[str, str], origin: str | None = "own") -> connect:
    """A WebSocket of a page of this origin; the preview's own by default."""
    given = f"http://{gateway.host}" if origin == "own" else origin
    return connect(
        f"ws://{gateway.host}/ws",
        host="127.0.0.1",
        port=urlsplit(gateway.api.url).port,
        additional_headers=headers,
        origin=given,  # type: ignore[arg-type]
        proxy=None,
        open_timeout=DEADLINE,
    )


@pytest.mark.parametrize(
    "origin", [None, "null", "http://127.0.0.1:8000", "http://localhost:8000", "https://evil.example"]
)
async def test_only_the_previews_own_pages_open_its_websockets(gateway: Gateway, origin: str | None) -> None:
    async with gateway.browser() as browser:
        visit = await gateway.visit(browser)
    with pytest.raises(InvalidStatus) as refused:
        await socket_of(gateway, visit, origin)
    assert refused.value.response.status_code == 403


async def test_there_are_no_websockets_of_the_api_or_of_the_gateway_itself(gateway: Gateway) -> None:
    for host, path in ((urlsplit(gateway.api.url).netloc, "/ws"), (gateway.host, "/.cofounder/enter")):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{host}{path}", host="127.0.0.1", port=urlsplit(gateway.api.url).port, proxy=None)
        assert refused.value.response.status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 401),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 401),
        ({"Origin": "https://evil.example"}, 401),
        ({"Origin": "null"}, 401),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "https://evil.example"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Origin": "own"}, 200),
    ],
)
async def test_pages_of_other_sites_can_not_use_the_cookie(
    gateway: Gateway, headers: dict[str, str], status: int
) -> None:
    """Whatever a product allows other origins: it may be private."""
    if headers.get("Origin") == "own":
        headers = headers | {"Origin": f"http://{gateway.host}"}
    async with gateway.browser() as browser:
        visit = await gateway.visit(browser)
        assert (await browser.post("/", headers=visit | headers)).status_code == status


@pytest.mark.parametrize("name", ["X-Cofounder-Key", "Authorization"])
async def test_a_program_shows_its_token(gateway: Gateway, name: str) -> None:
    value = "Bearer {}" if name == "Authorization" else "{}"
    async with gateway.browser() as browser:
        operators = await browser.get("/", headers={name: value.format(OPERATORS)})
        assert operators.status_code == 200
        assert OPERATORS not in operators.text
        other_users = await browser.get("/", headers={name: value.format(TOKEN)})
        assert (other_users.status_code, "no preview" in other_users.text) == (404, True)
        assert (await browser.get("/", headers={name: value.format("cf_wrong")})).status_code == 401


async def test_a_products_own_authorization_reaches_it(gateway: Gateway) -> None:
    async with gateway.browser() as browser:
        visit = await gateway.visit(browser)
        seen = (await browser.get("/", headers=visit | {"Authorization": "Bearer theirs"})).json()
        assert seen["headers"]["authorization"] == "Bearer theirs"
        seen = (await browser.get("/", headers=visit | {"Authorization": f"Bearer {OPERATORS}"})).json()
        assert "authorization" not in seen["headers"]


@pytest.mark.parametrize(
    ("state", "title"), [("closed", "is closed"), ("failed", "is closed"), ("opening", "is opening")]
)
async def test_a_preview_that_is_not_open_says_what_to_do(gateway: Gateway, state: str, title: str) -> None:
    async with gateway.browser() as browser:
        visit = await gateway.visit(browser)
        await open_preview(gateway.api, gateway.build, None, state)
        page = await browser.get("/", headers=visit | AS_PAGE)
        assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert f"This preview {title}" in page.text
        assert (f"cofounder preview {gateway.build}" in page.text) is (state != "opening")
        assert (await browser.get("/", headers=visit)).headers["content-type"].startswith("text/plain")


async def test_a_product_that_does_not_answer_is_said_so(gateway: Gateway) -> None:
    await open_preview(gateway.api, gateway.build, "http://3000-box.localhost:1")
    async with gateway.browser() as browser:
        visit = await gateway.visit(browser)
        page = await browser.get("/", headers=visit | AS_PAGE)
    assert page.status_code == 502
    assert "The product does not answer" in page.text


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"GET http://other/ HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"TRACE / HTTP/1.1\r\n",
    ],
)
async def test_requests_that_two_servers_read_differently_are_refused(gateway: Gateway, head: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.api.url).port)
    host = f"Host: {gateway.host}\r\nX-Cofounder-Key: {OPERATORS}\r\nConnection: close\r\n\r\n0\r\n\r\n".encode()
    writer.write(head + host)
    assert (await asyncio.wait_for(reader.read(), DEADLINE)).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_the_api_does_not_answer_on_a_previews_host(gateway: Gateway) -> None:
    async with gateway.browser() as browser:
        for path in ("/v1/projects", "/healthz", "/docs", "/openapi.json"):
            answer = await browser.get(path, headers={"X-Cofounder-Key": OPERATORS})
            assert answer.json()["path"] == path  # the product's
        assert (await browser.get("/.cofounder/other", headers={"X-Cofounder-Key": OPERATORS})).status_code == 404


async def test_a_stopping_api_ends_the_streams_of_previews(stack: LocalStack, product: str) -> None:
    """It would otherwise wait for each of them, and they have no end."""
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=OPERATORS)
    async with running_api(settings, stack.environment) as api:
        [build] = await builds_of(api.sessions, "founder", 1)
        await open_preview(api, build, product)
        browser = Gateway(api, build, "founder").browser()
        stream = await browser.send(
            browser.build_request("GET", "/events", headers={"X-Cofounder-Key": TOKEN}), stream=True
        )
        pieces = stream.aiter_raw()
        await anext(pieces)
    with pytest.raises(httpx2.RemoteProtocolError):
        await read_to_the_end(pieces)
    await browser.aclose()


async def test_wrong_keys_and_links_count_as_wrong_credentials(stack: LocalStack) -> None:
    settings = settings_for(await new_database(stack), stack.environment, failed_sign_ins_per_minute=2)
    async with running_api(settings, stack.environment) as api:
        [build] = await builds_of(api.sessions, "founder", 1)
        body = {"secret": "wrong", "state": state_of("x")}
        async with Gateway(api, build, "founder").browser() as browser:
            statuses = [(await browser.get("/", headers={"X-Cofounder-Key": "wrong"})).status_code]
            statuses += [(await api.http.post(f"/previews/{build}/enter", json=body)).status_code for _ in range(2)]
    assert statuses == [401, 403, 429]
