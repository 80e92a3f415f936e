"""How the rehearsal model works, whatever it builds: it makes calls, reads messages and fixes failures.

Everything here is part of a script (see `conversation.Play`): it yields turns and decides by their outcomes.
"""

import hashlib
import re
import shlex
from collections.abc import Generator, Iterable
from typing import TypeVar

from local.rehearsal.conversation import Call, Outcome, ToolResult, Turn
from local.rehearsal.product_files import Edit

T = TypeVar("T")
Step = Generator[Turn, Outcome, T]
"""A part of a script that returns a result."""

MAX_CUT_OFF = 4
"""End the turn after this many messages of one step have been cut off."""

_CUT_OFF = re.compile(r"reached the length limit", re.I)
_LAST_TURN = re.compile(r"commit what you have in this one turn", re.I)
_RESUMED = re.compile(r"^(The build was resumed|Your founder had your workspace put back)", re.I)
_SUMMED_UP = re.compile(r"^Your conversation was summed up", re.I)
_FINDINGS = re.compile(r"did not pass\. Findings:", re.I)
_FOUNDER = re.compile(r"<founder_message>\n(.*)\n</founder_message>", re.S)
_HANDOFF = re.compile(r"handoff|hand-over note", re.I)
_HOUSEKEEPING = re.compile(
    r"^(Your last message was empty|You have made the same tool call|You may go on|Begin\. )", re.I
)


class CannotGoOn(Exception):
    """Repeated attempts failed. The message becomes part of the text that ends the model's turn."""


def bash(command: str, timeout_seconds: int | None = None) -> Call:
    """Return a call that runs a command in the workspace."""
    return Call("bash", {"command": command, "timeout_ms": timeout_seconds and timeout_seconds * 1000})


def read_file(path: str) -> Call:
    """Return a call that reads a file."""
    return Call("read_file", {"file_path": path, "view_range": None})


def write_file(path: str, content: str) -> Call:
    """Return a call that writes a whole file."""
    return Call("write_file", {"file_path": path, "content": content})


def edit_file(edit: Edit) -> Call:
    """Return a call that replaces a text in a file."""
    replacement = {"old_string": edit.old, "new_string": edit.new, "replace_all": None}
    return Call("edit_file", {"file_path": edit.path, **replacement})


def glob(pattern: str) -> Call:
    """Return a call that lists files."""
    return Call("glob", {"pattern": pattern, "path": None})


def grep(pattern: str, where: str | None = None) -> Call:
    """Return a call that searches files."""
    return Call("grep", {"pattern": pattern, "path": None, "glob": where})


def take_screenshot(path: str) -> Call:
    """Return a call that takes a picture of the running product."""
    return Call("take_screenshot", {"path": path})


def look(path: str, viewport: str, *steps: tuple[str, str, str]) -> Call:
    """Return a call that does steps on a page, each an action with a selector and a text, and looks at it."""
    given = [{"action": action, "selector": selector, "text": text} for action, selector, text in steps]
    return Call("look", {"path": path, "viewport": viewport, "steps": given, "full_page": True})


def strip_line_numbers(text: str) -> str:
    """Return a result of `read_file` without its line numbers."""
    return "\n".join(re.sub(r"^\s*\d+\t", "", line) for line in text.splitlines())


def _heredoc(path: str, content: str) -> Call:
    end = "END_OF_FILE"
    while end in content:
        end += "_"
    quoted = shlex.quote(path)
    return bash(f"mkdir -p \"$(dirname {quoted})\" && cat > {quoted} <<'{end}'\n{content.rstrip()}\n{end}")


class Agent:
    """The model's memory and its basic steps. `files` are the workspace files that it wrote, as they should be."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.serving = False
        self.uncommitted_paths: tuple[str, ...] = ()
        self.findings: list[str] = []
        self._remarks: list[str] = []
        self._commit_due = False
        self._handoff_due = False
        self._repair_due = False
        self._checks = 0

    # Turns and messages

    def act(self, text: str, *calls: Call, thinking: str | None = None) -> Step[tuple[ToolResult, ...]]:
        """Make the calls, then do at once what messages asked for in the meantime. Return the calls' results."""
        results = yield from self._make_calls(text, calls, thinking)
        yield from self._do_requests()
        return results

    def end_turn(self, text: str) -> Step[None]:
        """End the turn. Return when a message gives a reason to continue."""
        outcome = yield Turn(self._with_remarks(text))
        while not outcome.happened:
            self._read_messages(outcome.texts)
            outcome = yield Turn(text)
        self._read_messages(outcome.texts)
        yield from self._do_requests()

    def _make_calls(
        self, text: str, calls: Iterable[Call], thinking: str | None = None
    ) -> Step[tuple[ToolResult, ...]]:
        todo, results, cut_off = list(calls), list[ToolResult](), 0
        text = self._with_remarks(text)
        while todo:
            # After a message was cut off, make one call a turn.
            part = tuple(todo[:1] if cut_off else todo)
            outcome = yield Turn(text, part, thinking)
            self._read_messages(outcome.texts)
            if outcome.happened:
                results += outcome.results
                todo = todo[len(part) :]
                text, thinking = "The next part of the same step.", None
            elif any(_CUT_OFF.search(message) for message in outcome.texts):
                cut_off += 1
                if cut_off == MAX_CUT_OFF:
                    raise CannotGoOn("My messages are cut off before the tool call is complete, even in small steps.")
        return tuple(results)

    def _with_remarks(self, text: str) -> str:
        if not self._remarks:
            return text
        quoted = " ".join(f"“{remark[:200]}”" for remark in self._remarks)
        self._remarks = []
        return f"You said: {quoted} I take that into account as I go on. {text}"

    def _read_messages(self, texts: Iterable[str]) -> None:
        for text in texts:
            if _SUMMED_UP.match(text):
                continue  # the summary has it all
            if from_founder := _FOUNDER.search(text):
                self._remarks.append(from_founder[1])
            elif _LAST_TURN.search(text):
                self._commit_due = True
            elif _FINDINGS.search(text):
                self.findings.append(text)
            elif _RESUMED.search(text):
                self._repair_due = True
            elif _HANDOFF.search(text):
                self._handoff_due = True
            elif not _HOUSEKEEPING.search(text) and not _CUT_OFF.search(text):
                self._remarks.append(text)

    def _do_requests(self) -> Step[None]:
        while self._commit_due or self._handoff_due or self._repair_due:
            if self._commit_due:
                self._commit_due = False
                yield from self._make_calls(
                    "I commit what there is now.", [bash(self._commit_command("Keep what there is"))]
                )
            elif self._handoff_due:
                self._handoff_due = False
                self.files["HANDOFF.md"] = (
                    "# Handoff\n\nStopped here for today. What is committed works as its tests say; "
                    "CHANGELOG.md names what is done, and the next phase begins after its first entry.\n"
                )
                note = write_file("HANDOFF.md", self.files["HANDOFF.md"])
                commit = bash(self._commit_command("Leave a handoff note"))
                yield from self._make_calls("I leave a handoff note and commit.", [note, commit])
            else:
                self._repair_due = False
                yield from self.repair_files(
                    "The build was resumed, so I first check that the files are as I left them."
                )
                if self.serving:
                    yield from self._make_calls("Then I start the server again.", [bash(self._serve_command())])

    # Files

    def write(self, text: str, *paths: str, thinking: str | None = None) -> Step[None]:
        """Write files of `files`. If `write_file` fails, write them through the shell."""
        calls = [write_file(path, self.files[path]) for path in paths]
        results = yield from self.act(text, *calls, thinking=thinking)
        yield from self._write_again([path for path, result in zip(paths, results, strict=True) if not result.ok])

    def write_and_commit(self, text: str, message: str, *paths: str) -> Step[None]:
        """End a phase: write the last files and commit in one turn."""
        calls = [*(write_file(path, self.files[path]) for path in paths), bash(self._commit_command(message))]
        *results, commit = yield from self.act(text, *calls)
        failed = [path for path, result in zip(paths, results, strict=True) if not result.ok]
        yield from self._write_again(failed)
        if failed or not commit.ok:
            yield from self.commit("Now the commit.", message)

    def _write_again(self, failed: list[str]) -> Step[None]:
        if not failed:
            return
        rewrites = [_heredoc(path, self.files[path]) for path in failed]
        results = yield from self.act(
            f"Writing {', '.join(failed)} failed; I write through the shell instead.", *rewrites
        )
        if not all(result.ok for result in results):
            raise CannotGoOn(f"I could not write {', '.join(failed)}: {results[-1].text[:300]}")

    def edit(self, text: str, *edits: Edit, thinking: str | None = None) -> Step[None]:
        """Make edits. If one fails, read the file and write it as a whole."""
        for edit in edits:
            self.files[edit.path] = self.files[edit.path].replace(edit.old, edit.new)
        results = yield from self.act(text, *map(edit_file, edits), thinking=thinking)
        failed = list(dict.fromkeys(edit.path for edit, result in zip(edits, results, strict=True) if not result.ok))
        if not failed:
            return
        names = ", ".join(failed)
        yield from self.act(f"An edit of {names} failed. I read the file as it is now.", *map(read_file, failed))
        yield from self.write(f"I write {names} as a whole instead.", *failed)

    def repair_files(self, text: str) -> Step[int]:
        """Compare the workspace with `files`, write what is missing or differs, and return how many files that was."""
        if not self.files:
            return 0
        names = " ".join(map(shlex.quote, sorted(self.files)))
        self._checks += 1
        look = bash(f"git status --short | head -n 20; sha256sum {names} 2>&1 || true  # look {self._checks}")
        (result,) = yield from self._make_calls(text, [look])
        lines = re.findall(r"^([0-9a-f]{64})  (.+?)$", result.text, re.M)
        digests = {path: digest for digest, path in dict(lines).items()}
        differing = [
            path
            for path in sorted(self.files)
            if digests.get(path) != hashlib.sha256(self.files[path].encode()).hexdigest()
        ]
        if differing:
            yield from self.write(
                f"These files differ from mine, so I write them again: {', '.join(differing)}.", *differing
            )
        return len(differing)

    # Commands

    def _commit_command(self, message: str) -> str:
        left_out = "".join(f" {shlex.quote(':!' + path)}" for path in self.uncommitted_paths)
        who = "-c user.name=Cofounder -c user.email=cofounder@localhost"
        return (
            f"[ -d .git ] || git init -q -b main; git add -A -- .{left_out} && "
            f"(git diff --cached --quiet || git {who} commit -q -m {shlex.quote(message)}) && "
            "git log --oneline -1 && git status --short"
        )

    def commit(self, text: str, message: str) -> Step[None]:
        """Commit everything.

        Raises:
            CannotGoOn: git failed twice.
        """
        (result,) = yield from self.act(text, bash(self._commit_command(message)))
        if result.ok:
            return
        repair = bash("rm -f .git/index.lock; " + self._commit_command(message))
        (result,) = yield from self.act("The commit failed. I remove a stale lock and try again.", repair)
        if not result.ok:
            raise CannotGoOn(f"I could not commit: {result.text[:300]}")

    def check(self, text: str, command: str) -> Step[ToolResult]:
        """Run the product's check once."""
        self._checks += 1
        (result,) = yield from self.act(text, bash(f"{command} 2>&1  # run {self._checks}", 120))
        return result

    def check_until_green(self, text: str, command: str) -> Step[None]:
        """Run the check. If it fails, repair the files and try again.

        Raises:
            CannotGoOn: it still fails.
        """
        result = yield from self.check(text, command)
        for _ in range(2):
            if result.ok:
                return
            failing = ", ".join(dict.fromkeys(re.findall(r"^(?:FAIL|ERROR): (\w+)", result.text, re.M))) or "the check"
            yield from self.repair_files(f"I did not expect {failing} to fail. I compare the files with what I wrote.")
            result = yield from self.check("I run the check once more.", command)
        if not result.ok:
            raise CannotGoOn(f"The check stays red and I do not see why: {result.text[-400:]}")

    def _serve_command(self) -> str:
        self._checks += 1
        return (
            "mkdir -p data; [ -f data/server.pid ] && kill $(cat data/server.pid) 2>/dev/null; "
            "nohup python3 server.py > data/server.log 2>&1 < /dev/null & echo $! > data/server.pid\n"
            "for attempt in $(seq 40); do python3 - <<'PY' && exit 0\n"
            "import os, urllib.request\n"
            "try:\n"
            "    port = os.environ.get('PORT') or 8000\n"
            "    print(urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=2).read().decode())\n"
            "except OSError:\n"
            "    raise SystemExit(1)\n"
            "PY\n"
            f"sleep 0.1; done; tail -n 20 data/server.log; exit 1  # start {self._checks}"
        )

    def serve(self, text: str) -> Step[ToolResult]:
        """Start or restart the product's server in the background."""
        self.serving = True
        (result,) = yield from self.act(text, bash(self._serve_command()))
        return result
