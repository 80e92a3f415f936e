"""The tools as a prefix has told the model of them. A call is checked against these, not against today's.

A prefix keeps its schemas for as long as it is used, also while a newer version of Cofounder runs the build.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import md5
from typing import Any

from pydantic import ValidationError

from domain.errors import InvalidToolInput
from domain.former_inputs import current_input
from domain.tools import TOOLS, Tool, ToolInput, check_tool_input, describe_problems, render_tools

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}


class SentTools:
    """The tools of a prefix, by name."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def check(self, name: str, value: object) -> ToolInput:
        """Check that the input of a call fits the schema that the model was given, and return it for today's tool.

        A field that today's tool has beside those of the schema is null; one that it has no more is left out.

        Raises:
            InvalidToolInput: the model was not told of such a tool, the input does not fit, or today's tool can't run
                it; the message is for the agent.
        """
        schema = self._schemas.get(name)
        if schema is None:
            raise InvalidToolInput(f"There is no tool named {name}. The tools are: {', '.join(self._schemas)}.")
        if name not in TOOLS:
            raise InvalidToolInput(f"{name} is not available any more, so it was not run. Use another tool.")
        today = TOOLS[name].sent_schema()
        if schema == today:
            return check_tool_input(name, value)
        if problem := mismatch(schema, value):
            raise InvalidToolInput(
                f"The input of {name} does not fit its schema, so it was not run. {problem}. Call it again with "
                f"{', '.join(schema.get('properties', ())) or 'an empty object'}."
            )
        fields = current_input(name, value) if isinstance(value, dict) else {}
        adapted = {field: fields.get(field) for field in today["properties"]}
        try:
            return TOOLS[name].input.model_validate(adapted)
        except ValidationError as error:
            problem = describe_problems(name, error)
            raise InvalidToolInput(f"The input of {name} can't be run. {problem}") from None


def tools_of(stored: str | None) -> SentTools:
    """Return the tools of a prefix from what is stored of it. None: they are those of this version."""
    return _parse(_rendered(tuple(TOOLS.values())) if stored is None else stored)


def digest_of_today() -> str:
    """Return the MD5 of this version's tools as they are stored, by which the database sees whether others differ."""
    return _digest(_rendered(tuple(TOOLS.values())))


@lru_cache(maxsize=64)
def _parse(stored: str) -> SentTools:
    return SentTools({tool["name"]: tool["input_schema"] for tool in json.loads(stored)})


@lru_cache(maxsize=4)
def _rendered(_: tuple[Tool, ...]) -> str:
    return render_tools()


@lru_cache(maxsize=4)
def _digest(rendered: str) -> str:
    return md5(rendered.encode(), usedforsecurity=False).hexdigest()


def mismatch(schema: Schema, value: object, path: str = "input") -> str | None:
    """Return why a value does not fit a schema in the subset of strict mode; None if it does."""
    if "anyOf" in schema:
        problems = [mismatch(option, value, path) for option in schema["anyOf"]]
        return None if None in problems else str(problems[0])
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if allowed is not None and not any(value == each and type(value) is type(each) for each in allowed):
        return f"{path}: must be one of {', '.join(map(str, allowed))}"
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if kinds and not any(_is_a(kind, value) for kind in kinds):
        return f"{path}: must be of type {' or '.join(kinds)}"
    if isinstance(value, dict):
        return _object_mismatch(schema, value, path)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        problems = [mismatch(schema["items"], each, f"{path}.{at}") for at, each in enumerate(value)]
        return next(filter(None, problems), None)
    return None


def _object_mismatch(schema: Schema, value: Mapping[str, object], path: str) -> str | None:
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in value:
            return f"{name}: Field required"
    for name, each in value.items():
        if name not in properties:
            if schema.get("additionalProperties") is False:
                return f"{name}: Extra inputs are not permitted"
        elif problem := mismatch(properties[name], each, name if path == "input" else f"{path}.{name}"):
            return problem
    return None


def _is_a(kind: str, value: object) -> bool:
    # In Python, True is an integer.
    return isinstance(value, _TYPES.get(kind, (object,))) and (kind == "boolean" or not isinstance(value, bool))
