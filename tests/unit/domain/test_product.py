"""Products' manifests, and the tests that a check has run."""

import json

import pytest

from domain.errors import InvalidInput
from domain.product import count_tests, parse_product_manifest


def test_product_manifest() -> None:
    good = {"install": "true", "check": "pytest", "start": "python app.py", "port": 8000}
    assert parse_product_manifest(json.dumps(good)).port == 8000
    bad: object
    for bad in (
        {**good, "port": 80},
        {**good, "port": "8000"},
        {**good, "check": ""},
        {**good, "check": "a\x00b"},
        {"check": "x"},
        [],
        {**good, "x": 1},
    ):
        with pytest.raises(InvalidInput, match="does not fit"):
            parse_product_manifest(json.dumps(bad))
    with pytest.raises(InvalidInput, match="not valid JSON"):
        parse_product_manifest("{")


@pytest.mark.parametrize(
    ("output", "tests"),
    [
        ("....\n----\nRan 4 tests in 0.010s\n\nOK", 4),
        ("Ran 1 test in 0.010s", 1),
        ("Ran 0 tests in 0.000s", 0),
        ("==== 3 passed, 1 warning in 0.12s ====", 3),
        ("3 passed in 0.12s", 3),
        ("\x1b[32m==== 3 passed in 0.12s ====\x1b[0m", 3),
        ("# tests 2\n# pass 2\n# fail 0", 2),
        ("Tests:       1 failed, 5 passed, 6 total", 5),
        ("      Tests  7 passed (7)", 7),
        ("  2 passing (5ms)", 2),
        ("test result: ok. 9 passed; 0 failed", 9),
        ("--- PASS: TestA (0.00s)\n--- PASS: TestB (0.00s)\nok", 2),
        ("", 0),
        ("all good", 0),
        ("no tests ran in 0.01s", 0),
    ],
)
def test_counting_tests(output: str, tests: int) -> None:
    assert count_tests(output) == tests
