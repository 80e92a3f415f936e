"""A rehearsal model in a process of its own, and requests to it."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx2
from anthropic import AsyncAnthropic

from tests.harness.wait import DEADLINE

ROOT = Path(__file__).parents[3]
BASH = {
    "name": "bash",
    "description": "Run a command.",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
}


class Server:
    """A rehearsal model in a process of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.log = directory / "served.jsonl"
        self.bodies = directory / "bodies"
        self.options = options
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.rehearsal", "--log", self.log, "--bodies", self.bodies, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.environment = json.loads(self.process.stdout.readline())
        self.address = self.environment["ANTHROPIC_BASE_URL"]

    def client(self) -> AsyncAnthropic:
        return AsyncAnthropic(api_key="rehearsal", base_url=self.address, max_retries=0)

    def served(self) -> list[dict[str, Any]]:
        with urlopen(self.address + "/_rehearsal/served", timeout=DEADLINE) as response:
            return list(json.load(response))

    def register(self, what: str, value: Any) -> None:
        response = httpx2.post(f"{self.address}/_rehearsal/{what}", json=value, timeout=DEADLINE)
        assert response.status_code == 201, response.text

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def minimal_request(token: str, **more: Any) -> dict[str, Any]:
    """Return a minimal request."""
    return {
        "model": "claude-sonnet-5-5",
        "max_tokens": 2000,
        "system": f"{token}",
        "messages": [{"role": "user", "content": "Begin."}],
        "tools": [BASH],
        **more,
    }


def steps(token: str, *turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {"match": token, "script": {"kind": "steps", "turns": list(turns)}}
