"""Identity providers over HTTP: their tokens name users, and browsers sign in through them; forgeries do neither."""

import asyncio
import base64
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
import oidc_provider_mock
import pytest
from playwright.async_api import async_playwright
from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from clients.browser import find_chromium
from db.identities import Profile, add_user_of
from db.models import SignIn, SignInAttempt, User, UserIdentity
from db.transaction import transaction
from domain.identity import FOUNDER_SCOPES, OPERATOR_SCOPES
from local.stack import LocalStack
from tests.harness.api_server import BRIEF, OPERATORS, RunningApi, new_database, running_api, settings_for
from tests.harness.identity_provider import API, TestProvider, rsa_key, running_provider, signed
from tests.harness.wait import DEADLINE

FOUNDERS, EVERYTHING = sorted(map(str, FOUNDER_SCOPES)), sorted(map(str, OPERATOR_SCOPES))


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """The URL of a provider that others have written, where clients have to be registered."""
    with oidc_provider_mock.run_server_in_thread(require_client_registration=True, require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[TestProvider]:
    """A provider that can lie."""
    async with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
async def closed() -> AsyncIterator[TestProvider]:
    """A provider that brings no new users, and limits what its tokens may do."""
    async with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
async def away() -> AsyncIterator[TestProvider]:
    """A provider that answers with errors only."""
    async with running_provider() as running:
        running.status = 503
        yield running


@pytest.fixture(scope="module")
async def named() -> AsyncIterator[TestProvider]:
    """A provider that promises to name itself."""
    async with running_provider() as running:
        running.document = {"authorization_response_iss_parameter_supported": True}
        yield running


@pytest.fixture(scope="module")
async def api(
    stack: LocalStack,
    mock: str,
    provider: TestProvider,
    closed: TestProvider,
    away: TestProvider,
    named: TestProvider,
) -> AsyncIterator[RunningApi]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    callback = {"redirect_uris": [f"{url}/sign-in/mock/callback"]}
    async with httpx2.AsyncClient(trust_env=False) as http:
        client = (await http.post(f"{mock}/oauth2/clients", json=callback)).json()
    operators = {"claim": "groups", "values": ["operators"]}
    issuers = [
        {
            "name": "mock",
            "title": "Mock <& Co>",
            "issuer": mock,
            "client_id": client["client_id"],
            "client_secret": client["client_secret"],
        },
        {
            "name": "test",
            "issuer": provider.url,
            "client_id": "cofounder",
            "client_secret": "a secret: of + the client",
            "audience": API,
            "operators": operators,
        },
        {
            "name": "closed",
            "issuer": closed.url,
            "client_id": "cofounder",
            "audience": [API],
            "new_users": False,
            "email_domains": ["acme.example"],
            "scopes_claim": "scope",
            "scopes": {"reader": ["builds:read", "account:read", "ops:read"]},
            "operators": operators,
        },
        {"name": "away", "issuer": away.url, "client_id": "cofounder", "audience": API},
        {"name": "named", "issuer": named.url, "client_id": "cofounder"},
    ]
    settings = settings_for(
        await new_database(stack),
        api_operator_token=SecretStr(OPERATORS),
        oidc_issuers=SecretStr(json.dumps(issuers)),
        public_url=url,
    )
    async with running_api(settings, stack.environment, port) as running:
        yield running


@asynccontextmanager
async def browser_of(api: RunningApi) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a token, which keeps cookies."""
    none = {"Sec-Fetch-Site": "none"}
    async with httpx2.AsyncClient(base_url=api.url, headers=none, timeout=DEADLINE, trust_env=False) as http:
        yield http


async def me(api: RunningApi, token: str) -> httpx2.Response:
    return await api.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})


async def leave(http: httpx2.AsyncClient, name: str, to: str | None = None) -> str:
    """Begin a sign-in; return the provider's page to which the browser is sent."""
    left = await http.get(f"/sign-in/{name}", params={} if to is None else {"to": to})
    assert left.status_code == 303, left.text
    return str(left.headers["Location"])


async def agree(page: str, subject: str, **form: str) -> str:
    """Sign in at the other provider; return the path to which it sends the browser back."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(page, data={"sub": subject, **form})
    return str(answer.headers["Location"])


def returned(page: str, **changes: str | None) -> str:
    """The address to which our own provider sends the browser back."""
    sent = parse_qs(urlsplit(page).query)
    query = {"code": "a-code", "state": sent["state"][0], **changes}
    return f"{sent['redirect_uri'][0]}?" + urlencode({key: value for key, value in query.items() if value is not None})


def nonce_of(page: str) -> str:
    return parse_qs(urlsplit(page).query)["nonce"][0]


def id_token(provider: TestProvider, page: str, **changes: Any) -> dict[str, Any]:
    """The answer to a code."""
    claims: dict[str, Any] = {"aud": "cofounder", "nonce": nonce_of(page), **changes}
    return {"access_token": "x", "token_type": "Bearer", "id_token": provider.token(**claims)}


async def count(api: RunningApi, table: Any) -> int:
    async with transaction(api.sessions) as tx:
        return int(await tx.session.scalar(select(func.count()).select_from(table)) or 0)


# ---- bearer tokens


async def test_a_token_makes_a_user_once_and_is_that_user_again(api: RunningApi, provider: TestProvider) -> None:
    claims: dict[str, Any] = {
        "sub": "grace|1",
        "name": "Grace\nHopper",
        "email": "grace@acme.example",
        "email_verified": True,
    }
    first = await me(api, provider.token(**claims))
    assert first.status_code == 200, first.text
    body = first.json()
    assert (body["how"], body["scopes"]) == ("jwt", FOUNDERS)
    assert body["user"].startswith("u-")
    assert (await me(api, provider.token(**claims | {"email": "other@acme.example"}))).json()["user"] == body["user"]
    async with transaction(api.sessions) as tx:
        user = await tx.session.get_one(User, body["user"])
        assert (user.name, user.email) == ("Grace Hopper", "grace@acme.example")


async def test_twenty_first_requests_make_one_user(api: RunningApi, provider: TestProvider) -> None:
    users = await count(api, User)
    answers = await asyncio.gather(*(me(api, provider.token(sub="at-once")) for _ in range(20)))
    assert len({answer.json()["user"] for answer in answers}) == 1
    assert await count(api, User) == users + 1


async def test_a_person_who_is_made_twice_at_once_is_one_user(api: RunningApi) -> None:
    async def make(user_id: str) -> str:
        async with transaction(api.sessions) as tx:
            return await add_user_of(tx, "https://id.example", "both", user_id, Profile(None, None))

    async with transaction(api.sessions) as tx:
        await add_user_of(tx, "https://id.example", "both", "u-first", Profile(None, None))
        second = asyncio.create_task(make("u-second"))
        async with transaction(api.sessions) as other:
            waits = select(func.count()).select_from(text("pg_locks")).where(text("not granted"))
            while not await other.session.scalar(waits):
                assert not second.done()
                await asyncio.sleep(0.01)
    assert await second == "u-first"


async def test_the_same_subject_of_another_issuer_is_someone_else(
    api: RunningApi, provider: TestProvider, closed: TestProvider
) -> None:
    mine = (await me(api, provider.token(sub="twin"))).json()["user"]
    async with transaction(api.sessions) as tx:
        tx.session.add(User(id="linked"))
        await tx.session.flush()
        tx.session.add(UserIdentity(issuer=closed.url, subject="twin", user_id="linked"))
    assert (await me(api, closed.token(sub="twin", scope="account:read"))).json()["user"] == "linked" != mine


async def test_a_token_owns_what_its_user_owns(api: RunningApi, provider: TestProvider) -> None:
    ada, eve = ({"Authorization": f"Bearer {provider.token(sub=sub)}"} for sub in ("owner", "stranger"))
    project = (await api.http.post("/v1/projects", json={"brief": BRIEF}, headers=ada)).json()["id"]
    assert (await api.http.get(f"/v1/projects/{project}", headers=ada)).status_code == 200
    assert (await api.http.get(f"/v1/projects/{project}", headers=eve)).status_code == 404
    named = await api.http.get("/v1/me", headers=eve | {"X-Cofounder-User": "anyone"})
    assert named.status_code == 403


async def test_operators_are_those_whom_the_issuer_says(api: RunningApi, provider: TestProvider) -> None:
    answer = await me(api, provider.token(sub="root", groups=["users", "operators"]))
    assert answer.json()["scopes"] == EVERYTHING
    assert (await me(api, provider.token(sub="root", groups=["users"]))).json()["scopes"] == FOUNDERS


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "reader"}, ["account:read", "builds:read"]),
        ({"scope": "reader", "groups": ["operators"]}, ["account:read", "builds:read", "ops:read"]),
        ({"scope": "account:read ops:write"}, ["account:read"]),
    ],
)
async def test_a_token_may_do_no_more_than_its_scopes(
    api: RunningApi, closed: TestProvider, claims: dict[str, Any], scopes: list[str]
) -> None:
    async with transaction(api.sessions) as tx:
        await tx.session.merge(User(id="limited"))
        await tx.session.flush()
        await tx.session.merge(UserIdentity(issuer=closed.url, subject="limited", user_id="limited"))
    token = closed.token(sub="limited", **claims)
    assert (await me(api, token)).json()["scopes"] == scopes
    refused = await api.http.post("/v1/projects", json={}, headers={"Authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:cofounder:problem:insufficient-scope")


async def test_a_closed_issuer_brings_no_users(api: RunningApi, closed: TestProvider) -> None:
    users = await count(api, User)
    member: dict[str, Any] = {"email": "ada@acme.example", "email_verified": True}
    for claims, says in (({}, "Only verified email addresses at acme.example"), (member, "may not bring new users")):
        answer = await me(api, closed.token(sub="new", **claims))
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:cofounder:problem:refused")
        assert says in answer.json()["detail"]
    assert await count(api, User) == users


async def test_a_forged_token_is_a_problem_that_says_what_to_do(api: RunningApi, provider: TestProvider) -> None:
    users = await count(api, User)
    forged = {
        "not signed with a key": signed(rsa_key("a"), provider.claims(sub="forged")),
        "has expired": provider.token(sub="forged", exp=1),
        "`aud` does not name this API": provider.token(sub="forged", aud="cofounder"),
        "not from an issuer": provider.token(sub="forged", iss="https://evil.example"),
        "does not consist of": provider.token(sub="forged").rpartition(".")[0],
    }
    for says, token in forged.items():
        answer = await me(api, token)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:cofounder:problem:unauthorized")
        assert says in answer.json()["detail"]
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert await count(api, User) == users


async def test_while_a_provider_is_away_the_answer_is_later(api: RunningApi, away: TestProvider) -> None:
    answer = await me(api, away.token())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert answer.json()["dependency"] == "identity_provider"
    async with browser_of(api) as http:
        page = await http.get("/sign-in/away")
        assert (page.status_code, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert "does not answer" in page.text
    assert (await me(api, "not-a-token")).status_code == 401


# ---- signing in with a browser


async def test_a_browser_signs_in_through_a_provider(api: RunningApi, mock: str) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "mock", "/docs")
        sent = parse_qs(urlsplit(page).query)
        assert page.startswith(f"{mock}/oauth2/authorize?")
        assert (sent["scope"], sent["redirect_uri"], sent["code_challenge_method"]) == (
            ["openid profile email"],
            [f"{api.url}/sign-in/mock/callback"],
            ["S256"],
        )
        back = await agree(page, "ada@acme.example")
        answer = await http.get(back)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/docs"), answer.text
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        known = (await http.get("/v1/me")).json()
        assert (known["how"], known["scopes"]) == ("sign_in", FOUNDERS)
        cookies = {line.split("=")[0]: line for line in answer.headers.get_list("Set-Cookie")}
        assert len(cookies) == 2
        assert all("HttpOnly" in line and "SameSite=lax" in line and "Path=/" in line for line in cookies.values())
        [token] = http.cookies.values()  # the one of the way to the provider is gone
        assert token not in back

        again = await http.get(back)
        assert (again.status_code, "has not begun the sign-in" in again.text) == (403, True)
        assert (await http.get("/v1/me")).json()["user"] == known["user"]
    async with browser_of(api) as other:
        second = await other.get(await agree(await leave(other, "mock"), "ada@acme.example"))
        assert (second.status_code, second.headers["Location"]) == (303, "/")
        assert (await other.get("/v1/me")).json()["user"] == known["user"]
        async with transaction(api.sessions) as tx:
            methods = set(await tx.session.scalars(select(SignIn.method).where(SignIn.user_id == known["user"])))
        assert methods == {mock}


async def test_signing_in_again_ends_the_sign_in_before(api: RunningApi) -> None:
    async with browser_of(api) as http:
        await http.get(await agree(await leave(http, "mock"), "again@acme.example"))
        [first] = [dict(http.cookies)]
        await http.get(await agree(await leave(http, "mock"), "again@acme.example"))
        assert (await http.get("/v1/me")).status_code == 200
        assert dict(http.cookies) != first
        async with browser_of(api) as old:
            old.cookies.update(first)
            assert (await old.get("/v1/me")).status_code == 401


async def test_who_does_not_agree_is_not_signed_in(api: RunningApi) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "mock")
        async with httpx2.AsyncClient(trust_env=False) as elsewhere:
            denied = await elsewhere.post(page, data={"action": "deny"})
        query = dict(parse_qsl(urlsplit(denied.headers["Location"]).query))
        answer = await http.get(
            "/sign-in/mock/callback", params=query | {"state": parse_qs(urlsplit(page).query)["state"][0]}
        )
        assert (answer.status_code, "Mock &lt;&amp; Co&gt; did not sign you in" in answer.text) == (403, True)
        assert (await http.get("/v1/me")).status_code == 401


async def test_the_code_goes_with_its_verifier_and_the_clients_secret(api: RunningApi, provider: TestProvider) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test")
        provider.answer = id_token(provider, page, sub="pkce")
        provider.exchanged.clear()
        assert (await http.get(returned(page))).status_code == 303
        [(form, authorization)] = provider.exchanged
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert parse_qs(urlsplit(page).query)["code_challenge"] == [base64.urlsafe_b64encode(digest).rstrip(b"=").decode()]
    assert form["redirect_uri"] == f"{api.url}/sign-in/test/callback"
    assert "client_secret" not in form
    assert authorization is not None
    assert (
        base64.b64decode(authorization.removeprefix("Basic ")) == b"cofounder:a%20secret%3A%20of%20%2B%20the%20client"
    )
    assert page.startswith(f"{provider.url}/authorize?hint=1&")


LIES: dict[str, Any] = {
    "another nonce": {"nonce": "of another sign-in"},
    "no nonce": {"nonce": None},
    "an access token's audience": {"aud": API},
    "another client's audience": {"aud": "other-client"},
    "two audiences without azp": {"aud": ["cofounder", "other-client"]},
    "azp of another client": {"azp": "other-client"},
    "another issuer": {"iss": "https://evil.example"},
    "expired": {"exp": 1},
    "no subject": {"sub": None},
}


@pytest.mark.parametrize("name", LIES)
async def test_an_id_token_for_something_else_signs_no_one_in(
    api: RunningApi, provider: TestProvider, name: str
) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test")
        provider.answer = id_token(provider, page, **LIES[name])
        answer = await http.get(returned(page))
        assert (answer.status_code, answer.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
        assert (await http.get("/v1/me")).status_code == 401


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"error": "invalid_grant", "error_description": "<script>alert(1)</script>"}, 403),
        ({"id_token": None}, 403),
        ({"id_token": "a.b.c"}, 403),
        ({"id_token": 7}, 403),
    ],
)
async def test_a_provider_that_answers_without_an_id_token_signs_no_one_in(
    api: RunningApi, provider: TestProvider, answer: dict[str, Any], status: int
) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test")
        provider.answer = answer
        shown = await http.get(returned(page))
        assert (shown.status_code, "<script" in shown.text) == (status, False)


async def test_a_forged_id_token_signs_no_one_in(api: RunningApi, provider: TestProvider) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test")
        claims = provider.claims(aud="cofounder", nonce=nonce_of(page))
        provider.answer = {"id_token": signed(rsa_key("a"), claims)}
        assert (await http.get(returned(page))).status_code == 403
        assert (await http.get("/v1/me")).status_code == 401


async def test_a_code_of_another_browser_signs_no_one_in(api: RunningApi, provider: TestProvider) -> None:
    """An attacker's callback, opened by someone else, would sign them in as the attacker."""
    async with browser_of(api) as attacker, browser_of(api) as victim:
        page = await leave(attacker, "test")
        provider.answer = id_token(provider, page, sub="attacker")
        assert (await victim.get(returned(page))).status_code == 403
        await leave(victim, "test")
        assert (await victim.get(returned(page))).status_code == 403
        assert (await victim.get("/v1/me")).status_code == 401
        assert (await attacker.get(returned(page))).status_code == 303


@pytest.mark.parametrize(
    "changes",
    [
        {"state": None},
        {"state": ""},
        {"state": "x" * 43},
        {"code": None},
        {"code": ""},
        {"error": "access_denied"},
        {"iss": "https://evil.example"},
        {"iss": ""},
    ],
)
async def test_an_answer_that_does_not_fit_signs_no_one_in(
    api: RunningApi, provider: TestProvider, changes: dict[str, str | None]
) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test")
        provider.answer = id_token(provider, page)
        assert (await http.get(returned(page, **changes))).status_code == 403
        assert (await http.get("/v1/me")).status_code == 401


async def test_a_state_works_once_also_with_its_cookie(api: RunningApi, provider: TestProvider) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test")
        kept = dict(http.cookies)
        provider.answer = id_token(provider, page, sub="once")

        async def finish() -> int:
            async with browser_of(api) as same:
                same.cookies.update(kept)
                return (await same.get(returned(page))).status_code

        assert sorted(await asyncio.gather(*(finish() for _ in range(5)))) == [303, 403, 403, 403, 403]


async def test_a_state_ends_after_ten_minutes(api: RunningApi, provider: TestProvider) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test")
        provider.answer = id_token(provider, page)
        async with transaction(api.sessions) as tx:
            await tx.session.execute(update(SignInAttempt).values(expires_at=func.now()))
        answer = await http.get(returned(page))
        assert (answer.status_code, "has taken too long" in answer.text) == (403, True)
        await leave(http, "test")
        assert await count(api, SignInAttempt) == 1


async def test_a_state_is_for_one_provider(api: RunningApi, provider: TestProvider) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "closed")
        provider.answer = id_token(provider, page)
        assert (await http.get(returned(page).replace("/closed/", "/test/"))).status_code == 403


async def test_a_provider_that_promises_to_name_itself_has_to(api: RunningApi, named: TestProvider) -> None:
    async with browser_of(api) as http:
        for iss, status in ((None, 403), (named.url, 303)):
            page = await leave(http, "named")
            named.answer = id_token(named, page)
            assert (await http.get(returned(page, iss=iss))).status_code == status


@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "javascript:1"]
)
async def test_a_sign_in_leads_to_our_own_pages_only(api: RunningApi, provider: TestProvider, to: str) -> None:
    async with browser_of(api) as http:
        page = await leave(http, "test", to)
        provider.answer = id_token(provider, page)
        assert (await http.get(returned(page))).headers["Location"] == "/"


async def test_a_closed_issuer_signs_in_those_who_are_linked(api: RunningApi, closed: TestProvider) -> None:
    async with transaction(api.sessions) as tx:
        tx.session.add(User(id="cleo"))
        await tx.session.flush()
        tx.session.add(UserIdentity(issuer=closed.url, subject="cleo", user_id="cleo"))
    member = {"email": "cleo@acme.example", "email_verified": True, "name": "Cleo", "groups": "operators"}
    for claims, status in (({}, 403), (member | {"sub": "new"}, 403), (member, 303)):
        async with browser_of(api) as http:
            page = await leave(http, "closed")
            closed.answer = id_token(closed, page, **{"sub": "cleo", **claims})
            answer = await http.get(returned(page))
            assert answer.status_code == status, answer.text
            if status == 303:
                known = (await http.get("/v1/me")).json()
                assert (known["user"], known["scopes"]) == ("cleo", EVERYTHING)
                async with transaction(api.sessions) as tx:
                    assert (await tx.session.get_one(User, "cleo")).name == "Cleo"


async def test_the_addresses_are_those_of_the_settings(api: RunningApi) -> None:
    async with browser_of(api) as http:
        for name in ("nobody", "Mock", "..%2Fmock"):
            assert (await http.get(f"/sign-in/{name}")).status_code == 404
            assert (await http.get(f"/sign-in/{name}/callback")).status_code == 404
        other = await http.get("/sign-in/mock", params={"to": "/docs"}, headers={"Host": "localhost"})
        assert (other.status_code, other.headers["Location"]) == (303, f"{api.url}/sign-in/mock?to=%2Fdocs")
        assert "Set-Cookie" not in other.headers


async def test_people_choose_a_provider_on_the_sign_in_page(api: RunningApi, tmp_path: Path) -> None:
    """In Chromium, with the page's policy: the sign-in cookie after a cross-site way, and no error in the console."""
    errors: list[str] = []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=find_chromium(None), args=["--no-sandbox", "--no-proxy-server"]
        )
        page = await chromium.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Policy" in line.text else None)
        await page.goto(f"{api.url.replace('127.0.0.1', 'localhost')}/sign-in#to=/builds/none")
        await page.get_by_text("cofounder open").wait_for()
        await page.screenshot(path=tmp_path / "sign-in.png")
        await page.get_by_role("link", name="Sign in with Mock <& Co>").click()
        await page.get_by_placeholder("sub").fill("ada@acme.example")
        await page.get_by_role("button", name="Authorize").click()
        await page.wait_for_url(f"{api.url}/builds/none")
        assert (await page.request.get(f"{api.url}/v1/me")).status == 200
        await page.goto(f"{api.url}/sign-in/mock/callback?code=x&state=y")
        await page.screenshot(path=tmp_path / "failed.png")
        assert "has not begun the sign-in" in await page.inner_text("main")
        await chromium.close()
    assert not errors
