"""The blocks of a request in the order in which the model reads them, each with its size and a hash of the prefix.

The prompt cache compares `chain`, the check for changed messages `seal`; they differ behind a compaction block.
"""

import base64
import binascii
import hashlib
import io
import json
import marshal
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from local.rehearsal.compaction import read_cut
from local.rehearsal.errors import invalid
from local.rehearsal.models import traits

BYTES_PER_TOKEN = 4
"""Estimate of a token's size. The real tokenizer is not public; here the count only has to be deterministic."""

PIXELS_PER_TOKEN = 750
"""Pixels of a scaled image that cost one token, as the API documents."""

LONGEST_IMAGE_SIDE = 1568
"""Pixels of an image's longer side; a larger image is scaled down to it before it is counted, as the API documents."""

_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
"""First bytes of an image, by media type."""

_MARSHAL_VERSION = 2
"""Marshal format without references, so that equal values have equal bytes."""

_WRITER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def text_tokens(text: str) -> int:
    """Return the tokens of a text."""
    return _tokens(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))


def _tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


def image_tokens(source: dict[str, Any]) -> int:
    """Return the tokens of a base64 image.

    Raises:
        ApiError: it is not base64, or not an image of its media type.
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
    # Imported here to keep the start quick: Pillow is only needed once there is a screenshot.
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError):
        raise invalid("Could not process image") from None
    scale = min(1.0, LONGEST_IMAGE_SIDE / max(width, height, 1))
    return max(1, int(width * scale * height * scale / PIXELS_PER_TOKEN))


def _bare(block: dict[str, Any]) -> dict[str, Any]:
    """Return the block without its cache marker."""
    if "cache_control" not in block:
        return block
    return {key: value for key, value in block.items() if key != "cache_control"}


def _canonical(block: dict[str, Any]) -> bytes:
    """Return the block's JSON without its cache marker. Key order counts: the real cache compares what was sent."""
    return _WRITER.encode(_bare(block)).encode("utf-8", "surrogatepass")


def _block_tokens(block: dict[str, Any], size: int) -> int:
    """Return the tokens of a block; `size` is the bytes of its JSON."""
    match block.get("type"):
        case "text":
            return text_tokens(str(block.get("text", "")))
        case "image":
            return image_tokens(block.get("source") or {})
        case "compaction":
            return text_tokens(str(block.get("content") or ""))
        case "tool_result" if isinstance(block.get("content"), list):
            return sum(_block_tokens(part, len(_canonical(part))) for part in block["content"]) + 8
        case _:
            return _tokens(size)


class Block(NamedTuple):
    """One block of a request. A tuple, since a request has thousands of them.

    `chain` is the hash of this block and all before it in its part.
    """

    part: str
    """tools, system or messages"""
    role: str
    message: int
    """Index of the message; -1 outside messages."""
    kind: str
    tokens: int
    chain: str
    cache_ttl: str | None
    before: str
    """The hash of the parts before this one."""
    settings: str
    """Other parts of the request that a prefix ending here depends on."""
    seal: str = ""
    """As `chain`, but behind a compaction block it goes on from the messages that the block stands for."""

    @property
    def key(self) -> str:
        """The cache key of the whole prefix up to this block."""
        return _hash(self.before, self.chain, self.settings)


@dataclass(frozen=True)
class Prefix:
    """A request's blocks, and the hashes of its three parts."""

    blocks: tuple[Block, ...]
    tools: str
    system: str
    messages: str
    """Hash of the messages, with those that a compaction block stands for."""
    first: str = ""
    """Beginning of the hash of the conversation's very first block."""

    @property
    def tokens(self) -> int:
        """All input tokens of the request."""
        return sum(block.tokens for block in self.blocks)


def _hash(*parts: str | bytes) -> str:
    whole = b"\x00".join(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(whole).hexdigest()[:32]


@lru_cache(maxsize=1 << 14)
def _read_block(chain: str, role: str, marshalled: bytes) -> tuple[str, int]:
    """Return the chain hash with this block, and the block's tokens.

    Cached, because each request repeats the blocks of the one before it. `marshalled` is the block in Python's fastest
    serialization, which keeps the order of keys.
    """
    block = marshal.loads(marshalled)
    canonical = _canonical(block)
    return _hash(chain, role, canonical), _block_tokens(block, len(canonical))


def content_blocks(content: Any) -> list[dict[str, Any]]:
    """Return a message's content as a list of blocks; a string is one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])


def read_prefix(body: dict[str, Any]) -> Prefix:
    """Return the prefix of a valid request.

    Consecutive messages of one role count as one, as the API combines them. `fallback` blocks are left out: they are
    not rendered into the prompt.

    Raises:
        ApiError: an image in it is invalid.
    """
    effort = (body.get("output_config") or {}).get("effort") or traits(str(body["model"])).default_effort
    settings = json.dumps([body.get("tool_choice"), (body.get("thinking") or {}).get("type"), effort])
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
                if block.get("type") != "fallback"
            ],
        ),
    ]
    before = str(body["model"])
    cut, seal, first = None, "", ""
    for part, entries in parts:
        chain = seal = _hash(part)
        for position, (role, message, block) in enumerate(entries):
            data = marshal.dumps(_bare(block), _MARSHAL_VERSION)
            chain, tokens = _read_block(chain, role, data)
            if part == "messages" and position == 0:
                first = chain[:8]
            if part == "messages" and block.get("type") == "compaction" and block.get("content") is not None:
                cut = read_cut(block)
                first = cut.first
                # The API would merge a first kept message of the last summarized message's role into that message.
                merged = position + 1 < len(entries) and entries[position + 1][0] == cut.role
                seal = _hash(cut.seal, "merged") if merged else cut.seal
            else:
                seal = _read_block(seal, role, data)[0] if cut else chain
            marker = block.get("cache_control") or {}
            blocks.append(
                Block(
                    part=part,
                    role=role,
                    message=message,
                    kind=str(block.get("type", "tool" if part == "tools" else "")),
                    tokens=tokens,
                    chain=chain,
                    cache_ttl=marker.get("ttl", "5m") if marker else None,
                    before=before,
                    settings=settings if part == "messages" else "",
                    seal=seal,
                )
            )
        ends[part] = seal
        before = _hash(before, chain)
    return Prefix(tuple(blocks), ends["tools"], ends["system"], ends["messages"], first)
