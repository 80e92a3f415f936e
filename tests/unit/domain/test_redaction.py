"""Secrets are found in each of their forms, and where the end of a text cuts them off."""

import base64
import json
from collections.abc import Callable
from time import process_time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.redaction import SECRET, redact

SECRETS = [
    "sk_live_51Hx/9+abcDEF==",
    "pässwörd & spaces?",
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n",
    'quote " and \\ back',
]


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def _wrapped(text: str) -> str:
    return base64.encodebytes(text.encode()).decode()


def _hex_dump(text: str) -> str:
    return " ".join(f"{byte:02X}" for byte in text.encode())


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "base64": _b64,
    "base64 of an echo": lambda secret: _b64(f"{secret}\n"),
    "base64 behind one byte": lambda secret: _b64(f"x{secret}y"),
    "base64 behind two bytes": lambda secret: _b64(f"xx{secret}yy"),
    "base64 of a header": lambda secret: _b64(f"user:{secret}"),
    "base64 in broken lines": lambda secret: _wrapped(f"{'x' * 50}{secret}"),
    "base64 for URLs": lambda secret: _url(f"x{secret}"),
    "hexadecimal": lambda secret: secret.encode().hex(),
    "HEXADECIMAL": lambda secret: secret.encode().hex().upper(),
    "a hexadecimal dump": _hex_dump,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "percent-encoded but for the slash": quote,
    "of a form": quote_plus,
    "wholly percent-encoded": lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False),
    "broken by a terminal": lambda secret: f"{secret[:5]}\n{secret[5:]}",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_blanked_in_each_form(secret: str, form: str) -> None:
    written = FORMS[form](secret)
    text = redact(f"before {written} after", SECRETS)
    assert SECRET in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    for piece in (secret, secret.strip(), _b64(secret)[4:-4], secret.encode().hex(), quote(secret, safe="")):
        assert piece.lower() not in text.lower()
    # What is left beside it are the few characters that depend on what stands around it.
    assert len(text) <= len("before  after") + len(SECRET) * 3 + len("x" * 80)


@pytest.mark.parametrize("encode", [str, _b64, lambda secret: secret.encode().hex()])
def test_what_a_cut_leaves_of_a_form_is_blanked(encode: Callable[[str], str]) -> None:
    written = encode("a-long-secret-0123456789")
    assert redact(f"{written[-20:]} after", ["a-long-secret-0123456789"]).startswith(SECRET)
    assert redact(f"before {written[:20]}", ["a-long-secret-0123456789"]).rstrip("=").endswith(SECRET)
    assert redact(written[3:19], ["a-long-secret-0123456789"]) == SECRET


@given(st.text(max_size=200), st.text(max_size=40), st.text(max_size=200))
@example("İ", "secretİsecret", "İ")
@example("%", "%%%%%%%%", "+")
def test_nothing_else_is_changed(before: str, secret: str, after: str) -> None:
    assert redact(before + after, ["is-in-none-of-them", "Îß"]) == before + after
    text = redact(before + secret + after, [secret])
    if len(secret) < 8:
        assert text == before + secret + after
    elif secret.strip():
        assert secret not in text.replace(SECRET, "") or secret in before + after


def test_many_long_secrets_take_little_time() -> None:
    secrets = [f"{number:04}{chr(97 + number % 26) * 4000}" for number in range(64)]
    text = "a line of a log with some words in it\n" * 1000 + secrets[5]
    began = process_time()
    assert redact(text, secrets).endswith(SECRET)
    assert process_time() - began < 2
