"""The request of a turn's model call, as the bytes that are sent.

Stored text stands between fixed text, so the request of a turn begins with the same bytes as that of the turn before.
The model's prompt cache depends on it.
"""

import base64
import re
from collections import OrderedDict
from typing import Protocol

from activities.turn.request_cache import PrefixCache, RequestPrefix
from db import turns
from db.money import Call
from db.session import Sessions
from db.transaction import autocommit

_IMAGE = re.compile(
    r'(\{"type":"image","source":\{"type":"base64","media_type":"image/webp","data":")sha256:([0-9a-f]{64})"'
)
"""An image's placeholder in a stored message."""

_IMAGES_CACHED = 64
"""Encoded images that a worker keeps; the oldest are evicted."""


class ImageSource(Protocol):
    """Where images are read from, by the SHA-256 of their bytes."""

    async def get_image(self, sha256: str) -> bytes:
        """The image's bytes."""
        ...


class RequestBuilder:
    """Builds requests from the stored conversation."""

    def __init__(self, sessions: Sessions, images: ImageSource) -> None:
        self._sessions = sessions
        self._images = images
        self._encoded: OrderedDict[str, str] = OrderedDict()
        self._prefixes = PrefixCache()

    async def build(self, call: Call, max_tokens: int, *, adaptive_thinking: bool) -> bytes:
        """The body of the turn's request, up to and including its user message."""
        prefix = self._prefixes.pop(call.build_id, call.turn)
        if prefix is None:
            async with autocommit(self._sessions) as tx:
                system, tools = await turns.load_prompt(tx, call.build_id)
            prefix = RequestPrefix(bytearray(f'"system":{system},"tools":{tools},"messages":['.encode()))
        async with autocommit(self._sessions) as tx:
            messages = await turns.load_messages(tx, call.build_id, call.turn, prefix.turn)
        prefix.add(call.turn, [await self._with_images(message) for message in messages])
        self._prefixes.put(call.build_id, prefix)
        thinking = '"thinking":{"type":"adaptive","display":"summarized"},' if adaptive_thinking else ""
        head = (
            f'{{"model":"{call.model}","max_tokens":{max_tokens},"stream":true,'
            f'"cache_control":{{"type":"ephemeral"}},{thinking}'
        )
        return b"".join((head.encode(), prefix.text, b"]}"))

    async def _with_images(self, message: str) -> str:
        """The message with its images in place of their placeholders.

        Only user messages hold images, in blocks that we rendered ourselves. A placeholder in an assistant message is
        just text.
        """
        hashes = {match[2] for match in _IMAGE.finditer(message)}
        if not hashes or not message.startswith('{"role":"user"'):
            return message
        encoded = {sha256: await self._encoded_image(sha256) for sha256 in hashes}
        return _IMAGE.sub(lambda match: f'{match[1]}{encoded[match[2]]}"', message)

    async def _encoded_image(self, sha256: str) -> str:
        if sha256 not in self._encoded:
            self._encoded[sha256] = base64.b64encode(await self._images.get_image(sha256)).decode()
            while len(self._encoded) > _IMAGES_CACHED:
                self._encoded.popitem(last=False)
        return self._encoded[sha256]
