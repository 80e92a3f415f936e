"""How the rehearsal model works, whatever it builds: makes calls, hears what people say, mends what went wrong.

Everything here is a part of a script (see `conversation.Play`): it yields turns and decides by what came of them.
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
"""A part of a script that comes to a result."""

MAX_TORN = 4
"""So many torn messages in a row, and the model says that it cannot go on."""

_CUT_OFF = re.compile(r"reached the length limit", re.I)
_LAST_TURN = re.compile(r"commit what you have in this one turn", re.I)
_RESUMED = re.compile(r"^(The build was resumed|Your founder had your workspace put back)", re.I)
_FINDINGS = re.compile(r"did not pass\. Findings:", re.I)
_FOUNDER = re.compile(r"<founder_message>\n(.*)\n</founder_message>", re.S)
_HANDOFF = re.compile(r"handoff|hand-over note", re.I)
_HOUSEKEEPING = re.compile(
    r"^(Your last message was empty|You have made the same tool call|You may go on|Begin\. )", re.I
)


class CannotGoOn(Exception):
    """What the model tried failed again and again; the message is what it says at the end of its turn."""


def bash(command: str, timeout_seconds: int | None = None) -> Call:
    """A command in the workspace."""
    return Call("bash", {"command": command, "timeout_seconds": timeout_seconds})


def read_file(path: str, start_line: int | None = None, line_count: int | None = None) -> Call:
    """A look into a file."""
    return Call("read_file", {"path": path, "start_line": start_line, "line_count": line_count})


def write_file(path: str, content: str) -> Call:
    """A whole file."""
    return Call("write_file", {"path": path, "content": content})


def edit_file(edit: Edit) -> Call:
    """One piece of a file."""
    return Call("edit_file", {"path": edit.path, "old_text": edit.old, "new_text": edit.new, "replace_all": None})


def glob(pattern: str) -> Call:
    """A list of files."""
    return Call("glob", {"pattern": pattern})


def grep(pattern: str, where: str | None = None) -> Call:
    """A search."""
    return Call("grep", {"pattern": pattern, "glob": where})


def take_screenshot(path: str) -> Call:
    """A look at the running product."""
    return Call("take_screenshot", {"path": path})


def unnumbered(text: str) -> str:
    """What `read_file` answered, without its line numbers."""
    return "\n".join(re.sub(r"^\s*\d+\t", "", line) for line in text.splitlines())


def _heredoc(path: str, content: str) -> Call:
    end = "END_OF_FILE"
    while end in content:
        end += "_"
    quoted = shlex.quote(path)
    return bash(f"mkdir -p \"$(dirname {quoted})\" && cat > {quoted} <<'{end}'\n{content.rstrip()}\n{end}")


class Agent:
    """What the model keeps in mind. `files` is what the workspace ought to hold, as far as it wrote it."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.serving = False
        self.left_out_of_commits: tuple[str, ...] = ()
        self.findings: list[str] = []
        self._remarks: list[str] = []
        self._asked_to_commit = False
        self._asked_for_handoff = False
        self._was_resumed = False
        self._checks = 0

    # Saying and hearing

    def act(self, text: str, *calls: Call, thinking: str | None = None) -> Step[tuple[ToolResult, ...]]:
        """Make the calls and return their results; then do at once what people asked for meanwhile."""
        results = yield from self._offer(text, calls, thinking)
        yield from self._respond()
        return results

    def end_turn(self, text: str) -> Step[None]:
        """End the turn, and return when there is a reason to go on."""
        outcome = yield Turn(self._acknowledged(text))
        while not outcome.happened:
            self._hear(outcome.texts)
            outcome = yield Turn(text)
        self._hear(outcome.texts)
        yield from self._respond()

    def _offer(self, text: str, calls: Iterable[Call], thinking: str | None = None) -> Step[tuple[ToolResult, ...]]:
        todo, results, torn = list(calls), list[ToolResult](), 0
        text = self._acknowledged(text)
        while todo:
            # After a torn message in smaller steps: one call a turn.
            part = tuple(todo[:1] if torn else todo)
            outcome = yield Turn(text, part, thinking)
            self._hear(outcome.texts)
            if outcome.happened:
                results += outcome.results
                todo = todo[len(part) :]
                text, thinking = "The next part of the same step.", None
            elif any(_CUT_OFF.search(said) for said in outcome.texts):
                torn += 1
                if torn == MAX_TORN:
                    raise CannotGoOn("My messages are cut off before the tool call is complete, even in small steps.")
        return tuple(results)

    def _acknowledged(self, text: str) -> str:
        if not self._remarks:
            return text
        quoted = " ".join(f"“{remark[:200]}”" for remark in self._remarks)
        self._remarks = []
        return f"You said: {quoted} I take that into account as I go on. {text}"

    def _hear(self, texts: Iterable[str]) -> None:
        for said in texts:
            if from_founder := _FOUNDER.search(said):
                self._remarks.append(from_founder[1])
            elif _LAST_TURN.search(said):
                self._asked_to_commit = True
            elif _FINDINGS.search(said):
                self.findings.append(said)
            elif _RESUMED.search(said):
                self._was_resumed = True
            elif _HANDOFF.search(said):
                self._asked_for_handoff = True
            elif not _HOUSEKEEPING.search(said) and not _CUT_OFF.search(said):
                self._remarks.append(said)

    def _respond(self) -> Step[None]:
        while self._asked_to_commit or self._asked_for_handoff or self._was_resumed:
            if self._asked_to_commit:
                self._asked_to_commit = False
                yield from self._offer(
                    "I commit what there is now.", [bash(self._commit_command("Keep what there is"))]
                )
            elif self._asked_for_handoff:
                self._asked_for_handoff = False
                self.files["HANDOFF.md"] = (
                    "# Handoff\n\nStopped here for today. What is committed works as its tests say; "
                    "CHANGELOG.md names what is done, and the next phase begins after its first entry.\n"
                )
                note = write_file("HANDOFF.md", self.files["HANDOFF.md"])
                commit = bash(self._commit_command("Leave a handoff note"))
                yield from self._offer("I leave a note for whoever goes on, and commit.", [note, commit])
            else:
                self._was_resumed = False
                yield from self.take_stock("The build was resumed, so I first check that the files are as I left them.")
                if self.serving:
                    yield from self._offer("Then I start the server again.", [bash(self._serve_command())])

    # Files

    def write(self, text: str, *paths: str, thinking: str | None = None) -> Step[None]:
        """Write files of `files`; where `write_file` fails, through the shell."""
        calls = [write_file(path, self.files[path]) for path in paths]
        results = yield from self.act(text, *calls, thinking=thinking)
        yield from self._write_again([path for path, result in zip(paths, results, strict=True) if not result.ok])

    def write_and_commit(self, text: str, message: str, *paths: str) -> Step[None]:
        """End a phase: the last files and the commit in one turn."""
        calls = [*(write_file(path, self.files[path]) for path in paths), bash(self._commit_command(message))]
        *results, commit = yield from self.act(text, *calls)
        failed = [path for path, result in zip(paths, results, strict=True) if not result.ok]
        yield from self._write_again(failed)
        if failed or not commit.ok:
            yield from self.commit("Now the commit.", message)

    def _write_again(self, failed: list[str]) -> Step[None]:
        if not failed:
            return
        again = [_heredoc(path, self.files[path]) for path in failed]
        results = yield from self.act(f"Writing {', '.join(failed)} failed; I write through the shell instead.", *again)
        if not all(result.ok for result in results):
            raise CannotGoOn(f"I could not write {', '.join(failed)}: {results[-1].text[:300]}")

    def edit(self, text: str, *edits: Edit, thinking: str | None = None) -> Step[None]:
        """Make edits. Where one fails, look at the file as it is and write it whole."""
        for edit in edits:
            self.files[edit.path] = self.files[edit.path].replace(edit.old, edit.new)
        results = yield from self.act(text, *map(edit_file, edits), thinking=thinking)
        failed = list(dict.fromkeys(edit.path for edit, result in zip(edits, results, strict=True) if not result.ok))
        if not failed:
            return
        names = ", ".join(failed)
        yield from self.act(f"An edit of {names} did not go in. I look at what is there now.", *map(read_file, failed))
        yield from self.write(f"I write {names} as a whole instead.", *failed)

    def take_stock(self, text: str) -> Step[int]:
        """Compare the workspace with `files` and write what is missing or differs; return how many files that were."""
        if not self.files:
            return 0
        names = " ".join(map(shlex.quote, sorted(self.files)))
        self._checks += 1
        look = bash(f"git status --short | head -n 20; sha256sum {names} 2>&1 || true  # look {self._checks}")
        (result,) = yield from self._offer(text, [look])
        found = dict(re.findall(r"^([0-9a-f]{64})  (.+?)$", result.text, re.M))
        found = {path: digest for digest, path in found.items()}
        wrong = [
            path
            for path in sorted(self.files)
            if found.get(path) != hashlib.sha256(self.files[path].encode()).hexdigest()
        ]
        if wrong:
            yield from self.write(
                f"These are not as they should be, so I write them again: {', '.join(wrong)}.", *wrong
            )
        return len(wrong)

    # Commands

    def _commit_command(self, message: str) -> str:
        left_out = "".join(f" {shlex.quote(':!' + path)}" for path in self.left_out_of_commits)
        who = "-c user.name=Cofounder -c user.email=cofounder@localhost"
        return (
            f"[ -d .git ] || git init -q -b main; git add -A -- .{left_out} && "
            f"(git diff --cached --quiet || git {who} commit -q -m {shlex.quote(message)}) && "
            "git log --oneline -1 && git status --short"
        )

    def commit(self, text: str, message: str) -> Step[None]:
        """End a phase. Raises `CannotGoOn` when git refuses twice."""
        (result,) = yield from self.act(text, bash(self._commit_command(message)))
        if result.ok:
            return
        repair = bash("rm -f .git/index.lock; " + self._commit_command(message))
        (result,) = yield from self.act("The commit did not go through; I clear the way and try again.", repair)
        if not result.ok:
            raise CannotGoOn(f"I could not commit: {result.text[:300]}")

    def check(self, text: str, command: str) -> Step[ToolResult]:
        """Run the product's check once."""
        self._checks += 1
        (result,) = yield from self.act(text, bash(f"{command} 2>&1  # run {self._checks}", 120))
        return result

    def check_until_green(self, text: str, command: str) -> Step[None]:
        """Run the check; when it fails, compare the files with what they should be, and try again.

        Raises:
            CannotGoOn: it stays red.
        """
        result = yield from self.check(text, command)
        for _ in range(2):
            if result.ok:
                return
            failing = ", ".join(dict.fromkeys(re.findall(r"^(?:FAIL|ERROR): (\w+)", result.text, re.M))) or "the check"
            yield from self.take_stock(f"I did not expect {failing} to fail. I compare the files with what I wrote.")
            result = yield from self.check("And the check once more.", command)
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
        """Start the product's server in the background, or start it again."""
        self.serving = True
        (result,) = yield from self.act(text, bash(self._serve_command()))
        return result
