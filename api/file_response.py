"""Answers that are a file."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse

from api.security_headers import FILE, POLICY

NEVER_CHANGES = {
    "Cache-Control": "private, max-age=86400, immutable",
    "Vary": "Authorization, Cookie, X-Cofounder-User",
}
"""Headers of a file whose bytes never change. Only who has loaded it may have it from a cache."""


def bytes_of(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """How OpenAPI describes a response that is a file."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {200: {"description": "The file.", "content": content}}


async def stream_file(
    content: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]
) -> StreamingResponse:
    """Stream the content. Its first piece is read here, while an error can still become a problem."""
    first = await anext(content, b"")

    async def pieces() -> AsyncIterator[bytes]:
        async with aclosing(content):
            yield first
            async for piece in content:
                yield piece

    return StreamingResponse(pieces(), media_type=media_type, headers={**headers, POLICY: FILE})
