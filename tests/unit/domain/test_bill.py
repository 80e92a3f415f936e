"""What the vendor bills for an answer."""

import pytest

from domain.answer import Answer
from domain.bill import bill_of
from domain.models import default_prices
from domain.pricing import Iteration, Tokens, bill_microdollars

USED = Tokens(input=1000, output=0)


@pytest.mark.parametrize(
    ("category", "output", "cost"), [("cyber", 0, 0), ("bio", 0, 2000), ("cyber", 5, 2050), (None, 0, 0)]
)
def test_a_refusal_before_any_output_is_free_in_most_categories(category: str | None, output: int, cost: int) -> None:
    answer = Answer([], "refusal", Tokens(input=1000, output=output), "r", details={"category": category})
    bill = bill_of(answer)
    assert not bill.estimated
    assert bill.tokens == answer.tokens
    assert bill_microdollars(default_prices(), "claude-sonnet-5-5", bill.billed) == cost


def test_a_compaction_is_billed_although_the_sums_leave_it_out() -> None:
    part = Iteration("compaction", None, Tokens(input=144, cache_read=150_000, output=3276))
    block = {"type": "compaction", "content": "So far.", "signature": "s"}
    bill = bill_of(Answer([block], "compaction", part.tokens, "r", iterations=(part,)))
    assert bill.billed == (part,)
    assert not bill.estimated


@pytest.mark.parametrize(
    ("tokens", "estimate"),
    [
        (Tokens(), Tokens(input=1000, output=11)),
        (Tokens(input=7), Tokens(input=7, output=11)),
        (Tokens(output=7), Tokens(input=1000, output=7)),
    ],
)
def test_what_the_vendor_does_not_count_is_estimated_from_bytes(tokens: Tokens, estimate: Tokens) -> None:
    answer = Answer([{"type": "text", "text": "Done."}], "end_turn", tokens, "r", request_bytes=3000)
    bill = bill_of(answer)
    assert bill.estimated
    assert bill.tokens == estimate


def test_a_refusal_in_mid_answer_is_billed_although_nothing_was_counted() -> None:
    """Only a refusal before any output is free. Which it was is seen by the answer, if the usage is zero."""
    said = [{"type": "text", "text": "Done."}]
    for tokens in (Tokens(), USED):
        answer = Answer(said, "refusal", tokens, "r", request_bytes=3000, details={"category": "cyber"})
        bill = bill_of(answer)
        assert bill.estimated
        assert (bill.tokens.input, bill.tokens.output) == (1000, 11)
        assert bill_microdollars(default_prices(), "claude-sonnet-5-5", bill.billed) == 2110
    before_output = Answer([], "refusal", Tokens(), "r", request_bytes=3000, details={"category": "cyber"})
    assert bill_of(before_output).billed == ()
