"""Encrypts founders' secrets with AES-256-GCM, by the library `cryptography`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.errors import SecretUnreadable
from domain.product_secrets import parse_keys
from settings import Settings

_NONCE_BYTES = 12


@dataclass(frozen=True)
class Sealed:
    """An encrypted value: the nonce, then what AES-GCM makes of it."""

    key_id: str
    ciphertext: bytes


class Cipher:
    """Encrypts with the first of its keys, and decrypts with each of them."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.key_id = next(iter(keys), "")
        """Of the key that encrypts. Empty if there is no key: then nothing can be read."""

    def seal(self, value: str, context: str) -> Sealed:
        """Encrypt a value. It can only be read again with the same `context`, which says what it is for."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.key_id].encrypt(nonce, value.encode(), _bound_to(self.key_id, context))
        return Sealed(self.key_id, nonce + sealed)

    def open(self, sealed: Sealed, context: str) -> str:
        """Decrypt a value.

        Raises:
            SecretUnreadable: its key is not there, or it is not what was encrypted for this context.
        """
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise SecretUnreadable(f"it was encrypted with the key {sealed.key_id}, which SECRETS_KEY does not have")
        nonce, rest = sealed.ciphertext[:_NONCE_BYTES], sealed.ciphertext[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, rest, _bound_to(sealed.key_id, context)).decode()
        except (InvalidTag, ValueError):
            raise SecretUnreadable(
                f"it does not fit the key {sealed.key_id} in SECRETS_KEY: that is another key of the same id, or the "
                "row was changed"
            ) from None


def _bound_to(key_id: str, context: str) -> bytes:
    return f"{key_id}\n{context}".encode()


def cipher_of(settings: Settings) -> Cipher:
    """The cipher of the settings, which has no key if SECRETS_KEY is unset."""
    key = settings.secrets_key
    return Cipher({} if key is None else parse_keys(key.get_secret_value()))
