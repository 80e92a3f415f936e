"""Signing in with a link, the cookie, and every way in which either can be wrong."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from api import feeds
from clients.temporal import describe_namespace
from db.models import Base, SignIn, SignInCode
from db.transaction import transaction
from domain.identity import FOUNDER_SCOPES
from local.stack import LocalStack
from services.deployment import rebind
from services.sign_ins import IDLE
from tests.harness.api_server import (
    OPERATORS,
    TOKEN,
    RunningApi,
    as_user,
    for_user,
    new_database,
    running_api,
    settings_for,
)
from tests.harness.wait import DEADLINE, wait_until

FOUNDERS = sorted(map(str, FOUNDER_SCOPES))

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
"""What a browser sends with a request of one of our pages."""


@asynccontextmanager
async def serving(stack: LocalStack, **changed: Any) -> AsyncIterator[RunningApi]:
    """An API with the users ada and eve, on a database that is bound as after the start of `python -m api`."""
    settings = settings_for(await new_database(stack), api_operator_token=SecretStr(OPERATORS), **changed)
    async with running_api(settings, stack.environment) as running:
        async with transaction(running.sessions) as tx:
            await tx.session.execute(text("insert into users (id) values ('ada'), ('eve')"))
        await rebind(running.sessions, await describe_namespace(running.temporal))
        yield running


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with serving(stack) as running:
        yield running


@asynccontextmanager
async def browser_of(api: RunningApi) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a token, which keeps cookies as a page of ours would send them."""
    async with httpx2.AsyncClient(base_url=api.url, headers=OWN_PAGE, timeout=DEADLINE, trust_env=False) as http:
        yield http


async def code_for(api: RunningApi, user: str = "ada", headers: dict[str, str] | None = None, **body: Any) -> str:
    """Make a sign-in link, and return its code."""
    made = await api.http.post("/v1/sign-in-links", json=body, headers=headers or for_user(user))
    assert made.status_code == 201, made.text
    return urlsplit(str(made.json()["url"])).fragment.removeprefix("code=")


async def sign_in(http: httpx2.AsyncClient, code: str) -> httpx2.Response:
    """Send a code as the page does."""
    return await http.post("/v1/sign-ins", json={"code": code})


async def _set(api: RunningApi, statement: Any) -> None:
    async with transaction(api.sessions) as tx:
        await tx.session.execute(statement)


async def test_a_link_signs_a_browser_in_with_a_cookie_that_no_script_reads(api: RunningApi) -> None:
    with structlog.testing.capture_logs() as logs:
        made = await api.http.post("/v1/sign-in-links", json={}, headers=for_user("ada"))
        parts = urlsplit(made.json()["url"])
        assert f"{parts.scheme}://{parts.netloc}" == api.resources.settings.public_url
        assert (parts.path, parts.query) == ("/sign-in", "")
        lifetime = datetime.fromisoformat(made.json()["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=9) < lifetime <= timedelta(minutes=10)
        async with browser_of(api) as http:
            code = parts.fragment.removeprefix("code=")
            answer = await sign_in(http, code)
            assert (answer.status_code, answer.json()["user"]) == (201, "ada"), answer.text
            me = (await http.get("/v1/me")).json()
            token = next(iter(http.cookies.values()))
            assert (await http.get("/v1/me", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
    assert (me["user"], me["how"], me["scopes"]) == ("ada", "sign_in", FOUNDERS)
    assert me["credential_id"] == answer.json()["sign_in"]["id"]
    [cookie] = answer.headers.get_list("Set-Cookie")
    pair, *attributes = cookie.split("; ")
    assert pair.startswith("cofounder-")
    assert sorted(each.lower() for each in attributes if "=" not in each) == ["httponly"]
    assert {"path=/", "samesite=lax", "max-age=2592000"} <= {each.lower() for each in attributes}
    assert "domain" not in cookie.lower()
    assert token not in answer.text
    for secret in (code, token):
        assert secret not in str(logs)
        async with transaction(api.sessions) as tx:
            for table in Base.metadata.sorted_tables:
                rows = "".join(await tx.session.scalars(text(f'select t::text from "{table.name}" t')))
                assert secret not in rows
                assert secret.encode().hex() not in rows


async def test_over_https_the_cookie_is_of_this_host_alone(stack: LocalStack) -> None:
    async with serving(stack, public_url="https://cofounder.example.com") as api, browser_of(api) as http:
        http.headers["Host"] = "cofounder.example.com"
        api.http.headers["Host"] = "cofounder.example.com"
        answer = await sign_in(http, await code_for(api))
        assert answer.status_code == 201, answer.text
        pair, *attributes = answer.headers["Set-Cookie"].split("; ")
        assert pair.startswith("__Host-cofounder=")
        assert {"secure", "httponly", "path=/"} <= {each.lower() for each in attributes}
        assert (await http.get("/v1/me", headers={"Cookie": pair})).json()["user"] == "ada"
        out = await http.delete("/v1/sign-ins/current", headers={"Cookie": pair})
        assert {'__host-cofounder=""', "secure", "path=/"} <= {e.lower() for e in out.headers["Set-Cookie"].split("; ")}


async def test_a_code_that_many_send_at_once_signs_one_in(api: RunningApi) -> None:
    code = await code_for(api)

    async def attempt() -> httpx2.Response:
        async with browser_of(api) as http:
            return await sign_in(http, code)

    answers = await asyncio.gather(*(attempt() for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201, *[401] * 19]
    assert {answer.json()["reason"] for answer in answers if answer.status_code == 401} == {"used"}
    assert sum("Set-Cookie" in answer.headers for answer in answers) == 1


async def test_a_link_that_does_not_work_says_why_and_what_to_do(api: RunningApi) -> None:
    expired = await code_for(api)
    async with browser_of(api) as http:
        used = await code_for(api)
        await sign_in(http, used)
    await _set(api, update(SignInCode).where(SignInCode.used_at.is_(None)).values(expires_at=func.now()))
    async with browser_of(api) as http:
        for code, reason in ((used, "used"), (expired, "expired"), (used[:-1], "unknown"), ("x", "unknown")):
            refused = await sign_in(http, code)
            problem = refused.json()
            assert (refused.status_code, problem["type"]) == (401, "urn:cofounder:problem:sign-in-link")
            assert (problem["reason"], "cofounder open" in problem["detail"]) == (reason, True)
            assert "Set-Cookie" not in refused.headers
        for body in ({}, {"code": ""}, {"code": "x" * 201}, {"code": 1}, {"code": "x", "user": "ada"}):
            assert (await http.post("/v1/sign-ins", json=body)).status_code == 422
        assert (await http.get("/v1/me")).status_code == 401


async def test_looking_at_the_page_does_not_use_the_link_up(api: RunningApi) -> None:
    code = await code_for(api)
    async with browser_of(api) as http:
        for method in ("GET", "HEAD"):
            await http.request(method, "/sign-in", headers={"User-Agent": "a preview of a chat program"})
        assert (await http.get("/v1/sign-ins")).status_code == 401
        assert (await sign_in(http, code)).status_code == 201


async def test_signing_in_takes_no_token_from_the_request(api: RunningApi) -> None:
    async with browser_of(api) as http:
        name = (await sign_in(http, await code_for(api))).headers["Set-Cookie"].partition("=")[0]
    chosen = "a-token-that-someone-else-knows"
    async with browser_of(api) as http:
        answer = await http.post(
            "/v1/sign-ins", json={"code": await code_for(api)}, headers={"Cookie": f"{name}={chosen}"}
        )
        assert chosen not in answer.headers["Set-Cookie"]
    async with browser_of(api) as http:
        assert (await http.get("/v1/me", headers={"Cookie": f"{name}={chosen}"})).status_code == 401


async def test_signing_in_again_ends_the_sign_in_before(api: RunningApi) -> None:
    async with browser_of(api) as http:
        first = await sign_in(http, await code_for(api))
        cookie = first.headers["Set-Cookie"].partition(";")[0]
        second = await sign_in(http, await code_for(api, "eve"))
        assert second.headers["Set-Cookie"].partition(";")[0] != cookie
        assert (await http.get("/v1/me")).json()["user"] == "eve"
    async with browser_of(api) as http:
        assert (await http.get("/v1/me", headers={"Cookie": cookie})).status_code == 401


async def test_signing_out_deletes_the_row_and_the_cookie(api: RunningApi) -> None:
    async with browser_of(api) as http:
        signed_in = await sign_in(http, await code_for(api))
        cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
        out = await http.delete("/v1/sign-ins/current")
        assert (out.status_code, dict(http.cookies)) == (204, {})
        assert (await http.delete("/v1/sign-ins/current")).status_code == 204
    async with transaction(api.sessions) as tx:
        query = select(func.count()).select_from(SignIn)
        assert await tx.session.scalar(query.where(SignIn.id == signed_in.json()["sign_in"]["id"])) == 0
    async with browser_of(api) as http:
        refused = await http.get("/v1/me", headers={"Cookie": cookie})
        assert (refused.status_code, refused.json()["reason"]) == (401, "signed-out")


async def test_another_browser_is_listed_and_signed_out(api: RunningApi) -> None:
    async with browser_of(api) as mine, browser_of(api) as lost, browser_of(api) as strange:
        for http, user in ((mine, "eve"), (lost, "eve"), (strange, "ada")):
            await sign_in(http, await code_for(api, user))
        listed = (await mine.get("/v1/sign-ins")).json()["sign_ins"]
        current = [each for each in listed if each["current"]]
        assert [each["id"] for each in current] == [(await mine.get("/v1/me")).json()["credential_id"]]
        other = (await lost.get("/v1/me")).json()["credential_id"]
        assert other in {each["id"] for each in listed}
        assert (await strange.delete(f"/v1/sign-ins/{other}")).status_code == 404
        assert (await lost.get("/v1/me")).status_code == 200
        assert (await mine.delete(f"/v1/sign-ins/{other}")).status_code == 204
        refused = await lost.get("/v1/me")
        assert (refused.status_code, refused.json()["reason"]) == (401, "sign-in-ended")
        assert (await mine.delete(f"/v1/sign-ins/{other}")).status_code == 404
        assert (await mine.get("/v1/me")).status_code == 200


@pytest.mark.parametrize(
    "change", [{"expires_at": func.now()}, {"last_used_at": func.now() - IDLE}], ids=["too old", "idle"]
)
async def test_a_sign_in_expires(api: RunningApi, change: dict[str, Any]) -> None:
    async with browser_of(api) as http:
        row = (await sign_in(http, await code_for(api))).json()["sign_in"]["id"]
        await _set(api, update(SignIn).where(SignIn.id == row).values(**change))
        refused = await http.get("/v1/me")
        assert (refused.status_code, refused.json()["reason"]) == (401, "sign-in-expired")
        assert row not in (await api.http.get("/v1/sign-ins", headers=for_user("ada"))).text


async def test_what_ended_long_ago_is_deleted_at_the_next_sign_in(api: RunningApi) -> None:
    async with browser_of(api) as http:
        rows = [(await sign_in(http, await code_for(api))).json()["sign_in"]["id"]]
    async with browser_of(api) as http:
        rows.append((await sign_in(http, await code_for(api))).json()["sign_in"]["id"])
    long_ago = func.now() - timedelta(days=2)
    await _set(api, update(SignIn).where(SignIn.id == rows[0]).values(revoked_at=long_ago))
    await _set(api, update(SignInCode).where(SignInCode.used_at.is_not(None)).values(expires_at=long_ago))
    async with browser_of(api) as http:
        await sign_in(http, await code_for(api))
    async with transaction(api.sessions) as tx:
        left = [str(each) for each in await tx.session.scalars(select(SignIn.id).where(SignIn.id.in_(rows)))]
        old = SignInCode.user_id == "ada", SignInCode.expires_at < func.now() - timedelta(days=1)
        codes = await tx.session.scalar(select(func.count()).select_from(SignInCode).where(*old))
    assert (left, codes) == ([rows[1]], 0)


async def test_use_is_noted_at_most_once_a_minute(api: RunningApi) -> None:
    async with browser_of(api) as http:
        row = (await sign_in(http, await code_for(api))).json()["sign_in"]["id"]

        async def noted() -> datetime:
            [at] = [e["last_used_at"] for e in (await http.get("/v1/sign-ins")).json()["sign_ins"] if e["id"] == row]
            return datetime.fromisoformat(at)

        first = await noted()
        assert await noted() == first
        earlier = update(SignIn).where(SignIn.id == row).values(last_used_at=func.now() - timedelta(seconds=61))
        await _set(api, earlier)
        await http.get("/v1/me")
        assert await noted() >= first


async def test_a_sign_in_by_a_key_has_its_scopes_and_ends_with_it(api: RunningApi) -> None:
    wanted = {"name": "a program", "scopes": ["account:read", "account:write", "builds:read"]}
    key = (await api.http.post("/v1/keys", json=wanted, headers=for_user("ada"))).json()
    with_key = {"Authorization": f"Bearer {key['secret']}"}
    too_much = await api.http.post("/v1/sign-in-links", json={"scopes": ["builds:write"]}, headers=with_key)
    assert too_much.status_code == 422
    left = await code_for(api, headers=with_key)
    async with browser_of(api) as http:
        signed_in = await sign_in(http, await code_for(api, headers=with_key))
        assert signed_in.json()["sign_in"]["scopes"] == wanted["scopes"]
        assert (await http.post("/v1/projects", json={"name": "Mine"})).status_code == 403
        assert (await http.get("/v1/me")).status_code == 200
        revoked = await api.http.delete(f"/v1/keys/{key['key']['id']}", headers=for_user("ada"))
        assert revoked.status_code == 204
        assert (await http.get("/v1/me")).json()["reason"] == "sign-in-ended"
        assert (await sign_in(http, left)).status_code == 401


async def test_a_founder_gives_no_operators_sign_in_away(api: RunningApi) -> None:
    assert (await api.http.post("/v1/sign-in-links", json={"scopes": ["ops:read"]})).status_code == 422
    async with browser_of(api) as http:
        await sign_in(http, await code_for(api, scopes=[*FOUNDERS, "ops:read"]))
        assert "ops:read" in (await http.get("/v1/me")).json()["scopes"]


async def test_two_stacks_on_one_machine_do_not_sign_each_other_out(api: RunningApi, stack: LocalStack) -> None:
    async with serving(stack) as other, browser_of(api) as http:
        await sign_in(http, await code_for(api))
        # Browsers send cookies of 127.0.0.1 to every port.
        answer = await http.post(f"{other.url}/v1/sign-ins", json={"code": await code_for(other, "eve")})
        assert answer.status_code == 201, answer.text
        assert len(http.cookies) == 2
        assert (await http.get("/v1/me")).json()["user"] == "ada"
        assert (await http.get(f"{other.url}/v1/me")).json()["user"] == "eve"
        foreign = {name: value for name, value in http.cookies.items() if value not in answer.headers["Set-Cookie"]}
        [(name, value)] = foreign.items()
        async with browser_of(other) as stranger:
            assert (await stranger.get("/v1/me", headers={"Cookie": f"{name}={value}"})).status_code == 401


async def test_a_cookie_that_comes_twice_is_refused(api: RunningApi) -> None:
    async with browser_of(api) as http:
        pair = (await sign_in(http, await code_for(api))).headers["Set-Cookie"].partition(";")[0]
    name = pair.partition("=")[0]
    async with browser_of(api) as http:
        for cookie in (f"{pair}; {name}=x", f"{name}=x; {pair}"):
            refused = await http.get("/v1/me", headers={"Cookie": cookie})
            assert (refused.status_code, refused.json()["reason"]) == (401, "cookie-repeated")
        assert (await http.get("/v1/me", headers={"Cookie": f"a=1; {pair}; b="})).json()["user"] == "ada"


async def test_a_wrong_token_is_not_replaced_by_the_cookie(api: RunningApi) -> None:
    async with browser_of(api) as http:
        await sign_in(http, await code_for(api))
        assert (await http.get("/v1/me", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await http.get("/v1/me", headers={"Authorization": f"Bearer {TOKEN}"})).json()["user"] == "founder"


async def test_a_page_of_another_site_signs_nobody_in_or_out(api: RunningApi) -> None:
    code = await code_for(api)
    for headers in (
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://0123.localhost:8000"},
        {"Origin": "null"},
    ):
        async with httpx2.AsyncClient(base_url=api.url, headers=headers, timeout=DEADLINE, trust_env=False) as http:
            refused = await sign_in(http, code)
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:cofounder:problem:cross-site")
            assert (await http.delete("/v1/sign-ins/current")).status_code == 403
    async with browser_of(api) as http:
        form = await http.post("/v1/sign-ins", content=f"code={code}", headers={"Content-Type": "text/plain"})
        assert form.status_code == 415
        assert (await sign_in(http, code)).status_code == 201


async def test_an_open_feed_ends_with_its_sign_in_and_with_its_key(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_ACCESS_SECONDS", 0.1)
    monkeypatch.setattr(feeds, "_POLL_SECONDS", 0.1)
    project = await api.project("ada")
    started = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}, headers=as_user("ada"))
    build = started.json()["id"]
    key = (await api.http.post("/v1/keys", json={"name": "program"}, headers=as_user("ada"))).json()
    async with browser_of(api) as http, asyncio.timeout(DEADLINE):
        await sign_in(http, await code_for(api))
        path = f"/v1/builds/{build}/events"

        async def read(headers: dict[str, str]) -> None:
            async with http.stream("GET", path, headers=headers) as response:
                assert response.status_code == 200
                await response.aread()

        by_cookie = asyncio.create_task(read({}))
        by_key = asyncio.create_task(read({"Authorization": f"Bearer {key['secret']}"}))
        kept = asyncio.create_task(read(as_user("ada")))
        await wait_until(lambda: api.resources.feeds.viewers(uuid.UUID(build)) == 3)
        assert (await http.delete("/v1/sign-ins/current")).status_code == 204
        await by_cookie
        revoked = await api.http.delete(f"/v1/keys/{key['key']['id']}", headers=as_user("ada"))
        assert revoked.status_code == 204
        await by_key
        assert api.resources.feeds.viewers(uuid.UUID(build)) == 1
        kept.cancel()
