"""Images that the agent reads from its workspace, made fit to be sent to a model.

A file's bytes are not trusted: only four formats are decoded, and not before their size in pixels is known.
"""

import io
from dataclasses import dataclass

from PIL import Image

from clients.browser import WEBP_QUALITY
from domain.errors import CofounderError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")

MOST_SOURCE_PIXELS = 50_000_000
"""An image with more pixels is not decoded; it would take hundreds of megabytes."""

LONGEST_SIDE = 1568
"""Pixels; a larger image is made smaller. The API does the same, and many larger ones are refused."""

MOST_PIXELS = 1_400_000
"""An image of this size costs a little less than the tokens that `db/money.py` counts for one."""


class UnreadableImage(CofounderError):
    """The file can't be shown; the message says why, for the agent."""


@dataclass(frozen=True)
class SmallImage:
    """An image as it is sent, and the size that it had, in pixels."""

    webp: bytes
    width: int
    height: int
    source_width: int
    source_height: int


def fit_for_model(data: bytes) -> SmallImage:
    """Decode the image, make it smaller if need be, and encode it as WebP; of an animation, its first picture.

    Raises:
        UnreadableImage: it is none, is broken or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MOST_SOURCE_PIXELS:
                raise UnreadableImage(f"its {width}x{height} pixels are too many. Make a smaller copy and read that")
            picture = _on_white(opened)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"it could not be decoded ({error}). Check it with `file` in bash") from None
    scale = min(1.0, LONGEST_SIDE / max(width, height), (MOST_PIXELS / (width * height)) ** 0.5)
    if scale < 1:
        picture = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return SmallImage(buffer.getvalue(), picture.width, picture.height, width, height)


def _on_white(opened: Image.Image) -> Image.Image:
    if not opened.has_transparency_data:
        return opened.convert("RGB")
    picture = opened.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")
