"""The wire form of every payload, as running builds have it in their histories.

    .venv/bin/python -m tests.replay.payloads    add new payloads and keys to the golden file, payloads.json

Names in Python may change. The contents of the golden file may not: names of activities, workflows and signals, JSON
keys, enum values, defaults. A default is not on the wire, so changing one silently changes running builds.
"""

import importlib
import inspect
import json
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from temporalio import workflow

import activities
from clients.temporal import DATA_CONVERTER
from worker import WORKFLOWS

GOLDEN = Path(__file__).with_name("payloads.json")

_SAMPLES: dict[type, Any] = {
    bool: True,
    int: 7,
    datetime: datetime(2026, 11, 20, 12, 30, 15, 500, tzinfo=UTC),
    date: date(2026, 11, 20),
}


def crossings() -> dict[str, type]:
    """Return the type of everything that an activity, a workflow or a signal takes or returns, by its place of use."""
    kinds: dict[str, type] = {}
    for name, function in _boundaries():
        hints = typing.get_type_hints(function)
        kinds[f"{name} returns"] = hints.pop("return")
        kinds |= {f"{name} takes": hint for hint in hints.values()}
    return kinds


def models() -> dict[str, type[BaseModel]]:
    """Return the crossings whose types are models."""
    return {name: kind for name, kind in crossings().items() if issubclass(kind, BaseModel)}


def full_instance(model: type[BaseModel]) -> BaseModel:
    """Create an instance with every field set. Strings hold the JSON key, so a new Python name changes nothing."""
    return model.model_validate({key: _sample(annotation, key) for key, annotation, _ in _fields(model)})


def shape(model: type[BaseModel]) -> dict[str, Any]:
    """Describe how a reader understands each JSON key: the default if it is not on the wire, enum values, own keys."""
    keys: dict[str, Any] = {}
    for key, annotation, field in _fields(model):
        described: dict[str, Any] = {}
        if field.is_required():
            described["required"] = True
        else:
            default = field.get_default(call_default_factory=True)
            described["default"] = None if default is None else json.loads(wire(default))
        for part in _parts(annotation):
            if inspect.isclass(part) and issubclass(part, Enum):
                described["values"] = sorted(member.value for member in part)
            elif inspect.isclass(part) and issubclass(part, BaseModel):
                described["keys"] = shape(part)
        keys[key] = described
    return keys


def current() -> dict[str, Any]:
    """Return the wire forms of this version of the code."""
    forms: dict[str, Any] = {name: {"type": kind.__name__} for name, kind in crossings().items()}
    for name, model in models().items():
        forms[name] = {"full": json.loads(wire(full_instance(model))), "keys": shape(model)}
    return forms


def merge(golden: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the golden file with new entries added.

    Raises:
        ValueError: an entry of the golden file has changed or is gone; the text says which.
    """
    merged = dict(now)
    for key, value in golden.items():
        where = f"{path}/{key}".lstrip("/")
        if key not in now:
            raise ValueError(
                f"{where} is gone, and builds that run have it in their histories. Keep it by name= or alias=."
            )
        if isinstance(value, dict) and isinstance(now[key], dict):
            merged[key] = merge(value, now[key], where)
        elif isinstance(value, list) and isinstance(now[key], list) and all(isinstance(each, dict) for each in value):
            pairs = zip(value, now[key], strict=True)
            merged[key] = [merge(*pair, f"{where}/{at}") for at, pair in enumerate(pairs)]
        elif key == "values" and set(value) <= set(now[key]):
            merged[key] = now[key]
        elif value != now[key]:
            raise ValueError(f"{where} was {value!r} and is {now[key]!r}; builds that run would read it differently.")
    return merged


def wire(value: Any) -> bytes:
    """Return the bytes that a history contains."""
    (payload,) = DATA_CONVERTER.payload_converter.to_payloads([value])
    return payload.data


def unwired(data: bytes, model: type[BaseModel]) -> Any:
    """Return what a worker reads from those bytes."""
    (payload,) = DATA_CONVERTER.payload_converter.to_payloads([json.loads(data)])
    (value,) = DATA_CONVERTER.payload_converter.from_payloads([payload], [model])
    return value


def _boundaries() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in pkgutil.walk_packages(activities.__path__, "activities."):
        for _, owner in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            for member in vars(owner).values():
                if definition := getattr(member, "__temporal_activity_definition", None):
                    yield f"activity {definition.name}", member
    for owner in WORKFLOWS:
        definition = workflow._Definition.must_from_class(owner)
        yield f"workflow {definition.name}", definition.run_fn
        for name, signal in definition.signals.items():
            yield f"signal {definition.name}.{name}", signal.fn


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any, Any]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field.annotation, field


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in typing.get_args(annotation):
        yield from _parts(argument)


def _sample(annotation: Any, key: str) -> Any:
    """Return a value of a field's type, always the same."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _sample(next(each for each in arguments if each is not type(None)), key)
    if origin is typing.Annotated:
        return _sample(arguments[0], key)
    if origin is list:
        return [_sample(arguments[0], key)]
    if origin is dict:
        return {key: _sample(arguments[1], key)}
    if issubclass(annotation, Enum):
        return next(iter(annotation)).value
    if issubclass(annotation, BaseModel):
        return full_instance(annotation)
    return _SAMPLES.get(annotation, key)


def main() -> int:
    """Write the golden file."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    try:
        merged = merge(golden, current())
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    GOLDEN.write_text(json.dumps(merged, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
