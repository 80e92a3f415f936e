"""Seals on this server's messages, so that it notices if a conversation comes back changed.

The real API rejects a changed thinking block. In a conversation with thinking it also rejects any change of earlier
content, the system prompt or the tools. Here the signature of a thinking block and the random part of a tool_use id
contain hashes of the prefix before them, so the check needs no memory and survives a restart.
"""

import base64
import hashlib
import hmac
import re
import secrets
import string
from typing import Any

from local.rehearsal.errors import invalid
from local.rehearsal.models import traits
from local.rehearsal.prefix import Prefix, content_blocks

_KEY = b"a fixed key: signatures of the rehearsal model protect nothing, they only show changes"
_SHORT = 4
_TOOL_ID = re.compile(r"toolu_01[0-9A-Za-z]{10}([0-9a-f]{12})")


def _digest(tools: str, system: str, messages: str) -> str:
    return tools[:_SHORT] + system[:_SHORT] + messages[:_SHORT]


def new_tool_use_id(prefix: Prefix) -> str:
    """Return a fresh id in the vendor's format."""
    nonce = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
    return f"toolu_01{nonce}{_digest(prefix.tools, prefix.system, prefix.messages)}"


def sign_thinking(thinking: str, prefix: Prefix) -> str:
    """Return the signature of a thinking block that follows this prefix."""
    payload = secrets.token_hex(6) + _digest(prefix.tools, prefix.system, prefix.messages)
    mac = hmac.new(_KEY, (payload + thinking).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return base64.b64encode(f"{payload}{mac}".encode()).decode()


def _read_signature(block: dict[str, Any], where: str) -> str:
    error = invalid(f"{where}: Invalid `signature` in `thinking` block")
    try:
        text = base64.b64decode(str(block.get("signature", "")), validate=True).decode()
    except ValueError:
        raise error from None
    payload, mac = text[:24], text[24:]
    thinking = str(block.get("thinking", ""))
    expected = hmac.new(_KEY, (payload + thinking).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    if len(payload) != 24 or not hmac.compare_digest(mac, expected):
        raise error
    return payload[12:]


def check_seals(body: dict[str, Any], prefix: Prefix) -> None:
    """Check that the conversation is the one that this server served.

    With `prefix_mismatch_behavior: drop_block` a block of another conversation is not refused. The real API then leaves
    it out; here it makes no difference, because the script reads no thinking.

    Raises:
        ApiError: a thinking block has changed, or something before a sealed block has.
    """
    thinking_kinds = ("thinking", "redacted_thinking")
    blocks = [block for block in prefix.blocks if block.part == "messages"]
    kind = (body.get("thinking") or {}).get("type")
    thinks = kind != "disabled" if kind else traits(body["model"]).thinks_by_default
    binding = (body.get("thinking") or {}).get("block_binding") or {}
    drops = binding.get("prefix_mismatch_behavior") == "drop_block"
    frozen = thinks or any(block.kind in thinking_kinds for block in blocks)
    raw = [
        block
        for message in body["messages"]
        for block in content_blocks(message["content"])
        if block.get("type") != "fallback"
    ]
    # After pause_turn an assistant message has several served parts, so a seal may match any start within the message.
    starts: list[str] = []
    before = blocks[0].seal if blocks else ""
    for block, content in zip(blocks, raw, strict=True):
        if block.role != "assistant":
            starts = []
        else:
            starts.append(before)
            where = f"messages.{block.message}"
            seal: str | None = None
            if block.kind == "thinking":
                seal = _read_signature(content, where)
            elif block.kind == "tool_use" and (match := _TOOL_ID.fullmatch(str(content.get("id")))):
                seal = match[1]
            if seal and frozen and not drops:
                _compare(seal, prefix, starts, where)
        before = block.seal


def _compare(seal: str, prefix: Prefix, starts: list[str], where: str) -> None:
    tools, system, messages = seal[:_SHORT], seal[_SHORT : 2 * _SHORT], seal[2 * _SHORT :]
    changes = [
        name
        for name, same in (
            ("tools", prefix.tools.startswith(tools)),
            ("system prompt", prefix.system.startswith(system)),
            ("earlier messages", any(start.startswith(messages) for start in starts)),
        )
        if not same
    ]
    if changes:
        # The first two sentences are the API's; it does not say what has changed.
        raise invalid(
            f"{where}: Invalid `signature` in `thinking` block. The block is bound to a different conversation: the "
            f"{' and the '.join(changes)} changed since this message was served. In a conversation with thinking, "
            "everything before a served message must be sent back unchanged."
        )
