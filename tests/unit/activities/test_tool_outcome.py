"""The outcome of a tool call, decided from its row, its sandbox and what ran there."""

import uuid
from dataclasses import replace

import pytest

from activities.tool_outcome import (
    ToolOutcome,
    cancelled_call,
    journaled_call,
    lost_call,
    may_have_run_elsewhere,
    new_result,
    read_input,
    stored_result,
)
from clients.sandbox import CallOutcome
from db.tool_calls import StoredCall
from domain.payloads import DispatchResult, SandboxRef
from domain.tool_output import render_result

HERE = SandboxRef(sandbox_id="sandbox", boot="boot")
CALL = StoredCall(
    build_id=uuid.uuid4(),
    tool_use_id="toolu_1",
    turn=1,
    name="bash",
    summary="bash: make",
    state="intended",
    sandbox_id="sandbox",
    boot="boot",
    result=None,
    is_error=None,
    lost=False,
    commit=None,
)


def _outcome(run: CallOutcome, *, is_command: bool = True, is_retry: bool = False) -> ToolOutcome:
    return journaled_call(run, is_command=is_command, is_retry=is_retry, timeout_seconds=9, secrets=["s3cr3t-value"])


@pytest.mark.parametrize(
    ("changes", "elsewhere"),
    [
        ({}, False),
        ({"boot": "another"}, True),
        ({"sandbox_id": "another"}, True),
        ({"boot": "another", "state": "requested"}, False),
        ({"boot": "another", "name": "read_file"}, False),
        ({"boot": "another", "name": "a tool of another version"}, True),
    ],
)
def test_a_call_may_have_run_elsewhere(changes: dict[str, str], elsewhere: bool) -> None:
    assert may_have_run_elsewhere(replace(CALL, **changes), HERE) is elsewhere  # type: ignore[arg-type]


def test_an_input_that_does_not_fit_is_an_outcome() -> None:
    answer = '[{"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"cmd": "make"}}]'
    outcome = read_input(CALL, answer)
    assert isinstance(outcome, ToolOutcome)
    assert outcome.is_error
    assert not outcome.lost


@pytest.mark.parametrize(
    ("run", "is_retry", "begins", "lost"),
    [
        (CallOutcome("not_run"), False, "This call was not run", True),
        (CallOutcome("not_run"), True, "The outcome of this call is unknown", True),
        (CallOutcome("lost", text="it vanished"), False, "The outcome of this call is unknown: it vanished", True),
        (CallOutcome("done", is_error=True, ended=True, text="half"), False, "The founder cancelled", False),
        (CallOutcome("done", text="s3cr3t-value", exit_code=0), False, "[secret]", False),
        (CallOutcome("done", is_error=True, timed_out=True, text="half"), False, "half\n[timed out after 9 s", False),
    ],
)
def test_the_outcome_of_a_journaled_call(run: CallOutcome, is_retry: bool, begins: str, lost: bool) -> None:
    outcome = _outcome(run, is_retry=is_retry)
    (text,) = outcome.content
    assert isinstance(text, str)
    assert text.startswith(begins)
    assert (outcome.is_error, outcome.lost) == (run.is_error or lost, lost)


def test_a_commit_is_shortened() -> None:
    assert _outcome(CallOutcome("done", commit="0123456789abcdef" * 2, exit_code=0)).commit == "0123456789ab"


@pytest.mark.parametrize(
    "outcome",
    [lost_call("gone", ran=True), lost_call("gone", ran=False, disk_full=True), cancelled_call(still_runs=True)],
    ids=["unknown", "not-run", "cancelled"],
)
def test_what_ended_a_call_from_outside_is_not_its_error(outcome: ToolOutcome) -> None:
    result = new_result(CALL, outcome)
    assert result == DispatchResult(is_error=True, lost=outcome.lost, disk_full=outcome.disk_full)


def test_a_stored_result_is_the_same_as_the_new_one() -> None:
    outcome = _outcome(CallOutcome("done", is_error=True, exit_code=2, text="make: no rule"))
    result = new_result(CALL, outcome)
    assert result.error_signature
    stored = replace(CALL, state="done", is_error=True, result=render_result("toolu_1", outcome.content, True))
    assert stored_result(stored, lost=False) == result
    assert result.model_dump_json(exclude_unset=True, by_alias=True) == (
        f'{{"err":true,"e":"{result.error_signature}"}}'
    )
