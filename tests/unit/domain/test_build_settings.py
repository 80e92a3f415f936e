"""The settings that shape builds: a build takes all of them along, and reads what an older build wrote."""

from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from clients.temporal import DATA_CONVERTER
from domain.build_settings import BuildSettings, without_bounds
from domain.payloads import BuildContext
from settings import Settings

OF_THE_FIRST_BUILDS = b'{"project_id":"p","user_id":"u","plan":"free","tool_call_cap":150,"gate_attempts":3}'


def read(data: bytes) -> BuildContext:
    """Return the context that a worker reads from these bytes of a history."""
    converter = DATA_CONVERTER.payload_converter
    [payload] = converter.to_payloads([None])
    payload.metadata["encoding"] = b"json/plain"
    payload.data = data
    [context] = converter.from_payloads([payload], [BuildContext])
    assert isinstance(context, BuildContext)
    return context


def test_a_context_has_every_setting_and_all_of_them_are_on_the_wire() -> None:
    values = Settings(tool_call_cap=7).build_values()
    assert set(values) == set(BuildSettings.model_fields) <= set(BuildContext.model_fields)
    context = BuildContext(project_id="p", user_id="u", plan="free", **values)
    [payload] = DATA_CONVERTER.payload_converter.to_payloads([context])
    keys = {field.alias or name for name, field in BuildContext.model_fields.items()}
    assert keys - set(context.model_dump(exclude_unset=True)) == {"sleep_policy", "max_nights", "wants_plan"}
    assert b'"longest_call_seconds":600' in payload.data
    assert read(payload.data) == context


def test_what_an_older_build_does_not_say() -> None:
    context = read(OF_THE_FIRST_BUILDS)
    assert (context.sandbox_max_seconds, context.tool_timeout_max_seconds) == (None, 0)
    assert (context.continue_as_new_turns, context.preview_seconds) == (None, 3600)


def test_bounds_are_for_settings_and_not_for_builds_that_run() -> None:
    context = read(OF_THE_FIRST_BUILDS.replace(b"}", b',"preview_seconds":1}'))
    assert context.preview_seconds == 1
    with pytest.raises(ValidationError, match="preview_seconds"):
        Settings(preview_seconds=1)


def test_a_payload_without_bounds_keeps_the_rest() -> None:
    @without_bounds
    class Example(BaseModel):
        """Text."""

        required: int = Field(ge=5, alias="other")
        made: Annotated[list[int], Field(min_length=3)] = Field(default_factory=lambda: [1, 2, 3])
        free: str = "a"

    example = Example.model_validate({"other": 1})
    assert (example.required, example.made, example.free) == (1, [1, 2, 3], "a")
    assert Example.model_validate({"other": 1, "made": []}).made == []
    assert (Example.__name__, Example.__doc__) == ("Example", "Text.")
    with pytest.raises(ValidationError, match="Field required"):
        Example.model_validate({})
