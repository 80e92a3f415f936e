"""The rehearsal model's normal script: it builds the product of `product_files.py`, turn by turn."""

import json
import re
from dataclasses import dataclass, replace

from local.rehearsal.agent import (
    Agent,
    CannotGoOn,
    Step,
    bash,
    glob,
    grep,
    look,
    read_file,
    strip_line_numbers,
    take_screenshot,
)
from local.rehearsal.conversation import Conversation, Play, tagged_json, tagged_text
from local.rehearsal.product_files import (
    CHANGES,
    CHECK_COMMAND,
    MISTAKE,
    PAGE_EDITS,
    WAITLIST_EDITS,
    Edit,
    Idea,
    changelog,
    content_json,
    plan,
    product,
    read_idea,
    readme,
    sabotaged,
)


@dataclass(frozen=True)
class ProductOptions:
    """Ways in which the build goes wrong on purpose, for tests of the evidence gate."""

    withhold_fix: bool = False
    """Never fix the mistake, but claim to be done."""
    sabotage: str | None = None
    """One of `product_files.SABOTAGES`."""
    fix_findings: bool = True
    """Fix the gate's findings; if false, only claim again to be done."""
    reports: int = 0
    """End this many phases by ending the turn with a report, although work is left."""
    plan: str = "kept"
    """`kept`, `unticked` (written, but nothing is ever ticked) or `forgotten` (never written)."""


def idea_of(conversation: Conversation) -> Idea:
    """Return the idea from the system prompt."""
    system = conversation.system
    return read_idea(tagged_json(system, "idea_brief"), tagged_json(system, "interview"), tagged_text(system, "goal"))


def build_product(conversation: Conversation, options: ProductOptions) -> Play:
    """Yield the turns of a build: look around, start or continue the product, then end the turn as often as needed.

    A conversation that does not begin with the program's first message goes on with a build whose earlier conversation
    is gone: what the workspace holds says how far that was.
    """
    is_continuation = bool(conversation.opening) and not conversation.opening[0].startswith("Begin")
    yield from _Builder(idea_of(conversation), options, is_continuation=is_continuation).build()


class _Builder(Agent):
    def __init__(self, idea: Idea, options: ProductOptions, *, is_continuation: bool = False) -> None:
        super().__init__()
        self._is_continuation = is_continuation
        self.idea = idea
        self.options = options
        self.phase = 0
        self._reports_left = options.reports

    def build(self) -> Play:
        """Yield all turns. The script never ends; the conversation does."""
        try:
            exists, done = yield from self.look_around()
            if self._is_continuation and done:
                yield from self.resume(done)
            elif exists:
                yield from self.continue_product()
            if not exists or self._is_continuation:
                phases = (self.scaffold, self.show_the_idea, self.take_addresses, self.look_at_it)
                for phase in phases[self.phase :]:
                    yield from phase()
                    yield from self.report_early()
            last_words = self.summary()
        except CannotGoOn as error:
            last_words = f"I have to stop here without being done. {error}"
        while True:
            try:
                yield from self.end_turn(last_words)
                if self.findings:
                    last_words = yield from self.answer_findings()
            except CannotGoOn as error:
                last_words = f"I tried to fix the findings and did not succeed. {error}"

    def summary(self) -> str:
        """Return the closing text, which the founder reads."""
        count = len(self.idea.features)
        features = "its feature" if count == 1 else f"its {count} features"
        return (
            f"{self.idea.name} runs. The page shows the problem and {features}, and the waitlist takes addresses. "
            "Everything is committed; its tests pass with the check that cofounder.json names."
        )

    def report_early(self) -> Step[None]:
        """End the turn after a phase although there are more, as today's models do; go on when told to."""
        if self._reports_left and self.phase < len(CHANGES):
            self._reports_left -= 1
            yield from self.end_turn(f"A part of it is done and committed: {CHANGES[self.phase - 1]} More is to come.")

    def plan_paths(self) -> tuple[str, ...]:
        """Bring the plan file up to date with the phase, and return its path; nothing if it is forgotten."""
        if self.options.plan == "forgotten":
            return ()
        self.files["PLAN.md"] = plan(self.idea, self.phase if self.options.plan == "kept" else 0)
        return ("PLAN.md",)

    def put(self, phase: int) -> dict[str, str]:
        """Enter a phase, and return the files to write in it."""
        self.phase = phase
        return sabotaged(product(self.idea, phase), self.options.sabotage)

    # The phases

    def look_around(self) -> Step[tuple[bool, int]]:
        """Return whether the workspace has a complete product, and how many phases its changelog names."""
        files, entries = yield from self.act(
            "I look at what is already in the workspace.",
            glob("**/*"),
            grep("^- ", "CHANGELOG.md"),
            thinking="The workspace may be empty or hold an earlier version of this product. I look before I decide.",
        )
        listing = files.text
        if not (files.ok and entries.ok):
            (shell,) = yield from self.act(
                "Those tools did not answer, so I ask the shell.", bash("git ls-files; ls -A")
            )
            listing = shell.text
        needed = ("cofounder.json", "server.py", "page.py", "waitlist.py", "CHANGELOG.md")
        is_complete = all(re.search(rf"(^|[\s/]){re.escape(name)}\b", listing) for name in needed)
        return is_complete, sum(change in entries.text for change in CHANGES)

    def resume(self, phase: int) -> Step[None]:
        """Go on after a phase whose conversation is gone: the files should be as they were at its end."""
        self.files = self.put(phase) | {"README.md": readme(self.idea, phase), "CHANGELOG.md": changelog(phase)}
        self.plan_paths()
        yield from self.repair_files(
            f"The changelog says that {phase} of {len(CHANGES)} phases are done. I compare the files with that."
        )

    def scaffold(self) -> Step[None]:
        """Phase 1: a server with a first test."""
        yield from self.act(
            "The workspace is empty. I check which tools this sandbox has before choosing any.",
            bash("python3 --version; git --version; git status --short --branch 2>&1 | head -n 5; ls -A"),
        )
        self.files = self.put(1)
        yield from self.write(
            f"I start {self.idea.name} with Python's standard library, since there is nothing to download here: "
            "first what the product is, how to run and check it, and the plan.",
            ".gitignore",
            "cofounder.json",
            "README.md",
            "CHANGELOG.md",
            *self.plan_paths(),
        )
        yield from self.write(
            "Now a small server and its first test.", "server.py", "tests/__init__.py", "tests/test_server.py"
        )
        yield from self.check_until_green("I run the first test.", CHECK_COMMAND)
        yield from self.commit("It passes. That is the scaffold; I commit it.", "Add a server with its first test")

    def show_the_idea(self) -> Step[None]:
        """Phase 2: the page with the whole idea."""
        files = self.put(2)
        final_server = files.pop("server.py")
        self.files |= files
        content = "build/content.json" if "build/content.json" in files else "content.json"
        yield from self.write(
            "Next is the page. The founder's words go into a data file, so that no text of theirs can ever break the "
            "markup.",
            *([".gitignore"] if self.options.sabotage == "left_out_file" else []),
            content,
            "page.py",
            "templates/page.html",
            thinking="Names and features can contain quotes, angle brackets or line breaks. Keeping them in JSON and "
            "escaping once, where the page is rendered, is the simplest thing that is safe.",
        )
        yield from self.write(
            "Its style, and tests that every feature is shown.", "static/style.css", "tests/test_page.py"
        )
        yield from self.edit("Now the server shows the page.", *PAGE_EDITS)
        if self.files["server.py"] != final_server:
            self.files["server.py"] = final_server
            yield from self.write("A last change to how the server starts.", "server.py")
        yield from self.check_until_green("I run all tests.", CHECK_COMMAND)
        yield from self.end_phase(2, "The page shows the whole idea.", "Show the idea on the page")

    def take_addresses(self) -> Step[None]:
        """Phase 3: the waitlist, with the one deliberate mistake."""
        files = self.put(3)
        new = ("waitlist.py", "templates/waitlist.html", "tests/test_waitlist.py")
        self.files |= {path: files[path] for path in new}
        self.files["waitlist.py"] = self.files["waitlist.py"].replace(MISTAKE.old, MISTAKE.new)
        yield from self.write(
            "Now the waitlist: one module that keeps addresses in SQLite, its form, and tests for what it takes and "
            "what it refuses.",
            *new,
        )
        yield from self.edit("I bring it into the server and the page.", *WAITLIST_EDITS)
        result = yield from self.check("I run all tests, the new ones included.", CHECK_COMMAND)
        if not result.ok:
            if self.options.withhold_fix:
                yield from self.end_phase(3, "The waitlist is in.", "Add the waitlist")
                return
            yield from self.fix_the_mistake(result.text)
            yield from self.check_until_green("All tests again.", CHECK_COMMAND)
        yield from self.end_phase(3, "All green.", "Add the waitlist")

    def fix_the_mistake(self, output: str) -> Step[None]:
        """Read the failing check's output, find the line, and fix it."""
        failing = next(iter(re.findall(r"^(?:FAIL|ERROR): (\w+)", output, re.M)), "a test")
        example = next(iter(re.findall(r"\(given='([^']*)'\)", output)), "")
        input_text = f" for “{example}”" if example else ""
        search, source = yield from self.act(
            f"{failing} fails{input_text}: the waitlist accepts more than addresses. I look for the code that decides.",
            grep(r"ADDRESS\.", "**/*.py"),
            read_file("waitlist.py"),
        )
        correct = self.files["waitlist.py"].replace(MISTAKE.new, MISTAKE.old)
        line = next((line for line in strip_line_numbers(source.text).splitlines() if MISTAKE.new in line), None)
        if line and source.ok:
            note = "" if not search.ok else " Only this line decides it."
            yield from self.edit(
                f"`match` only needs an address at the beginning and lets anything follow it.{note} "
                "`fullmatch` is what I meant.",
                Edit("waitlist.py", line, line.replace(MISTAKE.new, MISTAKE.old)),
                thinking="The test is right: a whole field must be one address. The pattern is right, the way it is "
                "applied is not. I fix the code, not the test.",
            )
        self.files["waitlist.py"] = correct
        if not line:
            yield from self.write("I cannot find the line, so I write the module again with the fix.", "waitlist.py")

    def look_at_it(self) -> Step[None]:
        """Phase 4: look at the product as a visitor does."""
        self.put(4)
        start = yield from self.serve("I start the server to see the product as a visitor does.")
        (screenshot,) = yield from self.act("How does it look on a desktop and on a phone?", take_screenshot("/"))
        if not (start.ok and screenshot.ok):
            (log,) = yield from self.act(
                "The screenshot failed. What does the server say?",
                bash("tail -n 30 data/server.log; cat cofounder.json; ls -A"),
            )
            yield from self.serve(
                "I start it again." if "Traceback" not in log.text else "It crashed; I start it again."
            )
            (screenshot,) = yield from self.act("I take another look.", take_screenshot("/"))
        verdict = (
            "It reads well in both widths."
            if screenshot.ok
            else "I cannot get a screenshot here, so I rely on the tests."
        )
        if start.ok and screenshot.ok:
            yield from self.act(
                f"{verdict} I join the waitlist on a phone, as a visitor does.",
                look(
                    "/",
                    "mobile",
                    ("fill", "input[name=email]", "grace@example.org"),
                    ("click", "button[type=submit]", ""),
                ),
            )
            verdict = "That is how it should be."
        yield from self.act(
            f"{verdict} I try the waitlist from outside: a new address, the same one again, and an invalid one.",
            bash(_TRY_WAITLIST),
        )
        yield from self.end_phase(4, "All of that works.", "Finish the first version")

    def end_phase(self, phase: int, text: str, message: str) -> Step[None]:
        """Bring README and changelog up to date, and commit."""
        if phase == 2 and self.options.sabotage == "uncommitted_file":
            self.uncommitted_paths = ("content.json",)
        self.files |= {"README.md": readme(self.idea, phase), "CHANGELOG.md": changelog(phase)}
        yield from self.write_and_commit(
            f"{text} README and changelog say so too, and I commit.",
            message,
            "README.md",
            "CHANGELOG.md",
            *self.plan_paths(),
        )

    def continue_product(self) -> Step[None]:
        """A second build: keep the product, bring the idea up to date, and note the goal."""
        content, log, _ = yield from self.act(
            f"{self.idea.name} is already here. I read its current state.",
            read_file("content.json"),
            read_file("CHANGELOG.md"),
            read_file("cofounder.json"),
            thinking="There is a product already. I change what the goal asks for and keep the rest.",
        )
        try:
            earlier = json.loads(strip_line_numbers(content.text))
        except ValueError:
            earlier = {}
        news = [str(text) for text in earlier.get("news", [])] if isinstance(earlier, dict) else []
        goal = self.idea.goal or "A further version."
        self.idea = replace(self.idea, news=tuple([*news, goal][-5:]))
        entry = "- " + " ".join(goal.split())
        self.phase = len(CHANGES)
        self.files = product(self.idea, self.phase) | {"content.json": content_json(self.idea)}
        entries = strip_line_numbers(log.text).strip()
        if entries.startswith("# Changelog"):
            self.files["CHANGELOG.md"] = f"# Changelog\n\n{entry}\n{entries.removeprefix('# Changelog').strip()}\n"
        else:
            self.files["CHANGELOG.md"] = changelog(self.phase) + entry + "\n"
        yield from self.write(
            "I bring the page up to date with the idea as it is now, and put what is new on it.",
            "content.json",
            "README.md",
            "CHANGELOG.md",
            *self.plan_paths(),
        )
        yield from self.check_until_green("I run all tests.", CHECK_COMMAND)
        start = yield from self.serve("I start the server to see the change.")
        if start.ok:
            yield from self.act("How does it look now?", take_screenshot("/"))
        yield from self.commit("I commit.", "Bring the product up to date: " + " ".join(goal.split())[:60])

    # The gate

    def answer_findings(self) -> Step[str]:
        """Fix the evidence gate's findings, or only claim to be done; return the closing text."""
        findings, self.findings = self.findings, []
        if self.options.withhold_fix or not self.options.fix_findings:
            return "I have looked at the findings. In my judgement the product is done as it is."
        self.uncommitted_paths = ()
        whole = len(CHANGES)
        changes = {"CHANGELOG.md": self.files["CHANGELOG.md"]} if self.phase == whole else {}
        self.files, self.phase = product(self.idea, whole) | changes, whole
        self.plan_paths()
        causes = re.findall(r"^- (.+)$", "\n".join(findings), re.M)
        first = f" The first finding: {causes[0][:160]}" if causes else ""
        count = yield from self.repair_files(
            f"The product did not pass in a fresh sandbox.{first} I compare the files."
        )
        yield from self.check_until_green("I run the check.", CHECK_COMMAND)
        yield from self.commit("I commit the fix, and everything that was left out before.", "Fix what the gate found")
        yield from self.act(
            "Is anything ignored or left uncommitted that the product needs?", bash("git status --short --ignored")
        )
        fix = f"I fixed {count} file{'s' if count != 1 else ''}" if count else "I committed what was missing"
        return f"{fix}; the check passes and everything is committed."


_TRY_WAITLIST = """\
python3 - <<'PY'
import json, os, urllib.error, urllib.request
port = os.environ.get("PORT") or 8000
for address in ("ada@example.org", "ada@example.org", "ada"):
    body, headers = json.dumps({"email": address}).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/waitlist", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            print(address, response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        print(address, error.code, error.read().decode())
PY
rm -f data/waitlist.db  # it was only a try"""
