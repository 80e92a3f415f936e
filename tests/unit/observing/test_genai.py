"""The names of spans' attributes are those of the conventions whose version is named."""

import importlib.metadata

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from observing import genai


def test_the_names_are_those_of_the_version() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    names = {value for name, value in vars(genai).items() if name.isupper() and value.startswith("gen_ai.")}
    assert len(names) > 10
    assert names <= known
    package = "opentelemetry-semantic-conventions"
    assert f"{package} {importlib.metadata.version(package)}" in (genai.__doc__ or "")


def test_none_of_them_is_for_content() -> None:
    for name in vars(genai).values():
        assert not any(
            word in str(name) for word in ("messages", "prompt", "arguments", "tool.call.result", "system_i")
        )
