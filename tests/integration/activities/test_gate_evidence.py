"""Products whose fault the evidence gate did not see, or saw without its cause; and good ones that it bounced."""

from collections.abc import AsyncIterator

import pytest

from activities.sandbox.step_output import read_reports
from domain.check_summary import Tally
from domain.payloads import ResumeWorkspace, SandboxInput
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness, shell
from tests.harness.products import TESTS, gate, only_finding, product, run_of
from tests.harness.wait import DEADLINE, wait_until

FAILING = TESTS + '    def test_fails(self):\n        self.fail("this one is broken")\n'

LONG_INSTALL = """\
echo 'npm error `npm ci` can only install packages when package.json and package-lock.json are in sync'
for number in $(seq 250); do echo "usage line $number: npm ci [--install-strategy <hoisted|nested|linked>]"; done
echo 'E: the middle names an error, too'
for number in $(seq 250); do echo "usage line $number: npm ci [--install-strategy <hoisted|nested|linked>]"; done
exit 1
"""

WRITER = "setsid nohup bash -c 'while sleep 0.05; do date +%N >AGENTS.md; done' </dev/null >/dev/null 2>&1 &"


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


async def test_a_failing_part_of_a_pipe_fails_the_check(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, {"check": "python3 -m unittest 2>&1 | tail -4"}, test_page_py=FAILING)
    finding = await only_finding(harness, build, sandbox)
    assert finding.startswith("`check` (python3 -m unittest 2>&1 | tail -4) ended with exit code 1 after ")
    assert "FAILED (failures=1)" in finding


async def test_a_summary_that_names_failures_counts_whatever_the_exit_code(
    harness: ActivityHarness, build: str
) -> None:
    sandbox = await product(harness, build, {"check": "python3 -m unittest || true"}, test_page_py=FAILING)
    finding = await only_finding(harness, build, sandbox)
    assert finding.startswith("`check` (python3 -m unittest || true) exited with 0, but it names failed tests.")
    assert "AssertionError: this one is broken" in finding
    assert "without `|| true`" in finding


async def test_a_crash_behind_a_pipe_is_seen_at_once_and_its_log_is_shown(harness: ActivityHarness, build: str) -> None:
    start = "python3 server.py 2>&1 | tee server.log"
    sandbox = await product(harness, build, {"start": start}, server_py="raise SystemExit('no database')")
    finding = await only_finding(harness, build, sandbox)
    assert "ended with exit code 1 before the page was served.\nIts log:\nno database\n" in finding


async def test_a_server_that_does_not_answer_is_bounced_with_its_log(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, {"start": "echo waiting for the database; sleep 100"})
    finding = await only_finding(harness, build, sandbox, hasty=True)
    assert "The log of `start`:\nwaiting for the database\n" in finding


async def test_harmless_oddities_pass(harness: ActivityHarness, build: str) -> None:
    """A pipe whose reader ends first, a read-only folder that git ignores, a report of a runner that is not known."""
    report = (
        '<testsuites><testsuite tests="2"><testcase name="a"/><testcase name="b"></testcase></testsuite></testsuites>'
    )
    check = f"yes | head -1 >/dev/null && mkdir -p out && echo '{report}' >out/report.xml && echo two good ones"
    sandbox = await product(harness, build, {"check": check, "install": "yes | true"})
    await shell(
        sandbox,
        "printf '/pkg/\\n/out/\\n' >.gitignore; git add -A; git commit -qm 'Ignore it'; mkdir -p pkg/mod; "
        "echo x >pkg/mod/file; chmod 0555 pkg/mod",
    )
    _, findings = await gate(harness, build, sandbox)
    assert findings == []
    assert (await run_of(harness, build)).tests_run == 2


async def test_a_process_of_the_agent_cannot_go_on_writing(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build)
    await shell(sandbox, WRITER)

    async def has_written() -> bool:
        return "AGENTS.md" in await shell(sandbox, "git status --porcelain")

    await wait_until(has_written)
    finding = await only_finding(harness, build, sandbox)
    assert "?? AGENTS.md" in finding
    await shell(sandbox, "rm AGENTS.md")
    _, findings = await gate(harness, build, sandbox, 2)
    assert findings == []


async def test_an_embedded_repository_is_named(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build)
    await shell(
        sandbox,
        "mkdir web; cd web; git init -q; echo '<h1>Web</h1>' >index.html; git add -A; git commit -qm 'Add the web'; "
        "cd ..; git add -A 2>/dev/null; git commit -qm 'Add all'",
    )
    finding = await only_finding(harness, build, sandbox)
    assert "\nEmbedded repositories:\nweb\n" in finding


async def test_the_cause_of_a_failed_install_is_shown_and_all_of_its_output_is_kept(
    harness: ActivityHarness, build: str
) -> None:
    sandbox = await product(harness, build, {"install": "bash install.sh"}, install_sh=LONG_INSTALL)
    finding = await only_finding(harness, build, sandbox)
    assert "`install` (bash install.sh) ended with exit code 1 after " in finding
    assert "npm error `npm ci` can only install packages when" in finding
    assert "E: the middle names an error, too" in finding
    path = "/home/user/.cofounder/gate/1-install.txt"
    assert path in finding
    given = SandboxInput(build_id=build, sandbox_id=sandbox.id)
    await harness.run(harness.workspace.pause_workspace, given)
    await harness.run(
        harness.workspace.resume_workspace, ResumeWorkspace(build_id=build, sandbox_id=sandbox.id, cause="x")
    )
    assert (await shell(sandbox, f"cat {path}")).count("usage line 125:") == 2


async def test_reports_are_counted_if_they_are_new(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, "mkdir -p old new/deep; echo '<testsuite><testcase/></testsuite>' >old/report.xml; sleep 0.1")
    script = (
        "echo '<testsuite><testcase/><testcase><failure/></testcase></testsuite>' >'new/deep/a b.xml'\n"
        "echo '<testsuite><testcase/><testcase><skipped/></testcase></testsuite>' >new/TEST-b.xml\n"
        "echo '<project><testcase/></project>' >new/pom.xml"
    )
    await sandbox.call("step", "bash", {"command": script}, timeout_seconds=DEADLINE)
    tally = await read_reports(sandbox, "step")
    assert tally == Tally(2, 1, ("the JUnit XML report in new/deep/a b.xml: 1 failed",))
