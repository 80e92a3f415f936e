"""Blanks secrets in text: as they are, in base64, in hexadecimal, in URLs and in JSON, also across broken lines.

This is a second line of defence. It can't find a secret that a program has changed in another way, so what may not
have a secret must not come from a process that has one.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote, unquote_plus

SECRET = "[secret]"
"""Replaces a secret."""

SHORTEST = 8
"""A value shorter than this is not treated as a secret; neither is a shorter piece of a secret at a cut."""

_SHORTEST_LINE = 16
"""A line of a secret of several lines is blanked by itself if it has this many characters."""

_ASCII_LOWER: Mapping[int, int] = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}

Span = tuple[int, int]


def redact(text: str, secrets: Iterable[str]) -> str:
    """Remove the secrets in each of their forms, and the part of one that a cut left at an end of the text."""
    wanted = [secret for secret in dict.fromkeys(secrets) if len(secret) >= SHORTEST]
    if not wanted or not text:
        return text
    squeezed = _squeeze(text)
    needles = {needle for secret in wanted for needle in map(_squeeze, _forms(secret)) if len(needle) >= SHORTEST}
    found = [span for needle in needles for span in _spans(squeezed, needle)]
    spans = _in_url_form(text, wanted)
    spans += [span for secret in wanted if len(_squeeze(secret)) < SHORTEST for span in _spans(text, secret)]
    if found:
        places = [place for place, character in enumerate(text) if not character.isspace()]
        spans += [(places[start], places[end - 1] + 1) for start, end in found]
    return _without(text, spans)


def _squeeze(text: str) -> str:
    """The text in lower case without white space: encoders break lines, and write hexadecimal digits in either case."""
    joined = "".join(text.split())
    lower = joined.lower()
    return lower if len(lower) == len(joined) else joined.translate(_ASCII_LOWER)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield from (line for line in secret.split("\n") if len(line) >= _SHORTEST_LINE)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    yield data.hex()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + data + bytes(3)).decode()
        # Without the characters at the ends, which depend on what stands beside the secret.
        inner = encoded[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")


def _spans(text: str, needle: str) -> Iterator[Span]:
    """Where the needle is in the text, and where the ends of the text cut it off."""
    at = text.find(needle)
    while at >= 0:
        yield at, at + len(needle)
        at = text.find(needle, at + len(needle))
    if len(text) < SHORTEST:
        return
    if text in needle:
        yield 0, len(text)
        return
    start = needle.find(text[:SHORTEST], 1)
    while start >= 0:
        if text.startswith(needle[start:]):
            yield 0, len(needle) - start
            break
        start = needle.find(text[:SHORTEST], start + 1)
    end = needle.rfind(text[-SHORTEST:], 0, len(needle) - 1)
    while end >= 0:
        if text.endswith(needle[: end + SHORTEST]):
            yield len(text) - end - SHORTEST, len(text)
            break
        end = needle.rfind(text[-SHORTEST:], 0, end + SHORTEST - 1)


def _in_url_form(text: str, secrets: Iterable[str]) -> list[Span]:
    """Where the secrets are percent-encoded. Programs differ in which characters they encode."""
    if "%" not in text and "+" not in text:
        return []
    decoded = {_squeeze(unquote(text)), _squeeze(unquote_plus(text))}
    return [
        match.span()
        for secret in secrets
        if any(_squeeze(secret) in each for each in decoded)
        for match in re.finditer(r"\s*".join(map(_url_pattern, secret)), text, re.IGNORECASE)
    ]


def _url_pattern(character: str) -> str:
    encoded = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    return f"(?:{re.escape(character)}|{encoded}{r'|[+]' if character == ' ' else ''})"


def _without(text: str, spans: list[Span]) -> str:
    parts: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            parts += [text[done:start], SECRET]
        done = max(done, end)
    return "".join([*parts, text[done:]])
