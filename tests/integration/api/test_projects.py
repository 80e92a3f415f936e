"""Projects over HTTP, and every mistake that a request can have."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from local.stack import LocalStack
from tests.harness.api_server import (
    BRIEF,
    OPERATORS,
    RunningApi,
    as_user,
    new_database,
    running_api,
    settings_for,
)

INTERVIEW: dict[str, Any] = {
    "questions": [{"id": "who", "text": "Who is it for?"}],
    "answers": {"who": "People who cook."},
}


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), api_operator_token=SecretStr(OPERATORS))
    async with running_api(settings, stack.environment) as running:
        yield running


async def test_project_is_stored_as_it_was_sent(api: RunningApi) -> None:
    brief = {"zeta": {"b": 1, "a": 2}, **BRIEF, "name": "Ünïcode ✓"}
    created = await api.http.post("/v1/projects", json={"brief": brief, "interview": INTERVIEW})
    assert created.status_code == 201
    assert created.headers["location"] == f"/v1/projects/{created.json()['id']}"
    read = await api.http.get(created.headers["location"])
    assert read.status_code == 200
    assert read.json() == created.json()
    assert read.json()["name"] == "Ünïcode ✓"
    assert list(read.json()["brief"].items()) == list(brief.items())
    assert list(read.json()["brief"]["zeta"]) == ["b", "a"]
    assert read.json()["interview"] == INTERVIEW
    assert (read.json()["status"], read.json()["brief_version"]) == ("draft", 1)


async def test_a_repeat_with_the_same_key_makes_one_project(api: RunningApi) -> None:
    body = {"brief": BRIEF, "interview": INTERVIEW}
    keyed = {"Idempotency-Key": "once"}
    before = await api.rows()
    answers = await asyncio.gather(*(api.http.post("/v1/projects", json=body, headers=keyed) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    [made] = {answer.json()["id"] for answer in answers}
    assert {answer.headers["location"] for answer in answers} == {f"/v1/projects/{made}"}
    assert (await api.rows())["projects"] == before["projects"] + 1
    for other in ({**body, "name": "Another"}, {"brief": BRIEF}, {**body, "brief": {**BRIEF, "problem": "Another."}}):
        refused = await api.http.post("/v1/projects", json=other, headers=keyed)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:cofounder:problem:idempotency-key-reused")
        assert refused.json()["project_id"] == made
    wrong = await api.http.post("/v1/projects", json=body, headers={"Idempotency-Key": "x" * 201})
    assert wrong.status_code == 422
    assert (await api.rows())["projects"] == before["projects"] + 1
    theirs = await api.http.post("/v1/projects", json=body, headers={**keyed, **as_user("eve")})
    assert (theirs.status_code, theirs.json()["id"] == made) == (201, False)


async def test_project_without_a_brief(api: RunningApi) -> None:
    created = await api.http.post("/v1/projects", json={"name": "Later"})
    assert created.status_code == 201
    assert (created.json()["name"], created.json()["brief"], created.json()["interview"]) == ("Later", None, None)


async def test_replacing_counts_versions(api: RunningApi) -> None:
    project = await api.project()
    path = f"/v1/projects/{project}"
    first = await api.http.get(f"{path}/brief")
    assert (first.json()["brief"], first.json()["version"], first.headers["etag"]) == (BRIEF, 1, '"1"')
    assert (await api.http.get(f"{path}/interview")).status_code == 404

    brief = {"zeta": 1, **BRIEF, "problem": "Another one."}
    second = await api.http.put(f"{path}/brief", json={"brief": brief, "version": 1})
    assert (second.status_code, second.json()["version"], second.headers["etag"]) == (200, 2, '"2"')
    assert list(second.json()["brief"].items()) == list(brief.items())
    third = await api.http.put(f"{path}/brief", json={"brief": BRIEF}, headers={"If-Match": '"2"'})
    assert third.json()["version"] == 3
    for stale in ({"json": {"brief": brief, "version": 2}}, {"json": {"brief": brief}, "headers": {"If-Match": '"1"'}}):
        refused = await api.http.put(f"{path}/brief", **stale)
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:cofounder:problem:version-conflict"
        assert refused.json()["current_version"] == 3
    assert (await api.http.get(f"{path}/brief")).json() == third.json()

    for version in (1, 2):
        answers = {"answers": {"who": f"Version {version}."}}
        put = await api.http.put(
            f"{path}/interview",
            json={"interview": INTERVIEW | answers, "version": version - 1 if version == 1 else None},
        )
        assert (put.status_code, put.json()["version"], put.json()["interview"]) == (200, version, INTERVIEW | answers)
    read = (await api.http.get(path)).json()
    assert (read["brief"], read["brief_version"], read["interview_version"]) == (BRIEF, 3, 2)
    assert read["interview"]["answers"]["who"] == "Version 2."


async def test_only_one_of_many_at_once_replaces_a_version(api: RunningApi) -> None:
    path = f"/v1/projects/{await api.project()}/brief"
    body = {"brief": BRIEF, "version": 1}
    answers = await asyncio.gather(*(api.http.put(path, json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


@pytest.mark.parametrize(
    ("document", "body", "field"),
    [
        ("brief", {"brief": {**BRIEF, "features": []}}, "brief.features"),
        ("brief", {"brief": {**BRIEF, "x": "y" * 66_000}}, "brief"),
        ("brief", {"brief": {**BRIEF, "x": "\0"}}, "brief.x"),
        ("brief", {"brief": BRIEF, "version": -1}, "version"),
        ("brief", BRIEF, "brief"),
        ("interview", {"interview": {"questions": [], "answers": {"who": "me"}}}, "interview"),
        ("interview", {"interview": INTERVIEW | {"questions": INTERVIEW["questions"] * 2}}, "interview"),
    ],
)
async def test_bad_replacement_changes_nothing(api: RunningApi, document: str, body: Any, field: str) -> None:
    path = f"/v1/projects/{await api.project()}"
    before = (await api.http.get(path)).json()
    answer = await api.http.put(f"{path}/{document}", json=body)
    assert answer.status_code == 422, answer.text
    assert field in [error["field"] for error in answer.json()["errors"]]
    match = await api.http.put(f"{path}/brief", json={"brief": BRIEF}, headers={"If-Match": "*"})
    assert (match.status_code, match.json()["errors"][0]["field"]) == (422, "if-match")
    assert (await api.http.get(path)).json() == before


async def test_projects_in_pages(api: RunningApi) -> None:
    made = [await api.project("lister") for _ in range(5)]
    found: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await api.http.get("/v1/projects", params={"limit": 2, **cursor}, headers=as_user("lister"))
        assert page.status_code == 200
        found += [project["id"] for project in page.json()["projects"]]
        if (following := page.json()["next_cursor"]) is None:
            break
        assert len(page.json()["projects"]) == 2
        cursor = {"cursor": following}
        await api.project("lister")  # a new project comes first, and shifts no page
    assert found == made[::-1]
    [listed, *_] = page.json()["projects"]
    assert listed["brief_version"] == 1
    assert "brief" not in listed
    empty = await api.http.get("/v1/projects", headers=as_user("newcomer"))
    assert empty.json() == {"projects": [], "next_cursor": None}


@pytest.mark.parametrize("resource", ["", "/brief", "/interview", "/builds"])
async def test_project_id_that_is_none(api: RunningApi, resource: str) -> None:
    wrong = await api.http.get(f"/v1/projects/not-an-id{resource}")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "project_id")
    unknown = await api.http.get(f"/v1/projects/00000000-0000-0000-0000-000000000000{resource}")
    assert unknown.json()["type"] == "urn:cofounder:problem:not-found"
    theirs = await api.http.get(f"/v1/projects/{await api.project('eve')}{resource}")
    assert theirs.status_code == unknown.status_code == 404


async def test_a_user_sees_only_own_projects(api: RunningApi) -> None:
    before = await api.rows()
    project = await api.project("ada")
    again = await api.project("ada")
    assert (await api.rows())["projects"] == before["projects"] + 2
    assert (await api.http.get(f"/v1/projects/{again}", headers=as_user("ada"))).status_code == 200
    for other in (as_user("bob"), {}):
        answer = await api.http.get(f"/v1/projects/{project}", headers=other)
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:cofounder:problem:not-found"
        assert project in answer.json()["detail"]


BAD_BODIES = {
    "not JSON": (b'{"name": ', 400, "malformed-json", None),
    "not UTF-8": (b"\xff\xfe", 400, "malformed-json", None),
    "nested beyond what Python reads": (b"[" * 100_000, 400, "malformed-json", None),
    "nested too deeply": (b'{"brief": {"x": ' + b"[" * 70 + b"]" * 70 + b"}}", 422, "invalid-request", "brief"),
    "nested more deeply": (b'{"brief": {"x": ' + b"[" * 900 + b"]" * 900 + b"}}", 422, "invalid-request", "brief"),
    "not an object": (b"[1]", 422, "invalid-request", "body"),
    "a typing mistake": (b'{"breif": {}}', 422, "invalid-request", "breif"),
    "no features": ({"brief": {**BRIEF, "features": []}}, 422, "invalid-request", "brief.features"),
    "a number for a feature": ({"brief": {**BRIEF, "features": ["a", 2]}}, 422, "invalid-request", "brief.features[1]"),
    "no problem": ({"brief": {"name": "a", "features": ["b"]}}, 422, "invalid-request", "brief.problem"),
    "an empty name": ({"name": " ", "brief": BRIEF}, 422, "invalid-request", "name"),
    "a NUL": ({"brief": {**BRIEF, "features": ["a\0"]}}, 422, "invalid-request", "brief.features[0]"),
    "a NUL in a field of one's own": ({"brief": {**BRIEF, "x": {"y": "\0"}}}, 422, "invalid-request", "brief.x.y"),
    "a NUL as a key": ({"brief": {**BRIEF, "a\0b": 1}}, 422, "invalid-request", "brief key"),
    "a lone surrogate": ({"brief": {**BRIEF, "problem": "\ud800"}}, 422, "invalid-request", "brief.problem"),
    "a surrogate in an answer": (
        {"interview": {**INTERVIEW, "answers": {"who": "\udfff"}}},
        422,
        "invalid-request",
        "interview.answers.who",
    ),
    "an answer without a question": (
        {"interview": {"questions": [], "answers": {"who": "me"}}},
        422,
        "invalid-request",
        "interview",
    ),
    "not a number": (
        b'{"brief": {"name":"a","problem":"b","features":["c"],"x":NaN}}',
        422,
        "invalid-request",
        "brief",
    ),
    "a large brief": ({"brief": {**BRIEF, "x": "y" * 66_000}}, 422, "invalid-request", "brief"),
    "a large body": (b'{"name": "' + b"x" * 300_000 + b'"}', 413, "body-too-large", None),
    "a huge body": (b"x" * 5_000_000, 413, "body-too-large", None),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_bad_body_is_a_problem_and_makes_no_row(api: RunningApi, case: str) -> None:
    body, status, slug, field = BAD_BODIES[case]
    before = await api.rows()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await api.http.post(
        "/v1/projects", content=content, headers={"Content-Type": "application/json", **as_user("newcomer")}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:cofounder:problem:{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert field is None or field in [error["field"] for error in problem["errors"]]
    assert await api.rows() == before


async def test_body_of_unannounced_length_is_limited_too(api: RunningApi) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    answer = await api.http.post("/v1/projects", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:cofounder:problem:body-too-large"


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer", "Basic YTpi", "Bearer a-token-for-test\u00e9"])
async def test_only_the_token_opens(api: RunningApi, given: str | None) -> None:
    headers = [] if given is None else [(b"Authorization", given.encode("latin-1"))]
    del api.http.headers["Authorization"]
    try:
        answers = [await api.http.post("/v1/projects", json={"name": "x"}, headers=headers)]
        answers.append(await api.http.get("/v1/builds/00000000-0000-0000-0000-000000000000/events", headers=headers))
    finally:
        api.http.headers["Authorization"] = "Bearer a-token-for-tests"
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["type"] == "urn:cofounder:problem:unauthorized"


@pytest.mark.parametrize("user", ["", "x" * 201, "a b", "caf\u00e9"])
async def test_user_id_is_checked(api: RunningApi, user: str) -> None:
    answer = await api.http.post("/v1/projects", json={}, headers=[(b"X-Cofounder-User", user.encode("latin-1"))])
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["x-cofounder-user"]


async def test_what_is_not_there_is_a_problem_too(api: RunningApi) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/projects", 405),
        ("GET", "/v1/builds/x", 422),
        ("OPTIONS", "/v1/builds", 405),
        ("PATCH", "/v1/projects/x/brief", 405),
        ("GET", "/v1/projects/", 404),
    ):
        answer = await api.http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        allowed = {"/v1/projects": "GET, POST", "/v1/projects/x/brief": "GET, PUT", "/v1/builds": "GET"}
        assert answer.headers.get("allow") == (allowed[path] if status == 405 else None)
    for said in (b"\x16\x03\x01 is no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-Cofounder-User: a\0b\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        writer.write(said)
        sent, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert sent.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in sent
        assert json.loads(body)["type"] == "urn:cofounder:problem:malformed-http"
    head = await api.http.head("/v1/projects")
    assert (head.status_code, head.headers["allow"], head.content) == (405, "GET, POST", b"")


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
async def test_body_of_another_type_is_refused(api: RunningApi, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await api.http.post("/v1/projects", content=b'{"name": "x"}', headers=headers)
    assert answer.status_code == 415
    assert answer.json()["type"] == "urn:cofounder:problem:unsupported-media-type"
    unknown_build = f"/v1/builds/{uuid.uuid4()}/wake"
    assert (await api.http.post(unknown_build, content=b"x", headers=headers)).status_code == 404, "takes no body"
    patched = {"Content-Type": "application/merge-patch+json; charset=utf-8"}
    assert (await api.http.post("/v1/projects", content=b'{"name": "x"}', headers=patched)).status_code == 201


async def test_an_interview_has_questions(api: RunningApi) -> None:
    asked = (await api.http.get("/v1/interview-questions")).json()["questions"]
    assert [each["id"] for each in asked] == ["first_users", "today", "first_version", "look", "money"]
    interview = {"questions": asked, "answers": {"money": "Not yet."}}
    assert await api.project(brief=BRIEF, interview=interview)
