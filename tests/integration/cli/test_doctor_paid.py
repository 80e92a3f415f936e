"""`cofounder doctor --paid`, with the stand-ins in the place of the services."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from cli.doctor import sandbox_questions
from cli.doctor.model_questions import REFUSED_TEXT
from cli.doctor.paid import Bill, NotAsked, Purse, Question, Verdict, ask_all, held
from cli.doctor.paid_run import ask_services, microdollars
from clients.sandbox import Sandboxes, sandbox_config
from domain.errors import CofounderError, Misconfigured
from local.stack import LocalStack
from settings import Settings
from tests.harness.scripts import bash, steps
from tests.harness.worker import settings_of

CAP = microdollars(0.5)


@pytest.fixture
async def settings(stack: LocalStack) -> AsyncIterator[Settings]:
    """Settings of the stack, whose model refuses what the API refuses."""
    configured = settings_of(stack)
    url = f"{configured.anthropic_base_url}/_rehearsal"
    refusal: dict[str, Any] = {"kind": "refusal", "match": "check that an API works", "within": REFUSED_TEXT}
    refusal |= {"times": None, "category": "cyber", "explanation": "Declined for a test."}
    async with httpx2.AsyncClient(trust_env=False) as http:
        (await http.post(f"{url}/faults", json=refusal)).raise_for_status()
        for match, script in (
            ("check that an API works", steps()),
            ("No one is watching", steps([bash("true")])),
        ):
            (await http.post(f"{url}/scripts", json={"match": match, "script": script})).raise_for_status()
        yield configured
        (await http.delete(f"{url}/faults")).raise_for_status()


async def _ask(settings: Settings, cap: int = CAP) -> tuple[dict[str, Verdict], Purse]:
    verdicts, purse = await ask_services(settings, cap, lambda _: None, stand_ins=True)
    return {verdict.name: verdict for verdict in verdicts}, purse


async def _left(settings: Settings) -> list[str]:
    sandboxes = Sandboxes(sandbox_config(settings))
    try:
        return [each.id for each in await sandboxes.list_all()]
    finally:
        await sandboxes.close()


async def test_what_the_services_do_is_compared_with_what_is_assumed(settings: Settings) -> None:
    before = await _left(settings)
    verdicts, purse = await _ask(settings)
    for name in ("stream", "errors", "merging", "early end", "cache", "compaction", "display", "judgement", "refusal"):
        assert verdicts[name].state == "held", verdicts[name]
    for name in ("template", "metadata", "pause", "private port", "gone", "cleanup"):
        assert verdicts[name].state == "held", verdicts[name]
    assert verdicts["tools"].state == "held" or "E2B_TEMPLATE" in verdicts["tools"].detail  # what this machine has
    assert verdicts["private port"].detail == "403 without the token, 200 with it"
    assert {verdicts[name].state for name in ("limits", "prices", "lifetime")} == {"not asked"}
    assert 0 < purse.spent <= CAP
    assert purse.spent == sum(verdict.microdollars for verdict in verdicts.values())
    assert await _left(settings) == before


async def test_hosts_that_are_not_allowed_are_not_reached(settings: Settings) -> None:
    closed = settings.model_copy(update={"sandbox_egress_hosts": [], "sandbox_private_hosts": None})
    verdicts, _ = await _ask(closed.model_copy(update={"anthropic_api_key": None}))
    assert verdicts["egress"].state == "held", verdicts["egress"]
    assert verdicts["model"].state == "not asked"
    assert "ANTHROPIC_API_KEY" in verdicts["model"].detail


async def test_a_run_ends_what_it_created_also_when_a_question_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise CofounderError("the server did not start")

    before = await _left(settings)
    monkeypatch.setattr(sandbox_questions, "_serve", fail)
    verdicts, _ = await _ask(settings.model_copy(update={"anthropic_api_key": None}))
    assert verdicts["private port"].detail == "the server did not start"
    assert await _left(settings) == before


async def test_what_does_not_fit_under_the_cap_is_not_asked(settings: Settings) -> None:
    verdicts, purse = await _ask(settings, cap=microdollars(0.06))
    states = {verdict.state for verdict in verdicts.values() if verdict.name != "tools"}
    assert states == {"held", "not asked"}, verdicts
    assert "Raise --cap" in verdicts["pause"].detail
    assert purse.spent <= purse.cap


async def test_nothing_is_asked_of_stand_ins(settings: Settings) -> None:
    with pytest.raises(Misconfigured, match="no real service"):
        await ask_services(settings, CAP, lambda _: None)


async def test_a_call_without_a_known_cost_counts_as_its_worst_case() -> None:
    purse = Purse(100)
    with pytest.raises(CofounderError), purse.reserve(60):
        raise CofounderError("lost")
    assert purse.spent == 60
    with pytest.raises(NotAsked, match="Raise --cap"), purse.reserve(41):
        pass
    with purse.reserve(40) as bill:
        assert bill == Bill(None)
        bill.microdollars = 10
    assert purse.spent == 70


async def test_each_question_says_what_it_cost() -> None:
    purse = Purse(100)

    async def ask() -> Verdict:
        with purse.reserve(50) as bill:
            bill.microdollars = 7
        return held(json.dumps(str(uuid.UUID(int=0))))

    verdicts = await ask_all([Question("one", "It is so", ask)] * 2, purse, lambda _: None)
    said = [(verdict.state, verdict.microdollars, verdict.assumption) for verdict in verdicts]
    assert said == [("held", 7, "It is so")] * 2
