"""The table and the exit code of `make products`."""

import pytest

from tests.products.report import LEAST, DayResult, ProductResult, exit_code, table


def _product(
    name: str = "p", days: tuple[str, ...] = ("ready", "ready"), unreachable: tuple[str, ...] = ()
) -> ProductResult:
    results = [
        DayResult(status, "" if status == "ready" else "install ended with 1\nE404", {"gate": 61.25}) for status in days
    ]
    return ProductResult(name, 2, results, list(unreachable))


_ENOUGH = [_product() for _ in range(LEAST)]
_MISSING = _product("fonts", (), ("fonts.example",))


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (_ENOUGH, 0),
        ([*_ENOUGH, _MISSING], 0),
        ([*_ENOUGH[1:], _MISSING], 1),
        ([*_ENOUGH, _product(days=("ready", "needs_input"))], 1),
        ([*_ENOUGH, _product(days=("ready",))], 1),
        ([*_ENOUGH, _product(days=())], 1),
        ([], 1),
    ],
    ids=["all ready", "one is out of reach", "too few in reach", "a finding", "one day only", "never built", "none"],
)
def test_only_enough_products_that_are_ready_each_day_are_a_success(
    results: list[ProductResult], expected: int
) -> None:
    assert exit_code(results) == expected


def test_the_table_has_a_line_for_each_day_and_says_what_was_out_of_reach() -> None:
    lines = table([_product("shop", ("ready", "needs_input")), _MISSING]).splitlines()
    assert lines[0].split() == ["product", "day", "install", "check", "start", "gate", "snapshot", "outcome"]
    assert lines[1].split() == ["shop", "1", "-", "-", "-", "61.2", "-", "ready"]
    assert lines[2].split()[-1] == "needs_input"
    assert lines[3:5] == ["    install ended with 1", "    E404"]
    assert lines[5] == "fonts     does not count: not reachable: fonts.example"
    assert lines[6].startswith("0 of 1 reachable products ready")
