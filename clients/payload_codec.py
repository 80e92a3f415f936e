"""Encrypts what Temporal stores of workflows with AES-256-GCM.

A payload is encrypted whole, metadata included, so it does not show what type it has. One that is plain stays readable:
histories from before a key was set go on, and so do signals by the Temporal CLI.
"""

import base64
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from domain.errors import PayloadUnreadable
from domain.payload_keys import PayloadKeys

ENCODING = b"binary/encrypted"
"""The metadata `encoding` of an encrypted payload, as in Temporal's own samples."""

KEY_ID = "encryption-key-id"

_NONCE_BYTES = 12

_TEXT_PREFIX = "encrypted:"


class EncryptingCodec(PayloadCodec):
    """Encrypts with the key that writes, if there is one, and decrypts with each of its keys."""

    def __init__(self, keys: PayloadKeys) -> None:
        self.keys = keys
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.keys.items()}

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt payloads; without a key that writes, they stay as they are."""
        key_id = self.keys.writes
        if key_id is None:
            return list(payloads)
        return [self._encrypt(payload, key_id) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt payloads; plain ones stay as they are.

        Raises:
            PayloadUnreadable: the key of one is not there, or it was changed.
        """
        return [
            self._decrypt(payload) if payload.metadata.get("encoding") == ENCODING else payload for payload in payloads
        ]

    async def encode_text(self, text: str) -> str:
        """Encrypt a text that Temporal does not store as a payload, such as a schedule's note; see `encode`."""
        [payload] = await self.encode([Payload(data=text.encode())])
        if payload.metadata.get("encoding") != ENCODING:
            return text
        return _TEXT_PREFIX + base64.b64encode(payload.SerializeToString()).decode()

    async def decode_text(self, text: str) -> str:
        """Decrypt such a text; a plain one stays as it is.

        Raises:
            PayloadUnreadable: as `decode`.
        """
        if not text.startswith(_TEXT_PREFIX):
            return text
        try:
            sealed = Payload.FromString(base64.b64decode(text.removeprefix(_TEXT_PREFIX), validate=True))
        except (ValueError, DecodeError):
            return text  # someone wrote it by hand
        [payload] = await self.decode([sealed])
        return payload.data.decode()

    def _encrypt(self, payload: Payload, key_id: str) -> Payload:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[key_id].encrypt(nonce, payload.SerializeToString(), key_id.encode())
        return Payload(metadata={"encoding": ENCODING, KEY_ID: key_id.encode()}, data=nonce + sealed)

    def _decrypt(self, payload: Payload) -> Payload:
        key_id = payload.metadata.get(KEY_ID, b"").decode(errors="replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise PayloadUnreadable(
                f"A payload was encrypted with the key {key_id}, which PAYLOAD_KEY does not have. Add it there."
            )
        nonce, rest = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, rest, key_id.encode()))
        except (InvalidTag, ValueError):
            raise PayloadUnreadable(
                f"A payload does not fit the key {key_id} in PAYLOAD_KEY: that is another key of the same id, or the "
                "payload was changed. Put the right key back."
            ) from None
