"""Validation of requests. It is stricter than the API where Cofounder does not need the API's leniency.

Sources: the SDK's `MessageCreateParams` ("Consecutive `user` or `assistant` turns in your request will be combined into
a single turn"); the vendor's "What's new" pages of Opus 5.5 and Sonnet 5.5 for the errors of thinking and
`tool_choice`; its page "Refusals and fallback" for `fallbacks`.
"""

import json
import re
from typing import Any, cast

from pydantic_core import from_json

from local.rehearsal.compaction import check_blocks, check_compaction, first_block
from local.rehearsal.errors import ApiError, invalid
from local.rehearsal.judge import check_output_config
from local.rehearsal.models import EFFORT_LEVELS, EFFORT_WITHOUT_THINKING, known_models, traits
from local.rehearsal.prefix import content_blocks
from local.rehearsal.replies import PAUSE_TEXT, UNKNOWN_KIND

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Bytes of the largest request; a larger one gets 413, as the API documents."""

MAX_IMAGES = 600
"""Images of a request, as the API documents for models with a window of a million tokens."""

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_USER_KINDS = {"text", "image", "tool_result"}
_ASSISTANT_KINDS = {"text", "tool_use", "thinking", "redacted_thinking", "fallback", "compaction"}
_KINDS_BY_ROLE = {"user": _USER_KINDS | {"compaction"}, "system": {"text"}}
_DIRECTIVES = "; the directive-only form (content: [] with output_config) is accepted at any position"
SERVED_KINDS = {"server_tool_use", "web_search_tool_result", UNKNOWN_KIND}
"""Further blocks that an answer of this server may have, so that they may come back."""

MAX_FALLBACKS = 3
"""Entries of `fallbacks`."""
_NOT_IN_STRICT = {"minLength", "maxLength", "pattern", "minimum", "maximum", "multipleOf"}


def parse_body(raw: bytes, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Return the request's JSON object.

    Raises:
        ApiError: it is too large, or not a JSON object.
    """
    check_size(len(raw), max_bytes)
    try:
        body = from_json(raw)
    except ValueError:
        # The fast parser rejects lone surrogates, for example. json.loads accepts them, or says what is wrong.
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise invalid(f"The request body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object")
    return cast(dict[str, Any], body)


def check_size(size: int, max_bytes: int) -> None:
    """Refuse a body of more than `max_bytes`.

    Raises:
        ApiError: it is larger.
    """
    if size > max_bytes:
        raise ApiError("request_too_large", "Request exceeds the maximum size")


def check_images(messages: list[dict[str, Any]], most: int) -> None:
    """Refuse a request with more than `most` images, those in tool results included.

    Raises:
        ApiError: it has more.
    """
    count = 0
    for message in messages:
        for block in content_blocks(message["content"]):
            parts = content_blocks(block.get("content")) if block["type"] == "tool_result" else [block]
            count += sum(part["type"] == "image" for part in parts)
    if count > most:
        raise invalid(f"messages: Too many media: 0 document pages + {count} images > {most}")


def check_request(body: dict[str, Any], *, counting: bool = False) -> None:
    """Check everything about a request that does not depend on earlier ones.

    Args:
        body: the request.
        counting: whether it is a `count_tokens` request, which has no `max_tokens`.

    Raises:
        ApiError: the API's answer to an invalid request.
    """
    for field in ("model", "messages") if counting else ("model", "max_tokens", "messages"):
        if field not in body:
            raise invalid(f"{field}: Field required")
    if not isinstance(body["model"], str) or not body["model"]:
        raise invalid("model: Input should be a valid string")
    if body["model"] not in known_models():
        raise ApiError("not_found_error", f"model: {body['model']}")
    if not counting:
        limit = body["max_tokens"]
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise invalid("max_tokens: Input should be a non-negative integer")
        most = traits(body["model"]).max_output
        if limit > most:
            raise invalid(f"max_tokens: {limit} > {most}, which is the maximum allowed for {body['model']}")
    _check_thinking(body, counting)
    check_output_config(body)
    _check_effort(body)
    _check_fallbacks(body)
    _check_system(body.get("system"))
    _check_tools(body.get("tools") or [])
    compacting = body.get("compaction") is not None and not counting
    if compacting:
        check_compaction(body)
    _check_messages(body["messages"], compacting=compacting)
    _check_system_messages(body)


def _check_thinking(body: dict[str, Any], counting: bool) -> None:
    model, thinking = body["model"], body.get("thinking") or {}
    accepted = traits(model).thinking
    kind = thinking.get("type")
    if thinking and kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise invalid("thinking.type: Input should be 'enabled', 'disabled', 'adaptive' or 'between_tools'")
    if kind == "disabled" and kind not in accepted and "between_tools" in accepted:
        raise invalid(
            'To turn thinking off on this model, send "thinking": {"type": "between_tools"} instead of '
            '{"type": "disabled"}.'
        )
    if kind and kind not in accepted:
        raise invalid(
            f'"thinking.type.{kind}" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.'
        )
    if kind == "between_tools" and (extra := sorted(set(thinking) - {"type"})):
        raise invalid(f"thinking.between_tools.{extra[0]}: Extra inputs are not permitted")
    if thinking.get("display") not in (None, "summarized", "omitted", "updates"):
        raise invalid(f"thinking.{kind}.display: Input should be 'summarized' or 'omitted'")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if not counting and budget >= body["max_tokens"]:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        if not traits(model).forced_tools:
            raise invalid('tool_choice: type "tool" and "any" are not supported for this model.')
        if kind in ("enabled", "adaptive"):
            raise invalid("Thinking may not be enabled when tool_choice forces tool use.")


def _check_effort(body: dict[str, Any]) -> None:
    output = body.get("output_config") or {}
    effort = output.get("effort")
    if effort is not None and effort not in EFFORT_LEVELS:
        raise invalid("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    kind = (body.get("thinking") or {}).get("type")
    if kind in ("disabled", "between_tools") and effort not in (None, *EFFORT_WITHOUT_THINKING):
        raise invalid(f'output_config.effort: "{effort}" is not supported with "thinking.type.{kind}" on this model.')


def _check_fallbacks(body: dict[str, Any]) -> None:
    fallbacks = body.get("fallbacks")
    if fallbacks is None or fallbacks == "default":
        return
    if not isinstance(fallbacks, list) or not all(isinstance(entry, dict) for entry in fallbacks):
        raise invalid("fallbacks: Input should be 'default' or a list of objects")
    allowed = traits(body["model"]).fallbacks
    names = [entry.get("model") for entry in fallbacks]
    if len(names) > MAX_FALLBACKS:
        raise invalid(f"fallbacks: List should have at most {MAX_FALLBACKS} items")
    for index, entry in enumerate(fallbacks):
        if extra := sorted(set(entry) - {"model", "max_tokens", "thinking", "output_config", "speed"}):
            raise invalid(f"fallbacks.{index}.{extra[0]}: Extra inputs are not permitted")
        if entry.get("model") not in allowed:
            raise invalid(f"fallbacks.{index}.model: {entry.get('model')} is not a fallback model of {body['model']}")
    if len({body["model"], *names}) != len(names) + 1:
        raise invalid("fallbacks: models must differ from each other and from the requested model")


def _check_system(system: Any) -> None:
    if system is None:
        return
    if not isinstance(system, str | list):
        raise invalid("system: Input should be a string or a list of text blocks")
    for index, block in enumerate(content_blocks(system)):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise invalid(f"system.{index}: only text blocks are allowed")
        _check_text(block, f"system.{index}")


def _check_tools(tools: Any) -> None:
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a list")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        where = f"tools.{index}"
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise invalid(f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if name in names:
            raise invalid("tools: Tool names must be unique.")
        names.add(name)
        schema = tool.get("input_schema")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise invalid(f"{where}.input_schema.type: Field required, and must be 'object'")
        if tool.get("strict"):
            _check_strict_schema(schema, f"{where}.input_schema")


def _check_strict_schema(schema: dict[str, Any], where: str) -> None:
    if schema.get("additionalProperties") is not False:
        raise invalid(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    for name, rule in (schema.get("properties") or {}).items():
        if unsupported := _NOT_IN_STRICT & set(rule):
            raise invalid(f"{where}.{name}: not supported in strict mode: {', '.join(sorted(unsupported))}")


def _check_messages(messages: Any, *, compacting: bool) -> None:
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a list")
    if not messages:
        raise invalid("messages: at least one message is required")
    for index, message in enumerate(messages):
        _check_message(message, index, last=index == len(messages) - 1)
    check_blocks(messages)
    if messages[0]["role"] != "user" and first_block(messages) is None:
        raise invalid('messages: first message must use the "user" role')
    if messages[-1]["role"] == "assistant" and not compacting and not _is_paused(messages[-1]):
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    _check_pairs(_merge(messages), counted_from=_numbers(messages))


def _check_system_messages(body: dict[str, Any]) -> None:
    """Check the places of messages of the role `system`, and that every model that may be asked takes them.

    Several in a row count as one. The texts are the API's, as callers of it quote them.
    """
    messages = body["messages"]
    fallbacks = body.get("fallbacks")
    models = [body["model"], *(entry["model"] for entry in (fallbacks if isinstance(fallbacks, list) else ()))]
    roles = [message["role"] for message in messages]
    for index, role in enumerate(roles):
        if role != "system":
            continue
        if not all(traits(model).system_messages for model in models):
            raise invalid(f"messages.{index}: role 'system' is not supported on this model")
        if roles[index - 1] == "assistant":
            raise invalid(
                f"messages.{index}: role 'system' must follow a 'user' message or an 'assistant' message ending in a "
                f"server tool result{_DIRECTIVES}"
            )
        if roles[index + 1 : index + 2] == ["user"]:
            raise invalid(
                f"messages.{index}: role 'system' must precede an 'assistant' message or end the array{_DIRECTIVES}"
            )


def _merge(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with those of one role in a row combined, as the API combines them."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        blocks = content_blocks(message["content"])
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"] += blocks
        else:
            merged.append({"role": message["role"], "content": list(blocks)})
    return merged


def _numbers(messages: list[dict[str, Any]]) -> list[int]:
    """Return the index in the request of each combined message's first part."""
    return [
        index for index, message in enumerate(messages) if index == 0 or messages[index - 1]["role"] != message["role"]
    ]


def _is_paused(message: dict[str, Any]) -> bool:
    blocks = content_blocks(message["content"])
    return bool(blocks) and blocks[-1].get("text") == PAUSE_TEXT


def _check_message(message: Any, index: int, *, last: bool) -> None:
    where = f"messages.{index}"
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system"):
        raise invalid(f"{where}.role: Input should be 'user', 'assistant' or 'system'")
    if "content" not in message or not isinstance(message["content"], str | list):
        raise invalid(f"{where}.content: Field required, a string or a list of blocks")
    blocks = content_blocks(message["content"])
    if not blocks and not (last and message["role"] == "assistant"):
        raise invalid(
            f"{where}: all messages must have non-empty content except for the optional final assistant message"
        )
    allowed = _KINDS_BY_ROLE.get(message["role"], _ASSISTANT_KINDS | SERVED_KINDS)
    for position, block in enumerate(blocks):
        block_path = f"{where}.content.{position}"
        if not isinstance(block, dict) or block.get("type") not in allowed:
            kind = block.get("type") if isinstance(block, dict) else type(block).__name__
            raise invalid(f"{block_path}: blocks of type {kind!r} are not allowed in {message['role']} messages")
        _check_block(block, block_path)


def _check_block(block: dict[str, Any], where: str) -> None:
    match block["type"]:
        case "text":
            _check_text(block, where)
        case "tool_use":
            if not isinstance(block.get("input"), dict):
                raise invalid(f"{where}.tool_use.input: Input should be a valid dictionary")
            if not isinstance(block.get("id"), str) or not _CALL_ID.fullmatch(block["id"]):
                raise invalid(f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
            if not isinstance(block.get("name"), str) or not _TOOL_NAME.fullmatch(block["name"]):
                raise invalid(f"{where}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        case "thinking":
            if not isinstance(block.get("thinking"), str) or not isinstance(block.get("signature"), str):
                raise invalid(f"{where}.thinking: `thinking` and `signature` are required")
        case "tool_result":
            if not isinstance(block.get("tool_use_id"), str):
                raise invalid(f"{where}.tool_result.tool_use_id: Field required")
            _check_result(block, where)
        case _:
            pass


def _check_result(block: dict[str, Any], where: str) -> None:
    content = block.get("content", "")
    if not isinstance(content, str | list):
        raise invalid(f"{where}.tool_result.content: Input should be a string or a list of blocks")
    if block.get("is_error") and not content:
        raise invalid(f"{where}.tool_result: content cannot be empty if `is_error` is true")
    for position, part in enumerate(content if isinstance(content, list) else []):
        if not isinstance(part, dict) or part.get("type") not in ("text", "image"):
            raise invalid(f"{where}.tool_result.content.{position}: only text and image blocks are accepted here")
        if part["type"] == "text":
            _check_text(part, f"{where}.tool_result.content.{position}")


def _check_text(block: dict[str, Any], where: str) -> None:
    text = block.get("text")
    if not isinstance(text, str):
        raise invalid(f"{where}.text: Input should be a valid string")
    if not text or text.isspace():
        raise invalid(f"{where}: text content blocks must contain non-whitespace text")


def _check_pairs(messages: list[dict[str, Any]], *, counted_from: list[int]) -> None:
    """Check that every tool_use has one tool_result in the next message, and that results come first in it.

    Args:
        messages: the combined messages.
        counted_from: the index of each in the request, for the texts.
    """
    earlier_ids: set[str] = set()
    for number, (index, message) in enumerate(zip(counted_from, messages, strict=True)):
        blocks = content_blocks(message["content"])
        if message["role"] == "assistant":
            ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
            if repeated := [identifier for identifier in ids if identifier in earlier_ids or ids.count(identifier) > 1]:
                raise invalid(f"messages.{index}: `tool_use` ids must be unique: {', '.join(repeated)}")
            earlier_ids.update(ids)
            following = messages[number + 1] if number + 1 < len(messages) else {"role": "user", "content": []}
            result_ids = [
                block["tool_use_id"] for block in content_blocks(following["content"]) if block["type"] == "tool_result"
            ]
            if missing := [identifier for identifier in ids if identifier not in result_ids]:
                raise invalid(
                    f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                    f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                    "next message."
                )
            continue
        before = content_blocks(messages[number - 1]["content"]) if number else []
        call_ids = {block["id"] for block in before if block["type"] == "tool_use"}
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if unexpected := [identifier for identifier in results if identifier not in call_ids]:
            raise invalid(
                f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(unexpected)}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if len(set(results)) != len(results):
            raise invalid(
                f"messages.{index}: each tool_use must have a single result. Found multiple `tool_result` blocks"
            )
        if any(block["type"] == "tool_result" for block in blocks[len(results) :]):
            raise invalid(f"messages.{index}: `tool_result` blocks must come first in the message")
