"""Mistakes at the command line: one clear sentence, exit code 1 or 2, no traceback."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from api.__main__ import main as serve_api
from cli.exit_codes import MEANINGS
from cli.main import app
from cli.main import main as run_command_line
from domain.pricing import Price

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an entry point with these arguments and exactly these environment variables."""

    def run_it(*arguments: str, main: Callable[[], object] = run_command_line, **environment: str) -> Done:
        given = {"COFOUNDER_API_URL": "http://127.0.0.1:1", "API_TOKEN": "x", **environment}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["cofounder", *arguments])
        try:
            returned = main()
        except SystemExit as ended:
            returned = ended.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Done(returned if isinstance(returned, int) else 0, captured.out, captured.err)

    return run_it


def test_every_command_has_help_with_an_example_and_speaks_to_scripts() -> None:
    commands = {" ".join(command) for command in _commands(get_command(app), ())}
    assert {"up", "build", "watch", "list", "show", "wake", "cancel", "preview", "download", "replay"} < commands
    assert {"demo", "doctor", "migrate", "users set", "users show", "local up"} < commands
    for command in commands:
        result = CliRunner().invoke(app, [*command.split(), "--help"])
        assert result.exit_code == 0
        assert f"Example: cofounder {command}" in result.output or f"… cofounder {command}" in result.output, command
        assert "--json" in result.output, command


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "commands"):
        yield path
        return
    for name, inner in command.commands.items():
        yield from _commands(inner, (*path, name))


def test_exit_codes_are_documented() -> None:
    told = CliRunner().invoke(app, ["--help"]).output
    for code, meaning in MEANINGS.items():
        assert f"{code:>3}  {meaning}"[:50] in told


def test_help_needs_none_of_the_program() -> None:
    heavy = {"alembic", "asyncpg", "e2b", "fastapi", "httpx2", "pydantic", "rich.live", "sqlalchemy", "temporalio"}
    program = f"import sys, cli.main; sys.exit(', '.join(set({sorted(heavy)!r}) & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "--idea", "a", "--brief", "b.json"],
        ["show", "no-uuid"],
        ["replay", "neither"],
        ["users", "set", "ada", "--renewal-day", "32"],
        ["nonsense"],
        ["list", "--status", "nonsense"],
        ["list", "--project", "no-uuid"],
        ["list", "--projects", "--open"],
        ["show", "last", "--api-url", "ftp://x"],
        ["show", "last", "--user", "a b"],
        ["download", "last", "--format", "rar"],
        ["doctor", "--only", "nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_what_is_not_for_eyes_is_plain_text(run: Run) -> None:
    wrong, helped = run("list", "--status", "nonsense"), run("--help")
    assert (wrong.exit_code, wrong.out, helped.exit_code, helped.err) == (2, "", 0, "")
    assert "'nonsense' is not one of 'queued', 'starting'," in wrong.err
    assert "Value error" not in wrong.err
    assert (wrong.err + helped.out).isascii()
    assert "\n    130  stopped by Ctrl-C\n" in helped.out


def test_unreachable_api(run: Run) -> None:
    done = run("show", "1b4e28ba-2fa1-11d2-883f-0016d3cca427")
    assert (done.exit_code, done.out) == (3, "")
    assert done.err.startswith("error: No API answers at http://127.0.0.1:1.")
    assert "COFOUNDER_API_URL" in done.err


def test_input_that_is_not_text_is_not_sent(run: Run) -> None:
    done = run("say", "last", "\udcff")
    assert (done.exit_code, done.out) == (2, "")
    assert "UTF-8" in done.err
    done = run("list", "--api-url", "http://a..b\u2028")
    assert (done.exit_code, done.out) == (1, "")
    assert "--api-url" in done.err


def test_missing_token(run: Run) -> None:
    done = run("build", "--idea", "A waitlist", API_TOKEN="")
    assert (done.exit_code, done.err.startswith("error: API_TOKEN is not set.")) == (1, True)
    done = run("ops", "stuck", API_TOKEN="")
    assert (done.exit_code, done.err.startswith("error: API_OPERATOR_TOKEN is not set.")) == (1, True)


def test_wrong_settings_are_named(run: Run) -> None:
    done = run("show", "1b4e28ba-2fa1-11d2-883f-0016d3cca427", DATABASE_URL="mysql://x")
    assert (done.exit_code, done.out) == (1, "")
    assert "DATABASE_URL: must begin with postgresql://" in done.err


@pytest.mark.parametrize("command", [["migrate"], ["users", "show", "ada"], ["users", "set", "ada"]])
def test_unreachable_database(run: Run, command: list[str]) -> None:
    done = run(*command, DATABASE_URL="postgresql://user@127.0.0.1:1/nothing")
    assert (done.exit_code, done.out) == (3, "")
    assert "DATABASE_URL" in done.err


def test_replay_without_temporal(run: Run) -> None:
    done = run("replay", "1b4e28ba-2fa1-11d2-883f-0016d3cca427", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert (done.exit_code, done.out) == (3, "")
    assert "TEMPORAL_ADDRESS" in done.err
    done = run("replay", "1b4e28ba-2fa1-11d2-883f-0016d3cca427", TEMPORAL_ADDRESS="no port")
    assert (done.exit_code, "host:port" in done.err) == (1, True)


def test_demo_without_keys_for_real(run: Run) -> None:
    done = run("demo", REAL="1")
    assert (done.exit_code, done.out) == (1, "")
    assert "REAL=1 needs a key" in done.err


def test_api_without_a_token(run: Run) -> None:
    done = run(main=serve_api, API_TOKEN="")
    assert (done.exit_code, done.out) == (1, "")
    assert done.err.startswith("error: API_TOKEN is not set")
    assert done.err.count("\n") == 1


def test_doctor_works_where_nothing_does(run: Run) -> None:
    """All servers are down: each check reports it separately, with what to do."""
    nowhere = "http://127.0.0.1:1"
    done = run(
        "doctor",
        "--json",
        DATABASE_URL="postgresql://user:hidden-password@127.0.0.1:1/nothing",
        TEMPORAL_ADDRESS="127.0.0.1:1",
        S3_ENDPOINT_URL=nowhere,
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
        ANTHROPIC_BASE_URL=nowhere,
        ANTHROPIC_API_KEY="k",
        E2B_API_URL=nowhere,
        E2B_API_KEY="k",
        PREVIEW_URL="http://*.localhost:1",
        CHROMIUM_PATH="/nowhere",
    )
    assert done.exit_code == 1, done.err
    found = {each["name"]: each for each in json.loads(done.out)["checks"]}
    states = {name: each["state"] for name, each in found.items()}
    failed = ("database", "temporal", "store", "model", "sandboxes", "api", "previews", "chromium")
    assert {name for name, state in states.items() if state == "fail"} - {"bubblewrap"} == set(failed)
    assert [states[name] for name in ("settings", "attributes", "reaper", "worker")] == ["ok", "warn", "warn", "warn"]
    variables = ["DATABASE_URL", "TEMPORAL_ADDRESS", "S3_ENDPOINT_URL", "ANTHROPIC_BASE_URL", "E2B_API_URL"]
    for name, variable in zip(failed, [*variables, "COFOUNDER_API_URL", "PREVIEW_URL", "CHROMIUM_PATH"], strict=True):
        assert variable in f"{found[name]['detail']} {found[name]['remedy']}", found[name]
    assert "hidden-password" not in done.out


def test_doctor_with_wrong_settings(run: Run) -> None:
    done = run("doctor", "--only", "settings", "--only", "database", "--only", "disk", DATABASE_URL="mysql://x")
    assert done.exit_code == 1
    lines = done.out.splitlines()
    assert [line.split()[:2] for line in lines] == [["fail", "settings"], ["warn", "database"], ["ok", "disk"]]
    assert "DATABASE_URL: must begin with" in lines[0]


def test_doctor_reports_the_kill_switch(run: Run) -> None:
    done = run("doctor", "--only", "settings", AUTONOMOUS_AGENT="false")
    assert (done.exit_code, done.out.split()[:2]) == (0, ["warn", "settings"])
    assert "AUTONOMOUS_AGENT" in done.out


def test_doctor_without_keys(run: Run) -> None:
    done = run("doctor", "--only", "model", "--only", "sandboxes", "--only", "api", API_TOKEN="")
    for variable in ("ANTHROPIC_API_KEY", "E2B_API_KEY", "API_TOKEN"):
        assert variable in done.out
    assert (done.exit_code, done.out.count("fail")) == (1, 3)


def test_doctor_names_a_model_of_an_unknown_provider(run: Run) -> None:
    price = dict.fromkeys(Price.model_fields, 1)
    prices = {"claude-sonnet-5-5": price, "mine": price | {"provider": "acme"}}
    done = run("doctor", "--only", "model", MODEL_PRICES=json.dumps(prices))
    assert done.exit_code == 1
    assert "mine names the provider acme" in " ".join(done.out.split())


def test_doctor_asks_for_no_money_unasked(run: Run) -> None:
    keys = {"ANTHROPIC_API_KEY": "k", "E2B_API_KEY": "k"}
    for arguments, problem in (
        (["--paid"], "--paid --cap 0.50"),
        (["--paid", "--cap", "0"], "--paid --cap 0.50"),
        (["--paid", "--cap", "5000"], "--paid --cap 0.50"),
        (["--cap", "0.50"], "Add --paid"),
        (["--paid", "--cap", "0.50", "--only", "api"], "--only"),
    ):
        done = run("doctor", *arguments, **keys)
        assert (done.exit_code, done.out) == (2, ""), arguments
        assert problem in " ".join(done.err.replace("│", " ").split()), done.err
    keys = dict.fromkeys(keys, "")
    done = run("doctor", "--paid", "--cap", "0.50", "--json", **keys)
    assert (done.exit_code, done.out) == (1, "")
    assert "ANTHROPIC_API_KEY is not set" in done.err
    assert "E2B_API_KEY is not set" in done.err
