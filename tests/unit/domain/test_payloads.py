"""What a payload puts on the wire, and so into history."""

import json
from typing import Any

import pytest
from pydantic import Field, ValidationError

from domain.payloads import BuildContext, DispatchResult, Payload, RequestedCall, ThinkOutcome, ThinkResult
from tests.replay.payloads import wire


class Sample(Payload):
    name: str
    count: int = 7
    tags: list[str] = Field(default_factory=list, alias="t")
    note: str | None = None


def test_a_sparse_payload_leaves_out_what_equals_the_default() -> None:
    assert wire(Sample.sparse(name="", count=7, tags=[], note=None)) == b'{"name":""}'
    assert wire(Sample.sparse(name="a", count=0, tags=["b"], note="")) == b'{"name":"a","count":0,"t":["b"],"note":""}'
    assert Sample.sparse(name="a", count=7) == Sample(name="a", count=7)
    assert wire(Sample(name="a", count=7)) == b'{"name":"a","count":7}', "the constructor keeps it"


def test_a_sparse_payload_takes_its_own_fields_only() -> None:
    with pytest.raises(TypeError, match="Sample has no field cuont, nmae"):
        Sample.sparse(nmae="a", cuont=1)
    with pytest.raises(ValidationError, match="name"):
        Sample.sparse(count=1)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (DispatchResult.sparse(is_error=False, commit=None, lost=False), {}),
        (DispatchResult.sparse(is_error=True, error_signature="ab"), {"err": True, "e": "ab"}),
        (
            RequestedCall.sparse(tool_use_id="toolu_1", signature="x", summary="y", mutating=True, is_valid=False),
            {"id": "toolu_1", "s": "x", "t": "y", "ok": False},
        ),
        (ThinkResult.sparse(outcome=ThinkOutcome.END_TURN, calls=[], message_read=0), {"outcome": "end_turn"}),
    ],
)
def test_a_turn_adds_only_what_it_has_to_say(payload: Payload, expected: dict[str, Any]) -> None:
    assert json.loads(wire(payload)) == expected


def test_all_of_a_builds_context_is_on_the_wire() -> None:
    """A build keeps the settings that it started with, also those at their default. `tests/integration` has the
    activity that creates it."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in BuildContext.model_fields.items()
        if not field.is_required()
    }
    context = BuildContext(
        project_id="p", user_id="u", plan="bootstrapper", tool_call_cap=150, gate_attempts=3, **defaults
    )
    keys = {field.alias or name for name, field in BuildContext.model_fields.items()}
    assert json.loads(wire(context)).keys() == keys
