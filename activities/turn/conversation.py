"""The stored conversation that a turn's request is made of.

Stored text never changes, so the conversation of a turn begins with the same bytes as that of the turn before. The
model's prompt cache depends on it.
"""

import base64
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from activities.turn.request_cache import PrefixCache, RequestPrefix
from clients.model.protocol import FrozenSettings, StoredConversation
from db import turns
from db.money import Call
from db.prompts import load_prefix
from db.session import Sessions
from db.transaction import autocommit

_IMAGE = re.compile(
    r'(\{"type":"image","source":\{"type":"base64","media_type":"image/webp","data":")sha256:([0-9a-f]{64})"'
)
"""An image's placeholder in a stored message."""

_USER, _NOTICE, _END = b'{"role":"user"', b'{"role":"system","content":[', b"]}"
"""How stored messages begin and end."""

_IMAGES_CACHED = 64
"""Encoded images that a worker keeps; the oldest are evicted."""


class ImageSource(Protocol):
    """Where images are read from, by the SHA-256 of their bytes."""

    async def get_image(self, sha256: str) -> bytes:
        """The image's bytes."""
        ...


def place_notices(messages: Sequence[bytes]) -> tuple[bytes, ...]:
    """Let the messages of the role `system` stand where the API takes them: before an answer or at the end.

    Only after an answer that was declined is this another place. There the next user message follows, and what the
    agent was told goes behind it.
    """
    placed: list[bytes] = []
    waiting: list[bytes] = []
    for message in messages:
        if message.startswith(_NOTICE):
            waiting.append(message[len(_NOTICE) : -len(_END)])
            continue
        if waiting and not message.startswith(_USER):
            placed.append(_NOTICE + b",".join(waiting) + _END)
            waiting = []
        placed.append(message)
    return (*placed, _NOTICE + b",".join(waiting) + _END) if waiting else tuple(placed)


class ConversationLoader:
    """Loads stored conversations."""

    def __init__(self, sessions: Sessions, images: ImageSource) -> None:
        self._sessions = sessions
        self._images = images
        self._encoded: OrderedDict[str, str] = OrderedDict()
        self._prefixes = PrefixCache()

    async def load(self, call: Call) -> StoredConversation:
        """The build's conversation, up to and including the turn's user message and what Cofounder adds to it."""
        prefix = self._prefixes.pop(call.build_id, call.prefix, call.turn)
        if prefix is None:
            async with autocommit(self._sessions) as tx:
                stored = await load_prefix(tx, call.build_id, call.prefix)
            opening = () if stored.opening is None else (stored.opening.encode(),)
            frozen = FrozenSettings(stored.settings, stored.betas)
            conversation = StoredConversation(stored.system.encode(), stored.tools.encode(), opening, frozen)
            prefix = RequestPrefix(conversation, call.prefix, stored.covers)
        async with autocommit(self._sessions) as tx:
            messages = await turns.load_messages(tx, call.build_id, call.turn, prefix.turn)
        prefix.add(call.turn, [await self._with_images(message) for message in messages])
        self._prefixes.put(call.build_id, prefix)
        return replace(prefix.conversation, messages=place_notices(prefix.conversation.messages))

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
