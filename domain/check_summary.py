"""What the output of a product's `check` says about its tests: how many passed, and how many failed.

To know another test runner, add its summary to `FORMATS` and an example to `tests/unit/domain/test_check_summary.py`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from domain.tool_output import clean

LINES_SHOWN = 10
"""How many lines that name failures are kept."""

LINE_CHARACTERS = 400
"""A longer line is not a summary, and an expression could take long on it."""

REPORT_ELEMENTS = ("testcase", "skipped", "failure", "error")
"""The elements of a JUnit XML report that are counted."""


@dataclass(frozen=True)
class Tally:
    """How many tests passed and failed."""

    passed: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()
    """The lines that name failures."""

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.passed + other.passed, self.failed + other.failed, (self.failures + other.failures)[:LINES_SHOWN]
        )


@dataclass(frozen=True)
class _Format:
    """A line, or a few, of a runner's summary; the counts of several such lines add up.

    Groups of the expression: `passed`, or else `ran`, from which `failed`, `errors` and `skipped` are subtracted.
    Groups `one_passed` and `one_failed` stand for one test each.
    """

    runner: str
    """Lines of the same runner belong together."""
    expression: re.Pattern[str]
    is_nested: bool = False
    """A suite's summary contains those of its parts, so that the largest counts and not the sum."""


def _format(runner: str, expression: str, *, is_nested: bool = False) -> _Format:
    return _Format(runner, re.compile(expression, re.M), is_nested)


_PYTEST_BEGIN = r"^(?:=+ )?(?:[^=\n]*, )?"
_PYTEST_END = r"\b.* in [\d.]+s\b"

FORMATS = (
    _format("unittest", r"^Ran (?P<ran>\d+) tests? in "),
    _format("unittest", r"^FAILED \(.*?failures=(?P<failed>\d+)"),
    _format("unittest", r"^FAILED \(.*?errors=(?P<errors>\d+)"),
    _format("unittest", r"^FAILED \(.*?unexpected successes=(?P<errors>\d+)"),
    _format("unittest", r"^(?:OK|FAILED) \(.*?skipped=(?P<skipped>\d+)"),
    _format("pytest", _PYTEST_BEGIN + r"(?P<passed>\d+) passed" + _PYTEST_END),
    _format("pytest", _PYTEST_BEGIN + r"(?P<failed>\d+) failed" + _PYTEST_END),
    _format("pytest", _PYTEST_BEGIN + r"(?P<errors>\d+) errors?" + _PYTEST_END),
    _format("node --test", r"^(?:#|\u2139) pass +(?P<passed>\d+)$"),  # also tape and QUnit
    _format("node --test", r"^(?:#|\u2139) (?:fail|cancelled) +(?P<failed>\d+)$"),
    _format("Jest", r"^\s*Tests:?\s+(?:.*\b)?(?P<passed>\d+) passed\b"),  # also Vitest and Pest
    _format("Jest", r"^\s*Tests:?\s+(?:.*\b)?(?P<failed>\d+) failed\b"),
    _format("Jest", r"^\s*Test (?:Suites|Files):?\s+(?P<one_failed>\d+) failed\b"),
    _format("Mocha", r"^\s+(?P<passed>\d+) passing\b"),
    _format("Mocha", r"^\s+(?P<failed>\d+) failing\b"),
    _format("cargo test", r"^test result: \w+\. (?P<passed>\d+) passed; (?P<failed>\d+) failed"),
    _format("cargo nextest", r"^\s*Summary \[.*\d tests? run: (?P<passed>\d+) passed"),
    _format("cargo nextest", r"^\s*Summary \[.*\d tests? run: .*\b(?P<failed>\d+) failed"),
    _format("Playwright", r"^\s*(?P<passed>\d+) passed \([\d.]+ ?\w+\)"),  # also TestCafe
    _format("Playwright", r"^\s+(?P<failed>\d+) failed$"),
    _format("Playwright", r"^\s*(?P<failed>\d+)/\d+ failed \([\d.]+ ?\w+\)"),
    _format(
        "Minitest",
        r"^(?P<ran>\d+) (?:runs|tests), \d+ assertions, (?P<failed>\d+) failures, (?P<errors>\d+) errors"
        r"(?:, (?P<skipped>\d+) (?:skips|pendings))?",
    ),
    _format(  # also ExUnit, bats, Jasmine, Hspec, Crystal and Gleam
        "RSpec",
        r"^(?:\d+ (?:doctests?|propert(?:y|ies)|features?), )*(?P<ran>\d+) (?:examples?|tests?|specs?), "
        r"(?P<failed>\d+) failures?(?:, (?P<errors>\d+) errors?)?(?:, \d+ (?:excluded|invalid))*"
        r"(?:, (?P<skipped>\d+) (?:pending|skipped))?",
    ),
    _format("PHPUnit", r"^OK \((?P<passed>\d+) tests?(?:, \d+ assertions?)?\)"),  # also JUnit 4
    _format("PHPUnit", r"^Tests: (?P<ran>\d+), Assertions: \d+"),
    _format("PHPUnit", r"^Tests: \d+, Assertions: \d+.*, Failures: (?P<failed>\d+)"),
    _format("PHPUnit", r"^Tests: \d+, Assertions: \d+.*, Errors: (?P<errors>\d+)"),
    _format("PHPUnit", r"^Tests: \d+, Assertions: \d+.*, Skipped: (?P<skipped>\d+)"),
    _format("go test", r"^--- (?P<one_passed>PASS): "),
    _format("go test", r"^\s*--- (?P<one_failed>FAIL): "),
    _format("go test", r"^(?P<one_failed>FAIL)\t\S+"),
    _format("go test -json", r'"Action":"(?P<one_passed>pass)".*"Test":"[^"/]+"'),
    _format("go test -json", r'"Action":"(?P<one_failed>fail)".*"Test":"[^"/]+"'),
    _format("gotestsum", r"^DONE (?P<ran>\d+) tests?(?:, (?P<skipped>\d+) skipped)?(?:, (?P<failed>\d+) failures?)?"),
    _format("Bun", r"^\s*(?P<passed>\d+) pass$"),
    _format("Bun", r"^\s*(?P<failed>\d+) fail$"),
    _format("Deno", r"^(?:ok|FAILED) \| (?P<passed>\d+) passed.* \| (?P<failed>\d+) failed\b"),
    _format("AVA", r"^\s*(?:[\u2713\u2714] )?(?P<passed>\d+) tests? passed\s*$"),
    _format("AVA", r"^\s*(?:[\u2716-\u2718] )?(?P<failed>\d+) (?:tests?|hooks?) failed\s*$"),
    _format("AVA", r"^\s*(?:[\u2716-\u2718] )?(?P<failed>\d+) (?:uncaught exceptions?|unhandled rejections?)\s*$"),
    _format("Gradle", r"^(?P<ran>\d+) tests? completed(?:, (?P<failed>\d+) failed)?(?:, (?P<skipped>\d+) skipped)?"),
    _format("Gradle", r"^(?:SUCCESS|FAILURE): Executed (?P<ran>\d+) tests? in "),
    _format("Gradle", r"^FAILURE: Executed \d+ tests? in .*\((?P<failed>\d+) failed"),
    _format(
        "Maven",
        r"^(?:\[\w+\] )?Tests run: (?P<ran>\d+), +Failures: (?P<failed>\d+)(?:, +Errors: (?P<errors>\d+))?"
        r"(?:, +Skipped: (?P<skipped>\d+))?\s*$",
    ),
    _format("JUnit console", r"^\[ +(?P<passed>\d+) tests successful +\]"),
    _format("JUnit console", r"^\[ +(?P<failed>\d+) tests failed +\]"),
    _format("ScalaTest", r"Tests: succeeded (?P<passed>\d+), failed (?P<failed>\d+)"),
    _format("dotnet test", r"^\s*\w+! +- Failed: +(?P<failed>\d+), Passed: +(?P<passed>\d+), Skipped: +\d+"),
    _format("dotnet test", r"^\s*Test summary: total: \d+[,;] failed: (?P<failed>\d+)[,;] \w+: (?P<passed>\d+)"),
    _format("dotnet test", r"^Test run summary:.*\n\s+total: \d+\n\s+failed: (?P<failed>\d+)\n\s+\w+: (?P<passed>\d+)"),
    _format("dotnet test", r"^Total tests: \d+\n\s+Passed: (?P<passed>\d+)(?:\n\s+Failed: (?P<failed>\d+))?"),
    _format("CTest", r"^\s*\d+% tests passed, (?P<failed>\d+) tests? failed out of (?P<ran>\d+)"),
    _format("GoogleTest", r"^\[  PASSED  \] (?P<passed>\d+) tests?\."),
    _format("GoogleTest", r"^\[  FAILED  \] (?P<failed>\d+) tests?, listed below"),
    _format("Catch2", r"^All tests passed \(\d+ assertions? in (?P<passed>\d+) test cases?\)"),
    _format("Catch2", r"^(?:\[doctest\] )?test cases: .*\| +(?P<passed>\d+) passed"),  # also doctest
    _format("Catch2", r"^(?:\[doctest\] )?test cases: .*\| +(?P<failed>\d+) failed"),
    _format("XCTest", r"^\s*Executed (?P<ran>\d+) tests?, with .*?\b(?P<failed>\d+) failures?", is_nested=True),
    _format("XCTest", r"^\s*Executed \d+ tests?, with (?P<skipped>\d+) tests? skipped", is_nested=True),
    _format("Swift Testing", r"Test run with (?P<passed>\d+) tests?(?: in \d+ suites?)? passed after"),
    _format("Swift Testing", r"Test run with (?P<ran>\d+) tests?(?: in \d+ suites?)? failed after"),
    _format("Swift Testing", r"Test run with \d+ tests?(?: in \d+ suites?)? failed .* with (?P<failed>\d+) issues?"),
    _format("dart test", r"^[\d:]+ \+(?P<passed>\d+).*: (?:All tests passed|Some tests failed)"),  # also flutter test
    _format("dart test", r"^[\d:]+ \+\d+.* -(?P<failed>\d+): Some tests failed"),
    _format("dart test", r"^\S* ?(?P<passed>\d+) tests? passed(?:, \d+ skipped)?\.$"),
    _format("Karma", r"Executed (?P<ran>\d+) of \d+\b", is_nested=True),
    _format("Karma", r"Executed \d+ of \d+.*\((?P<failed>\d+) FAILED\)", is_nested=True),
    _format("uvu", r"^\s*Total: +(?P<ran>\d+)\n\s*Passed: +(?P<passed>\d+)\n"),
    _format("Cucumber", r"^\d+ scenarios? \((?:.*, )?(?P<passed>\d+) passed\)"),
    _format("Cucumber", r"^\d+ scenarios? \((?P<failed>\d+) failed"),
    _format("behave", r"^(?P<passed>\d+) scenarios? passed, (?P<failed>\d+) failed"),
    _format("Robot Framework", r"^\d+ tests?, (?P<passed>\d+) passed, (?P<failed>\d+) failed"),
    _format("Clojure", r"^Ran (?P<ran>\d+) tests containing "),
    _format("Clojure", r"^(?P<failed>\d+) failures, (?P<errors>\d+) errors"),
    _format("EUnit", r"^\s*All (?P<passed>\d+) tests passed\b"),  # also Zig and tasty
    _format("EUnit", r"^\s*Failed: (?P<failed>\d+)\.\s+Skipped: \d+\.\s+Passed: (?P<passed>\d+)\."),
    _format("tasty", r"^(?P<failed>\d+) out of \d+ tests failed\b"),
    _format("Zig", r"^(?P<passed>\d+) passed; \d+ skipped; (?P<failed>\d+) failed"),
    _format("prove", r"^Files=\d+, Tests=(?P<ran>\d+),"),
    _format("prove", r"^Result: (?P<one_failed>FAIL)\b"),
    _format("busted", r"^(?P<passed>\d+) success(?:es)? / (?P<failed>\d+) failures? / (?P<errors>\d+) errors?"),
    _format("testthat", r"^\[ FAIL (?P<failed>\d+) \| WARN \d+ \| SKIP \d+ \| PASS (?P<passed>\d+) \]"),
    _format("Alcotest", r"^Test Successful in .*\. (?P<passed>\d+) tests? run\."),
    _format("elm-test", r"^Passed: +(?P<passed>\d+)\nFailed: +(?P<failed>\d+)"),
)
"""The summaries that are known."""

RUNNERS = tuple(dict.fromkeys(each.runner for each in FORMATS))

_GO_PACKAGE = re.compile(r"^ok\s+\S+\s+(?:\(cached\)|[\d.]+s)(?!.*no tests to run)", re.M)
_TAP_BEGIN = re.compile(r"^(?:1\.\.[1-9]\d*|TAP version \d+)", re.M)
_TAP_LINE = re.compile(r"^(?P<bad>not )?ok\b(?!.*#\s*(?:skip|todo))", re.M | re.I)
_REPORT_ELEMENT = re.compile(rf"<({'|'.join(REPORT_ELEMENTS)})[ />]")


def known_runners() -> str:
    """The names of the runners whose summaries are known, for the agent."""
    return ", ".join([*RUNNERS, *("Django", "Vitest", "Jasmine", "ExUnit", "bats", "JUnit 4", "flutter test")])


def read_tally(output: str) -> Tally:
    """Read a check's output: the summaries of known test runners, or else TAP, or a JUnit XML report."""
    plain = clean(output)
    text = "\n".join(line for line in plain.splitlines() if len(line) <= LINE_CHARACTERS)
    by_summary = _read_summaries(text)
    if by_summary.passed or by_summary.failed:
        return by_summary
    if packages := len(_GO_PACKAGE.findall(text)):  # without -v, Go names its packages only
        return Tally(packages)
    if _TAP_BEGIN.search(text):
        results = list(_TAP_LINE.finditer(text))
        bad = [_line_of(text, result) for result in results if result["bad"]]
        return Tally(len(results) - len(bad), len(bad), tuple(bad[:LINES_SHOWN]))
    if "<testsuite" in plain:
        return tally_report(Counter(_REPORT_ELEMENT.findall(plain)))
    return by_summary


def tally_report(elements: Mapping[str, int], path: str = "its output") -> Tally:
    """The tally of a JUnit XML report, by the numbers of its elements (`REPORT_ELEMENTS`)."""
    failed = elements.get("failure", 0) + elements.get("error", 0)
    passed = max(0, elements.get("testcase", 0) - failed - elements.get("skipped", 0))
    return Tally(passed, failed, (f"the JUnit XML report in {path}: {failed} failed",) if failed else ())


def _read_summaries(text: str) -> Tally:
    passed = failed = 0
    failures: list[str] = []
    for runner in RUNNERS:
        counts: Counter[str] = Counter()
        for each in FORMATS:
            if each.runner != runner:
                continue
            for match in each.expression.finditer(text):
                found = {name: int(value) if value.isdecimal() else 1 for name, value in match.groupdict("0").items()}
                for name, value in found.items():
                    counts[name] = max(counts[name], value) if each.is_nested else counts[name] + value
                if any(found.get(name) for name in ("failed", "errors", "one_failed")):
                    failures.append(_line_of(text, match))
        bad = counts["failed"] + counts["errors"] + counts["one_failed"]
        good = counts["passed"] + counts["one_passed"]
        passed += good or max(0, counts["ran"] - bad - counts["skipped"])
        failed += bad
    return Tally(passed, failed, tuple(dict.fromkeys(failures))[:LINES_SHOWN])


def _line_of(text: str, match: re.Match[str]) -> str:
    """The last line of a match, whole."""
    begin = text.rfind("\n", 0, match.end()) + 1
    end = text.find("\n", match.end())
    return text[begin : end if end >= 0 else len(text)].strip()
