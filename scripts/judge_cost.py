"""Compute from the bytes of its requests what the judge of the evidence gate costs a gate, at list prices.

    python -m scripts.judge_cost [DIRECTORY]

The directory holds request bodies as they went over the wire, one `*.json` file each (the rehearsal model writes them
with `--bodies`); those to the judge are counted. Without one, the table is for a request whose parts are all as long as
they may be. Tokens are estimated from bytes and from the sizes of the pictures; what the model thinks and answers is an
assumption that the table names. Nothing here has been measured on the vendor's API.
"""

import base64
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image

from domain.judge import MAX_PICTURES, OUTPUT_TOKENS, ProductEvidence, render_request
from domain.models import AS_OF, default_prices
from domain.page_view import VIEWPORTS, PageView
from domain.pricing import Tokens, cost_microdollars

BYTES_PER_TOKEN = 3.5
"""Of English text and JSON, about."""

PIXELS_PER_TOKEN = 750
"""The vendor's rule for pictures."""

USUAL_OUTPUT = 1_500
"""Tokens of thinking and answer that are assumed to be usual."""


@dataclass(frozen=True)
class Size:
    """A request's text in bytes, and its pictures in tokens."""

    text_bytes: int
    picture_tokens: int

    @property
    def tokens(self) -> int:
        """The tokens of its prompt, about."""
        return int(self.text_bytes / BYTES_PER_TOKEN) + self.picture_tokens


def sizes_in(folder: Path) -> Iterator[Size]:
    """The sizes of the requests to the judge in the directory."""
    for path in sorted(folder.glob("*.json")):
        body = json.loads(path.read_bytes())
        if "format" in (body.get("output_config") or {}):
            yield size_of(body["system"], body["messages"][0]["content"])


def size_of(system: list[dict[str, Any]], content: list[dict[str, Any]]) -> Size:
    """The size of a request with this system prompt and message."""
    texts = [block["text"] for block in (*system, *content) if block["type"] == "text"]
    pictures = [base64.b64decode(block["source"]["data"]) for block in content if block["type"] == "image"]
    return Size(sum(len(text.encode()) for text in texts), sum(map(_picture_tokens, pictures)))


def largest() -> Size:
    """The size of a request of which every part is as long as it may be, of letters of one byte."""
    long = "x" * 1_000_000
    pictures = [_picture(viewport.width, viewport.height) for viewport in VIEWPORTS]
    pages = [
        PageView(f"/{number}", "desktop", 200, long, f"{number} {long}", (), (), (), 0, pictures[0], 1280, 800)
        for number in range(MAX_PICTURES)
    ]
    request = render_request(long, [long], ProductEvidence(long, long, long, pages))
    return size_of(json.loads(request.system), json.loads(request.message)["content"])


def _picture(width: int, height: int) -> bytes:
    drawn = io.BytesIO()
    Image.new("RGB", (width, height)).save(drawn, "WEBP")
    return drawn.getvalue()


def _picture_tokens(webp: bytes) -> int:
    with Image.open(io.BytesIO(webp)) as picture:
        return picture.width * picture.height // PIXELS_PER_TOKEN


def main(arguments: list[str]) -> int:
    """Print the table. Returns the exit code."""
    sizes = list(sizes_in(Path(arguments[0]))) if arguments else [largest()]
    if not sizes:
        sys.stderr.write("The directory has no request to the judge.\n")
        return 1
    text = sum(size.text_bytes for size in sizes) // len(sizes)
    tokens = sum(size.tokens for size in sizes) // len(sizes)
    what = f"{len(sizes)} requests to the judge" if arguments else "A request to the judge that is as long as it may be"
    lines = [
        f"{what}: {text:,} bytes of text on average, and with its pictures about {tokens:,} tokens.",
        f"USD a gate at the list prices of {AS_OF}, computed and not measured:",
        f"{'model':<20}{f'{USUAL_OUTPUT:,} tokens out':>20}{f'{OUTPUT_TOKENS:,}, the most':>20}",
    ]
    for model in default_prices():
        costs = [
            Decimal(cost_microdollars(default_prices(), model, Tokens(input=tokens, output=output))) / 1_000_000
            for output in (USUAL_OUTPUT, OUTPUT_TOKENS)
        ]
        lines.append(f"{model:<20}" + "".join(f"{cost:>20.4f}" for cost in costs))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
