"""Logs have ids, types and places, and never what founders, agents and sandboxes have written."""

import ast
import asyncio
import gc
import io
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.runtime.errors import application_errors, to_application_error
from domain.errors import InvalidInput, Misconfigured, SandboxUnavailable, SnapshotFailed, StoreUnavailable
from logs import configure_logs
from observing.log_content import description_of, hash_of_user
from observing.sdk_metrics import forwarded_logs

ROOT = Path(__file__).parents[3]

PLANTED = "zinnober-im-april"
"""What someone has written."""

_log = structlog.get_logger("a.module")


class Brief(BaseModel):
    """Something of a founder."""

    weeks: int


class Written(NamedTuple):
    """What a program has logged."""

    log_format: str
    stream: io.StringIO

    @property
    def text(self) -> str:
        """All lines."""
        return self.stream.getvalue()


@pytest.fixture(params=["json", "console"])
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    """Logs as a program writes them; the test session's own come back afterwards."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    configure_logs(request.param, "INFO")
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    yield Written(request.param, stream)
    structlog.configure(**configured)
    root.handlers = handlers
    root.setLevel(level)


def _raise(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


def _failing_command() -> None:
    """Fails as an activity does whose command has failed, with what the command has printed."""
    try:
        _raise(SnapshotFailed(f"The workspace could not be archived: tar: {PLANTED}: Cannot open"))
    except SnapshotFailed as error:
        raise to_application_error(error).with_traceback(error.__traceback__) from None


def _invalid_value() -> None:
    Brief.model_validate({"weeks": PLANTED})


def _defect() -> None:
    error = KeyError(PLANTED)
    error.add_note(PLANTED)
    _raise(RuntimeError(f"no {PLANTED}"), error)


def _group() -> None:
    raise ExceptionGroup(PLANTED, [ValueError(PLANTED), Misconfigured("S3_ENDPOINT_URL is not set.")])


@pytest.mark.parametrize(
    ("fail", "types"),
    [
        (_failing_command, {"SnapshotFailed"}),
        (_invalid_value, {"ValidationError"}),
        (_defect, {"RuntimeError", "KeyError"}),
        (_group, {"ExceptionGroup", "ValueError", "Misconfigured"}),
    ],
)
def test_an_error_is_logged_by_type_and_place(written: Written, fail: Any, types: set[str]) -> None:
    try:
        fail()
    except Exception as error:
        # As Temporal's SDK does at each failure of an activity.
        logging.getLogger("temporalio.activity").warning("Completing activity as failed", exc_info=True)
        _log.exception("a defect in an activity")
        _log.warning("a step failed", error=error, build_id="9b2f0c1e")
        logging.getLogger("a.module").warning("a step failed", extra={"error": error})
    text = written.text
    assert PLANTED not in text
    assert all(text.count(name) >= 2 for name in types - {"ValueError", "Misconfigured"})
    assert {name for name in types if name in text} == types
    assert text.count(fail.__name__) >= 2
    if written.log_format == "json":
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["event"] for line in lines] == [
            "Completing activity as failed",
            "a defect in an activity",
            "a step failed",
            "a step failed",
        ]
        assert lines[0]["exception"][0]["frames"][-1]["lineno"] > 0


async def test_a_defect_in_an_activity_keeps_its_words(written: Written) -> None:
    @activity.defn
    @application_errors
    async def fails() -> None:
        _invalid_value()

    with pytest.raises(ApplicationError, match="A defect: ValidationError"):
        await ActivityEnvironment().run(fails)
    text = written.text
    assert PLANTED not in text
    assert "Brief has int_parsing" in text
    assert "_invalid_value" in text


async def test_a_task_that_no_one_awaits_keeps_its_words(written: Written) -> None:
    async def fails() -> None:
        _defect()

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    del task
    gc.collect()
    text = written.text
    assert "Task exception was never retrieved" in text
    assert PLANTED not in text


def test_the_core_of_the_sdk_writes_lines_like_all_others(written: Written) -> None:
    forwarding = forwarded_logs().forwarding
    assert forwarding is not None
    fields = {"run_id": "0191-run", "failure": f"Failure {{ message: {PLANTED} }}"}
    line = SimpleNamespace(
        level=logging.WARNING, target="worker", message="Failing workflow task", fields=fields, time=time.time()
    )
    forwarding._on_logs([line])
    text = written.text
    assert "Failing workflow task" in text
    assert "0191-run" in text
    assert PLANTED not in text
    assert written.log_format != "json" or json.loads(text)["logger"] == "temporalio.core"


def test_a_line_that_cannot_be_written_is_not_shown_either(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    written.stream.close()
    try:
        _defect()
    except RuntimeError:
        _log.exception(PLANTED)
    shown = capsys.readouterr().err
    assert "A log line could not be written: ValueError" in shown
    assert PLANTED not in shown


def test_a_user_is_a_hash(written: Written) -> None:
    _log.warning("a step failed", user_id="ada@example.com")
    text = written.text
    assert hash_of_user("ada@example.com") in text
    assert "ada" not in text


def test_a_line_says_what_the_program_alone_has_written() -> None:
    away = SandboxUnavailable(f"It failed: {PLANTED}")
    away.__cause__ = ConnectionRefusedError(111, "Connection refused")
    driver = type("UniqueViolationError", (Exception,), {"sqlstate": "23505"})(PLANTED)
    with pytest.raises(ValidationError) as invalid:
        _invalid_value()
    described = {
        description_of(error)
        for error in (
            StoreUnavailable("The object store failed to write: AccessDenied"),
            away,
            InvalidInput(PLANTED),
            IntegrityError(f"insert {PLANTED}", {}, driver),
            invalid.value,
            FileNotFoundError(2, "No such file", PLANTED),
        )
    }
    assert described == {
        "The object store failed to write: AccessDenied",
        "SandboxUnavailable, caused by ConnectionRefusedError: Connection refused",
        "InvalidInput",
        "IntegrityError: UniqueViolationError 23505",
        "ValidationError: Brief has int_parsing",
        "FileNotFoundError: No such file or directory",
    }


_MAY_QUOTE_ERRORS = (
    "clients/oidc/",  # of a sign-in through an identity provider
    "api/routes/provider_sign_ins.py",
    "clients/worker_clients.py",  # of servers that are asked at the start, before anything is sent to them
)


def test_no_log_line_quotes_an_error() -> None:
    """The error itself goes into the line; what of it is shown is decided in one place."""
    found = []
    for package in ("activities", "api", "clients", "db", "observing", "services", "workflows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and re.search(r"log(ger)?\.\w+$", ast.unparse(call.func)):
                    text = " ".join(map(ast.unparse, [*call.args, *(each.value for each in call.keywords)]))
                    if re.search(r"\b(str|repr)\((error|problem)|\{(error|problem)\b", text):
                        found.append(f"{name}:{call.lineno}")
    assert [each for each in found if not each.startswith(_MAY_QUOTE_ERRORS)] == []
