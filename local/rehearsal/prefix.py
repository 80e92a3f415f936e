"""The blocks of a request in the order in which the model reads them, each with its size and the hash of what precedes.

Both the prompt cache and the check that nothing earlier was changed are comparisons of these hashes.
"""

import base64
import binascii
import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

from local.rehearsal.errors import invalid

BYTES_PER_TOKEN = 4
"""How tokens are estimated. The real tokenizer is not public; what matters here is that it is deterministic."""

PIXELS_PER_TOKEN = 750
LONGEST_IMAGE_SIDE = 1568
"""An image costs width times height / 750 tokens after being scaled to fit this side (*docs*)."""

_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


def text_tokens(text: str) -> int:
    """Tokens of a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def image_tokens(source: dict[str, Any]) -> int:
    """Tokens of an image that came as base64.

    Raises:
        ApiError: it is not base64, or not an image of the type that it says.
    """
    media_type = source.get("media_type")
    if source.get("type") != "base64" or media_type not in _MAGIC:
        raise invalid("image.source: only base64 images of type png, jpeg, gif or webp are accepted here")
    try:
        data = base64.b64decode(str(source.get("data", "")), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("image.source.base64: invalid base64 data") from None
    matches = data.startswith(_MAGIC[media_type]) and (media_type != "image/webp" or data[8:12] == b"WEBP")
    if not matches:
        raise invalid(f"image.source.base64.data: the image does not appear to be of the type {media_type}")
    # Here and not above: Pillow is only needed once a screenshot was taken, and start-up should be quick.
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError):
        raise invalid("Could not process image") from None
    scale = min(1.0, LONGEST_IMAGE_SIDE / max(width, height, 1))
    return max(1, int(width * scale * height * scale / PIXELS_PER_TOKEN))


def _canonical(block: dict[str, Any]) -> str:
    """The block's JSON without its cache marker. Key order counts: the real cache compares what was sent."""
    bare = {key: value for key, value in block.items() if key != "cache_control"}
    return json.dumps(bare, ensure_ascii=False, separators=(",", ":"))


def _block_tokens(block: dict[str, Any]) -> int:
    match block.get("type"):
        case "text":
            return text_tokens(str(block.get("text", "")))
        case "image":
            return image_tokens(block.get("source") or {})
        case "tool_result" if isinstance(block.get("content"), list):
            return sum(_block_tokens(part) for part in block["content"]) + 8
        case _:
            return text_tokens(_canonical(block))


@dataclass(frozen=True)
class Block:
    """One block of a request.

    `chain` is the hash of this block and all before it in its part; `key` identifies the whole prefix in the cache.
    """

    part: str
    """tools, system or messages"""
    role: str
    message: int
    """Index of the message; -1 outside messages."""
    kind: str
    tokens: int
    chain: str
    key: str
    cache_ttl: str | None


@dataclass(frozen=True)
class Prefix:
    """A request's blocks, and the hashes of its three parts."""

    blocks: tuple[Block, ...]
    tools: str
    system: str
    messages: str

    @property
    def tokens(self) -> int:
        """All input tokens."""
        return sum(block.tokens for block in self.blocks)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def content_blocks(content: Any) -> list[dict[str, Any]]:
    """A message's content as a list of blocks; a string is one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])


def read_prefix(body: dict[str, Any]) -> Prefix:
    """The prefix of a request that was found valid.

    Consecutive messages of one role count as one, as the API combines them.

    Raises:
        ApiError: an image in it is broken.
    """
    settings = json.dumps([body.get("tool_choice"), (body.get("thinking") or {}).get("type")])
    blocks: list[Block] = []
    ends: dict[str, str] = {}
    parts: list[tuple[str, list[tuple[str, int, dict[str, Any]]]]] = [
        ("tools", [("", -1, tool) for tool in body.get("tools") or []]),
        ("system", [("", -1, block) for block in content_blocks(body.get("system"))]),
        (
            "messages",
            [
                (message["role"], index, block)
                for index, message in enumerate(body["messages"])
                for block in content_blocks(message["content"])
            ],
        ),
    ]
    before = str(body["model"])
    for part, entries in parts:
        chain = _hash(part)
        for role, message, block in entries:
            chain = _hash(chain, role, _canonical(block))
            marker = block.get("cache_control") or {}
            blocks.append(
                Block(
                    part=part,
                    role=role,
                    message=message,
                    kind=str(block.get("type", "tool" if part == "tools" else "")),
                    tokens=_block_tokens(block),
                    chain=chain,
                    key=_hash(before, chain, settings if part == "messages" else ""),
                    cache_ttl=marker.get("ttl", "5m") if marker else None,
                )
            )
        ends[part] = chain
        before = _hash(before, chain)
    return Prefix(tuple(blocks), ends["tools"], ends["system"], ends["messages"])
