"""Secrets of founders that a fault run plants, and a product that tries to leak each of them in every way it can."""

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path

from clients.cipher import Cipher
from db.transaction import Transaction
from domain.product_secrets import parse_keys
from services.product_secrets import set_secret

MARK = "Zk3founders9Qx"
"""Stands in each planted value, so that one search finds any of them."""


def _value(number: int) -> str:
    return f"sk_{MARK}/{number:02}+{hashlib.sha256(bytes([number])).hexdigest()[:24]}=="


PLANTED: Mapping[str, str] = {f"PLANTED_{number:02}": _value(number) for number in range(40)}

PLANTED_KEY = f"faults:{base64.b64encode(hashlib.sha256(b'faults').digest()).decode()}"
"""SECRETS_KEY of the workers and the API."""

_DIGEST = hashlib.sha256("".join(PLANTED.values()).encode()).hexdigest()
_ARRIVED = "planted"
"""A file in the /tmp of a sandbox, with a digest of the values that its product was started with."""

LEAKS = f"""cat > leak.py <<'PY'
import base64, hashlib, os, pathlib, sys, urllib.parse
planted = sorted((name, value) for name, value in os.environ.items() if name.startswith("PLANTED_"))
lines = []
for name, value in planted:
    raw = value.encode()
    encoded = [base64.b64encode(before + raw).decode() for before in (b"", b"x", b"xx")]
    lines.append(" ".join([name, *encoded, raw.hex(), urllib.parse.quote(value, safe=""), value]))
print(*lines, sep="\\n", flush=True)
if planted and not planted[0][1].startswith("stand-in-"):
    pathlib.Path("leaked.txt").write_text("\\n".join(lines))
    digest = hashlib.sha256("".join(value for _, value in planted).encode()).hexdigest()
    pathlib.Path("/tmp/{_ARRIVED}").write_text(digest)
    if os.getpid() % 5 == 0:
        sys.exit("cannot start with " + planted[-1][1])
PY
"""
"""Writes a program that prints each planted secret in each form. With real values it also writes them into a file of
the workspace, and fails now and then, so that its log is asked for."""


async def plant(tx: Transaction, user_id: str, project_id: uuid.UUID) -> None:
    """Set the secrets of a project."""
    cipher = Cipher(parse_keys(PLANTED_KEY))
    for name, value in PLANTED.items():
        await set_secret(tx, cipher, user_id, project_id, name, value)


def needles() -> list[bytes]:
    """What a search for the planted values looks for: the mark in each of their forms."""
    mark = MARK.encode()
    inner = []
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + mark + bytes(3))
        inner.append(encoded[-(-offset * 8 // 6) : (offset + len(mark)) * 8 // 6])
    return [mark, *inner, mark.hex().encode(), mark.hex().upper().encode(), json.dumps(MARK).encode()]


def count_arrived(sandboxes: Path, kept: Path) -> int:
    """Count the sandboxes whose product was started with all of the planted values.

    `sandboxes`: the directories of living sandboxes; `kept`: the /tmp of killed ones.
    """
    files = [*sandboxes.glob(f"*/tmp/{_ARRIVED}"), *kept.glob(f"*/{_ARRIVED}")]
    return sum(file.read_text() == _DIGEST for file in files)
