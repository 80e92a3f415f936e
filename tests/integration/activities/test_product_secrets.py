"""Where the secrets of a product are, and where their stand-ins: only the `start` of a preview has real values."""

import base64
import json
import shlex
import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.exceptions import ApplicationError

from clients.cipher import Cipher
from clients.sandbox import Role, Sandbox
from clients.sandbox_runner import JOURNAL
from db import gate_runs
from db.models import Build, GateRun, Preview
from db.transaction import transaction
from domain.page_view import PageView
from domain.payloads import GateResult, OpenedPreview, PreviewInput, RunGate, SandboxInput
from domain.redaction import SECRET
from domain.traffic import Upstream
from local.stack import LocalStack
from services.product_secrets import set_secret
from tests.harness.activities import ActivityHarness, open_activity_harness, shell
from tests.harness.wait import DEADLINE

VALUE = "sk_live_51Hx/9+abcDEF=="
FORMS = [VALUE, base64.b64encode(VALUE.encode()).decode(), VALUE.encode().hex()]
"""Forms in which the product prints its secret."""

SERVER = """\
import base64, http.server, os, sys

value = os.environ.get("STRIPE_API_KEY", "missing")
raw = value.encode()
print("starting with", value, base64.b64encode(raw).decode(), raw.hex(), base64.b64encode(b"x" + raw).decode())
sys.stdout.flush()
if os.path.exists("broken") and not value.startswith("stand-in-"):
    raise SystemExit(f"{value} is not a key of this service")
mode = "a stand-in" if value.startswith("stand-in-") else f"a real key of {len(value)} characters"
head = "<!doctype html><title>Shop</title><meta name=viewport content=width=device-width>"
body = f"{head}<h1>Runs with {mode}</h1>".encode()

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Page).serve_forever()
"""

TESTS = """\
import os, unittest

class KeyTest(unittest.TestCase):
    def test_the_key_is_a_stand_in(self):
        self.assertEqual(os.environ["STRIPE_API_KEY"], "stand-in-STRIPE_API_KEY")
"""

MANIFEST = {
    "install": 'test "$STRIPE_API_KEY" = stand-in-STRIPE_API_KEY',
    "check": "python3 -m unittest",
    "start": "exec python3 server.py",
    "port": 8000,
}


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    await give_secret(harness, build_id, harness.cipher)
    async with transaction(harness.sessions) as tx:
        tx.session.add(Preview(build_id=uuid.UUID(build_id), state="opening"))
    yield build_id
    await harness.kill_all(build_id)


async def give_secret(harness: ActivityHarness, build: str, cipher: Cipher) -> None:
    async with transaction(harness.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        await set_secret(tx, cipher, row.user_id, row.project_id, "STRIPE_API_KEY", VALUE)


async def product(harness: ActivityHarness, build: str, **more: str) -> None:
    """Commit a product that reads a secret, with further files, and take its snapshot."""
    sandbox = await harness.open(build)
    files = {"server.py": SERVER, "test_key.py": TESTS, "cofounder.json": json.dumps(MANIFEST), **more}
    for name, content in files.items():
        await sandbox.write(f"/home/user/project/{name}", content)
    await shell(sandbox, "git add -A; git commit -qm 'Build the product'")
    await harness.take(build, sandbox, 1)


async def run_gate(harness: ActivityHarness, build: str) -> GateResult:
    return await harness.run(harness.gate.run_evidence_gate, RunGate(build_id=build, number=1, snapshot_number=1))


async def open_preview(harness: ActivityHarness, build: str, sandbox_id: str | None = None) -> OpenedPreview:
    request = PreviewInput(build_id=build, seconds=60, sandbox_id=sandbox_id)
    return await harness.run(harness.preview.open_preview, request)


async def page(harness: ActivityHarness, sandbox_id: str) -> str:
    sandbox = await harness.sandboxes.connect(sandbox_id)
    answer = await sandbox.http_get(8000, "/", DEADLINE)
    assert answer is not None
    return answer.body.decode().partition("<h1>")[2].removesuffix("</h1>")


async def log_of(harness: ActivityHarness, build: str) -> str:
    async with transaction(harness.sessions) as tx:
        return (await tx.session.get_one(Preview, uuid.UUID(build))).log or ""


async def places_of(sandbox: Sandbox, value: str) -> str:
    """Where a value is in the sandbox, other than in the environments of processes and the log of `start`."""
    pattern = shlex.quote(value)
    command = f"""
grep -rlF -e {pattern} /home/user /tmp 2>/dev/null | grep -v '^{JOURNAL}/server-preview-[^/]*/log$'
for process in /proc/[0-9]*; do
    tr '\\0' ' ' <$process/cmdline 2>/dev/null | grep -vF 'grep -' | grep -qF -e {pattern} && echo $process
done; true
"""
    # The command itself has the value in its arguments, and so has the shell that runs it.
    output = await sandbox.run(command.replace(pattern, '"$WANTED"'), timeout_seconds=DEADLINE, env={"WANTED": value})
    return "\n".join(line for line in output.stdout.splitlines() if line)


async def test_the_gate_has_a_stand_in_and_its_preview_the_value(harness: ActivityHarness, build: str) -> None:
    await product(harness, build)
    result = await run_gate(harness, build)
    assert result.findings == 0
    assert result.sandbox_id is not None
    assert await page(harness, result.sandbox_id) == "Runs with a stand-in"
    async with transaction(harness.sessions) as tx:
        assert VALUE not in str((await tx.session.get_one(GateRun, (uuid.UUID(build), 1))).findings)

    for _ in range(2):  # a retry starts nothing twice
        opened = await open_preview(harness, build, result.sandbox_id)
        assert opened.sandbox_id == result.sandbox_id
        assert await page(harness, opened.sandbox_id) == f"Runs with a real key of {len(VALUE)} characters"
    log = await log_of(harness, build)
    assert log.startswith(f"The log of `start`:\nstarting with {SECRET} {SECRET}")
    assert not [form for form in FORMS if form in log]
    sandbox = await harness.sandboxes.connect(opened.sandbox_id)
    assert await places_of(sandbox, VALUE) == ""
    assert await harness.events(build, "preview") == []


async def test_a_preview_that_starts_from_the_snapshot_has_the_value(harness: ActivityHarness, build: str) -> None:
    await product(harness, build)
    opened = await open_preview(harness, build)
    assert await page(harness, opened.sandbox_id) == f"Runs with a real key of {len(VALUE)} characters"
    await harness.run(harness.preview.close_preview, SandboxInput(build_id=build, sandbox_id=opened.sandbox_id))
    assert await harness.sandboxes.find(build, Role.PREVIEW) == []


async def test_the_log_of_a_start_that_fails_is_the_founders_alone(harness: ActivityHarness, build: str) -> None:
    await product(harness, build, broken="")
    result = await run_gate(harness, build)
    assert result.findings == 0
    with pytest.raises(ApplicationError) as failed:
        await open_preview(harness, build, result.sandbox_id)
    assert failed.value.type == "BuildFailed"
    assert failed.value.message.startswith("`start` (exec python3 server.py) ended with exit code 1 before")
    assert "starting with" not in failed.value.message
    log = await log_of(harness, build)
    assert f"{SECRET} is not a key of this service" in log
    assert not [form for form in FORMS if form in log]


async def test_without_its_key_a_preview_says_so_and_nothing_is_lost(harness: ActivityHarness, build: str) -> None:
    await give_secret(harness, build, Cipher({"older": b"o" * 32}))
    await product(harness, build)
    with pytest.raises(ApplicationError) as failed:
        await open_preview(harness, build)
    assert failed.value.type == "BuildFailed"
    assert failed.value.message == (
        "The secret STRIPE_API_KEY can't be read: it was encrypted with the key older, which SECRETS_KEY does not "
        "have. The product is kept. Ask the operator to put the key back, or set the secret again; then open the "
        "preview."
    )
    assert await harness.sandboxes.find(build, Role.PREVIEW) == []
    await give_secret(harness, build, harness.cipher)
    opened = await open_preview(harness, build)
    assert await page(harness, opened.sandbox_id) == f"Runs with a real key of {len(VALUE)} characters"


async def test_a_stale_gate_keeps_nothing_of_a_page_that_may_know_secrets(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt hangs in the browser while another one passes and the preview takes over the sandbox."""
    await product(harness, build)
    kept: list[str] = []

    async def late(upstream: Upstream) -> list[PageView]:
        async with transaction(harness.sessions) as tx:
            await gate_runs.claim_run(tx, uuid.UUID(build), 1, uuid.uuid4())
        views = await look(upstream)
        assert views
        return views

    async def keep(sha256: str, webp: bytes) -> None:
        kept.append(sha256)

    look = harness.browser.views
    monkeypatch.setattr(harness.browser, "views", late)
    monkeypatch.setattr(harness.store, "put_image", keep)
    with pytest.raises(ApplicationError) as ended:
        await run_gate(harness, build)
    assert ended.value.type == "StaleClaim"
    assert kept == []
