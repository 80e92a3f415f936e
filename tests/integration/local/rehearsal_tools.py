"""The rehearsal model's tools on a plain directory, and a loop in which a model uses them: a minimal agent.

Cofounder does not run tools this way. This tests the rehearsal model without Cofounder.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anthropic import AsyncAnthropic
from anthropic.types import Message

from domain.prompt import OPENING, render_system_prompt
from domain.tools import check_tool_input, render_tools
from local.ports import Ports
from tests.harness.wait import DEADLINE

WEBP = "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAUAmJaQAA3AA/v02aAA="
"""A PNG image of one white pixel."""

Answer = tuple[str, bool]
"""A tool's text, and whether it is an error."""


class ToolFailed(Exception):
    """A tool failed; the text is for the model."""


class Workspace:
    """Runs tool calls in a directory. The product's server listens on `port` instead of 8000."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = Ports()
        """Reserved until `close`, so that other stacks and tests on this machine do not take them."""
        self.port = self.ports.choose(set())
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory.parent),
            "PORT": str(self.port),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the workspace, with standard error in standard output."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            start_new_session=True,
        )

    def close(self) -> None:
        """End the product's server if it runs."""
        pid_file = self.directory / "data" / "server.pid"
        if pid_file.exists():
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
        self.ports.release()

    def call(self, name: str, given: dict[str, Any]) -> Answer:
        """Run a tool call and return its result."""
        check_tool_input(name, given)
        try:
            return getattr(self, f"_{name}")(**given), False
        except (ToolFailed, OSError) as error:
            return str(error) or "failed", True

    def _bash(self, command: str, timeout_ms: int | None) -> str:
        done = self.run(command)
        if done.returncode:
            raise ToolFailed(f"{done.stdout}\n[exit code {done.returncode}]")
        return f"{done.stdout}\n[exit code 0]"

    def _read_file(self, file_path: str, view_range: list[int] | None) -> str:
        lines = (self.directory / file_path).read_text().splitlines()
        first, last = view_range or (1, 2000)
        return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, 1) if first <= number <= last)

    def _write_file(self, file_path: str, content: str) -> str:
        target = self.directory / file_path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        return f"Wrote {file_path}."

    def _edit_file(self, file_path: str, old_string: str, new_string: str, replace_all: bool | None) -> str:
        target = self.directory / file_path
        text = target.read_text()
        if text.count(old_string) != 1:
            raise ToolFailed(f"The old text occurs {text.count(old_string)} times in {file_path}.")
        target.write_text(text.replace(old_string, new_string))
        return f"Edited {file_path}."

    def _glob(self, pattern: str, path: str | None) -> str:
        found = [path for path in self.directory.glob(pattern) if path.is_file() and ".git" not in path.parts]
        return "\n".join(str(path.relative_to(self.directory)) for path in found) or "No files match."

    def _grep(self, pattern: str, path: str | None, glob: str | None) -> str:
        found = [
            f"{path.relative_to(self.directory)}:{number}:{line}"
            for path in self.directory.glob(glob or "**/*")
            if path.is_file() and ".git" not in path.parts
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
            if re.search(pattern, line)
        ]
        return "\n".join(found) or "No matches."

    def _take_screenshot(self, path: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE):
            return f"Screenshots of {path}"

    def _look(self, path: str, viewport: str, steps: list[dict[str, str]], full_page: bool) -> str:
        return f"{self._take_screenshot(path)} after {len(steps)} steps"


Spoil = Callable[[str, dict[str, Any]], Answer | None]
"""Answers a call instead of the tool, or returns None to run the tool."""


@dataclass
class Session:
    """A conversation between a model and a workspace."""

    client: AsyncAnthropic
    workspace: Workspace
    brief: dict[str, Any]
    goal: str = "Build the first version."
    model: str = "claude-sonnet-5-5"
    spoil: Spoil = lambda name, given: None
    messages: list[Any] = field(default_factory=lambda: [{"role": "user", "content": OPENING}])
    calls: list[tuple[str, dict[str, Any], Answer]] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)

    async def turn(self) -> Message:
        """Make one model call and run its tool calls."""
        interview = [{"question": "Who is it for?", "answer": "People who own a garden but no time."}]
        async with self.client.messages.stream(
            model=self.model,
            max_tokens=32_000,
            system=json.loads(render_system_prompt(self.brief, interview, self.goal, [])),
            tools=json.loads(render_tools()),
            thinking={"type": "adaptive", "display": "summarized"},
            cache_control={"type": "ephemeral"},
            messages=self.messages,
        ) as stream:
            reply = await stream.get_final_message()
        self.replies.append(reply)
        content = [block.model_dump(exclude_none=True, exclude={"caller"}) for block in reply.content]
        self.messages.append({"role": "assistant", "content": content})
        results: list[dict[str, Any]] = []
        for block in reply.content:
            if block.type == "tool_use":
                answer = self.spoil(block.name, block.input) or self.workspace.call(block.name, block.input)
                self.calls.append((block.name, block.input, answer))
                results.append(self._result(block.id, block.name, answer))
        if results:
            self.messages.append({"role": "user", "content": results})
        return reply

    def _result(self, identifier: str, name: str, answer: Answer) -> dict[str, Any]:
        text, is_error = answer
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if name in ("take_screenshot", "look") and not is_error:
            source = {"type": "base64", "media_type": "image/webp", "data": WEBP}
            content.append({"type": "image", "source": source})
        return {"type": "tool_result", "tool_use_id": identifier, "content": content, "is_error": is_error}

    async def until_end_of_turn(self, limit: int = 60) -> Message:
        """Repeat until the model ends its turn."""
        for _ in range(limit):
            reply = await self.turn()
            if reply.stop_reason != "tool_use":
                return reply
        raise AssertionError(f"no end after {limit} turns")

    def tell(self, text: str) -> None:
        """Add a text for the model, after the results of its calls or in a message of its own."""
        if self.messages[-1]["role"] == "assistant":
            self.messages.append({"role": "user", "content": [{"type": "text", "text": text}]})
        elif isinstance(self.messages[-1]["content"], list):
            self.messages[-1]["content"].append({"type": "text", "text": text})
