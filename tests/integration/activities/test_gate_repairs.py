"""Findings are enough to repair a product: a scripted agent that reads nothing else repairs each kind, and passes.

The agent knows how to write a small web server; what is wrong, and where, it reads from the finding alone. Many of its
commands are those that a finding quotes.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from activities.gate import GatePolicy
from domain.findings import FindingKind
from domain.payloads import RunGate
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness, shell
from tests.harness.products import MANIFEST, SERVER, TESTS, UNTITLED, VIEWPORT, product, run_of
from tests.harness.wait import DEADLINE

ROUNDS = 4
"""How often the agent may repair a product. A fault can hide behind another."""

COMMIT = "git add -A; git diff --cached --quiet || git commit -qm 'Repair it'"


class Repair:
    """What the agent does about a finding that has these words: a command. `%1` is the first of its facts."""

    def __init__(self, words: str, command: str, *facts: str) -> None:
        self.words = words
        self._command = command
        self._facts = facts

    def command(self, text: str) -> str:
        """The command for this finding.

        Raises:
            AssertionError: the finding does not say what the agent has to know.
        """
        command = self._command
        for number, expression in enumerate(self._facts, 1):
            match = re.search(expression, text)
            assert match is not None, f"the finding does not say {expression}:\n{text}"
            command = command.replace(f"%{number}", match[1])
        return f"{command}\n{COMMIT}"


EDIT = "python3 -c 'import json, sys; print(json.dumps(json.loads(sys.argv[1]) | json.loads(sys.argv[2])))'"
"""Prints the first JSON object with the entries of the second."""

REPAIRS = {
    FindingKind.NO_COMMIT: Repair("There is no git commit", "%1 -qm 'Commit it'", r"satisfy this: [^`]*`(git [^`]*)`"),
    FindingKind.EMBEDDED_REPOSITORY: Repair(
        "git repositories inside its own", "%1", r"satisfy this: [^`]*`(rm [^`]*)`"
    ),
    FindingKind.GIT_FAILED: Repair("failed in the restored workspace", "rm -rf .git; git init -q -b main"),
    FindingKind.UNCOMMITTED: Repair("changes that are in no commit", "git add %1", r"[?]{2} (.*)"),
    FindingKind.PLAN: Repair(
        "PLAN.md has stories that are not done", "sed -i 's/\\[ \\] %1/%2 %1/' PLAN.md", "- (.*)", r"`- (\[x\])`"
    ),
    FindingKind.PRODUCT_FILE: Repair(
        "has no cofounder.json", f"{EDIT} '%1' '{json.dumps(MANIFEST)}' >cofounder.json", "of the form ({.*?})"
    ),
    FindingKind.INSTALL_FAILED: Repair(
        "`install` (", "mkdir -p $(dirname %1); echo words >%1", r"cat: (\S+): No such file"
    ),
    FindingKind.CHECK_FAILED: Repair(
        "Fix what the output names", "sed -i '1i %1Rooms</title>' page.html", "AssertionError: '(.*?)' not found"
    ),
    FindingKind.TESTS_FAILED: Repair(
        "but it names failed tests",
        "sed -i '%1s/, .*)/, %2)/' test_page.py; sed -i 's/ %3//' cofounder.json",
        r'test_page.py", line (\d+)',
        r"AssertionError: (\d+) != ",
        r"without `(.*?)`",
    ),
    FindingKind.NO_TEST_RAN: Repair(
        "does not show that a test was run",
        EDIT + ' "$(cat cofounder.json)" \'{"check": "python3 -m %1"}\' >new; mv new cofounder.json',
        r"summaries of (\w+)",
    ),
    FindingKind.START_ENDED: Repair(
        "before the page was served",
        "sed -i '%1{/%2/d}' server.py",
        r'server.py", line (\d+)',
        r"name '(\w+)' is not defined",
    ),
    FindingKind.NOT_ANSWERING: Repair(
        "Nothing answered GET /", "sed -i 's/%1/%2/' server.py", r"serving at (\d+)", r"names, which is (\d+)"
    ),
    FindingKind.BAD_STATUS: Repair(
        "was answered with status 500", "mkdir -p $(dirname %1); cp page.html %1", r"No such file or directory: '(.*?)'"
    ),
    FindingKind.PAGE_FAILED: Repair(
        "could not be shown in a browser", "sed -i '/attachment/d' server.py", "(Download is starting)"
    ),
    FindingKind.BLANK: Repair("is blank", "echo '<h1>Rooms</h1>' >>page.html"),
    FindingKind.TEMPLATE: Repair(
        "The first page is still that of", "sed -i '\\#%1#d' page.html", "It shows:\n.*\n+(.*)"
    ),
    FindingKind.CONSOLE_ERROR: Repair(
        "Scripts of the product's pages fail", "sed -i '/%1/d' page.html", r"ReferenceError: (\w+) is not defined"
    ),
    FindingKind.FAILED_REQUEST: Repair("ask for things", "touch %1", r"script /(\S+): status 404"),
    FindingKind.BROKEN_IMAGE: Repair(
        "Images on the product's pages are broken", "sed -i '/%1/d' page.html", r"mobile\): /(\S+)"
    ),
    FindingKind.DEAD_LINK: Repair("lead nowhere", "cp page.html %1", r"mobile\): /(\S+) "),
    FindingKind.PHONE_OVERFLOW: Repair(
        "wider than a phone", "for page in *.html; do echo '%1' >>$page; done", '(<meta name="viewport".*?>)'
    ),
    FindingKind.DID_NOT_STAY_UP: Repair("but no longer when a browser", "sed -i '/%1/d' server.py", r"ended by (\w+)"),
}


@dataclass(frozen=True)
class Fault:
    """A product with faults, and the kinds of findings that name them."""

    kinds: set[FindingKind]
    commands: dict[str, object] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    script: str = "true"
    """Run in the workspace after the product has been committed."""
    wants_plan: bool = False
    start_seconds: float = DEADLINE


EMBED = "mkdir web; cd web; git init -q; echo hi >a.txt; git add -A; git commit -qm 'Add a'; cd .."
READ = """\
        body = path.read_bytes() if is_there else b"Not found"
        self.send_response(200 if is_there else 404)
"""
FAILING = """\
        try:
            body, status = (pathlib.Path("views/home.html") if is_there else path).read_bytes(), 200
        except OSError as error:
            body, status = str(error).encode(), 500
        self.send_response(status)
"""
DOWNLOAD = "        self.send_header('Content-Disposition', 'attachment')\n"
WATCH = '        "Mozilla" in self.headers["User-Agent"] and threading.Timer(0.3, os._exit, [3]).start()  # watchdog\n'

JUDGED = {FindingKind.FEATURE_MISSING, FindingKind.FEATURE_FAKED}
"""What the judge holds against a product; see `test_judge.py`."""

FAULTY = """\
<!doctype html><title>Vite + React</title><h1>Rooms</h1>
<p>Edit src/App.tsx and save to test HMR</p>
<script>book(rooms)</script>
<script src=/booking.js></script>
<img src=/room.png>
<a href=/prices.html>Prices</a>
"""

FAULTS = {
    "history": Fault(
        {FindingKind.NO_COMMIT, FindingKind.EMBEDDED_REPOSITORY, FindingKind.PLAN, FindingKind.PRODUCT_FILE},
        script=f"rm -rf .git cofounder.json; git init -q -b main; {EMBED}; echo '- [ ] Doors' >PLAN.md",
        wants_plan=True,
    ),
    "commands": Fault(
        {FindingKind.UNCOMMITTED, FindingKind.INSTALL_FAILED, FindingKind.CHECK_FAILED, FindingKind.START_ENDED},
        commands={"install": "cat data/words.txt"},
        files={
            "page_html": UNTITLED,
            "server_py": SERVER.replace("pathlib\n", "pathlib\nprint(patr)\n", 1),
        },
        script="echo note >note.txt",
    ),
    "tests": Fault(
        {FindingKind.TESTS_FAILED, FindingKind.NOT_ANSWERING},
        commands={"check": "python3 -m unittest || true"},
        files={
            "test_page_py": TESTS + "    def test_sum(self):\n        self.assertEqual(2 + 2, 2)\n",
            "server_py": SERVER.replace("8000", "8001").replace("starting", "serving at 8001"),
        },
        start_seconds=2,
    ),
    "answers": Fault(
        {FindingKind.NO_TEST_RAN, FindingKind.BAD_STATUS},
        commands={"check": "echo fine"},
        files={"server_py": SERVER.replace(READ, FAILING)},
        start_seconds=2,
    ),
    "pages": Fault(
        {FindingKind.GIT_FAILED, FindingKind.BLANK},
        files={"page_html": f"<!doctype html><title>Rooms</title>{VIEWPORT}"},
        script="git gc -q --prune=now; find .git/objects -name '*.pack' -delete",
    ),
    "looks": Fault(
        {
            FindingKind.TEMPLATE,
            FindingKind.CONSOLE_ERROR,
            FindingKind.FAILED_REQUEST,
            FindingKind.BROKEN_IMAGE,
            FindingKind.DEAD_LINK,
            FindingKind.PHONE_OVERFLOW,
        },
        files={"page_html": FAULTY},
    ),
    "servers": Fault(
        {FindingKind.PAGE_FAILED, FindingKind.DID_NOT_STAY_UP},
        files={
            "server_py": "import os, threading\n"
            + SERVER.replace("        self.end_headers()\n", f"{DOWNLOAD}        self.end_headers()\n")
            .replace("        self.wfile.write(body)\n", f"        self.wfile.write(body)\n{WATCH}")
            .replace("starting", "ended by watchdog if a browser comes")
        },
    ),
}

IN_EACH_RUN = {"commands", "looks"}
"""The faults that `make test` has: in commands, and on pages that a browser shows. Each kind of finding has tests of
its own in `test_gate.py` or `test_gate_evidence.py`."""


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


def repair(finding: str) -> tuple[FindingKind, str]:
    """The kind of a finding and the commands that repair it, from its text alone."""
    matching = [kind for kind, each in REPAIRS.items() if each.words in finding]
    assert len(matching) == 1, f"{matching} for:\n{finding}"
    return matching[0], REPAIRS[matching[0]].command(finding)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in IN_EACH_RUN else [pytest.mark.thorough]) for name in FAULTS]
)
async def test_an_agent_that_sees_only_the_findings_repairs_the_product(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault = FAULTS[name]
    monkeypatch.setattr(
        harness.gate, "_policy", GatePolicy(command_seconds=DEADLINE, start_seconds=fault.start_seconds)
    )
    sandbox = await product(harness, build, fault.commands, **fault.files)
    await shell(sandbox, fault.script)
    seen: set[FindingKind] = set()
    for number in range(1, ROUNDS + 2):
        await harness.take(build, sandbox, number)
        request = RunGate(build_id=build, number=number, snapshot_number=number, wants_plan=fault.wants_plan)
        if (await harness.run(harness.gate.run_evidence_gate, request)).passed:
            break
        for finding in (await run_of(harness, build, number)).findings or []:
            kind, commands = repair(finding)
            seen.add(kind)
            await shell(sandbox, commands)
    else:
        pytest.fail(f"not repaired in {ROUNDS} rounds: {(await run_of(harness, build, number)).findings}")
    assert seen == fault.kinds


def test_each_kind_of_finding_is_repaired() -> None:
    repaired = set().union(*(fault.kinds for fault in FAULTS.values()))
    assert repaired == set(REPAIRS) == set(FindingKind) - JUDGED
