"""Keeps what builds see. A row says so before the object is there: an erasure finds it, whatever happens in between."""

import uuid
from hashlib import sha256
from typing import Protocol

from db.images import note_image
from db.session import Sessions
from db.transaction import transaction


class ImageStore(Protocol):
    """Where images are stored, by the SHA-256 of their bytes."""

    async def put_image(self, sha256_hex: str, webp: bytes) -> None:
        """Store the image. Storing it again changes nothing."""
        ...


async def keep_image(sessions: Sessions, store: ImageStore, build_id: uuid.UUID, webp: bytes) -> str:
    """Keep a WebP image that the build sees. Returns its SHA-256, in hex."""
    name = sha256(webp).hexdigest()
    async with transaction(sessions) as tx:
        await note_image(tx, build_id, name)
    await store.put_image(name, webp)
    return name
