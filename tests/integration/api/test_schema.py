"""The API matches its own description: schemathesis sends what OpenAPI allows and forbids, and finds nothing."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import func, update

from clients.object_store import ObjectStore
from db.models import Build, GateRun
from db.transaction import transaction
from domain.events import EVENTS
from local.stack import LocalStack
from tests.harness.api_server import TOKEN, RunningApi, new_database, running_api, settings_for
from tests.harness.stored_files import store_files

_CONFIG = """
seed = 7
workers = 1
continue-on-failure = true
warnings = false
request-timeout = 300
headers = {{ Authorization = "Bearer {token}" }}

[generation]
max-examples = {examples}
allow-x00 = false  # JSON Schema can't say that of keys; test_projects.py does
database = "none"
no-shrink = true

# Without the builds that it starts itself: their feeds have no end.
[phases.coverage]
extra-data-sources = {{ responses = false }}
[phases.fuzzing]
extra-data-sources = {{ responses = false }}
[phases.stateful]
enabled = false

# Ids of what is there, so that most requests get beyond "not found".
[dictionaries.builds]
values = ["{build}"]
[dictionaries.projects]
values = ["{project}"]
[parameters]
"path.build_id" = {{ dictionary = "builds", probability = 0.8 }}
"path.project_id" = {{ dictionary = "projects", probability = 0.8 }}

# It never ends.
[[operations]]
include-path = "/v1/events"
enabled = false

# What is too large is refused before it is looked at.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 503]

# What JSON Schema can't say: only the API makes cursors, days have an order, answers belong to questions and are an
# option or a text, restores are to a snapshot or a commit, pushes to a git server, webhooks to a public one.
[[operations]]
include-path-regex = "^/v1/(builds|usage|projects(/[^/]+/(builds|interview))?|builds/[^/]+/(answer|push|restore))$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422, 503]

[[operations]]
include-path-regex = "^/v1/webhooks(/[^/]+(/deliveries)?)?$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422, 503]

# Nor that names of keys are printable, and that no one gives away scopes that they do not have.
[[operations]]
include-path-regex = "^/v1/(keys|sign-in-links)$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422, 503]
"""


@pytest.mark.parametrize(
    ("phases", "examples"),
    [
        ("examples,fuzzing", 2),
        pytest.param("fuzzing", 8, marks=pytest.mark.thorough),
        pytest.param("coverage", 4, marks=pytest.mark.thorough),
    ],
)
async def test_schemathesis_finds_nothing(stack: LocalStack, tmp_path: Path, phases: str, examples: int) -> None:
    settings = settings_for(await new_database(stack), stack.environment)
    async with running_api(settings, stack.environment) as api:
        project, build = await _project_with_a_ready_build(api)
        config = tmp_path / "schemathesis.toml"
        config.write_text(_CONFIG.format(token=TOKEN, project=project, build=build, examples=examples))
        # Made once; it waits ten seconds for this, which a busy machine may need.
        (await api.http.get("/openapi.json")).raise_for_status()
        program = Path(sys.executable).with_name("schemathesis")
        options = ("--no-color", "--phases", phases)
        process = await asyncio.create_subprocess_exec(
            *(str(program), "--config-file", str(config), "run", f"{api.url}/openapi.json", *options),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    said = "\n".join(line[:400] for line in output.decode().splitlines())
    assert process.returncode == 0, said
    assert "No issues found" in said, said


async def _project_with_a_ready_build(api: RunningApi) -> tuple[str, str]:
    """Insert a build with a snapshot and screenshots, whose feed has ended."""
    project = await api.project()
    build = await api.build(project)
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    await store_files(api, build, [("empty.txt", b"", {})], reason="end")
    await store.put(f"test/{build}/desktop", b"picture")
    async with transaction(api.sessions) as tx:
        row = await api.row(build)
        tx.session.add(
            GateRun(
                build_id=row.id,
                number=1,
                snapshot_number=1,
                findings=[],
                ended_at=func.now(),
                screenshots={"desktop": f"test/{build}/desktop"},
            )
        )
        changes = {"status": "ready", "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == row.id).values(**changes))
    return project, build


async def test_every_operation_is_described(stack: LocalStack) -> None:
    async with running_api(settings_for("postgresql://user@127.0.0.1:1/nothing"), {}) as api:
        description = (await api.http.get("/openapi.json")).json()
    ids = [
        operation["operationId"] for operations in description["paths"].values() for operation in operations.values()
    ]
    assert len(set(ids)) == len(ids)
    assert {"listBuilds", "readBuild", "createProjectBuild", "cancelBuild", "listBuildSnapshotFiles"} <= set(ids)
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            errors = {
                status: _resolved(description, answer)
                for status, answer in operation["responses"].items()
                if int(status) >= 400
            }
            if path.startswith("/v1/"):
                for_all = {"401"} if path.startswith("/v1/certificates/") else set()
                assert {"401", "422", "500", "503"} - for_all <= set(errors), where
                assert ("404" in errors) >= ("{" in path), where
            if "requestBody" in operation:
                assert {"400", "413", "415"} <= set(errors), where
                [body] = operation["requestBody"]["content"].values()
                schema = json.dumps(body["schema"])
                named = schema.rpartition("/")[2].split('"')[0]
                assert description["components"]["schemas"][named]["examples"], where
            for status, answer in operation["responses"].items():
                if int(status) < 300 and (
                    schema := answer.get("content", {}).get("application/json", {}).get("schema")
                ):
                    _check_examples(description, schema, f"{where} {status}")
            for status, answer in errors.items():
                if (status, path) != ("503", "/readyz"):
                    assert set(answer["content"]) == {"application/problem+json"}, where
    for kind in ("not-found", "version-conflict", "unsupported-media-type", "body-too-large"):
        assert f"`urn:cofounder:problem:{kind}`" in description["info"]["description"]
    whole = json.dumps(description)
    assert "HTTPValidationError" not in whole
    assert len(whole) < 450_000


async def test_every_event_of_the_feed_is_described(stack: LocalStack) -> None:
    async with running_api(settings_for("postgresql://user@127.0.0.1:1/nothing"), {}) as api:
        description = (await api.http.get("/openapi.json")).json()
    feed = description["paths"]["/v1/builds/{build_id}/events"]["get"]["responses"]["200"]
    [content] = feed["content"].values()
    items = content["x-item-schema"]["oneOf"]
    for kind in (*EVENTS, "of_tomorrow"):
        sent = {"id": "1", "event": kind, "data": "{}"}
        [item] = [item for item in items if Draft202012Validator(item).is_valid(sent)]
        data = item["properties"]["data"]["contentSchema"]["properties"]["data"]
        model = EVENTS.get(kind)
        if model is None:
            assert data == {"type": "object"}
        else:
            assert f"| `{kind}` | {', '.join(model.model_fields)} |" in feed["description"]
            schema = description["components"]["schemas"][data["$ref"].rpartition("/")[2]]
            assert schema == model.model_json_schema()


def _resolved(description: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The description of an answer, which may be among the components."""
    found: dict[str, Any] = (
        description["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        if answer.keys() == {"$ref"}
        else answer
    )
    return found


def _check_examples(description: dict[str, Any], schema: dict[str, Any], where: str) -> None:
    """Check that an answer has an example, and that each example fits its schema."""
    named = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    assert named["examples"], where
    validator = Draft202012Validator({**schema, "components": description["components"]})
    for example in named["examples"]:
        assert not list(validator.iter_errors(example)), where
        assert example.keys() >= set(named.get("properties", ())), where
