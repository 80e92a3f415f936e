"""How OpenAPI describes the API's errors and the events of its feeds."""

import inspect
from typing import Any

from api.build_state import BuildStateOut
from api.errors import INVALID, KINDS, MEDIA_TYPE, Kind
from api.schemas import ProblemOut
from domain.events import EVENTS, BuildEvent

TAKES_BODY = (400, 413, 415, 422)
"""The statuses with which an operation that takes a body may refuse it."""

_DESCRIPTIONS = {
    400: "The body is not JSON.",
    401: "The token is missing or wrong.",
    403: "The account is suspended, or what was asked for is not set up here.",
    404: "It does not exist, or it is another user's.",
    409: "The request conflicts with the current state.",
    413: "The body is too large.",
    421: "The request's Host is none of this API's.",
    415: "The body's Content-Type is not application/json.",
    422: "The request is not valid; `errors` names the fields.",
    429: "There were too many requests; `Retry-After` says in how many seconds there can be more.",
    500: "An error in the program.",
    503: "A server behind the API is unavailable, or builds are switched off.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with."""
    # Not FastAPI's `model`, which would describe it as application/json.
    schema = _problem_schema()
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": schema, "examples": _examples(status)}},
        }
        for status in statuses
    }


def share_problems(described: dict[str, Any]) -> None:
    """Describe each status's problems once, among the components, and refer to them from the operations."""
    shared = described["components"].setdefault("responses", {})
    for operations in described["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if MEDIA_TYPE not in answer.get("content", {}):
                    continue
                name = f"Problem{status}"
                if shared.setdefault(name, answer) == answer:
                    operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    described["components"]["schemas"]["ProblemOut"] = _problem_schema()
    for answer in shared.values():
        answer["content"][MEDIA_TYPE]["schema"] = {"$ref": "#/components/schemas/ProblemOut"}


def _problem_schema() -> dict[str, Any]:
    schema = ProblemOut.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def kinds_table() -> str:
    """The problems' types as a table in Markdown."""
    rows = [f"| `{kind.uri}` | {kind.status} | {kind.title} |" for kind in sorted(KINDS, key=lambda kind: kind.status)]
    return "\n".join(["| type | status | title |", "| --- | --- | --- |", *rows])


def events_table() -> str:
    """The types of a feed's events as a table in Markdown."""
    rows = [f"| `{kind}` | {', '.join(model.model_fields)} | {meaning_of(model)} |" for kind, model in EVENTS.items()]
    return "\n".join(["| event | keys of `data` | what |", "| --- | --- | --- |", *rows])


def meaning_of(model: type[BuildEvent]) -> str:
    """What an event of this type means, with what its keys mean."""
    keys = [f"`{name}`: {field.description}" for name, field in model.model_fields.items() if field.description]
    return " ".join([inspect.cleandoc(model.__doc__ or ""), *keys])


def event_schemas() -> dict[str, Any]:
    """The JSON schema of each model of an event, and of what these consist of, by the model's name."""
    state = BuildStateOut.model_json_schema(ref_template="#/components/schemas/{model}")
    shared: dict[str, Any] = state.pop("$defs")
    return {model.__name__: model.model_json_schema() for model in EVENTS.values()} | shared | {"BuildStateOut": state}


def feed_item_schema() -> dict[str, Any]:
    """The JSON schema of an event in the stream: its type in `event`, with the model of that type in `data`."""
    later = {"type": "string", "not": {"enum": list(EVENTS)}}
    items = [
        _item(kind, {"const": kind}, {"$ref": f"#/components/schemas/{model.__name__}"})
        for kind, model in EVENTS.items()
    ]
    return {"oneOf": [*items, _item("an event of a later version", later, {"type": "object"})]}


def account_item_schema() -> dict[str, Any]:
    """The JSON schema of an event in the stream of an account."""
    return {
        "oneOf": [
            _stream_item("the state of a build", {"const": "build"}, {"$ref": "#/components/schemas/BuildStateOut"}),
            _stream_item("changes may have been missed", {"const": "reload"}, {"type": "object"}),
        ]
    }


def _stream_item(title: str, event: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "properties": {
            "event": event,
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": content},
        },
        "required": ["event", "data"],
    }


def past_event_kinds() -> list[dict[str, Any]]:
    """The JSON schemas of the kinds of an event in a page: its `type`, with the model of that type in `data`."""
    later = {"type": "string", "not": {"enum": list(EVENTS)}}
    kinds = [
        _kind(kind, {"const": kind}, {"$ref": f"#/components/schemas/{model.__name__}"})
        for kind, model in EVENTS.items()
    ]
    return [*kinds, _kind("an event of a later version", later, {"type": "object"})]


def _kind(title: str, kind: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "type": "object", "properties": {"type": kind, "data": data}, "required": ["type", "data"]}


def _item(title: str, event: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    content = {
        "type": "object",
        "properties": {
            "turn": {"type": ["integer", "null"]},
            "created_at": {"type": "string", "format": "date-time"},
            "data": data,
        },
        "required": ["turn", "created_at", "data"],
    }
    return {
        "title": title,
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "event": event,
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": content},
        },
        "required": ["id", "event", "data"],
    }


def _examples(status: int) -> dict[str, Any]:
    return {kind.slug: {"value": _example(kind)} for kind in KINDS if kind.status == status}


def _example(kind: Kind) -> dict[str, Any]:
    problem = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": "What to do about it."}
    errors = [{"field": "brief.features[0]", "message": "String should have at least 1 character"}]
    return problem | ({"errors": errors} if kind is INVALID else {})
