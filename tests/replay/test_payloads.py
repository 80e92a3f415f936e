"""Payloads stay as running builds have them in their histories: names, JSON keys, enum values and defaults."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from domain.payloads import Payload
from tests.replay.payloads import GOLDEN, current, full_instance, merge, models, shape, unwired, wire

STORED: dict[str, Any] = json.loads(GOLDEN.read_text())


def test_the_golden_file_is_what_the_code_has() -> None:
    """`python -m tests.replay.payloads` adds new entries and refuses changed ones."""
    now = current()
    assert merge(STORED, now) == now
    assert now == STORED
    assert {name.partition(" ")[0] for name in STORED} == {"activity", "workflow", "signal"}
    assert len(models()) > 35


@pytest.mark.parametrize(("name", "model"), models().items(), ids=models().keys())
def test_a_payload_is_read_back_as_it_was_written(name: str, model: type[BaseModel]) -> None:
    written = json.dumps(STORED[name]["full"]).encode()
    assert unwired(written, model) == full_instance(model)
    assert json.loads(wire(unwired(written, model))) == json.loads(written)


_READ_ONCE = {"activity load_build_context returns/sleep_policy"}
"""Enums that need the order of a deployment: a value is written only once no older worker runs."""


def test_an_older_workflow_reads_a_value_that_a_newer_activity_has_added() -> None:
    failing = set[str]()
    for name, model in models().items():
        if not (name.startswith("activity ") and name.endswith(" returns")):
            continue
        for key, described in STORED[name]["keys"].items():
            if "values" in described and not _reads(name, model, key, "a value of tomorrow"):
                failing.add(f"{name}/{key}")
    assert failing == _READ_ONCE


def _reads(name: str, model: type[BaseModel], key: str, value: str) -> bool:
    try:
        unwired(json.dumps(STORED[name]["full"] | {key: value}).encode(), model)
    except ValueError:
        return False
    return True


class Before(Payload):
    nights: int = 30


class RenamedOnTheWire(Payload):
    days: int = 30


class RenamedInPython(Payload):
    days: int = Field(default=30, alias="nights")


class OtherDefault(Payload):
    nights: int = 99


def test_a_change_of_the_wire_is_refused_and_one_in_python_is_not() -> None:
    golden = {"activity think takes": {"keys": shape(Before)}}
    assert merge(golden, {"activity think takes": {"keys": shape(RenamedInPython)}}) == golden
    with pytest.raises(ValueError, match=r"activity think takes/keys/nights is gone"):
        merge(golden, {"activity think takes": {"keys": shape(RenamedOnTheWire)}})
    with pytest.raises(ValueError, match=r"nights/default was 30 and is 99"):
        merge(golden, {"activity think takes": {"keys": shape(OtherDefault)}})
    with pytest.raises(ValueError, match=r"activity think takes is gone"):
        merge(golden, {"activity ask takes": {"keys": shape(Before)}})
    assert merge({"values": ["blue"]}, {"values": ["blue", "red"]}) == {"values": ["blue", "red"]}
    with pytest.raises(ValueError, match="values was"):
        merge({"values": ["blue", "red"]}, {"values": ["blue"]})
