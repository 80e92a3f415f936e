"""When traces are exported, and what ids they have."""

import uuid

import pytest

from observing.trace_ids import build_ids, request_ids, turn_ids
from observing.traces import are_wanted, current_context, span

BUILD = uuid.UUID("9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11")
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], *, wanted: bool) -> None:
    assert are_wanted(variables) == wanted


def test_ids_follow_from_what_a_trace_is_about() -> None:
    ids = [build_ids(BUILD), turn_ids(BUILD, 1), turn_ids(BUILD, 2), turn_ids(uuid.uuid4(), 1)]
    assert len({each.trace_id for each in ids}) == len({each.span_id for each in ids}) == 4
    assert turn_ids(BUILD, 1) == ids[1]
    assert request_ids("00" * 15 + "ff").trace_id == 255


def test_without_an_endpoint_there_are_no_spans() -> None:
    with span("chat"):
        assert not current_context().is_valid
