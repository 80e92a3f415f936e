"""The audit: every destructive act and every act of an operator leaves one entry, in the transaction of the act."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from cli.main import app as command_line
from db.models import AuditEntry, Base, Build, Question, Snapshot, StoredExport, WebhookDelivery
from db.transaction import transaction
from domain.audit import HARMLESS, Action
from local.stack import LocalStack
from tests.harness.api_server import (
    AS_OPERATOR,
    BRIEF,
    OPERATORS,
    RunningApi,
    as_user,
    for_user,
    make_key,
    new_database,
    running_api,
    settings_for,
)

ADA, BOB, FOUNDER = "ada", "bob", "founder"
PLANTED = "zinnober-elephant"
"""What a founder writes, wherever one can write something."""

AUDITED: Mapping[str, Action] = {
    "GET /v1/ops/audit": Action.AUDIT_READ,
    "POST /v1/ops/bulk": Action.BULK_CREATE,
    "POST /v1/ops/bulk/{run_id}/stop": Action.BULK_STOP,
    "POST /v1/ops/bulk/{run_id}/resume": Action.BULK_RESUME,
    "POST /v1/ops/reaper/pause": Action.REAPER_PAUSE,
    "POST /v1/ops/reaper/resume": Action.REAPER_RESUME,
    "PUT /v1/ops/switches": Action.SWITCH_OFF,
    "DELETE /v1/ops/switches": Action.SWITCH_ON,
    "PUT /v1/ops/limits/{name}": Action.LIMIT_SET,
    "POST /v1/ops/codec/decode": Action.PAYLOADS_DECODE,
    "PATCH /v1/account": Action.ACCOUNT_CHANGE,
    "POST /v1/account/top-ups": Action.ACCOUNT_TOP_UP,
    "POST /v1/builds/{build_id}/answer": Action.QUESTION_ANSWER,
    "POST /v1/builds/{build_id}/cancel": Action.BUILD_CANCEL,
    "POST /v1/builds/{build_id}/finish": Action.BUILD_FINISH,
    "POST /v1/builds/{build_id}/messages": Action.MESSAGE_SEND,
    "DELETE /v1/builds/{build_id}/messages/{number}": Action.MESSAGE_TAKE_BACK,
    "POST /v1/builds/{build_id}/preview": Action.PREVIEW_OPEN,
    "POST /v1/builds/{build_id}/preview/links": Action.PREVIEW_LINK_CREATE,
    "DELETE /v1/builds/{build_id}/preview/links/{link_id}": Action.PREVIEW_LINK_REVOKE,
    "POST /v1/builds/{build_id}/push": Action.BUILD_PUSH,
    "POST /v1/builds/{build_id}/restore": Action.BUILD_RESTORE,
    "POST /v1/builds/{build_id}/wake": Action.BUILD_WAKE,
    "POST /v1/keys": Action.KEY_CREATE,
    "POST /v1/keys/{key_id}/rotate": Action.KEY_ROTATE,
    "DELETE /v1/keys/{key_id}": Action.KEY_REVOKE,
    "POST /v1/sign-in-links": Action.SIGN_IN_LINK,
    "DELETE /v1/sign-ins/{sign_in_id}": Action.SIGN_IN_REVOKE,
    "POST /v1/projects": Action.PROJECT_CREATE,
    "POST /v1/projects/{project_id}/builds": Action.BUILD_START,
    "DELETE /v1/organisations/{organisation_id}/members/{user}": Action.MEMBER_REMOVE,
    "PATCH /v1/organisations/{organisation_id}": Action.ORGANISATION_CHANGE,
    "POST /v1/organisations": Action.ORGANISATION_CREATE,
    "PUT /v1/organisations/{organisation_id}/members/{user}": Action.MEMBER_ADD,
    "PATCH /v1/projects/{project_id}": Action.PROJECT_CHANGE,
    "DELETE /v1/projects/{project_id}": Action.PROJECT_ERASE,
    "DELETE /v1/account": Action.USER_ERASE,
    "POST /v1/ops/users/{user}/erase": Action.USER_ERASE,
    "POST /v1/projects/{project_id}/exports": Action.EXPORT_CREATE,
    "POST /v1/account/exports": Action.EXPORT_CREATE,
    "PUT /v1/projects/{project_id}/organisation": Action.PROJECT_MOVE,
    "POST /v1/webhooks": Action.WEBHOOK_CREATE,
    "PATCH /v1/webhooks/{webhook_id}": Action.WEBHOOK_CHANGE,
    "DELETE /v1/webhooks/{webhook_id}": Action.WEBHOOK_DELETE,
    "POST /v1/webhooks/{webhook_id}/rotate": Action.WEBHOOK_ROTATE,
    "POST /v1/webhooks/{webhook_id}/test": Action.WEBHOOK_TEST,
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": Action.WEBHOOK_REPLAY,
    "PUT /v1/projects/{project_id}/brief": Action.BRIEF_REPLACE,
    "PUT /v1/projects/{project_id}/interview": Action.INTERVIEW_REPLACE,
    "PUT /v1/projects/{project_id}/secrets/{name}": Action.SECRET_SET,
    "DELETE /v1/projects/{project_id}/secrets/{name}": Action.SECRET_REMOVE,
}
"""The act that each operation records. Those in `HARMLESS` do so only if an operator acts for a user."""

NOT_AUDITED: Mapping[str, str] = {
    **dict.fromkeys(
        [f"GET /v1/ops/{what}" for what in ("bulk", "bulk/{run_id}", "switches", "limits", "reaper", "reaper/plan")],
        "shows what operators did themselves",
    ),
    **dict.fromkeys(
        [f"GET /v1/ops/{what}" for what in ("fleet", "builds", "builds/{build_id}", "stuck", "spend", "checks")],
        "pages ask for it every few seconds; tests/integration/api/test_ops.py shows what is recorded",
    ),
    "GET /v1/ops/erasures": "ids and counts of what is gone, and who asked for it",
    "POST /v1/sign-ins": "the link was recorded, and the sign-in is a row itself",
    "DELETE /v1/sign-ins/current": "one's own browser, which may be signed out already",
}
"""Operations that change something and are not recorded, each with the reason."""

SHOWN_ELSEWHERE = {
    "POST /v1/ops/reaper/pause": "tests/integration/api/test_ops_reaper.py, which has a schedule",
    "POST /v1/ops/reaper/resume": "the same",
    "POST /v1/builds/{build_id}/push": "tests/integration/api/test_pushes.py, which has a git server",
    "DELETE /v1/account": "tests/integration/test_erasure.py, which has users to spare",
    "POST /v1/ops/users/{user}/erase": "the same",
}


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    key = SecretStr(f"main:{base64.b64encode(b'k' * 32).decode()}")
    settings = settings_for(
        await new_database(stack),
        stack.environment,
        secrets_key=key,
        webhook_private_hosts="127.0.0.1",
        api_operator_token=SecretStr(OPERATORS),
    )
    async with running_api(settings, stack.environment) as running:
        await make_key(running.sessions, ADA)
        await running.http.get("/v1/builds", headers=AS_OPERATOR)  # makes the user of the tokens
        yield running


# ---- one request for each audited operation


Request = tuple[str, Any]
"""A path and a body."""


async def _project(api: RunningApi) -> str:
    return await api.project(ADA, name=PLANTED, brief={**BRIEF, "name": PLANTED, "problem": PLANTED})


async def _build(api: RunningApi) -> str:
    headers = as_user(ADA)
    body = {"goal": f"Build a {PLANTED}."}
    started = await api.http.post(f"/v1/projects/{await _project(api)}/builds", json=body, headers=headers)
    assert started.status_code == 201, started.text
    return str(started.json()["id"])


async def _of_account(_: RunningApi) -> Request:
    return "/v1/account", {"plan": "partner"}


async def _top_up(_: RunningApi) -> Request:
    return "/v1/account/top-ups", {"amount": 1_000_000, "note": PLANTED}


async def _answer(api: RunningApi) -> Request:
    build, question = await _build(api), uuid.uuid4()
    async with transaction(api.sessions) as tx:
        tx.session.add(
            Question(id=question, build_id=uuid.UUID(build), problem=PLANTED, tried=[], options=[PLANTED, "no"])
        )
    return f"/v1/builds/{build}/answer", {"question_id": str(question), "text": PLANTED}


async def _ready(api: RunningApi) -> Request:
    build = await _build(api)
    async with transaction(api.sessions) as tx:
        changes = {"status": "ready", "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**changes))
    return f"/v1/builds/{build}/preview", {"seconds": 60}


async def _restore(api: RunningApi) -> Request:
    build = await _build(api)
    row = await api.row(build)
    async with transaction(api.sessions) as tx:
        tx.session.add(
            Snapshot(
                id=uuid.uuid4(),
                build_id=row.id,
                project_id=row.project_id,
                number=1,
                state="stored",
                claim=uuid.uuid4(),
                reason="end",
                archive_key="a",
                manifest_key="m",
                archive_sha256="abc",
                manifest_sha256="def",
                stored_at=func.now(),
            )
        )
    return f"/v1/builds/{build}/restore", {"snapshot": 1}


async def _set_secret(api: RunningApi) -> Request:
    return f"/v1/projects/{await _project(api)}/secrets/ZINNOBER_ELEPHANT", {"value": PLANTED}


async def _remove_secret(api: RunningApi) -> Request:
    path, body = await _set_secret(api)
    assert (await api.http.put(path, json=body, headers=as_user(ADA))).status_code == 200
    return path, None


async def _revoke_link(api: RunningApi) -> Request:
    links = f"/v1/builds/{await _build(api)}/preview/links"
    made = await api.http.post(links, json={}, headers=as_user(ADA))
    return f"{links}/{made.json()['id']}", None


async def _take_back(api: RunningApi) -> Request:
    messages = f"/v1/builds/{await _build(api)}/messages"
    sent = await api.http.post(messages, json={"text": PLANTED}, headers=as_user(ADA))
    return f"{messages}/{sent.json()['number']}", None


def _on_build(rest: str, body: Any = None) -> Callable[[RunningApi], Awaitable[Request]]:
    async def case(api: RunningApi) -> Request:
        return f"/v1/builds/{await _build(api)}/{rest}", body

    return case


def _on_project(rest: str, body: Any) -> Callable[[RunningApi], Awaitable[Request]]:
    async def case(api: RunningApi) -> Request:
        return f"/v1/projects/{await _project(api)}/{rest}", body

    return case


async def _new_key(_: RunningApi) -> Request:
    return "/v1/keys", {"name": PLANTED}


async def _key(api: RunningApi) -> str:
    made = await api.http.post("/v1/keys", json={"name": PLANTED}, headers=for_user(ADA))
    return f"/v1/keys/{made.json()['key']['id']}"


async def _rotate_key(api: RunningApi) -> Request:
    return f"{await _key(api)}/rotate", {}


async def _revoke_key(api: RunningApi) -> Request:
    return await _key(api), None


async def _sign_in_link(_: RunningApi) -> Request:
    return "/v1/sign-in-links", {}


async def _end_sign_in(api: RunningApi) -> Request:
    link = await api.http.post("/v1/sign-in-links", json={}, headers=for_user(ADA))
    code, page = link.json()["url"].partition("#code=")[2], {"Sec-Fetch-Site": "same-origin"}
    signed_in = await api.http.post("/v1/sign-ins", json={"code": code}, headers=page)
    api.http.cookies.clear()
    return f"/v1/sign-ins/{signed_in.json()['sign_in']['id']}", None


async def _read_audit(_: RunningApi) -> Request:
    return "/v1/ops/audit", None


async def _new_project(_: RunningApi) -> Request:
    return "/v1/projects", {"name": PLANTED, "brief": {**BRIEF, "problem": PLANTED}}


async def _organisation(api: RunningApi) -> str:
    made = await api.http.post("/v1/organisations", json={"name": PLANTED}, headers=as_user(ADA))
    assert made.status_code == 201, made.text
    return f"/v1/organisations/{made.json()['id']}"


async def _new_organisation(_: RunningApi) -> Request:
    return "/v1/organisations", {"name": PLANTED}


async def _rename_organisation(api: RunningApi) -> Request:
    return await _organisation(api), {"name": f"{PLANTED} again"}


async def _set_member(api: RunningApi) -> Request:
    await make_key(api.sessions, BOB)
    return f"{await _organisation(api)}/members/{BOB}", {"role": "member"}


async def _remove_member(api: RunningApi) -> Request:
    path, body = await _set_member(api)
    assert (await api.http.put(path, json=body, headers=as_user(ADA))).status_code == 201
    return path, None


async def _move_project(api: RunningApi) -> Request:
    organisation = (await _organisation(api)).rpartition("/")[2]
    return f"/v1/projects/{await _project(api)}/organisation", {"organisation_id": organisation}


_RECEIVER = {"url": f"http://127.0.0.1:9/{PLANTED}", "description": PLANTED}


async def _new_webhook(_: RunningApi) -> Request:
    return "/v1/webhooks", _RECEIVER


async def _webhook(api: RunningApi) -> str:
    made = await api.http.post("/v1/webhooks", json=_RECEIVER, headers=as_user(ADA))
    assert made.status_code == 201, made.text
    return f"/v1/webhooks/{made.json()['webhook']['id']}"


async def _change_webhook(api: RunningApi) -> Request:
    return await _webhook(api), {"description": f"{PLANTED} again"}


async def _rotate_webhook(api: RunningApi) -> Request:
    return f"{await _webhook(api)}/rotate", {}


async def _delete_webhook(api: RunningApi) -> Request:
    return await _webhook(api), None


async def _test_webhook(api: RunningApi) -> Request:
    return f"{await _webhook(api)}/test", None


async def _replay(api: RunningApi) -> Request:
    webhook, delivery = await _webhook(api), uuid.uuid4()
    async with transaction(api.sessions) as tx:
        ids = {"id": delivery, "webhook_id": uuid.UUID(webhook.rpartition("/")[2])}
        tx.session.add(WebhookDelivery(**ids, topic="webhook.test", state="dead", ended_at=func.now()))
    return f"{webhook}/deliveries/{delivery}/replay", None


async def _rename_project(api: RunningApi) -> Request:
    return f"/v1/projects/{await _project(api)}", {"name": f"{PLANTED} again", "archived": True}


async def _export_account(api: RunningApi) -> Request:
    async with transaction(api.sessions) as tx:  # while an export is being written, the same is not written again
        ended = update(StoredExport).values(failed_at=func.now(), problem="ended")
        await tx.session.execute(ended.where(StoredExport.failed_at.is_(None)))
    return "/v1/account/exports", None


async def _bulk(_: RunningApi) -> Request:
    return "/v1/ops/bulk", {"act": "wake", "where": f"user={ADA} and open=true", "reason": PLANTED}


def _on_bulk_run(what: str) -> Callable[[RunningApi], Awaitable[Request]]:
    async def run(api: RunningApi) -> Request:
        await _build(api)
        path, body = await _bulk(api)
        made = await api.http.post(path, json=body, headers=AS_OPERATOR)
        assert made.status_code == 201, made.text
        run = f"{path}/{made.json()['id']}"
        if what == "resume":
            assert (await api.http.post(f"{run}/stop", headers=AS_OPERATOR)).status_code == 200
        return f"{run}/{what}", None

    return run


async def _switch_off(_: RunningApi) -> Request:
    return "/v1/ops/switches", {"scope": "model", "key": "claude-haiku-5-5", "reason": PLANTED}


async def _switch_on(_: RunningApi) -> Request:
    return "/v1/ops/switches?scope=model&key=of-no-one", None


async def _limit(_: RunningApi) -> Request:
    return "/v1/ops/limits/fleet_day", {"value_microdollars": None}


INTERVIEW = {"questions": [{"id": PLANTED, "text": PLANTED}], "answers": {PLANTED: PLANTED}}


async def _erase(api: RunningApi) -> Request:
    return f"/v1/projects/{await _project(api)}", {"name": PLANTED}


async def _decode(_: RunningApi) -> Request:
    data = base64.b64encode(PLANTED.encode()).decode()
    return "/v1/ops/codec/decode", {"payloads": [{"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": data}]}


CASES: Mapping[str, Callable[[RunningApi], Awaitable[Request]]] = {
    "GET /v1/ops/audit": _read_audit,
    "POST /v1/ops/bulk": _bulk,
    "POST /v1/ops/bulk/{run_id}/stop": _on_bulk_run("stop"),
    "POST /v1/ops/bulk/{run_id}/resume": _on_bulk_run("resume"),
    "PUT /v1/ops/switches": _switch_off,
    "DELETE /v1/ops/switches": _switch_on,
    "PUT /v1/ops/limits/{name}": _limit,
    "DELETE /v1/projects/{project_id}": _erase,
    "POST /v1/ops/codec/decode": _decode,
    "PATCH /v1/account": _of_account,
    "POST /v1/account/top-ups": _top_up,
    "POST /v1/builds/{build_id}/answer": _answer,
    "POST /v1/builds/{build_id}/cancel": _on_build("cancel"),
    "POST /v1/builds/{build_id}/finish": _on_build("finish"),
    "DELETE /v1/builds/{build_id}/messages/{number}": _take_back,
    "POST /v1/builds/{build_id}/messages": _on_build("messages", {"text": PLANTED}),
    "POST /v1/builds/{build_id}/preview": _ready,
    "POST /v1/builds/{build_id}/preview/links": _on_build("preview/links", {"hours": 1}),
    "DELETE /v1/builds/{build_id}/preview/links/{link_id}": _revoke_link,
    "POST /v1/builds/{build_id}/restore": _restore,
    "POST /v1/builds/{build_id}/wake": _on_build("wake"),
    "DELETE /v1/organisations/{organisation_id}/members/{user}": _remove_member,
    "PATCH /v1/organisations/{organisation_id}": _rename_organisation,
    "POST /v1/organisations": _new_organisation,
    "PUT /v1/organisations/{organisation_id}/members/{user}": _set_member,
    "POST /v1/projects/{project_id}/exports": _on_project("exports", None),
    "POST /v1/account/exports": _export_account,
    "PATCH /v1/projects/{project_id}": _rename_project,
    "PUT /v1/projects/{project_id}/organisation": _move_project,
    "POST /v1/webhooks": _new_webhook,
    "PATCH /v1/webhooks/{webhook_id}": _change_webhook,
    "DELETE /v1/webhooks/{webhook_id}": _delete_webhook,
    "POST /v1/webhooks/{webhook_id}/rotate": _rotate_webhook,
    "POST /v1/webhooks/{webhook_id}/test": _test_webhook,
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": _replay,
    "POST /v1/keys": _new_key,
    "POST /v1/keys/{key_id}/rotate": _rotate_key,
    "DELETE /v1/keys/{key_id}": _revoke_key,
    "POST /v1/sign-in-links": _sign_in_link,
    "DELETE /v1/sign-ins/{sign_in_id}": _end_sign_in,
    "POST /v1/projects": _new_project,
    "POST /v1/projects/{project_id}/builds": _on_project("builds", {"goal": PLANTED}),
    "PUT /v1/projects/{project_id}/brief": _on_project("brief", {"brief": {**BRIEF, "problem": PLANTED}}),
    "PUT /v1/projects/{project_id}/interview": _on_project("interview", {"interview": INTERVIEW}),
    "PUT /v1/projects/{project_id}/secrets/{name}": _set_secret,
    "DELETE /v1/projects/{project_id}/secrets/{name}": _remove_secret,
}


async def test_every_operation_is_audited_or_harmless(api: RunningApi) -> None:
    description = (await api.http.get("/openapi.json")).json()
    operations = {f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods}
    changing = {each for each in operations if not each.startswith("GET ")}
    assert changing <= {*AUDITED, *NOT_AUDITED}, "say of each operation which act it is, or why it is none"
    assert set(AUDITED) <= operations
    assert not set(AUDITED) & set(NOT_AUDITED)
    assert set(CASES) | set(SHOWN_ELSEWHERE) == set(AUDITED)
    for operation in operations:
        if operation.partition(" ")[2].startswith("/v1/ops/"):
            assert operation in {*AUDITED, *NOT_AUDITED}, "acts of operators are recorded"


def _concerned(action: Action) -> str:
    """Whom the entry is about."""
    return BOB if action in (Action.MEMBER_ADD, Action.MEMBER_REMOVE) else ADA


@pytest.mark.parametrize("operation", sorted(CASES))
async def test_an_act_and_its_entry_are_one_transaction(api: RunningApi, operation: str) -> None:
    action = AUDITED[operation]
    method = operation.partition(" ")[0]
    path, body = await CASES[operation](api)
    user, headers = (FOUNDER, AS_OPERATOR) if action is Action.AUDIT_READ else (_concerned(action), for_user(ADA))

    before = await _contents(api)
    async with _entries_refused(api):
        failed = await api.http.request(method, path, json=body, headers=headers)
    assert failed.status_code >= 500, failed.text
    assert await _contents(api) == before, "what can't be recorded is not done"

    last = await _last_id(api)
    done = await api.http.request(method, path, json=body, headers=headers)
    assert done.is_success, done.text
    [entry] = await _entries_after(api, last)
    assert (entry.action, entry.actor, entry.how, entry.user_id) == (action, "operator", "operator_token", user)
    assert (entry.request_id, entry.ip) == (done.headers["x-request-id"], "127.0.0.1")
    for name in ("build_id", "project_id"):
        if f"{{{name}}}" in operation:
            assert str(getattr(entry, name)) == path.split("/")[3]


@pytest.mark.parametrize("operation", sorted(CASES))
async def test_a_founders_act_is_recorded_if_it_destroys_something(api: RunningApi, operation: str) -> None:
    action = AUDITED[operation]
    method, _, route = operation.partition(" ")
    if route.startswith("/v1/ops/") or operation in ("PATCH /v1/account", "POST /v1/account/top-ups"):
        return  # for operators alone
    path, body = await CASES[operation](api)
    last = await _last_id(api)
    done = await api.http.request(method, path, json=body, headers=as_user(ADA))
    assert done.is_success, done.text
    entries = await _entries_after(api, last)
    assert [each.action for each in entries] == ([] if action in HARMLESS else [action])
    for entry in entries:
        assert (entry.actor, entry.how, entry.user_id) == (ADA, "api_key", _concerned(action))
        assert entry.credential_id is not None


async def test_a_failed_act_leaves_no_entry(api: RunningApi) -> None:
    nothing, build = uuid.uuid4(), await _build(api)
    project = await _project(api)
    last = await _last_id(api)
    for method, path, body, status in (
        ("POST", f"/v1/builds/{nothing}/cancel", None, 404),
        ("POST", f"/v1/builds/{nothing}/restore", {"snapshot": 1}, 404),
        ("POST", f"/v1/builds/{build}/restore", {"snapshot": 7}, 404),
        ("DELETE", f"/v1/projects/{project}/secrets/NOTHING", None, 404),
        ("PUT", f"/v1/projects/{project}/secrets/lower", {"value": "x"}, 422),
        ("PATCH", "/v1/account", {"plan": "no such plan"}, 422),
        ("POST", "/v1/account/top-ups", {"amount": -1}, 422),
    ):
        answer = await api.http.request(method, path, json=body, headers=for_user(ADA))
        assert answer.status_code == status, f"{path}: {answer.text}"
    assert await _entries_after(api, last) == []


async def test_an_operator_who_reads_something_of_a_user_is_recorded(api: RunningApi) -> None:
    project = await _project(api)
    last = await _last_id(api)
    await api.http.get(f"/v1/projects/{project}", headers=as_user(ADA))
    await api.http.get("/v1/builds", headers=AS_OPERATOR)
    await api.http.get(f"/v1/projects/{project}", headers=for_user(ADA))
    [entry] = await _entries_after(api, last)
    assert (entry.action, entry.actor, entry.user_id) == (Action.USER_READ, "operator", ADA)


async def test_nothing_that_a_founder_writes_is_in_the_audit(api: RunningApi) -> None:
    """After every case above, and with every one in this test's own words."""
    async with transaction(api.sessions) as tx:
        stored = "".join(await tx.session.scalars(text("select t::text from audit t"))).lower()
        others = "".join(await tx.session.scalars(text("select t::text from projects t"))).lower()
    assert stored
    assert PLANTED in others, "what is searched can be found"
    assert PLANTED not in stored
    assert "zinnober" not in stored


@pytest.mark.parametrize(
    "statement", ["update audit set actor = 'me'", "delete from audit", "truncate audit", "truncate audit cascade"]
)
async def test_an_entry_is_never_changed_not_even_by_the_owner(api: RunningApi, statement: str) -> None:
    before = await _last_id(api)
    assert before
    with pytest.raises(DBAPIError, match="only ever added to"):
        async with transaction(api.sessions) as tx:
            await tx.session.execute(text(statement))
    assert await _last_id(api) == before


async def test_operators_page_through_the_audit(api: RunningApi) -> None:
    for _ in range(3):
        await api.http.get("/v1/ops/audit", headers=AS_OPERATOR)
    first = (await api.http.get("/v1/ops/audit", params={"limit": 2}, headers=AS_OPERATOR)).json()
    then = {"limit": 2, "cursor": first["next_cursor"]}
    second = (await api.http.get("/v1/ops/audit", params=then, headers=AS_OPERATOR)).json()
    numbers = [entry["id"] for entry in first["entries"] + second["entries"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == 4

    only = {"user": ADA, "action": "build.cancel", "since": "2026-01-01T00:00:00Z"}
    listed = (await api.http.get("/v1/ops/audit", params=only, headers=AS_OPERATOR)).json()["entries"]
    assert {(entry["user_id"], entry["action"]) for entry in listed} == {(ADA, "build.cancel")}
    later = {"since": "2999-01-01T00:00:00Z"}
    assert (await api.http.get("/v1/ops/audit", params=later, headers=AS_OPERATOR)).json()["entries"] == []
    refused = await api.http.get("/v1/ops/audit")
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:cofounder:problem:not-found")


async def test_commands_on_the_database_are_recorded(
    api: RunningApi, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", api.settings.database_url.replace("+asyncpg", ""))
    key = f"main:{base64.b64encode(b'k' * 32).decode()}"
    monkeypatch.setenv("SECRETS_KEY", key)

    async def run(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, command_line, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    last = await _last_id(api)
    build = await _build(api)
    await run("users", "set", "bea", "--plan", "partner")
    await run("users", "top-up", "bea", "1")
    await run("switch", "off", "--user", "bea", "--reason", PLANTED)
    await run("switch", "on", "--user", "bea")
    await run("limits", "set", "fleet_day", "none")
    await run("settings", build, "GATE_ATTEMPTS=3")
    path, body = await _set_secret(api)
    assert (await api.http.put(path, json=body, headers=as_user(ADA))).is_success
    monkeypatch.setenv("SECRETS_KEY", f"new:{base64.b64encode(b'n' * 32).decode()},{key}")
    await run("secrets", "rotate")
    entries = await _entries_after(api, last)
    assert [(each.action, each.user_id) for each in entries] == [
        (Action.ACCOUNT_CHANGE, "bea"),
        (Action.ACCOUNT_TOP_UP, "bea"),
        (Action.SWITCH_OFF, "bea"),
        (Action.SWITCH_ON, "bea"),
        (Action.LIMIT_SET, None),
        (Action.BUILD_SETTINGS, None),
        (Action.SECRET_SET, ADA),
        (Action.SECRETS_ROTATE, None),
    ]
    by_command = [each for each in entries if each.action != Action.SECRET_SET]
    assert {(each.actor, each.how) for each in by_command} == {("operator", "cli")}
    assert all(each.credential_id for each in by_command), "the name of the machine's user"
    listed = json.loads(await run("audit", "--user", "bea", "--since", "2026-01-01", "--json"))
    assert [each["action"] for each in listed["entries"]] == [
        *("switch.on", "switch.off", "account.top_up", "account.change")
    ]
    assert "switch.off" in await run("audit", "--action", "switch.off")


# ---- rows


async def _last_id(api: RunningApi) -> int:
    async with transaction(api.sessions) as tx:
        return int(await tx.session.scalar(select(func.coalesce(func.max(AuditEntry.id), 0))) or 0)


async def _entries_after(api: RunningApi, last: int) -> list[AuditEntry]:
    async with transaction(api.sessions) as tx:
        found = await tx.session.scalars(select(AuditEntry).where(AuditEntry.id > last).order_by(AuditEntry.id))
        return list(found)


_OF_THEIR_OWN = {"processes", "dependencies", "request_buckets", "builds", "events"}
"""Tables in which others write at times of their own; a build is started after its row is committed."""


async def _contents(api: RunningApi) -> dict[str, str | None]:
    """A hash of the rows of each table."""
    async with transaction(api.sessions) as tx:
        return {
            name: await tx.session.scalar(
                text(f'select md5(string_agg(t::text, chr(10) order by t::text)) from "{name}" t')
            )
            for name in Base.metadata.tables
            if name not in _OF_THEIR_OWN
        }


@asynccontextmanager
async def _entries_refused(api: RunningApi) -> AsyncIterator[None]:
    async with transaction(api.sessions) as tx:
        await tx.session.execute(text("alter table audit add constraint none_now check (false) not valid"))
    try:
        yield
    finally:
        async with transaction(api.sessions) as tx:
            await tx.session.execute(text("alter table audit drop constraint none_now"))
