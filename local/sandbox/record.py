"""A sandbox's record on disk, by which a new server adopts the sandboxes of a dead one."""

import os
import re
import secrets
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RECORD_FILE = "meta.json"
SANDBOX_ID = re.compile(r"i[0-9a-f]{20}")

TRAFFIC_TOKEN_PREFIX = "local-traffic-token-"
"""Begins every traffic token, so that a search for leaked ones finds any of them."""

State = Literal["running", "paused"]


class SandboxRecord(BaseModel):
    """Times are Unix timestamps in seconds. The tokens are secrets: the file is readable by its owner only."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = Field(pattern=f"^{SANDBOX_ID.pattern}$")
    token: str
    traffic_token: str | None = None
    """What requests to the sandbox's servers need; None if they are public."""
    template: str
    started_at: float
    end_at: float
    timeout: int
    metadata: dict[str, str] = Field(default_factory=dict)
    envs: dict[str, str] = Field(default_factory=dict)
    allow_internet: bool | None = None
    auto_pause: bool = False
    """Pause the sandbox at `end_at` instead of killing it."""
    auto_pause_memory: bool = True
    auto_resume: bool = False
    """Resume the paused sandbox on traffic to it."""
    state: State = "running"
    """The last requested state. A sandbox whose processes ended by themselves is recorded as running: its end still
    comes."""
    idempotency_key: str | None = None
    request_hash: str | None = None
    """Hash of the request that came with the key. A different request with the same key is a mistake."""

    @staticmethod
    def new_id() -> str:
        return f"i{secrets.token_hex(10)}"

    @staticmethod
    def new_token() -> str:
        return secrets.token_urlsafe(24)

    @classmethod
    def new_traffic_token(cls) -> str:
        return f"{TRAFFIC_TOKEN_PREFIX}{cls.new_token()}"

    def save(self, directory: Path) -> None:
        """Write atomically: a crash leaves the old record or the new one."""
        path = directory / RECORD_FILE
        partial = path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(cls, directory: Path) -> "SandboxRecord":
        """Raises ValueError if it is not a record of this directory's sandbox, OSError if it can't be read."""
        record = cls.model_validate_json((directory / RECORD_FILE).read_bytes())
        if record.id != directory.name:
            raise ValueError(f"the record in {directory.name} is that of {record.id}")
        return record
