"""What is encrypted can be read by the same key in the same place only."""

from dataclasses import replace

import pytest

from clients.cipher import Cipher
from domain.errors import SecretUnreadable

OLD, NEW = {"old": b"o" * 32}, {"new": b"n" * 32}
VALUE = "sk_live_ünïcode"


def test_a_value_is_read_again_also_after_a_rotation() -> None:
    sealed = Cipher(OLD).seal(VALUE, "project A")
    assert sealed.key_id == "old"
    assert VALUE.encode() not in sealed.ciphertext
    assert Cipher({**NEW, **OLD}).open(sealed, "project A") == VALUE
    assert Cipher({**NEW, **OLD}).seal(VALUE, "project A").key_id == "new"


def test_no_ciphertext_equals_another() -> None:
    cipher = Cipher(OLD)
    assert cipher.seal(VALUE, "p").ciphertext != cipher.seal(VALUE, "p").ciphertext


def test_what_cannot_be_read() -> None:
    sealed = Cipher(OLD).seal(VALUE, "project A")
    with pytest.raises(SecretUnreadable, match="the key old, which SECRETS_KEY does not have"):
        Cipher(NEW).open(sealed, "project A")
    with pytest.raises(SecretUnreadable, match="does not have"):
        Cipher({}).open(sealed, "project A")
    changed = replace(sealed, ciphertext=sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1]))
    for other, context in (
        (changed, "project A"),
        (sealed, "project B"),
        (replace(sealed, ciphertext=b""), "project A"),
    ):
        with pytest.raises(SecretUnreadable, match="does not fit the key old"):
            Cipher(OLD).open(other, context)
    with pytest.raises(SecretUnreadable, match="another key of the same id"):
        Cipher({"old": b"x" * 32}).open(sealed, "project A")
