"""The program that runs inside sandboxes, here with the system's Python on temporary folders."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from clients import sandbox_runner
from clients.sandbox_runner import (
    INPUT_VARIABLE,
    MARK_VARIABLE,
    REFUSED_HOSTS_VARIABLE,
    Folders,
    ToolError,
    glob_expression,
    resolve,
)
from tests.harness.processes import command_line
from tests.harness.wait import DEADLINE, wait_until_blocking

UNTIL_GO = "until [ -e go ]; do sleep 0.02; done"
"""Waits until the test puts the file `go` into the workspace."""

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable


class Runner:
    """Starts the runner as the client does, but on the test's folders."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "project"
        self.workspace.mkdir()
        self.journal = folder / ".cofounder"
        self.journal.mkdir()
        source = Path(sandbox_runner.__file__).read_text()
        for name, seconds, shorter in (("TERM_SECONDS", "2.0", "0.3"), ("SEARCH_SECONDS", "15", "1")):
            assert f"{name} = {seconds}\n" in source
            source = source.replace(f"{name} = {seconds}\n", f"{name} = {shorter}\n")
        (self.journal / "runner.py").write_text(source)
        self.calls = 0
        self.tag = secrets.token_hex(4)
        """Part of each call's id, by which a call's processes are found on the whole machine."""

    def command(self, *words: str) -> list[str]:
        places = f"{str(self.workspace)!r},{str(self.journal)!r}"
        program = f"import sys;sys.path[:0]=[{str(self.journal)!r}];import runner;runner.main(sys.argv[1:],{places})"
        return [PYTHON, "-IS", "-c", program, *words]

    def environment(self, envelope: dict[str, Any] | None) -> dict[str, str]:
        return {
            **os.environ,
            INPUT_VARIABLE: json.dumps(envelope) if envelope is not None else "",
            **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def spawn(self, *words: str, envelope: dict[str, Any] | None = None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.command(*words), env=self.environment(envelope), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def ask(self, *words: str, envelope: dict[str, Any] | None = None) -> dict[str, Any]:
        process = self.spawn(*words, envelope=envelope)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, err.decode()
        answer: dict[str, Any] = json.loads(out.strip().rpartition(b"\n")[2])
        return answer

    def id(self, name: str) -> str:
        """Return the id of the call with this name in the test."""
        return f"{name}-{self.tag}"

    def call(self, tool: str, name: str = "", timeout: float = 240, wait: float = 250, **given: Any) -> dict[str, Any]:
        self.calls += 1
        envelope = {"tool": tool, "input": given, "timeout": timeout}
        return self.ask("start", self.id(name or f"call-{self.calls}"), "-", str(wait), envelope=envelope)

    def end(self, name: str) -> None:
        self.ask("end", self.id(name))

    def bash(self, command: str, **more: Any) -> dict[str, Any]:
        return self.call("bash", command=command, **more)

    def query(self, tool: str, **given: Any) -> dict[str, Any]:
        return self.ask("query", envelope={"tool": tool, "input": given})

    def here(self, tool: str, **given: Any) -> dict[str, Any]:
        """Run the tool in this process and return its text."""
        folders = Folders(str(self.workspace), str(self.journal))
        do = sandbox_runner.apply_change if tool in ("write_file", "edit_file") else sandbox_runner.run_query
        try:
            return {"text": do(folders, tool, given), "is_error": False}
        except ToolError as error:
            return {"text": str(error), "is_error": True}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path)
    yield made
    for folder in (made.journal / "calls").glob("*"):
        if not (folder / "outcome").exists() or processes_marked(folder.name):
            made.ask("end", folder.name)


def processes_marked(call_id: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK_VARIABLE}={call_id}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


# ---- bash


def test_output_is_interleaved_and_the_exit_code_reported(runner: Runner) -> None:
    answer = runner.bash("echo one; echo two >&2; echo three; exit 7")
    assert answer["text"] == "one\ntwo\nthree\n"
    assert (answer["state"], answer["exit_code"], answer["is_error"]) == ("done", 7, True)


def test_a_repeat_reads_the_result_and_runs_nothing(runner: Runner) -> None:
    for _ in range(3):
        answer = runner.bash("echo x >> counter; wc -l < counter", name="same")
        assert answer["text"].strip() == "1"
    assert (runner.workspace / "counter").read_text() == "x\n"


def test_many_at_once_run_it_once(runner: Runner) -> None:
    envelope = {"tool": "bash", "input": {"command": "echo x >> counter; sleep 0.3; echo done"}, "timeout": 240}
    started = [runner.spawn("start", runner.id("race"), "-", "240", envelope=envelope) for _ in range(6)]
    answers = [json.loads(process.communicate(timeout=DEADLINE)[0]) for process in started]
    assert {answer["text"] for answer in answers} == {"done\n"}
    assert (runner.workspace / "counter").read_text() == "x\n"


def test_it_goes_on_when_the_caller_is_killed(runner: Runner) -> None:
    command = f"echo begun > begun; {UNTIL_GO}; echo end"
    envelope = {"tool": "bash", "input": {"command": command}, "timeout": 240}
    caller = runner.spawn("start", runner.id("left"), "-", "240", envelope=envelope)
    wait_until_blocking((runner.workspace / "begun").exists)
    caller.kill()
    caller.communicate()
    (runner.workspace / "go").touch()
    assert runner.bash("echo never", name="left")["text"] == "end\n"


def test_waiting_ends_before_the_call(runner: Runner) -> None:
    assert runner.bash(f"{UNTIL_GO}; echo late", name="long", wait=0.05) == {"state": "running"}
    (runner.workspace / "go").touch()
    assert runner.bash("", name="long")["text"] == "late\n"


def test_a_timeout_ends_the_whole_tree(runner: Runner) -> None:
    answer = runner.bash(
        "trap '' TERM; echo out; sleep 97 & setsid sleep 97 & (setsid nohup sleep 97 >/dev/null 2>&1 &); sleep 97",
        name="slow",
        timeout=3,
    )
    assert answer["timed_out"]
    assert answer["is_error"]
    assert answer["text"] == "out\n"
    assert processes_marked(runner.id("slow")) == []


def test_processes_that_hide_their_mark_are_ended_too(runner: Runner) -> None:
    marker = runner.workspace / "alive"
    hidden = f"env -i /bin/bash -c 'while :; do echo x > {marker}; sleep 0.05; done'"
    answer = runner.bash(f"{hidden} & sleep 0.3; setsid {hidden} & sleep 97", timeout=3)
    assert answer["timed_out"]
    assert marker.exists()
    assert not [each for each in psutil.process_iter() if str(marker) in " ".join(command_line(each))]


def test_a_background_server_survives_and_holds_nothing_up(runner: Runner) -> None:
    answer = runner.bash("sleep 98 & echo started", name="server")
    assert answer["text"] == "started\n"
    assert answer["exit_code"] == 0
    assert len(processes_marked(runner.id("server"))) == 1
    runner.end("server")
    assert processes_marked(runner.id("server")) == []


def test_end_ends_the_tree_and_keeps_the_outcome(runner: Runner) -> None:
    command = "echo before; touch begun; sleep 600 & sleep 600"
    assert runner.bash(command, name="cut", timeout=900, wait=0.3)["state"] == "running"
    wait_until_blocking((runner.workspace / "begun").exists)
    runner.end("cut")
    answer = runner.bash("", name="cut")
    assert answer["ended"]
    assert answer["is_error"]
    assert answer["text"] == "before\n"
    assert processes_marked(runner.id("cut")) == []


def test_a_call_that_was_ended_before_it_came_never_starts(runner: Runner) -> None:
    runner.end("early")
    answer = runner.bash("touch made", name="early")
    assert answer["ended"]
    assert not (runner.workspace / "made").exists()


def test_a_keeper_that_was_killed_is_no_lost_sandbox(runner: Runner) -> None:
    assert runner.bash("echo said; sleep 600", name="gone", timeout=900, wait=0.3)["state"] == "running"
    keeper = runner.journal / "calls" / runner.id("gone") / "keeper"
    wait_until_blocking(keeper.exists)  # it is created atomically
    os.kill(int(keeper.read_text().split()[1]), 9)
    answer = runner.bash("", name="gone")
    assert (answer["state"], answer["is_error"]) == ("done", True)
    assert answer["text"].startswith("said\n[your command ended its own supervisor")
    assert processes_marked(runner.id("gone")) == []


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1"])
def test_a_command_that_signals_its_supervisor_goes_on(runner: Runner, name: str) -> None:
    answer = runner.bash(f"kill -{name} $PPID; sleep 0.2; echo went on")
    assert (answer["state"], answer["exit_code"], answer.get("ended")) == ("done", 0, None)
    assert answer["text"].startswith("went on\n[your command sent a signal to its own supervisor")
    assert "use its process id" in answer["text"]


def test_a_command_that_stops_its_supervisor_is_waited_for(runner: Runner) -> None:
    answer = runner.bash("kill -STOP $PPID; sleep 0.2; echo went on", timeout=60)
    # The kernel may send a stopped process SIGHUP too, when the process that started it ends.
    assert (answer["state"], answer["exit_code"], answer["text"].splitlines()[0]) == ("done", 0, "went on")


def test_a_command_that_kills_its_supervisor_is_told_so(runner: Runner) -> None:
    runner.bash("git init -q")
    answer = runner.bash("echo > f; git add f; git commit -qm Made; sleep 600 & kill -9 $PPID; sleep 600", name="kill")
    assert (answer["state"], answer["is_error"]) == ("done", True)
    assert "[your command ended its own supervisor" in answer["text"]
    assert answer["subject"] == "Made"
    assert processes_marked(runner.id("kill")) == []


def test_the_supervisor_has_a_name_that_no_server_has(runner: Runner) -> None:
    answer = runner.bash("cat /proc/$PPID/comm")
    assert answer["text"] == f"{sandbox_runner.PROCESS_NAME}\n"


def test_another_boot_starts_nothing(runner: Runner) -> None:
    envelope, call_id = {"tool": "bash", "input": {"command": "touch made"}, "timeout": 240}, runner.id("boot")
    assert runner.ask("start", call_id, "other:1", "240", envelope=envelope) == {"state": "not_run"}
    assert not (runner.workspace / "made").exists()
    assert runner.ask("start", call_id, sandbox_runner.this_boot(), "240", envelope=envelope)["state"] == "done"
    assert runner.ask("start", call_id, "other:1", "240", envelope=envelope)["state"] == "done"


def test_long_output_is_bounded_and_kept(runner: Runner) -> None:
    answer = runner.bash("yes 0123456789 | head -c 5000000; echo the end")
    assert answer["output_bytes"] == 5_000_008
    assert len(answer["text"]) + len(answer["tail"]) < 25_000
    assert answer["tail"].endswith("the end\n")
    assert Path(answer["output_path"]).stat().st_size == 5_000_008


def test_output_that_is_no_text(runner: Runner) -> None:
    answer = runner.bash(r"printf 'a\0b\377\033[31mred'")
    assert answer["text"] == "a\0b\ufffd\x1b[31mred"


def test_characters_are_not_cut_in_two(runner: Runner) -> None:
    answer = runner.bash("python3 -c \"print('x' + 'é' * 40000)\"")
    assert "\ufffd" not in answer["text"] + answer["tail"]


def test_a_broken_character_of_its_own_stays(runner: Runner) -> None:
    assert runner.bash(r"printf '\303'")["text"] in ("", "\ufffd")


def test_the_input_stays_out_of_the_command_s_environment(runner: Runner) -> None:
    assert INPUT_VARIABLE not in runner.bash("env")["text"]


def test_a_pipe_that_closes_ends_its_writer(runner: Runner) -> None:
    assert runner.bash("yes | head -1", timeout=240)["exit_code"] == 0


def test_an_invalid_call_id_is_refused(runner: Runner) -> None:
    assert runner.bash("touch made", name="../escape")["state"] == "lost"
    assert not (runner.workspace / "made").exists()


# ---- commits


def test_a_commit_is_reported_with_its_subject(runner: Runner) -> None:
    assert "commit" not in runner.bash("git init -q -b main . && echo a > a && git add a")
    first = runner.bash("git commit -qm 'Add a'")
    assert first["subject"] == "Add a"
    assert first["commit"] == runner.bash("git rev-parse HEAD")["text"].strip()
    assert runner.bash("git commit -q --allow-empty -m 'Second'; git gc -q; git pack-refs --all")["subject"] == "Second"
    assert "commit" not in runner.bash("git checkout -q HEAD~1")
    assert "commit" not in runner.bash("git checkout -q main")
    assert "commit" not in runner.bash("git reset -q --hard HEAD~1")


def test_a_failing_command_may_still_have_committed(runner: Runner) -> None:
    answer = runner.bash("git init -q . && git commit -q --allow-empty -m 'Kept' && exit 1")
    assert (answer["exit_code"], answer["subject"]) == (1, "Kept")


def test_head_is_read_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command asks twice, and most of a young build's workspaces have no commit."""
    git = partial(_git, tmp_path)
    asked: list[tuple[str, ...]] = []

    def answer(_: str, *words: str) -> str:
        asked.append(words)
        return "from git"

    monkeypatch.setattr(sandbox_runner, "_git", answer)
    git("init", "-q", "-b", "main", ".")
    assert sandbox_runner.head_commit(str(tmp_path)) is None
    git("commit", "-q", "--allow-empty", "-m", "One")
    one = git("rev-parse", "HEAD")
    git("tag", "-a", "v1", "-m", "One")
    git("branch", "main-2")
    git("checkout", "-q", "-b", "topic/main")
    git("commit", "-q", "--allow-empty", "-m", "Two")
    two = git("rev-parse", "HEAD")
    assert sandbox_runner.head_commit(str(tmp_path)) == two
    git("pack-refs", "--all")
    assert not (tmp_path / ".git/refs/heads/main").exists()
    assert sandbox_runner.head_commit(str(tmp_path)) == two
    git("checkout", "-q", "main")
    assert sandbox_runner.head_commit(str(tmp_path)) == one
    git("checkout", "-q", "--orphan", "other")
    assert sandbox_runner.head_commit(str(tmp_path)) is None
    assert not asked
    for name in ("reftable", "commondir"):  # then the refs are somewhere else, as git knows
        (tmp_path / ".git" / name).touch()
        assert sandbox_runner.head_commit(str(tmp_path)) == "from git"
        (tmp_path / ".git" / name).unlink()
    (tmp_path / ".git/packed-refs").rename(tmp_path / "packed-refs")
    (tmp_path / ".git/packed-refs").mkdir()
    assert sandbox_runner.head_commit(str(tmp_path)) == "from git"


def _git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


# ---- files


def test_files_are_written_by_calls_too(runner: Runner) -> None:
    assert runner.call("write_file", file_path="a", content="one")["text"] == "Created a: 3 bytes, 1 lines."
    given: dict[str, Any] = {"file_path": "a", "old_string": "one", "new_string": "two", "replace_all": None}
    assert runner.call("edit_file", name="edit", **given)["text"] == "Replaced 1 occurrence in a."
    assert runner.call("edit_file", name="edit", **given)["text"] == "Replaced 1 occurrence in a."
    failed = runner.call("edit_file", **given)
    assert failed["is_error"]
    assert (runner.workspace / "a").read_text() == "two"
    assert runner.query("read_file", file_path="a")["text"] == "     1\ttwo"
    assert "no tool named" in runner.query("rm", file_path="a")["text"]


def test_write_and_edit(runner: Runner) -> None:
    assert runner.here("write_file", file_path="src/deep/a.txt", content="ünï\ntwo\n")["text"] == (
        "Created src/deep/a.txt: 10 bytes, 2 lines."
    )
    path = runner.workspace / "src/deep/a.txt"
    path.chmod(0o755)
    assert not runner.here(
        "edit_file", file_path="src/deep/a.txt", old_string="two", new_string="2", replace_all=None
    ).get("is_error")
    assert path.read_text() == "ünï\n2\n"
    assert path.stat().st_mode & 0o777 == 0o755
    assert runner.here("write_file", file_path="src/deep/a.txt", content="")["text"].startswith("Replaced")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_edits_that_do_not_fit(runner: Runner) -> None:
    (runner.workspace / "f").write_text("one two two")
    given = {"file_path": "f", "new_string": "x", "replace_all": None}
    assert "does not occur" in runner.here("edit_file", old_string="three", **given)["text"]
    twice = runner.here("edit_file", old_string="two", **given)
    assert twice["is_error"]
    assert "occurs 2 times" in twice["text"]
    assert (runner.workspace / "f").read_text() == "one two two"
    assert "2 occurrences" in runner.here("edit_file", old_string="two", **{**given, "replace_all": True})["text"]
    assert "does not exist" in runner.here("edit_file", old_string="two", **{**given, "file_path": "nope"})["text"]


def _utf16(text: str, order: str = "le") -> bytes:
    return f"\ufeff{text}".encode(f"utf-16-{order}")


@pytest.mark.parametrize(
    ("content", "old", "new", "expected", "said"),
    [
        (
            b"a = 1\r\nb = 2\r\n",
            "a = 1\nb = 2",
            "a = 3\nb = 4\nc = 5",
            b"a = 3\r\nb = 4\r\nc = 5\r\n",
            "CRLF line ends",
        ),
        (b"a\r\nb\r\n", "a\r\nb", "c\r\nd", b"c\r\nd\r\n", "CRLF line ends"),
        (b"a\r\nb\nc\r\n", "b\nc", "x\ny", b"a\r\nx\ny\r\n", "mixed line ends"),
        (b"a\rb\r", "a\nb", "x\ny", b"x\ry\r", "CR line ends"),
        (b"\xef\xbb\xbfa\n", "a", "\u00e9", b"\xef\xbb\xbf\xc3\xa9\n", "a byte order mark"),
        (
            "\ufeffa = \u00fc\r\n".encode("utf-16-le"),
            "a = \u00fc\n",
            "b\n",
            "\ufeffb\r\n".encode("utf-16-le"),
            "UTF-16-LE",
        ),
        (
            "\ufeff\u00fc".encode("utf-16-be"),
            "\u00fc",
            "\U0001f600",
            "\ufeff\U0001f600".encode("utf-16-be"),
            "UTF-16-BE",
        ),
        (b"caf\xe9 = 1\n", "caf\u00e9 = 1", "th\u00e9 = 2", b"th\xe9 = 2\n", "LATIN-1"),
        (b"\xc3\xa9 \xff b\n", "\u00e9", "\u00e8", b"\xc3\xa8 \xff b\n", "bytes that are not UTF-8"),
    ],
)
def test_edits_keep_line_ends_and_encoding(
    runner: Runner, content: bytes, old: str, new: str, expected: bytes, said: str
) -> None:
    (runner.workspace / "f").write_bytes(content)
    answer = runner.here("edit_file", file_path="f", old_string=old, new_string=new, replace_all=None)
    assert not answer.get("is_error"), answer["text"]
    assert (runner.workspace / "f").read_bytes() == expected
    assert "Kept: " in answer["text"]
    assert said in answer["text"]


def test_what_an_encoding_lacks_is_not_written(runner: Runner) -> None:
    (runner.workspace / "f").write_bytes(b"caf\xe9\n")
    answer = runner.here("edit_file", file_path="f", old_string="caf", new_string="\u20ac", replace_all=None)
    assert answer["is_error"]
    assert "Latin-1, which lacks '\u20ac'" in answer["text"]
    assert (runner.workspace / "f").read_bytes() == b"caf\xe9\n"


def test_what_is_shown_can_be_edited(runner: Runner) -> None:
    for content, shown, note in (
        (b"a = 1\r\nb = 2\r\n", "     1\ta = 1\n     2\tb = 2", "CRLF line ends"),
        ("\ufeff\u00fc\nb".encode("utf-16-le"), "     1\t\u00fc\n     2\tb", "encoding UTF-16-LE"),
        (b"caf\xe9\n", "     1\tcaf\u00e9", "shown as Latin-1"),
        (b"a\rb\r", "     1\ta\n     2\tb", "CR line ends"),
    ):
        (runner.workspace / "f").write_bytes(content)
        text = runner.here("read_file", file_path="f")["text"]
        assert text.startswith(f"{shown}\n[this file has "), text
        assert note in text
    (runner.workspace / "f").write_bytes("\ufeff\u00fcber\n".encode("utf-16-le"))
    assert runner.here("grep", pattern="\u00fcber")["text"] == "f:1: \u00fcber"


def test_writing_over_another_encoding_is_said(runner: Runner) -> None:
    (runner.workspace / "f").write_bytes(b"a\r\nb\r\n")
    assert "It had CRLF line ends before" in runner.here("write_file", file_path="f", content="a\nb\n")["text"]
    assert "before" not in runner.here("write_file", file_path="f", content="a\n")["text"]


@pytest.mark.parametrize(
    ("old", "hint"),
    [
        ("     1\tdef f():", "leave out the numbers"),
        ("def f():\n  return 1", "In line 1 it occurs with other white space"),
        ("DEF F():", "In line 1 it occurs with other capital letters"),
        ("    return 1\n\ndef g():", "Only a part of it does, in line 2"),
        ("nothing like it", "Read the file and copy the text exactly"),
    ],
)
def test_an_edit_that_does_not_fit_says_why(runner: Runner, old: str, hint: str) -> None:
    (runner.workspace / "f").write_text("def f():\n    return 1\n")
    answer = runner.here("edit_file", file_path="f", old_string=old, new_string="x", replace_all=None)
    assert answer["is_error"]
    assert hint in answer["text"]


def test_searches_below_a_folder(runner: Runner) -> None:
    (runner.workspace / "src").mkdir()
    (runner.workspace / "src/a.py").write_text("import os\n")
    (runner.workspace / "b.py").write_text("import os\n")
    assert runner.here("glob", pattern="*.py", path="src")["text"] == "src/a.py"
    assert runner.here("grep", pattern="import", path="src")["text"] == "src/a.py:1: import os"
    assert runner.here("grep", pattern="import", path="b.py")["text"] == "b.py:1: import os"
    assert "does not exist" in runner.here("glob", pattern="*", path="nope")["text"]
    assert "There is src/a.py." in runner.here("read_file", file_path="a.py")["text"]


def test_a_large_input_comes_as_a_file(runner: Runner) -> None:
    (runner.journal / "inputs").mkdir()
    envelope = {"tool": "write_file", "input": {"file_path": "big", "content": "x" * 1_000_000}, "timeout": 240}
    (runner.journal / "inputs" / f"{runner.id('big')}.json").write_text(json.dumps(envelope))
    assert runner.ask("start", runner.id("big"), "-", "240")["state"] == "done"
    assert (runner.workspace / "big").stat().st_size == 1_000_000
    assert list((runner.journal / "inputs").iterdir()) == []
    assert runner.ask("start", runner.id("big"), "-", "240")["state"] == "done"
    assert "could not be read" in runner.ask("start", runner.id("missing"), "-", "240")["text"]


def test_json_is_read_and_written_as_by_the_standard_library(runner: Runner) -> None:
    values: list[Any] = [
        {},
        [],
        "x",
        None,
        {"a": None, "b": [True, -2, 2.5e-9, {"c": 'é\ud800\n\0"\\'}], "": float("inf")},
    ]
    for text in ['{"a": 1, "a": 2}', ' {"a":1}\n', "[NaN, -Infinity]", '"\\ud83d\\ude00"', *map(json.dumps, values)]:
        assert repr(sandbox_runner.parse_json(text)) == repr(json.loads(text))
    assert [sandbox_runner.render_json(value) for value in values] == [json.dumps(value) for value in values]
    for text in ["", "{", '{"a": 1}x', '{"a": "\n"}', "{'a': 1}", '"\\x"']:
        with pytest.raises(ValueError, match="column"):
            sandbox_runner.parse_json(text)
    with pytest.raises(TypeError):
        sandbox_runner.render_json({"a": object()})


def test_what_makes_python_start_slowly_is_not_imported(runner: Runner) -> None:
    (runner.workspace / "f").write_text("text")
    start = ("start", runner.id("quick"), "-", "240")
    for words, tool, given in (
        (start, "bash", {"command": "true"}),
        (("query",), "read_file", {"file_path": "f"}),
    ):
        command = runner.command(*words)
        command[1:1] = ["-X", "importtime"]
        envelope = {"tool": tool, "input": given, "timeout": 240}
        environment = runner.environment(envelope) | {REFUSED_HOSTS_VARIABLE: "http://127.0.0.1:9/refused-hosts"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert not json.loads(done.stdout).get("is_error")
        lines = done.stderr.splitlines()
        if tool == "bash":  # its keeper logs there
            lines += (runner.journal / "calls" / runner.id("quick") / "log").read_text().splitlines()
        imported = {line.rpartition("|")[2].strip() for line in lines}
        assert "runner" in imported
        assert ("_socket" in imported) is (tool == "bash"), "the keeper asks which hosts were refused"
        slow = {"collections", "contextlib", "enum", "json", "pathlib", "re", "signal", "socket", "subprocess"}
        assert not imported & slow


def test_one_runner_imports_what_long_commands_need_for_all_of_them(runner: Runner) -> None:
    command = runner.command("serve")
    command[1:1] = ["-X", "importtime"]
    with subprocess.Popen(
        command, env=runner.environment(None), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as serving:
        assert serving.stdin is not None
        assert serving.stdout is not None
        for name in ("first", "second"):
            envelope = {"tool": "bash", "input": {"command": "sleep 0.5"}, "timeout": 240}
            words = ["start", runner.id(name), "-", "240"]
            request = {"number": name, "words": words, "input": json.dumps(envelope), "env": dict[str, str]()}
            serving.stdin.write(json.dumps(request).encode() + b"\n")
            serving.stdin.flush()
            answer = next(filter(bytes.strip, serving.stdout))
            assert json.loads(answer)["answer"]["exit_code"] == 0
            imported = (runner.journal / "calls" / runner.id(name) / "log").read_text()
            assert ("ctypes" in imported) is (name == "first")
        serving.stdin.close()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "link/x", "file-link", "loop", "dangling"])
def test_no_path_leads_out_of_the_workspace(runner: Runner, path: str) -> None:
    outside = runner.workspace.parent / "outside"
    outside.mkdir()
    (outside / "x").write_text("secret")
    (runner.workspace / "link").symlink_to(outside)
    (runner.workspace / "file-link").symlink_to(outside / "x")
    (runner.workspace / "loop").symlink_to("loop")
    (runner.workspace / "dangling").symlink_to(outside / "new")
    for answer in (
        runner.here("read_file", file_path=path),
        runner.here("write_file", file_path=path, content="y"),
        runner.here("edit_file", file_path=path, old_string="secret", new_string="y", replace_all=None),
    ):
        assert answer["is_error"], answer
        assert "secret" not in answer["text"]
    assert (outside / "x").read_text() == "secret"
    assert [entry.name for entry in outside.iterdir()] == ["x"]
    assert "secret" not in runner.here("grep", pattern="secret", glob=None)["text"]


@pytest.mark.parametrize("path", [".git/config", "sub/.git/hooks/x", ".GIT/x", "to-git/config", ".git"])
def test_git_s_own_files_are_left_to_git(runner: Runner, path: str) -> None:
    (runner.workspace / ".git").mkdir()
    (runner.workspace / "to-git").symlink_to(".git")
    answer = runner.here("write_file", file_path=path, content="x")
    assert answer["is_error"]
    assert "only git" in answer["text"]


def test_links_inside_the_workspace_are_followed(runner: Runner) -> None:
    (runner.workspace / "real").mkdir()
    (runner.workspace / "alias").symlink_to("real")
    runner.here("write_file", file_path="alias/f", content="x")
    assert (runner.workspace / "real/f").read_text() == "x"
    assert not runner.here("read_file", file_path=str(runner.workspace / "alias/f"))["is_error"]


def test_what_is_no_regular_file_is_refused(runner: Runner) -> None:
    os.mkfifo(runner.workspace / "pipe")
    (runner.workspace / "folder").mkdir()
    (runner.workspace / "f").write_text("")
    for path in ("pipe", "folder", "."):
        assert runner.here("read_file", file_path=path)["is_error"]
        assert runner.here("write_file", file_path=path, content="x")["is_error"]
    assert "a folder on the way is a file" in runner.here("write_file", file_path="f/g", content="x")["text"]
    assert runner.here("read_file", file_path="a\0b")["is_error"]


# ---- reading


def test_read_file(runner: Runner) -> None:
    (runner.workspace / "f").write_text("".join(f"line {number}\n" for number in range(1, 3001)))
    text = runner.here("read_file", file_path="f")["text"]
    assert text.startswith("     1\tline 1\n     2\tline 2\n")
    assert text.endswith("[lines 1 to 2000 of 3000; read on with view_range [2001, 3000]]")
    assert runner.here("read_file", file_path="f", view_range=[2999, 3003])["text"] == (
        "  2999\tline 2999\n  3000\tline 3000"
    )
    assert "only 3000 lines" in runner.here("read_file", file_path="f", view_range=[4000, 0])["text"]
    (runner.workspace / "wide").write_text("x" * 5000 + "\n" + ("y" * 1999 + "\n") * 100)
    wide = runner.here("read_file", file_path="wide")["text"]
    assert "[cut, 5000 characters" in wide
    assert len(wide) < 70_000
    assert "read on with view_range" in wide
    (runner.workspace / "binary").write_bytes(b"\x89PNG\0\0")
    assert "binary file (6 bytes)" in runner.here("read_file", file_path="binary")["text"]
    (runner.workspace / "empty").write_text("")
    assert runner.here("read_file", file_path="empty") == {"text": "empty is empty.", "is_error": False}


def test_glob_is_newest_first_and_bounded(runner: Runner) -> None:
    for index, name in enumerate(("old.py", "deep/er/new.py", "node_modules/x.py", ".git/y.py", "z.txt")):
        path = runner.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (index, index))
    assert runner.here("glob", pattern="**/*.py")["text"] == "deep/er/new.py\nold.py"
    assert runner.here("glob", pattern="*.py")["text"] == "old.py"
    assert runner.here("glob", pattern="*.{txt,md}")["text"] == "z.txt"
    assert "No file matches" in runner.here("glob", pattern="*.rs")["text"]
    assert runner.here("glob", pattern="../*")["is_error"]
    for index in range(600):
        (runner.workspace / f"many-{index}").write_text("")
    many = runner.here("glob", pattern="many-*")["text"].splitlines()
    assert len(many) == 501
    assert many[-1] == "[100 more; narrow the pattern]"


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*.py", "a.py", True),
        ("src/**", "src/a/b", True),
        ("src/**/x", "src/x", True),
        ("*.py", "a/b.py", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[!a]b", "cb", True),
        ("[!a]b", "ab", False),
        ("[a-c]", "b", True),
        ("a.b", "aXb", False),
        ("{a,b}/{c,d}", "b/c", True),
        ("[", "[", True),
        ("{", "{", True),
        ("a}b,c", "a}b,c", True),
    ],
)
def test_glob_patterns(pattern: str, path: str, matches: bool) -> None:
    import re

    assert bool(re.fullmatch(glob_expression(pattern), path)) is matches


def test_grep(runner: Runner) -> None:
    (runner.workspace / "a.py").write_text("import os\nprint('ünï')\n")
    (runner.workspace / "sub").mkdir()
    (runner.workspace / "sub/b.txt").write_text("import sys\n" + "import " + "x" * 1000 + "\n")
    (runner.workspace / "c.bin").write_bytes(b"import\0")
    found = runner.here("grep", pattern="^import", glob=None)["text"].splitlines()
    assert found[:2] == ["a.py:1: import os", "sub/b.txt:1: import sys"]
    assert len(found[2]) < 350
    assert runner.here("grep", pattern="import", glob="*.txt")["text"].startswith("sub/b.txt")
    assert runner.here("grep", pattern="ü.ï", glob="**/*.py")["text"] == "a.py:2: print('ünï')"
    assert runner.here("grep", pattern="nothing", glob=None)["text"] == "No line matches in 2 files."
    assert runner.here("grep", pattern="(", glob=None)["is_error"]
    (runner.workspace / "many").write_text("import\n" * 1000)
    assert runner.here("grep", pattern="import", glob="many")["text"].endswith("narrow the pattern or the glob]")


def test_a_catastrophic_expression_is_given_up(runner: Runner) -> None:
    (runner.workspace / "a").write_text("a" * 60 + "!\n")
    answer = runner.query("grep", pattern="(a+)+$", glob=None)
    assert answer["is_error"]
    assert "longer than 1 s" in answer["text"]


def test_resolve_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    folders = Folders(str(tmp_path / "w"), str(tmp_path / "j"))
    assert resolve(folders, "a/b") == str(tmp_path / "w/a/b")
    with pytest.raises(ToolError, match="outside the workspace"):
        resolve(folders, "../w2")
    with pytest.raises(ToolError, match="NUL"):
        resolve(folders, "a\0")


def test_the_runner_is_python_3_9() -> None:
    import ast

    source = Path(sandbox_runner.__file__).read_text()
    ast.parse(source, feature_version=(3, 9))
