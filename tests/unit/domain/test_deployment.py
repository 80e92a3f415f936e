"""A database binds only to a namespace that nothing speaks against, and a refusal says what to do."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from domain.deployment import Binding, BindingVerdict, DatabaseContents, Namespace, judge_binding, refusal

HERE = Namespace("production", "temporal:7233", "id-1")
BOUND = Binding(HERE, datetime(2026, 11, 29, tzinfo=UTC))
RECREATED, STAGING = replace(HERE, id="id-2"), Namespace("staging", "staging:7233", "id-3")
EMPTY = DatabaseContents("db:5432/cofounder", has_builds=False, started=0, is_one_found=False)
CLOSED_ONLY, LOST = replace(EMPTY, has_builds=True), replace(EMPTY, has_builds=True, started=3)
FOUND = replace(LOST, is_one_found=True)


@pytest.mark.parametrize(
    ("bound", "here", "contents", "verdict"),
    [
        (BOUND, HERE, LOST, BindingVerdict.BOUND),
        (BOUND, replace(HERE, address="10.0.0.7:7233"), LOST, BindingVerdict.BOUND),
        (BOUND, replace(HERE, id=None), LOST, BindingVerdict.BOUND),
        (BOUND, replace(STAGING, id=None), FOUND, BindingVerdict.REFUSE),
        (BOUND, RECREATED, LOST, BindingVerdict.REFUSE),
        (BOUND, RECREATED, CLOSED_ONLY, BindingVerdict.REFUSE),
        (BOUND, STAGING, FOUND, BindingVerdict.REFUSE),
        (BOUND, STAGING, EMPTY, BindingVerdict.BIND),
        (None, HERE, EMPTY, BindingVerdict.BIND),
        (None, HERE, CLOSED_ONLY, BindingVerdict.BIND),
        (None, HERE, FOUND, BindingVerdict.BIND),
        (None, HERE, LOST, BindingVerdict.REFUSE),
    ],
)
def test_verdicts(bound: Binding | None, here: Namespace, contents: DatabaseContents, verdict: BindingVerdict) -> None:
    assert judge_binding(bound, here, contents) is verdict


def test_a_refusal_names_both_addresses_and_what_to_do() -> None:
    unbound = refusal(None, STAGING, LOST)
    for words in ("any of the 3 open builds", "db:5432/cofounder", "staging at staging:7233", "Nothing was changed."):
        assert words in unbound
    assert "the open build " in refusal(None, STAGING, replace(LOST, started=1))
    other = refusal(BOUND, STAGING, LOST)
    for words in ("production at temporal:7233", "staging at staging:7233", "`cofounder recover --temporal`"):
        assert words in other
    again = refusal(BOUND, RECREATED, LOST)
    assert "production at temporal:7233 was created again" in again
    assert "Run `cofounder recover --temporal`" in again
