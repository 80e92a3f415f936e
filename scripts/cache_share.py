"""Compute which share of a build's input tokens came from the prompt cache, from the raw request bodies alone.

    python scripts/cache_share.py DIRECTORY

The directory holds request bodies as they went over the wire, one `*.json` file each, in the order of their names (the
rehearsal model writes them with `--bodies`). The script uses nothing that a server answered: it estimates tokens from
bytes, and applies the vendor's public caching rules in an implementation of its own. It counts the requests after the
third turn of a prefix: a conversation begins one, and so does each compaction block in its first message. Requests for
a compaction are not turns: they count neither as read nor as input. Prints a percentage, or 0 if no request asks for
caching.
"""

import base64
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

FIRST_TURNS = 3
"""Turns at the start of a prefix that do not count, because a cache must be written before it can be read."""

LOOKBACK = 20
"""Positions up to and including a breakpoint that are searched for an earlier entry. A run of tool calls is one, and so
is a run of results; any other block is one."""

MINIMUM_TOKENS = {
    "claude-opus-5-5": 512,
    "claude-sonnet-5-5": 512,
    "claude-haiku-5-5": 4096,
    "claude-opus-5": 512,
    "claude-fable-5-2": 512,
    "claude-fable-5-1": 512,
    "claude-fable-5": 512,
    "claude-mythos-5": 512,
    "claude-opus-4-7": 2048,
    "claude-opus-4-6": 4096,
    "claude-opus-4-5": 4096,
    "claude-haiku-4-5": 4096,
}
"""Tokens of the shortest prefix that is cached, for models where that is not 1024."""


def _as_blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])


def _tokens(value: Any) -> float:
    """Estimate tokens: a quarter of the bytes, or the area of an image."""
    if isinstance(value, dict):
        if value.get("type") == "image":
            with Image.open(io.BytesIO(base64.b64decode(value["source"]["data"]))) as image:
                return image.width * image.height / 750
        return sum(len(str(key)) / 4 + _tokens(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_tokens, value))
    return len(str(value).encode("utf-8", "surrogatepass")) / 4


def _blocks(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all blocks in the order of the prompt: tools, system, messages."""
    for tool in body.get("tools") or []:
        yield "tools", tool
    for block in _as_blocks(body.get("system")):
        yield "system", block
    for message in body.get("messages") or []:
        for block in _as_blocks(message["content"]):
            yield message["role"], block


def _prefixes(body: dict[str, Any]) -> list[tuple[str, float, bool, str]]:
    """Return for each block: hash and tokens of the prompt up to it, whether it is marked for the cache, its type."""
    prefixes: list[tuple[str, float, bool, str]] = []
    digest, total = hashlib.sha256(str(body.get("model")).encode()), 0.0
    for section, block in _blocks(body):
        bare = {key: value for key, value in block.items() if key != "cache_control"}
        digest.update(f"\n{section}\n{json.dumps(bare)}".encode())
        total += _tokens(bare)
        prefixes.append((digest.hexdigest(), total, bool(block.get("cache_control")), str(block.get("type"))))
    if body.get("cache_control") and prefixes:
        prefixes[-1] = (*prefixes[-1][:2], True, prefixes[-1][3])  # a top-level marker applies to the last block
    return prefixes


def _searched(prefixes: Sequence[tuple[str, float, bool, str]], index: int) -> Iterator[tuple[str, float]]:
    """Yield hash and tokens of the prompt at each block that a breakpoint is compared with."""
    positions, before = 0, ""
    for digest, tokens, _, kind in reversed(prefixes[: index + 1]):
        positions += kind not in ("tool_use", "tool_result") or kind != before
        if positions > LOOKBACK:
            return
        before = kind
        yield digest, tokens


def _opening(body: dict[str, Any]) -> str:
    """Return what names a prefix: model, tools, system and the first block of the messages."""
    messages = body.get("messages") or [{"content": ""}]
    first = _as_blocks(messages[0]["content"])[:1]
    return json.dumps([body.get("model"), body.get("tools"), body.get("system"), first])


def read_share(bodies: Sequence[dict[str, Any]]) -> float:
    """Return the share (0 to 1) of input tokens after the third turn of each prefix that are cache reads."""
    entries: set[str] = set()
    shortest: dict[str, int] = {}
    read = total = 0.0
    for body in bodies:
        prefixes = _prefixes(body)
        minimum = MINIMUM_TOKENS.get(str(body.get("model")), 1024)
        reach = 0.0
        marked = [index for index, (_, _, is_marked, _) in enumerate(prefixes) if is_marked]
        for index in marked:
            reach = max([reach, *(tokens for digest, tokens in _searched(prefixes, index) if digest in entries)])
        entries.update(prefixes[index][0] for index in marked if prefixes[index][1] >= minimum)
        turns = sum(message["role"] == "assistant" for message in body.get("messages") or [])
        # A prefix that begins with a compaction block may begin with turns that were kept, too.
        turns_before = turns - shortest.setdefault(_opening(body), turns)
        if body.get("compaction") is None and turns_before >= FIRST_TURNS and prefixes:
            read += reach
            total += prefixes[-1][1]
    return read / total if total else 0.0


def main(arguments: Sequence[str]) -> int:
    """Print the percentage for the directory; see the module's docstring."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python scripts/cache_share.py DIRECTORY\n")
        return 2
    files = sorted(Path(arguments[0]).glob("*.json"))
    share = read_share([json.loads(file.read_bytes()) for file in files])
    sys.stdout.write("0\n" if share == 0 else f"{share * 100:.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
