"""What `cofounder doctor --paid` reserves before it asks the model's API, and what it books afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cli.doctor.model_questions import ModelQuestions
from cli.doctor.paid import Purse, Verdict, ask_all, held, not_held
from cli.doctor.paid_run import as_document, is_good
from domain.models import default_prices
from tests.harness.model_server import MODEL, START, STOP, ends, says, speaking

ENOUGH = 500_000
WORST = range(30_000, 40_000)
"""µ$: 2,000 tokens of output, 4,000 of the vendor's own prompt, and one for each byte of a short request."""


@asynccontextmanager
async def asked(purse: Purse, *events: dict[str, Any], sent: list[bytes] | None = None) -> AsyncIterator[Verdict]:
    """Ask the first question of a server that answers with these events."""
    async with speaking(*events, received=sent) as provider:
        question = ModelQuestions(provider, default_prices(), MODEL, purse).all()[0]
        (verdict,) = await ask_all([question], purse, lambda _: None)
        yield verdict


async def test_a_question_that_could_cost_more_than_is_left_is_not_asked() -> None:
    for cap, state in ((WORST.start, "not asked"), (WORST.stop, "held")):
        purse, sent = Purse(cap), list[bytes]()
        async with asked(purse, START, *says(0, "ready"), ends("end_turn"), STOP, sent=sent) as verdict:
            assert verdict.state == state, verdict
        spent = 0 if state == "not asked" else 1000 * 2 + 20 * 10
        assert (purse.spent, verdict.microdollars, len(sent)) == (spent, spent, state == "held")


async def test_an_answer_that_broke_off_counts_as_its_worst_case() -> None:
    purse = Purse(ENOUGH)
    async with asked(purse, START, *says(0, "rea")) as verdict:
        assert verdict.state == "not held"
        assert "before it was complete" in verdict.detail
    assert purse.spent == verdict.microdollars
    assert purse.spent in WORST


async def test_an_error_after_the_answer_began_may_be_billed() -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "too odd"}}
    purse = Purse(ENOUGH)
    async with asked(purse, START, error) as verdict:
        assert verdict.state == "not held"
    assert purse.spent in WORST


async def test_a_request_that_is_refused_costs_nothing() -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "too odd"}}
    purse = Purse(ENOUGH)
    async with asked(purse, error) as verdict:
        assert (verdict.state, verdict.microdollars) == ("not held", 0)
    assert purse.spent == 0


@pytest.mark.parametrize(("verdicts", "good"), [([held("a")], True), ([held("a"), not_held("b")], False), ([], True)])
def test_the_result_for_scripts(verdicts: list[Verdict], good: bool) -> None:
    purse = Purse(9)
    purse.spent = 7
    assert is_good(verdicts) is good
    document = as_document(verdicts, purse)
    assert (document["good"], document["cap_microdollars"], document["spent_microdollars"]) == (good, 9, 7)
    assert [answer["state"] for answer in document["answers"]] == [verdict.state for verdict in verdicts]
