"""Pages of other sites get and change nothing with the cookie of someone who is signed in here."""

import asyncio
import re
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from playwright.async_api import async_playwright

from clients.browser import find_chromium
from local.stack import LocalStack
from tests.harness.api_server import TOKEN, RunningApi, new_database, running_api, settings_for
from tests.harness.wait import DEADLINE

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
NOT_BY_COOKIE = {"GET /healthz", "GET /readyz", "GET /v1/certificates/{certificate_id}"}
"""Operations that answer anyone."""

BODIES = {"POST /v1/sign-ins": {"code": "a" * 43}}
"""Of operations that identify no one, and so look at the body first."""

FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://b.localhost:8000"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack))
    async with running_api(settings, stack.environment) as running:
        yield running


async def _link(api: RunningApi) -> str:
    made = await api.http.post("/v1/sign-in-links", json={})
    assert made.status_code == 201, made.text
    return str(made.json()["url"])


@pytest.fixture(scope="module")
async def browser(api: RunningApi) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with the cookie of a sign-in, and without a token."""
    async with httpx2.AsyncClient(base_url=api.url, timeout=DEADLINE, trust_env=False) as client:
        code = (await _link(api)).partition("#code=")[2]
        signed_in = await client.post("/v1/sign-ins", json={"code": code}, headers=OWN_PAGE)
        assert signed_in.status_code == 201, signed_in.text
        yield client


def _is_refused(answer: httpx2.Response) -> bool:
    return answer.status_code == 403 and answer.json()["type"] == "urn:cofounder:problem:cross-site"


async def test_every_operation_refuses_pages_of_other_sites(api: RunningApi, browser: httpx2.AsyncClient) -> None:
    description = (await api.http.get("/openapi.json")).json()
    operations = [(method.upper(), path) for path, methods in description["paths"].items() for method in methods]
    before = await api.rows()
    for number, (method, template) in enumerate(operations):
        if f"{method} {template}" in NOT_BY_COOKIE:
            continue
        path = re.sub(r"\{[^}]+\}", str(uuid.uuid4()), template)
        one = FOREIGN[number % len(FOREIGN)]  # tests/unit/api/test_origins.py has every combination
        evidence = [one] if method == "GET" else [one, {}]
        for headers in evidence:
            body = None if method == "GET" else BODIES.get(f"{method} {template}", {})
            answer = await browser.request(method, path, json=body, headers=headers)
            assert _is_refused(answer), f"{method} {template} {headers}: {answer.status_code} {answer.text}"
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert await api.rows() == before


async def test_own_pages_and_followed_links_pass(browser: httpx2.AsyncClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for headers in ({}, OWN_PAGE, link):
        assert (await browser.get("/v1/builds", headers=headers)).status_code == 200
    assert (await browser.post("/v1/projects", json={"name": "x"}, headers=OWN_PAGE)).status_code == 201
    own_origin = {"Origin": str(browser.base_url).rstrip("/")}
    assert (await browser.post("/v1/projects", json={"name": "x"}, headers=own_origin)).status_code == 201
    assert _is_refused(await browser.post("/v1/projects", json={"name": "x"}, headers=link))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_form_is_refused_even_from_an_own_page(browser: httpx2.AsyncClient, content_type: str) -> None:
    headers = {**OWN_PAGE, "Content-Type": content_type}
    unknown = f"/v1/builds/{uuid.uuid4()}/wake"
    for path in ("/v1/projects", unknown):
        answer = await browser.post(path, content=b'{"name": "x"}', headers=headers)
        assert answer.status_code == 415, path


async def test_a_token_needs_no_page(api: RunningApi) -> None:
    for headers in FOREIGN:
        answer = await api.http.post("/v1/projects", json={"name": "x"}, headers=headers)
        assert answer.status_code == 201


ATTACK = """<!doctype html><meta charset="utf-8"><title>attack</title><script>
async function attack() {
  const api = location.hash.slice(1), outcome = {};
  const attempt = async (name, work) => {
    try { outcome[name] = await work(); } catch (error) { outcome[name] = "refused"; }
  };
  const read = async (path, options) => (await fetch(api + path, {credentials: "include", ...options})).text();
  const json = {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "stolen"}'};
  await attempt("read", () => read("/v1/projects", {}));
  await attempt("post json", () => read("/v1/projects", json));
  await attempt("post text", () => read("/v1/projects",
    {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body: '{"name": "stolen"}'}));
  const simple = {method: "POST", mode: "no-cors"};
  await attempt("cancel", () => read("/v1/builds/BUILD/cancel", simple));
  await attempt("sign out", () => read("/v1/sign-ins/current", {method: "DELETE"}));
  await attempt("feed", () => new Promise((resolve, reject) => {
    const feed = new EventSource(api + "/v1/builds/BUILD/events", {withCredentials: true});
    feed.onmessage = feed.onopen = () => resolve("opened");
    feed.onerror = () => reject(new Error());
  }));
  const load = (tag, path) => new Promise((resolve, reject) => {
    const element = document.createElement(tag);
    element.onload = () => resolve("loaded");
    element.onerror = () => reject(new Error());
    element.src = api + path;
    document.body.append(element);
  });
  await attempt("script", () => load("script", "/v1/projects"));
  await attempt("image", () => load("img", "/v1/projects"));
  await attempt("frame", async () => {
    const frame = document.createElement("iframe");
    const loaded = new Promise(resolve => { frame.onload = resolve; });
    frame.src = api + "/v1/projects";
    document.body.append(frame);
    await loaded;
    return frame.contentDocument ? frame.contentDocument.body.textContent : "refused";
  });
  await attempt("form", async () => {
    const frame = document.createElement("iframe");
    frame.name = "target";
    const loaded = new Promise(resolve => { frame.onload = resolve; });
    document.body.append(frame);
    const form = document.createElement("form");
    form.method = "post"; form.enctype = "text/plain"; form.target = "target"; form.action = api + "/v1/projects";
    const field = document.createElement("input");
    field.name = '{"name": "stolen", "x": "'; field.value = '"}';
    form.append(field);
    document.body.append(form);
    form.submit();
    await loaded;
    return frame.contentDocument && frame.contentDocument.body.textContent ? "read" : "refused";
  });
  await attempt("cancel by a form", async () => {
    const form = document.createElement("form");
    form.method = "post"; form.target = "target"; form.action = api + "/v1/builds/BUILD/cancel";
    document.body.append(form);
    const loaded = new Promise(resolve => { document.querySelector("[name=target]").onload = resolve; });
    form.submit();
    await loaded;
    return "refused";
  });
  await attempt("window", async () => {
    const opened = window.open(api + "/v1/projects");
    await new Promise(resolve => setTimeout(resolve, 500));
    return opened && !opened.closed && opened.document ? opened.document.body.textContent : "refused";
  });
  return outcome;
}
</script><body>a page of another origin</body>"""


@asynccontextmanager
async def _foreign_page(page: bytes) -> AsyncIterator[str]:
    """A server on another port of the same host: a browser sends it, and it sends on, the same cookies."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + page)
        await writer.drain()
        writer.close()

    listening = socket.create_server(("127.0.0.1", 0))
    async with await asyncio.start_server(answer, sock=listening):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_real_page_of_another_origin_gets_and_changes_nothing(api: RunningApi) -> None:
    """In Chromium, from another port of the same host, to which the cookie's SameSite does not apply."""
    build = await api.build()
    before = await api.rows()
    async with _foreign_page(ATTACK.replace("BUILD", build).encode()) as foreign, async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=find_chromium(None), args=["--no-sandbox", "--no-proxy-server"]
        )
        context = await chromium.new_context()
        page = await context.new_page()
        page.set_default_timeout(DEADLINE * 1000)
        await page.goto(await _link(api))
        await page.wait_for_url(f"{api.url}/")
        own: Any = await page.evaluate("fetch('/v1/projects').then(answer => answer.text())")
        assert "Pantry Pal" in own, "the cookie works for a page of ours"

        attacker = await context.new_page()
        attacker.set_default_timeout(DEADLINE * 1000)
        sent: list[str] = []
        attacker.on("request", lambda request: sent.append(request.url))
        await attacker.goto(f"{foreign}/#{api.url}")
        outcome: dict[str, str] = await attacker.evaluate("attack()")
        assert [url for url in sent if url.startswith(api.url)], "the page did ask"
        assert await page.evaluate("fetch('/v1/projects').then(answer => answer.status)") == 200, "still signed in"
        await chromium.close()
    assert {name: said for name, said in outcome.items() if said not in ("refused", "")} == {}
    assert (await api.row(build)).cancel_requested_at is None
    after = await api.rows()
    ignored = ("sign_ins", "sign_in_codes", "audit")  # of signing in above
    assert {name: count for name, count in after.items() if name not in ignored} == {
        name: count for name, count in before.items() if name not in ignored
    }
    listed = (await api.http.get("/v1/projects", headers={"Authorization": f"Bearer {TOKEN}"})).text
    assert "stolen" not in listed
