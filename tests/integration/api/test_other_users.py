"""Call every operation that the API describes as one user with the ids of another: nothing is shown, nothing changes.

The ownership of rows is checked twice, by the queries and by row-level security, and each alone has to suffice.
"""

import copy
import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import SecretStr
from sqlalchemy import func, text, true, update

from db import access
from db.models import (
    Base,
    Build,
    BulkRun,
    Certificate,
    Erasure,
    PreviewLink,
    Project,
    ProjectSecret,
    Question,
    SignIn,
    Snapshot,
    StoredExport,
    ToolCall,
    Webhook,
    WebhookDelivery,
)
from db.transaction import transaction
from domain.conversation import image_mark
from local.stack import LocalStack
from tests.harness.api_server import BRIEF, RunningApi, as_user, key_of, new_database, running_api, settings_for

MARK = "adas-own-words"
"""In every text of Ada's."""

_IMAGE = "ada0" * 16

_CASES = 2
"""Requests that are generated for each operation."""

_NOT_COMPARED = frozenset({"processes", "request_buckets", "dependencies"})

KEY = "main:" + "c2l4dGVlbiBieXRlcyBvciBtb3JlLCBmb3IgdGVzdHM="


class Owner:
    """Ada, and the ids of what is hers, by the names that the API's parameters have."""

    def __init__(self, ids: dict[str, str]) -> None:
        self.ids = ids

    def fill(self, values: dict[str, Any]) -> None:
        """Replace what names one of her ids."""
        values.update({name: self.ids[name] for name in values if name in self.ids})


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    many = {f"{name}_per_minute": 100_000 for name in ("reads", "writes", "expensive_requests")}
    own = settings_for(await new_database(stack), stack.environment, secrets_key=SecretStr(KEY), **many)
    async with running_api(own, stack.environment) as running:
        yield running


@pytest.fixture(scope="module")
async def ada(api: RunningApi) -> Owner:
    project = await api.project("ada", name=MARK, brief={**BRIEF, "name": MARK})
    answer = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": MARK}, headers=as_user("ada"))
    assert answer.status_code == 201, answer.text
    build = uuid.UUID(answer.json()["id"])
    sign_in, link, question, webhook, delivery, run, erasure, certificate, export = (uuid.uuid4() for _ in range(9))
    async with transaction(api.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == build).values(status="ready", closed_at=func.now()))
        org_id = (await tx.session.get_one(Project, uuid.UUID(project))).org_id
        lasts = func.now() + timedelta(days=1)
        tx.session.add_all(
            [
                ProjectSecret(
                    project_id=uuid.UUID(project), name="ADAS_KEY", ciphertext=b"c", key_id="main", set_by="ada"
                ),
                SignIn(id=sign_in, token_hash=b"1" * 32, user_id="ada", method="link", scopes=[], expires_at=lasts),
                PreviewLink(id=link, build_id=build, token_hash=b"2" * 32, created_by="ada", expires_at=lasts),
                ToolCall(
                    build_id=build,
                    tool_use_id="toolu_of_ada",
                    turn=1,
                    position=0,
                    name="look",
                    summary=MARK,
                    state="done",
                    result=image_mark(_IMAGE),
                    is_error=False,
                ),
                Webhook(
                    id=webhook,
                    org_id=org_id,
                    url=f"https://example.com/{MARK}",
                    topics=["build.ready"],
                    description=MARK,
                    ciphertext=b"c",
                    key_id="main",
                    created_by="ada",
                ),
                WebhookDelivery(
                    id=delivery, webhook_id=webhook, topic="build.ready", build_id=build, event_id=1, error=MARK
                ),
                BulkRun(
                    id=run,
                    act="wake",
                    filter=MARK,
                    rate=1,
                    reason=MARK,
                    actor="operator",
                    how="cli",
                    body_hash="",
                    state="stopped",
                    total=1,
                ),
                Certificate(
                    id=certificate,
                    kind="archive",
                    user_id="ada",
                    project_id=uuid.UUID(project),
                    rule=MARK,
                    counts={},
                    file_sha256="a",
                    manifest_sha256="b",
                    issued_at=func.now(),
                    sha256="c",
                ),
                StoredExport(
                    id=export,
                    user_id="ada",
                    project_id=uuid.UUID(project),
                    requested_by="ada",
                    idempotency_key=MARK,
                    stored_at=func.now(),
                    object_key=MARK,
                    bytes=1,
                    sha256="a",
                    expires_at=lasts,
                ),
                Erasure(id=erasure, kind="project", user_id="ada", project_id=uuid.uuid4(), requested_by="ada"),
                Question(id=question, build_id=build, problem=MARK, tried=[], options=[MARK], closed_at=func.now()),
                Snapshot(
                    id=uuid.uuid4(),
                    build_id=build,
                    project_id=uuid.UUID(project),
                    number=1,
                    state="stored",
                    claim=uuid.uuid4(),
                    reason=MARK,
                    archive_key=MARK,
                    manifest_key=MARK,
                    archive_sha256="a",
                    manifest_sha256="b",
                    stored_at=func.now(),
                ),
            ]
        )
    return Owner(
        {
            "project_id": project,
            "build_id": str(build),
            "organisation_id": str(org_id),
            "question_id": str(question),
            "sign_in_id": str(sign_in),
            "link_id": str(link),
            "key_id": key_of("ada").id,
            "user": "ada",
            "name": "ADAS_KEY",
            "number": "1",
            "screenshot_id": "desktop",
            "webhook_id": str(webhook),
            "delivery_id": str(delivery),
            "run_id": str(run),
            "erasure_id": str(erasure),
            "certificate_id": str(certificate),
            "export_id": str(export),
            "tool_use_id": "toolu_of_ada",
            "sha256": _IMAGE,
        }
    )


@pytest.fixture(scope="module")
async def operations(api: RunningApi) -> list[tuple[Any, Sequence[Any]]]:
    """Each operation that the API describes, with requests. The first one's body is the description's own example."""
    description = (await api.http.get("/openapi.json")).json()
    del description["paths"]["/v1/events"]  # it never ends; test_account_feeds.py reads it as another user
    found: list[Any] = list(schemathesis.openapi.from_dict(description).get_all_operations())
    generated = [(each.ok(), _cases_of(each.ok())) for each in found]
    for operation, cases in generated:
        described = description["paths"][operation.path][operation.method].get("requestBody", {"content": {}})
        for body in described["content"].values():
            name = re.search(r"schemas/(\w+)", json.dumps(body["schema"]))
            assert name is not None, operation.path
            cases[0].body = copy.deepcopy(description["components"]["schemas"][name[1]]["examples"][0])
    return generated


def _cases_of(operation: Any) -> Sequence[Any]:
    cases: list[Any] = []

    @settings(
        max_examples=_CASES,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    return cases


async def _rows_of(api: RunningApi, ada: Owner) -> dict[str, list[str]]:
    """Ada's rows of each table, as text."""
    marks = [MARK, *(ada.ids[name] for name in ("project_id", "build_id", "organisation_id", "sign_in_id", "key_id"))]
    found = {}
    async with transaction(api.sessions) as tx:
        for table in sorted(set(Base.metadata.tables) - _NOT_COMPARED):
            hers = f'select cast(row as text) from "{table}" as row where cast(row as text) ~ :marks order by 1'
            rows = await tx.session.execute(text(hers), {"marks": "|".join([*marks, r"\mada\M"])})
            found[table] = [row for (row,) in rows]
    return found


async def _call_all(api: RunningApi, ada: Owner, operations: Sequence[tuple[Any, Sequence[Any]]]) -> None:
    """Call each operation as Bob, with Ada's ids."""
    problems = []
    for operation, cases in operations:
        where = f"{operation.method.upper()} {operation.path}"
        statuses = set()
        for case in cases:
            unknown = set(case.path_parameters or {}) - set(ada.ids)
            assert not unknown, f"{where}: name one of Ada's ids for {unknown}"
            for values in (case.path_parameters, case.query, case.body):
                if isinstance(values, dict):
                    ada.fill(values)
            request = case.as_transport_kwargs(base_url=api.url)
            request["headers"] = {
                name: value
                for name, value in request["headers"].items()
                if name.lower() not in ("authorization", "x-cofounder-user", "cookie", "if-match")
            } | as_user("bob")
            request.pop("cookies", None)
            answer = await api.http.request(**request)
            statuses.add(answer.status_code)
            if answer.status_code >= 500 or (answer.is_success and _shows(answer.text, ada)):
                problems.append(f"{where}: {answer.status_code} {answer.text[:200]}")
        if operation.path_parameters and (404 not in statuses or statuses - {404, 422}):
            problems.append(f"{where}: {statuses} instead of 404")
    assert problems == []


def _shows(answer: str, ada: Owner) -> bool:
    return MARK in answer or any(value in answer for name, value in ada.ids.items() if name.endswith("_id"))


@pytest.mark.parametrize("by", ["the queries and row-level security", "row-level security alone"])
async def test_nothing_of_another_user_is_shown_or_changed(
    api: RunningApi, ada: Owner, operations: Any, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "row-level security alone":
        monkeypatch.setattr(access, "owned", lambda rows, user_id: true())
    before = await _rows_of(api, ada)
    assert {"projects", "builds", "artifacts", "api_keys", "sign_ins", "questions", "snapshots"} <= {
        table for table, rows in before.items() if rows
    }
    await _call_all(api, ada, operations)
    assert await _rows_of(api, ada) == before


async def test_without_either_everything_is_shown(api: RunningApi, ada: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above could not fail."""
    reads = [f"/v1/projects/{ada.ids['project_id']}", f"/v1/builds/{ada.ids['build_id']}", "/v1/projects", "/v1/builds"]
    monkeypatch.setattr(access, "owned", lambda rows, user_id: true())
    secured = [name for name in Base.metadata.tables if name not in _NOT_COMPARED and (await _is_secured(api, name))]
    try:
        await _switch(api, secured, "disable")
        for path in reads:
            answer = await api.http.get(path, headers=as_user("bob"))
            assert answer.status_code == 200, path
            assert _shows(answer.text, ada), path
    finally:
        await _switch(api, secured, "enable")
    assert not _shows((await api.http.get("/v1/projects", headers=as_user("bob"))).text, ada)


async def _is_secured(api: RunningApi, table: str) -> bool:
    async with transaction(api.sessions) as tx:
        query = text("select relrowsecurity from pg_class where oid = cast(:name as regclass)")
        return bool(await tx.session.scalar(query, {"name": table}))


async def _switch(api: RunningApi, tables: Sequence[str], to: str) -> None:
    async with transaction(api.sessions) as tx:
        for table in tables:
            await tx.session.execute(text(f'alter table "{table}" {to} row level security'))
