"""On-demand compaction: requests with the `compaction` parameter, and the signed block that later ones begin with.

Sources: the vendor's pages "Compaction on demand" and "Compaction and preserved thinking", and the SDK's
`BetaCompactionConfigParam`, `BetaCompactionBlockParam` and `Compaction…Error` types.

The block's signature carries where the conversation stood at its cut, so that the check for changed messages goes on
behind the block as if the summarized messages were still there (see `seals.py`).
"""

import base64
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any

from local.rehearsal.errors import ApiError, invalid
from local.rehearsal.models import traits

MAX_INSTRUCTIONS = 16_384
"""Characters of the longest `compaction.instructions`."""

OWN_PROMPT_TOKENS = 400
"""Tokens of the summarization prompt of the server's own. The real length is not published."""

_KEY = b"a fixed key: signatures of the rehearsal model protect nothing, they only show changes"
_FIELDS = {"type", "content", "signature", "encrypted_content", "tool_changes", "cache_control"}


@dataclass(frozen=True)
class Cut:
    """Where a compaction ends, as its block's signature says it."""

    seal: str
    """Hash of all messages up to the cut."""
    role: str
    """Role of the last summarized message."""
    first: str
    """Beginning of the hash of the conversation's very first block; it names the conversation in the log."""


def sign_block(content: str, cut: Cut) -> str:
    """Return the signature of a block with this content."""
    payload = json.dumps(asdict(cut) | {"content": _digest(content)}, separators=(",", ":"))
    return base64.b64encode(f"{_mac(payload)}{payload}".encode()).decode()


def read_cut(block: dict[str, Any]) -> Cut:
    """Return the cut that a block's signature names, after checking signature and content.

    Raises:
        ApiError: one of them has changed.
    """
    broken = invalid("The `compaction` block's `signature` does not verify.", "compaction_signature_invalid")
    try:
        text = base64.b64decode(str(block.get("signature", "")), validate=True).decode()
    except ValueError:
        raise broken from None
    mac, payload = text[:64], text[64:]
    if not hmac.compare_digest(mac.encode(), _mac(payload).encode()):
        raise broken
    fields = json.loads(payload)
    if fields.pop("content") != _digest(str(block.get("content"))):
        raise invalid(
            "The `compaction` block's `content` differs from the text its `signature` recorded.",
            "compaction_content_mismatch",
        )
    return Cut(**fields)


def check_blocks(messages: list[dict[str, Any]]) -> None:
    """Check number, place, fields, signature and content of a request's compaction blocks.

    Raises:
        ApiError: as the API documents.
    """
    found = [
        (index, position, block)
        for index, message in enumerate(messages)
        if isinstance(message.get("content"), list)
        for position, block in enumerate(message["content"])
        if isinstance(block, dict) and block.get("type") == "compaction"
    ]
    for index, position, block in found:
        if extra := sorted(set(block) - _FIELDS):
            path = f"messages.{index}.content.{position}.compaction.{extra[0]}"
            raise invalid(f"{path}: Extra inputs are not permitted")
        if block.get("content") == "":
            raise invalid(f"messages.{index}.content.{position}.compaction.content: String should not be empty")
    filled = [entry for entry in found if entry[2].get("content") is not None]
    if len(filled) > 1:
        raise invalid(
            "`messages` holds more than one `compaction` block with content. Send only the block the conversation "
            "returned last.",
            "compaction_block_ambiguous",
        )
    for index, position, block in filled:
        if (index, position) != (0, 0):
            raise invalid(
                "`compaction` block must be sent first, in place of the messages it summarizes; remove those messages",
                "compaction_block_misplaced",
            )
        read_cut(block)


def first_block(messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the compaction block with which valid messages begin, or None."""
    content = messages[0]["content"] if messages else ""
    if isinstance(content, list) and content and content[0].get("type") == "compaction":
        return content[0] if content[0].get("content") is not None else None
    return None


def check_compaction(body: dict[str, Any]) -> None:
    """Check a request with the `compaction` parameter, apart from its messages' own rules.

    Raises:
        ApiError: as the API documents. The texts are this server's: the documentation has only their meaning.
    """
    config = body["compaction"]
    if not isinstance(config, dict) or config.get("type") != "summarize":
        raise invalid("compaction.type: Input should be 'summarize'")
    if extra := sorted(set(config) - {"type", "instructions"}):
        raise invalid(f"compaction.{extra[0]}: Extra inputs are not permitted")
    instructions = config.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise invalid("compaction.instructions: Input should be a valid string")
    if len(instructions or "") > MAX_INSTRUCTIONS:
        raise invalid(f"compaction.instructions: String should have at most {MAX_INSTRUCTIONS} characters")
    if not traits(body["model"]).compacts:
        raise invalid(f"compaction: not supported for {body['model']}")
    output = body.get("output_config") or {}
    for name, present in {
        "stop_sequences": bool(body.get("stop_sequences")),
        "output_config.format": output.get("format") is not None,
        "output_config.task_budget.remaining": "remaining" in (output.get("task_budget") or {}),
        "context_management": body.get("context_management") is not None,
    }.items():
        if present:
            raise invalid(f"{name}: cannot be combined with `compaction`; remove it")
    choice = (body.get("tool_choice") or {}).get("type")
    if choice in ("any", "tool"):
        raise invalid(f'tool_choice: type "{choice}" cannot be combined with `compaction`; remove it')
    listed = body["messages"] if isinstance(body["messages"], list) else []
    messages = [message for message in listed if isinstance(message, dict)]
    if not any(message.get("content") for message in messages):
        raise invalid(
            "`messages` holds no `user` or `assistant` content to summarize or adopt.",
            "compaction_nothing_to_summarize",
        )
    last = messages[-1]
    blocks = last["content"] if last.get("role") == "assistant" and isinstance(last.get("content"), list) else []
    if any(block.get("type") == "tool_use" for block in blocks if isinstance(block, dict)):
        raise invalid(
            "The compaction request ends on an `assistant` turn that is not finished.", "compaction_incomplete_turn"
        )


def unavailable() -> ApiError:
    """Return the error for a compaction that failed for a transient reason."""
    return ApiError("overloaded_error", "The compaction could not be completed.", code="compaction_unavailable")


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _mac(payload: str) -> str:
    return hmac.new(_KEY, payload.encode(), hashlib.sha256).hexdigest()
