"""Tool results: cleaned, bounded, without secrets, and rendered as the exact JSON text that is stored and sent."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from domain.redaction import redact

MAX_CHARACTERS = 64_000
"""The longest text block of a result, in characters. Tools set tighter limits that suit their output."""

NO_OUTPUT = "(no output)"

_ANSI = re.compile(
    r"\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles and links, up to BEL or ST
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\[[0-?]*[ -/]*[@-~]?"  # CSI: colours and cursor movements
    r"|[ -/]*[0-~]?)"  # two-character sequences
    r"|\x9b[0-?]*[ -/]*[@-~]?"
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class ImageRef:
    """A WebP in the object store under `images/<sha256>.webp`. Its bytes replace a placeholder when it is sent."""

    sha256: str


def clean(text: str) -> str:
    """Convert terminal output to plain text.

    Remove ANSI sequences, keep only the last version of a line that was overwritten with carriage returns, and replace
    control characters and lone surrogates, which the database can't store.
    """
    plain = _ANSI.sub("", text).replace("\r\n", "\n")
    if "\r" in plain:
        plain = "\n".join(_last_drawn(line) for line in plain.split("\n"))
    return _CONTROLS.sub("\ufffd", plain)


def _last_drawn(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "")


def bound(text: str, characters: int = MAX_CHARACTERS) -> str:
    """Leave out the middle of a text that is longer than this many characters."""
    if len(text) <= characters:
        return text
    head, tail = characters * 2 // 3, characters // 3
    return f"{text[:head]}\n[… {len(text) - head - tail} characters left out …]\n{text[-tail:]}"


def displayable(text: str, secrets: Iterable[str] = ()) -> str:
    """Make text from a sandbox fit to be stored and sent."""
    return bound(redact(clean(text), secrets))


def command_text(
    *,
    head: str,
    tail: str = "",
    output_bytes: int = 0,
    output_path: str = "",
    exit_code: int | None = 0,
    timed_out_after: float | None = None,
    memory: tuple[int, int] | None = None,
    secrets: Iterable[str] = (),
) -> str:
    """Render the result of a command for the agent.

    Args:
        head: the output, or only its beginning if `tail` is its end.
        output_bytes: the length of the whole output.
        output_path: the file that holds the whole output.
        timed_out_after: the limit in seconds, if the command was ended for exceeding it.
        memory: if processes of the command were ended for want of memory, the peak of one process and what the sandbox
            has, in bytes; the latter is 0 if it is unknown.
    """
    secrets = list(secrets)
    text = displayable(head, secrets)
    if tail:
        left_out = max(0, output_bytes - len(head.encode("utf-8", "replace")) - len(tail.encode("utf-8", "replace")))
        text = f"{text}\n[… {left_out} bytes left out; all of it is in {output_path} …]\n{displayable(tail, secrets)}"
    text = text.rstrip("\n") or NO_OUTPUT
    if memory is not None:
        text = f"{text}\n{_out_of_memory(*memory)}"
    if timed_out_after is not None:
        return (
            f"{text}\n[timed out after {timed_out_after:g} s; its processes were ended. Give a longer timeout_ms, or "
            "run it in the background with its output in a file and look there later]"
        )
    return f"{text}\n[exit code {exit_code}]" if exit_code else text


def _out_of_memory(peak: int, limit: int) -> str:
    of_limit = f" of the sandbox's {limit >> 20} MiB" if limit else ""
    return (
        f"[ended for want of memory: the largest process reached {peak >> 20} MiB{of_limit}. Use less at once, e.g. "
        "run one test file or one worker at a time, stop servers that are not needed, or read a file in parts.]"
    )


def render_result(tool_use_id: str, content: str | Sequence[str | ImageRef], is_error: bool = False) -> str:
    """Render a `tool_result` block as JSON text. It is stored, and sent in exactly these bytes from then on."""
    parts = [content] if isinstance(content, str) else content
    block: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": tool_use_id,
        "content": [_content_block(part) for part in parts],
    }
    if is_error:
        block["is_error"] = True
    return json.dumps(block, ensure_ascii=False, separators=(",", ":"))


def result_text(stored: str) -> str:
    """Return the text of a stored `tool_result` block."""
    content = json.loads(stored)["content"]
    return "\n".join(str(block["text"]) for block in content if block["type"] == "text")


def _content_block(part: str | ImageRef) -> dict[str, Any]:
    if isinstance(part, ImageRef):
        source = {"type": "base64", "media_type": "image/webp", "data": f"sha256:{part.sha256}"}
        return {"type": "image", "source": source}
    # The API rejects empty text blocks.
    return {"type": "text", "text": _CONTROLS.sub("\ufffd", part) or NO_OUTPUT}


def parse_stored_blocks(stored: str) -> list[dict[str, Any]]:
    """Parse the content blocks of a stored message."""
    blocks: list[dict[str, Any]] = json.loads(stored)
    return blocks
