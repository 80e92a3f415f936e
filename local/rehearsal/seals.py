"""Seals on what this server said, so that it notices when a conversation comes back changed.

The real API rejects a changed thinking block, and, in a conversation with thinking, any change of earlier content, the
system prompt or the tools. The signature of a thinking block and the random part of a tool_use id carry hashes of the
prefix that they were served after, so the check needs no memory and survives a restart.
"""

import base64
import hashlib
import hmac
import re
import secrets
import string
from typing import Any

from local.rehearsal.errors import invalid
from local.rehearsal.prefix import Prefix, content_blocks

_KEY = b"a fixed key: signatures of the rehearsal model protect nothing, they only show changes"
_SHORT = 4
_TOOL_ID = re.compile(r"toolu_01[0-9A-Za-z]{10}([0-9a-f]{12})")


def _digest(tools: str, system: str, messages: str) -> str:
    return tools[:_SHORT] + system[:_SHORT] + messages[:_SHORT]


def new_tool_use_id(prefix: Prefix) -> str:
    """A fresh id of the vendor's form."""
    nonce = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
    return f"toolu_01{nonce}{_digest(prefix.tools, prefix.system, prefix.messages)}"


def sign_thinking(thinking: str, prefix: Prefix) -> str:
    """The signature of a thinking block that is served after this prefix."""
    sealed = secrets.token_hex(6) + _digest(prefix.tools, prefix.system, prefix.messages)
    mac = hmac.new(_KEY, (sealed + thinking).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return base64.b64encode(f"{sealed}{mac}".encode()).decode()


def _read_signature(block: dict[str, Any], where: str) -> str:
    refused = invalid(f"{where}: Invalid `signature` in `thinking` block")
    try:
        opened = base64.b64decode(str(block.get("signature", "")), validate=True).decode()
    except ValueError:
        raise refused from None
    sealed, mac = opened[:24], opened[24:]
    thinking = str(block.get("thinking", ""))
    wanted = hmac.new(_KEY, (sealed + thinking).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    if len(sealed) != 24 or not hmac.compare_digest(mac, wanted):
        raise refused
    return sealed[12:]


def check_seals(body: dict[str, Any], prefix: Prefix) -> None:
    """Compare what this server served with what comes back.

    Raises:
        ApiError: a thinking block was changed, or something before a sealed block was.
    """
    thinking_kinds = ("thinking", "redacted_thinking")
    served = [block for block in prefix.blocks if block.part == "messages"]
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    frozen = thinks or any(block.kind in thinking_kinds for block in served)
    raw = [block for message in body["messages"] for block in content_blocks(message["content"])]
    # Content may have been served after a part of the same assistant message (pause_turn): any start in it will do.
    starts: list[str] = []
    before = served[0].chain if served else ""
    for block, content in zip(served, raw, strict=True):
        if block.role != "assistant":
            starts = []
        else:
            starts.append(before)
            where = f"messages.{block.message}"
            seal: str | None = None
            if block.kind == "thinking":
                seal = _read_signature(content, where)
            elif block.kind == "tool_use" and (found := _TOOL_ID.fullmatch(str(content.get("id")))):
                seal = found[1]
            if seal and frozen:
                _compare(seal, prefix, starts, where)
        before = block.chain


def _compare(seal: str, prefix: Prefix, starts: list[str], where: str) -> None:
    tools, system, messages = seal[:_SHORT], seal[_SHORT : 2 * _SHORT], seal[2 * _SHORT :]
    changed = [
        name
        for name, same in (
            ("tools", prefix.tools.startswith(tools)),
            ("system prompt", prefix.system.startswith(system)),
            ("earlier messages", any(start.startswith(messages) for start in starts)),
        )
        if not same
    ]
    if changed:
        raise invalid(
            f"{where}: the {' and the '.join(changed)} changed since this message was served. In a conversation with "
            "thinking, everything before a served message must be sent back unchanged."
        )
