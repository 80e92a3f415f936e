"""Foreign hosts, the headers of every response, and the page that describes the API."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import ConsoleMessage, Request, async_playwright
from structlog.testing import capture_logs

from clients.browser import find_chromium
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, new_database, running_api, settings_for
from tests.harness.wait import DEADLINE

UNKNOWN = "/v1/builds/00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack))
    async with running_api(settings, stack.environment) as running:
        yield running


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "a@127.0.0.1", "127.0.0.1/x", "x.localhost", "10.0.0.7:8000", ""]
)
async def test_a_foreign_host_is_refused(api: RunningApi, host: str) -> None:
    for path in ("/v1/builds", "/docs", "/openapi.json", "/nowhere"):
        answer = await api.http.get(path, headers={"Host": host})
        assert answer.status_code == 421, path
        assert answer.json()["type"] == "urn:cofounder:problem:foreign-host"
        assert "ALLOWED_HOSTS" in answer.json()["detail"]
    assert (await api.http.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "[::1]:8000", "127.0.0.1"])
async def test_names_of_loopback_are_the_apis_own(api: RunningApi, host: str) -> None:
    assert (await api.http.get("/v1/builds", headers={"Host": host})).status_code == 200


async def test_a_public_host_is_the_only_one_beside_those_allowed(stack: LocalStack) -> None:
    settings = settings_for(
        "postgresql://user@127.0.0.1:1/nothing",
        public_url="https://cofounder.example.com",
        allowed_hosts=["api.internal"],
    )
    async with running_api(settings, {}) as api:
        for host, status in (
            ("cofounder.example.com", 200),
            ("cofounder.example.com:443", 200),
            ("cofounder.example.com.", 200),
            ("api.internal", 200),
            ("127.0.0.1", 421),
            ("localhost", 421),
            ("b.cofounder.example.com", 421),
        ):
            answer = await api.http.get("/openapi.json", headers={"Host": host})
            assert answer.status_code == status, host
            assert answer.headers["strict-transport-security"] == "max-age=31536000"


async def test_every_response_has_the_headers(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    project = await api.project()
    build = await api.build(project)

    async def fail(*_: object) -> None:
        raise RuntimeError("an error of the program")

    monkeypatch.setattr("api.routes.builds.wake_build", fail)
    with capture_logs():  # pretty tracebacks of the whole application take minutes
        responses = [await api.http.post(f"/v1/builds/{build}/wake")]
    responses += [
        await api.http.get("/healthz"),
        await api.http.get(f"/v1/projects/{project}"),
        await api.http.get(UNKNOWN),
        await api.http.get("/nowhere"),
        await api.http.delete("/v1/projects"),
        await api.http.get("/v1/builds", headers={"Authorization": "Bearer wrong"}),
        await api.http.get("/v1/builds", headers={"Host": "evil.example"}),
        await api.http.post("/v1/projects", content=b"{"),
        await api.http.post("/v1/projects", content=b"x" * 300_000),
        await api.http.get("/docs"),
    ]
    assert [each.status_code for each in responses] == [500, 200, 200, 404, 404, 405, 401, 421, 415, 413, 200]
    async with api.http.stream("GET", f"/v1/builds/{build}/events") as feed:
        responses.append(feed)
    for response in responses:
        _assert_protected(dict(response.headers), str(response.url))
        assert response.headers["cache-control"] == "no-store"
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert "server" not in response.headers
        assert "strict-transport-security" not in response.headers

    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(b"\x16\x03\x01 is no HTTP\r\n\r\n")
    head, _, _ = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
    _assert_protected({name.lower(): value for name, _, value in lines}, "malformed HTTP")


def _assert_protected(headers: dict[str, str], where: str) -> None:
    assert headers["x-content-type-options"] == "nosniff", where
    assert "default-src 'none'" in headers["content-security-policy"], where
    assert "frame-ancestors 'none'" in headers["content-security-policy"], where
    assert headers["referrer-policy"] == "same-origin", where
    assert headers["cross-origin-opener-policy"] == "same-origin", where
    assert headers["cross-origin-resource-policy"] == "same-origin", where
    assert "camera=()" in headers["permissions-policy"], where


async def test_the_description_is_shown_in_a_browser(api: RunningApi) -> None:
    """With the policy active, without an error, and without a request to another origin."""
    troubles: list[str] = []
    requested: list[str] = []

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            troubles.append(message.text)

    def note_request(request: Request) -> None:
        requested.append(request.url)

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=find_chromium(None), args=["--no-sandbox", "--no-proxy-server"]
        )
        page = await chromium.new_page()
        page.set_default_timeout(DEADLINE * 1000)
        page.on("console", note_message)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", note_request)
        answer = await page.goto(f"{api.url}/docs")
        assert answer is not None
        assert "script-src 'self';" in answer.headers["content-security-policy"]
        operation = page.locator(".opblock", has_text="/v1/usage")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Try it out").click()
        await operation.get_by_role("button", name="Execute").click()
        await operation.locator(".live-responses-table .response-col_status", has_text="401").wait_for()
        await chromium.close()
    assert [text for text in troubles if "401" not in text] == []
    assert requested
    assert all(url.startswith((api.url, "data:", "blob:")) for url in requested), requested
    policy = (await api.http.get("/openapi.json")).headers["content-security-policy"]
    assert "script-src" not in policy


async def test_a_file_is_no_page_of_ours(api: RunningApi) -> None:
    script = await api.http.get("/docs/swagger-ui-bundle.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "public, max-age=3600"
    description = json.loads((await api.http.get("/openapi.json")).content)
    assert not [path for path in description["paths"] if path.startswith("/docs")]
    assert (await api.http.get("/redoc")).status_code == 404
