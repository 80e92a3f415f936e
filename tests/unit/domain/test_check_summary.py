"""What a check's output says about its tests, in the words of each known test runner."""

import time

import pytest

from domain.check_summary import RUNNERS, Tally, read_tally, tally_report

SUMMARIES = [
    ("unittest", "....\n----\nRan 4 tests in 0.010s\n\nOK", 4, 0),
    ("unittest", "Ran 1 test in 0.010s", 1, 0),
    ("unittest", "Ran 0 tests in 0.000s", 0, 0),
    ("unittest", "Ran 0 tests in 0.000s\n\nNO TESTS RAN", 0, 0),
    ("unittest", "Ran 4 tests in 0.010s\n\nFAILED (failures=1)", 3, 1),
    ("unittest", "Ran 4 tests in 0.010s\n\nFAILED (failures=1, errors=2)", 1, 3),
    ("unittest", "Ran 4 tests in 0.010s\n\nFAILED (errors=2, skipped=1)", 1, 2),
    ("unittest", "Ran 4 tests in 0.010s\n\nOK (skipped=4)", 0, 0),
    ("pytest", "==== 3 passed, 1 warning in 0.12s ====", 3, 0),
    ("pytest", "3 passed in 0.12s", 3, 0),
    ("pytest", "3 passed, 1 skipped, 1 xfailed, 1 warning in 63.12s (0:01:03)", 3, 0),
    ("pytest", "\x1b[32m==== 3 passed in 0.12s ====\x1b[0m", 3, 0),
    ("pytest", "==== 1 failed, 2 passed in 0.12s ====", 2, 1),
    ("pytest", "==== 1 failed, 2 passed, 1 warning, 2 errors in 0.12s ====", 2, 3),
    ("pytest", "1 failed in 0.12s", 0, 1),
    ("pytest", "==== 1 error in 0.12s ====", 0, 1),
    ("pytest", "no tests ran in 0.01s", 0, 0),
    ("node --test", "# tests 2\n# suites 0\n# pass 2\n# fail 0\n# cancelled 0", 2, 0),
    ("node --test", "\u2139 tests 3\n\u2139 pass 2\n\u2139 fail 1\n\u2139 cancelled 0", 2, 1),
    ("tape", "1..3\n# tests 3\n# pass  2\n# fail  1", 2, 1),
    ("Jest", "Test Suites: 1 failed, 1 total\nTests:       1 failed, 5 passed, 6 total", 5, 2),
    ("Jest", "Test Suites: 1 passed, 1 total\nTests:       5 passed, 5 total", 5, 0),
    ("Jest", "Test Suites: 1 failed, 1 total\nTests:       0 total", 0, 1),
    ("Vitest", " Test Files  1 passed (1)\n      Tests  7 passed (7)", 7, 0),
    ("Vitest", " Test Files  1 failed (1)\n      Tests  1 failed | 5 passed (6)", 5, 2),
    ("Pest", "  Tests:    1 failed, 2 passed (3 assertions)", 2, 1),
    ("Mocha", "  2 passing (5ms)", 2, 0),
    ("Mocha", "  2 passing (5ms)\n  1 failing", 2, 1),
    ("cargo test", "test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured", 9, 0),
    ("cargo test", "test result: FAILED. 8 passed; 1 failed; 0 ignored; 0 measured", 8, 1),
    ("cargo nextest", "     Summary [   0.014s] 5 tests run: 5 passed, 0 skipped", 5, 0),
    ("cargo nextest", "     Summary [   0.014s] 5/6 tests run: 4 passed (1 slow), 1 failed, 0 skipped", 4, 1),
    ("Playwright", "Running 3 tests using 1 worker\n\n  3 passed (4.2s)", 3, 0),
    ("Playwright", "  1 failed\n    [chromium] a.spec.ts:3:1 a\n  2 passed (4.2s)", 2, 1),
    ("Playwright", "  1 flaky\n  2 passed (1.5m)", 2, 0),
    ("TestCafe", " 2/3 failed (1s)", 0, 2),
    ("Minitest", "4 runs, 8 assertions, 0 failures, 0 errors, 1 skips", 3, 0),
    ("Minitest", "4 runs, 8 assertions, 1 failures, 1 errors, 0 skips", 2, 2),
    ("test-unit", "4 tests, 8 assertions, 0 failures, 0 errors, 0 pendings, 0 omissions, 0 notifications", 4, 0),
    ("RSpec", "3 examples, 0 failures, 1 pending", 2, 0),
    ("RSpec", "3 examples, 1 failure", 2, 1),
    ("RSpec", "0 examples, 0 failures, 1 error occurred outside of examples", 0, 1),
    ("ExUnit", "2 doctests, 5 tests, 1 failure, 1 excluded", 4, 1),
    ("ExUnit", "5 tests, 0 failures", 5, 0),
    ("bats", "3 tests, 0 failures", 3, 0),
    ("Jasmine", "5 specs, 0 failures", 5, 0),
    ("PHPUnit", "OK (3 tests, 5 assertions)", 3, 0),
    ("PHPUnit", "FAILURES!\nTests: 3, Assertions: 5, Errors: 1, Failures: 1.", 1, 2),
    ("PHPUnit", "OK, but incomplete, skipped, or risky tests!\nTests: 3, Assertions: 5, Skipped: 1.", 2, 0),
    ("go test", "=== RUN   TestA\n--- PASS: TestA (0.00s)\n--- PASS: TestB (0.00s)\nok  \tx/y\t0.003s", 2, 0),
    ("go test", "--- FAIL: TestA (0.00s)\nFAIL\nFAIL\tx/y\t0.003s", 0, 2),
    ("go test", "ok  \tx/y\t0.003s\nok  \tx/z\t(cached)\n?   \tx/w\t[no test files]", 2, 0),
    ("go test", "ok  \tx/y\t0.003s [no tests to run]", 0, 0),
    ("go test", "FAIL\tx/y [build failed]", 0, 1),
    ("go test -json", '{"Time":"t","Action":"pass","Package":"x","Test":"TestA","Elapsed":0}', 1, 0),
    ("gotestsum", "DONE 5 tests in 0.301s", 5, 0),
    ("gotestsum", "DONE 5 tests, 1 skipped, 1 failure in 0.301s", 3, 1),
    ("Bun", " 5 pass\n 0 fail\n 9 expect() calls\nRan 5 tests across 1 file. [10.00ms]", 5, 0),
    ("Bun", " 4 pass\n 1 fail\nRan 5 tests across 1 file. [10.00ms]", 4, 1),
    ("Deno", "ok | 3 passed | 0 failed (12ms)", 3, 0),
    ("Deno", "FAILED | 1 passed (2 steps) | 1 failed (1 step) (12ms)", 1, 1),
    ("AVA", "  \u2714 a\n  \u2500\n\n  2 tests passed", 2, 0),
    ("AVA", "  \u2500\n\n  1 test passed\n  1 test failed\n  1 uncaught exception", 1, 2),
    ("Gradle", "3 tests completed, 1 failed, 1 skipped", 1, 1),
    ("Gradle", "SUCCESS: Executed 5 tests in 1.2s", 5, 0),
    ("Gradle", "FAILURE: Executed 5 tests in 1.2s (2 failed)", 3, 2),
    (
        "Maven",
        "[INFO] Tests run: 2, Failures: 0, Errors: 0, Skipped: 0, Time elapsed: 0.05 s -- in A\n[INFO] Results:\n"
        "[INFO] Tests run: 5, Failures: 0, Errors: 0, Skipped: 1",
        4,
        0,
    ),
    ("Maven", "[ERROR] Tests run: 5, Failures: 1, Errors: 1, Skipped: 0", 3, 2),
    ("JUnit console", "[         5 tests successful      ]\n[         1 tests failed          ]", 5, 1),
    ("ScalaTest", "[info] Tests: succeeded 5, failed 0, canceled 0, ignored 0, pending 0", 5, 0),
    ("dotnet test", "Passed!  - Failed:     0, Passed:     5, Skipped:     0, Total:     5, Duration: 12 ms", 5, 0),
    ("dotnet test", "Failed!  - Failed:     1, Passed:     4, Skipped:     0, Total:     5, Duration: 12 ms", 4, 1),
    ("dotnet test", "Test summary: total: 5, failed: 0, succeeded: 5, skipped: 0, duration: 1.0s", 5, 0),
    ("dotnet test", "Test run summary: Failed!\n  total: 5\n  failed: 1\n  succeeded: 4\n  skipped: 0", 4, 1),
    ("dotnet test", "Total tests: 5\n     Passed: 4\n     Failed: 1\n Total time: 1 Seconds", 4, 1),
    ("CTest", "100% tests passed, 0 tests failed out of 5", 5, 0),
    ("CTest", "80% tests passed, 1 tests failed out of 5", 4, 1),
    ("GoogleTest", "[==========] 5 tests from 1 test suite ran.\n[  PASSED  ] 5 tests.", 5, 0),
    ("GoogleTest", "[  PASSED  ] 4 tests.\n[  FAILED  ] 1 test, listed below:", 4, 1),
    ("Catch2", "All tests passed (10 assertions in 5 test cases)", 5, 0),
    ("Catch2", "test cases: 5 | 4 passed | 1 failed", 4, 1),
    ("doctest", "[doctest] test cases:  5 |  5 passed | 0 failed | 0 skipped", 5, 0),
    (
        "XCTest",
        "\t Executed 2 tests, with 0 failures (0 unexpected) in 0.01 (0.01) seconds\n"
        "\t Executed 5 tests, with 1 failure (0 unexpected) in 0.01 (0.01) seconds",
        4,
        1,
    ),
    ("XCTest", "Executed 5 tests, with 2 tests skipped and 0 failures (0 unexpected) in 0.1 (0.1) seconds", 3, 0),
    ("Swift Testing", "\u2714 Test run with 5 tests in 2 suites passed after 0.001 seconds.", 5, 0),
    ("Swift Testing", "\u2718 Test run with 5 tests failed after 0.1 seconds with 1 issue.", 4, 1),
    ("dart test", "00:01 +5: All tests passed!", 5, 0),
    ("dart test", "00:00 +0: a\r00:01 +4 ~1 -1: Some tests failed.", 4, 1),
    ("dart test", "\U0001f389 5 tests passed.", 5, 0),
    (
        "Karma",
        "Chrome 120 (Linux): Executed 2 of 5 SUCCESS\nChrome 120 (Linux): Executed 5 of 5 SUCCESS (0.01 secs)",
        5,
        0,
    ),
    ("Karma", "Chrome 120 (Linux): Executed 5 of 5 (1 FAILED) (0.01 secs)", 4, 1),
    ("uvu", "  Total:     5\n  Passed:    4\n  Skipped:   1\n  Duration:  1ms", 4, 0),
    ("Cucumber", "3 scenarios (1 failed, 2 passed)", 2, 1),
    ("Cucumber", "3 scenarios (3 passed)", 3, 0),
    ("behave", "3 scenarios passed, 0 failed, 0 skipped", 3, 0),
    ("Robot Framework", "5 tests, 4 passed, 1 failed", 4, 1),
    ("Clojure", "Ran 5 tests containing 10 assertions.\n1 failures, 1 errors.", 3, 2),
    ("EUnit", "  All 5 tests passed.", 5, 0),
    ("EUnit", "  Failed: 1.  Skipped: 0.  Passed: 4.", 4, 1),
    ("tasty", "All 5 tests passed (0.00s)", 5, 0),
    ("tasty", "1 out of 5 tests failed (0.01s)", 0, 1),
    ("Zig", "4 passed; 0 skipped; 1 failed.", 4, 1),
    ("prove", "Files=1, Tests=5,  0 wallclock secs\nResult: PASS", 5, 0),
    ("prove", "Files=1, Tests=5,  0 wallclock secs\nResult: FAIL", 4, 1),
    ("busted", "5 successes / 0 failures / 0 errors / 0 pending : 0.001 seconds", 5, 0),
    ("testthat", "[ FAIL 1 | WARN 0 | SKIP 0 | PASS 5 ]", 5, 1),
    ("Alcotest", "Test Successful in 0.001s. 5 tests run.", 5, 0),
    ("elm-test", "TEST RUN FAILED\n\nDuration: 1 ms\nPassed:   5\nFailed:   1", 5, 1),
    ("TAP", "TAP version 14\n1..3\nok 1 - a\nnot ok 2 - b\n  ---\n  ...\nok 3 - c # SKIP later", 1, 1),
    ("TAP", "1..2\nok 1 - a\nnot ok 2 - b # TODO", 1, 0),
    ("JUnit XML", '<testsuites tests="2"><testsuite><testcase name="a"/><testcase name="b">', 2, 0),
    ("JUnit XML", '<testsuite><testcase name="a"/><testcase name="b"><failure>no</failure></testcase>', 1, 1),
]

NOT_SUMMARIES = [
    "",
    "all good",
    "ok 1",
    "listening on port 8000",
    "0 tests failed",
    "compiled 5 modules in 3 s, 2 warnings",
    "added 120 packages in 3s",
    "Test Files  1 passed (1)",
    "5 tests found",
]


@pytest.mark.parametrize(("runner", "output", "passed", "failed"), SUMMARIES)
def test_a_summary_is_read(runner: str, output: str, passed: int, failed: int) -> None:
    for text in (output, f"> check\n\n{output}\n\nDone in 1.2s.\n"):
        tally = read_tally(text)
        assert (tally.passed, tally.failed) == (passed, failed), runner
        assert bool(tally.failures) == (failed > 0)


@pytest.mark.parametrize("output", NOT_SUMMARIES)
def test_other_output_is_not_a_summary(output: str) -> None:
    assert read_tally(output) == Tally()


def test_each_known_runner_has_an_example() -> None:
    assert not set(RUNNERS) - {runner for runner, *_ in SUMMARIES}


def test_several_runs_add_up() -> None:
    tally = read_tally(
        "Ran 4 tests in 0.1s\n\nOK\nTests:       5 passed, 5 total\n==== 1 failed, 2 passed in 0.1s ===="
    )
    assert (tally.passed, tally.failed) == (11, 1)
    assert tally.failures == ("==== 1 failed, 2 passed in 0.1s ====",)


def test_a_report_is_read_by_its_elements() -> None:
    assert tally_report({"testcase": 5, "skipped": 1, "failure": 1}, "build/a.xml") == Tally(
        3, 1, ("the JUnit XML report in build/a.xml: 1 failed",)
    )
    assert tally_report({}) == Tally()


def test_a_long_output_is_read_in_reasonable_time() -> None:
    noise = "= " * 150 + "12 tests passed, 3 failed in\n"
    output = noise * 5_000 + "x" * 1_000_000 + "\nRan 2 tests in 0.1s\n"
    begun = time.process_time()
    assert read_tally(output).passed == 2
    assert time.process_time() - begun < 5
