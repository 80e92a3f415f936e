"""Serving the web console: its pages and files, their headers, and what is served if it has not been built."""

import gzip
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local.stack import LocalStack
from tests.harness.api_server import RunningApi, new_database, running_api, settings_for

PAGE = {"Accept": "text/html,*/*;q=0.8"}
SCRIPT = "export const answer = 42;\n" * 100


@pytest.fixture(scope="module")
async def api(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    """An API with a console of three files."""
    directory = tmp_path_factory.mktemp("dist")
    (directory / "assets").mkdir()
    (directory / "index.html").write_text("<!doctype html><title>The console</title>")
    (directory / "assets" / "index-abc.js").write_text(SCRIPT)
    (directory / "assets" / "icon-abc.svg").write_text("<svg/>")
    (directory / ".setup-stamp").write_text("a stamp")
    settings = settings_for(await new_database(stack), web_dist=str(directory))
    async with running_api(settings, stack.environment) as running:
        yield running


async def test_every_address_of_the_console_answers_with_its_page(api: RunningApi) -> None:
    some_id = uuid.uuid4()
    of_one = (f"/projects/{some_id}", f"/projects/{some_id}/edit", f"/builds/{some_id}")
    for address in ("/", "/new", *of_one, "/usage", "/account", f"/deleted/{some_id}", "/fleet/users/a%2Fb%25"):
        answer = await api.http.get(address)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8"), address
        assert "The console" in answer.text
        head = await api.http.head(address)
        assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])


async def test_the_page_is_confined(api: RunningApi) -> None:
    headers = (await api.http.get("/")).headers
    port = api.url.rpartition(":")[2]
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "frame-src": f"'self' http://*.localhost:{port}",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_another_name_of_the_machine_leads_to_the_address_with_the_cookies(api: RunningApi) -> None:
    port = api.url.rpartition(":")[2]
    for path in ("/", "/sign-in", "/builds/x?tab=files"):
        answer = await api.http.get(path, headers={"Host": f"localhost:{port}"})
        assert (answer.status_code, answer.headers["Location"]) == (303, f"{api.url}{path}")


async def test_the_page_is_asked_for_each_time_and_its_files_are_kept(api: RunningApi) -> None:
    page = await api.http.get("/")
    assert page.headers["Cache-Control"] == "no-cache"
    again = await api.http.get("/", headers={"If-None-Match": page.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Content-Security-Policy"] == page.headers["Content-Security-Policy"]

    script = await api.http.get("/assets/index-abc.js")
    assert script.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert (await api.http.get("/assets/icon-abc.svg")).headers["Content-Type"].startswith("image/svg+xml")


async def test_files_are_compressed_for_those_who_can_read_that(api: RunningApi) -> None:
    async with api.http.stream("GET", "/assets/index-abc.js", headers={"Accept-Encoding": "gzip, br"}) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert int(answer.headers["Content-Length"]) == len(raw) < len(SCRIPT)
    assert gzip.decompress(raw).decode() == SCRIPT
    plain = await api.http.get("/assets/index-abc.js", headers={"Accept-Encoding": "identity"})
    assert ("Content-Encoding" in plain.headers, plain.text) == (False, SCRIPT)


async def test_what_is_not_there_is_not_the_page(api: RunningApi) -> None:
    for path in ("/assets/index-old.js", "/assets/../index.html", "/assets/%2e%2e/.setup-stamp", "/assets/"):
        answer = await api.http.get(path, headers=PAGE if path.endswith("html") else {})
        assert answer.status_code == 404, path
        assert "a stamp" not in answer.text
    assert (await api.http.get("/assets/index-old.js", headers=PAGE)).headers[
        "Content-Type"
    ] == "application/problem+json"


async def test_an_unknown_address_is_a_page_for_people_and_a_problem_for_programs(api: RunningApi) -> None:
    person = await api.http.get("/nothing/here", headers=PAGE)
    assert (person.status_code, "The console" in person.text) == (404, True)
    assert "trusted-types 'none'" in person.headers["Content-Security-Policy"]
    for answer in (
        await api.http.get("/nothing/here"),
        await api.http.get("/v1/nothing", headers=PAGE),
        await api.http.post("/nothing/here", headers=PAGE),
    ):
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert (await api.http.post("/new")).status_code == 405


async def test_without_the_console_the_page_says_what_to_run(stack: LocalStack, tmp_path: Path) -> None:
    settings = settings_for(await new_database(stack), web_dist=str(tmp_path))
    async with running_api(settings, stack.environment) as api:
        page = await api.http.get("/", headers=PAGE)
        assert (page.status_code, "python3 scripts/setup --console" in page.text) == (503, True)
        assert page.headers["Cache-Control"] == "no-store"
        assert (await api.http.get("/assets/index.js")).status_code == 404
        assert (await api.http.get("/nothing")).status_code == 404
        for path in ("/sign-in", "/docs", "/pages/pages.css", "/v1/me"):
            assert (await api.http.get(path)).status_code == 200, path
