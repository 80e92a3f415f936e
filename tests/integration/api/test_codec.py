"""Temporal's UI has payloads decrypted: for operators, from one origin, and on record."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from clients.temporal import data_converter
from db.models import AuditEntry
from db.transaction import transaction
from domain.audit import Action
from domain.identity import FOUNDER_SCOPES, OPERATOR_SCOPES, Scope
from domain.payload_keys import parse_payload_keys
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.workflows.encrypted_scenarios import PAYLOAD_KEY

DECODE = "/v1/ops/codec/decode"
UI = "http://127.0.0.1:8233"
OPERATORS = "the-operators-own-token"
WORDS = "a bakery that delivers by bicycle"


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(
        await new_database(stack), api_operator_token=SecretStr(OPERATORS), temporal_ui_url=f"{UI}/namespaces"
    )
    async with running_api(settings, stack.environment | {"PAYLOAD_KEY": PAYLOAD_KEY}) as running:
        yield running


def _json(payload: Any) -> dict[str, Any]:
    metadata = {name: base64.b64encode(value).decode() for name, value in payload.metadata.items()}
    return {"metadata": metadata, "data": base64.b64encode(payload.data).decode()}


async def _payloads(key: str = PAYLOAD_KEY) -> list[dict[str, Any]]:
    converter = data_converter(parse_payload_keys(key))
    [plain] = converter.payload_converter.to_payloads([WORDS])
    [encrypted] = await converter.encode([WORDS])
    return [_json(plain), _json(encrypted)]


async def _decode(api: RunningApi, headers: dict[str, str], **body: Any) -> httpx2.Response:
    return await api.http.post(DECODE, json=body or {"payloads": await _payloads()}, headers=headers)


AS_OPERATOR = {"Authorization": f"Bearer {OPERATORS}"}


async def test_an_operator_reads_plain_and_encrypted_payloads_on_record(api: RunningApi) -> None:
    answer = await _decode(api, AS_OPERATOR)
    assert answer.status_code == 200, answer.text
    shown = [json.loads(base64.b64decode(each["data"])) for each in answer.json()["payloads"]]
    assert shown == [WORDS, WORDS]
    async with transaction(api.sessions) as tx:
        query = select(AuditEntry).where(AuditEntry.action == Action.PAYLOADS_DECODE)
        [entry] = await tx.session.scalars(query)
    assert (entry.actor, entry.fields) == ("operator", {"payloads": 2})


async def test_a_founder_does_not(api: RunningApi) -> None:
    refused = await _decode(api, as_user("ada"))
    assert (refused.status_code, WORDS in refused.text) in {(404, False), (403, False)}
    assert (await _decode(api, {})).status_code in {401, 403, 404}


async def test_what_can_not_be_decrypted_is_said(api: RunningApi) -> None:
    other = f"other:{base64.b64encode(b'o' * 32).decode()}"
    answer = await _decode(api, AS_OPERATOR, payloads=await _payloads(other))
    assert (answer.status_code, "the key other, which PAYLOAD_KEY does not have" in answer.text) == (422, True)
    answer = await _decode(api, AS_OPERATOR, payloads=[{"data": "§"}])
    assert (answer.status_code, "are base64" in answer.text) == (422, True)
    answer = await _decode(api, AS_OPERATOR, payloads=[{"data": "A" * 300_000}])
    assert answer.status_code == 413


async def test_only_pages_of_temporals_ui_may_ask(api: RunningApi) -> None:
    question = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-namespace"}
    asked = await api.http.request("OPTIONS", DECODE, headers={"Origin": UI, **question})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == UI
    assert "x-namespace" in asked.headers["access-control-allow-headers"]
    answer = await _decode(api, {**AS_OPERATOR, "Origin": UI})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, UI)
    for origin, path in ((f"{UI}0", DECODE), ("https://evil.example", DECODE), (UI, "/v1/builds")):
        asked = await api.http.request("OPTIONS", path, headers={"Origin": origin, **question})
        assert "access-control-allow-origin" not in asked.headers, (origin, path)


@pytest.mark.parametrize(("scopes", "status"), [(OPERATOR_SCOPES, 200), (FOUNDER_SCOPES, 404)])
async def test_the_cookie_of_an_operator_works_from_there_alone(
    api: RunningApi, scopes: frozenset[Scope], status: int
) -> None:
    link = await api.http.post("/v1/sign-in-links", json={"scopes": sorted(scopes)}, headers=AS_OPERATOR)
    code, page = link.json()["url"].partition("#code=")[2], {"Sec-Fetch-Site": "same-origin"}
    async with httpx2.AsyncClient(base_url=api.url) as browser:
        assert (await browser.post("/v1/sign-ins", json={"code": code}, headers=page)).status_code == 201
        body = {"payloads": await _payloads()}
        from_ui = await browser.post(DECODE, json=body, headers={"Origin": UI, "Sec-Fetch-Site": "same-site"})
        from_elsewhere = await browser.post(
            DECODE, json=body, headers={"Origin": f"{UI}0", "Sec-Fetch-Site": "same-site"}
        )
        elsewhere = await browser.post("/v1/projects", json={}, headers={"Origin": UI, "Sec-Fetch-Site": "same-site"})
    assert from_ui.status_code == status, from_ui.text
    shown = [json.loads(base64.b64decode(each["data"])) for each in from_ui.json().get("payloads", [])]
    assert shown == ([WORDS, WORDS] if status == 200 else [])
    for refused in (from_elsewhere, elsewhere):
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:cofounder:problem:cross-site")
