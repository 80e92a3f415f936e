"""Payloads stay what builds that run have in their histories: names, JSON keys, enum values and defaults."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from domain.payloads import Payload
from tests.replay.payloads import GOLDEN, current, full_instance, merge, models, shape, unwired, wire

STORED: dict[str, Any] = json.loads(GOLDEN.read_text())


def test_the_golden_file_is_what_the_code_has() -> None:
    """What is new is added with `python -m tests.replay.payloads`, which refuses what has changed."""
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
