"""Products for the evidence gate: a good one, from which each test makes the bad one that it needs."""

import json
import uuid

from clients.sandbox import Role, Sandbox
from db.models import GateRun
from db.transaction import transaction
from domain.payloads import GateResult, RunGate
from tests.harness.activities import ActivityHarness, shell

VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'
UNTITLED = f"{VIEWPORT}<h1>No title</h1>"
PAGE = f"<!doctype html><title>Rooms</title>{VIEWPORT}<h1>Rooms</h1><p>A place for everything.</p>"

SERVER = """\
import http.server, pathlib

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = pathlib.Path("page.html" if self.path == "/" else self.path[1:])
        is_there = self.path == "/" or path.exists()
        body = path.read_bytes() if is_there else b"Not found"
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

print("starting", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Page).serve_forever()
"""

TESTS = """\
import pathlib, unittest

class PageTest(unittest.TestCase):
    def test_page_has_a_title(self):
        self.assertIn("<title>", pathlib.Path("page.html").read_text())
"""

MANIFEST = {
    "install": "true",
    "check": "python3 -m unittest",
    "start": "exec python3 server.py",
    "port": 8000,
}


async def product(
    harness: ActivityHarness, build: str, commands: dict[str, object] | None = None, **files: str
) -> Sandbox:
    """Commit a product that is good except for the given files. `page_html` is the name of page.html."""
    sandbox = await harness.open(build)
    contents = {"page.html": PAGE, "server.py": SERVER, "test_page.py": TESTS} | {
        ".".join(name.rsplit("_", 1)): content for name, content in files.items()
    }
    contents["cofounder.json"] = json.dumps(MANIFEST | (commands or {}))
    for name, content in contents.items():
        await sandbox.write(f"/home/user/project/{name}", content)
    await shell(sandbox, "git add -A; git commit -qm 'Build the product'")
    return sandbox


async def gate(
    harness: ActivityHarness, build: str, sandbox: Sandbox, number: int = 1, *, hasty: bool = False
) -> tuple[GateResult, list[str]]:
    """Snapshot the workspace and run the gate on it."""
    await harness.take(build, sandbox, number)
    return await again(harness, build, number, hasty=hasty)


async def again(
    harness: ActivityHarness, build: str, number: int = 1, *, hasty: bool = False
) -> tuple[GateResult, list[str]]:
    """Run another attempt of a gate."""
    given = RunGate(build_id=build, number=number, snapshot_number=number)
    activities = harness.hasty_gate if hasty else harness.gate
    result = await harness.run(activities.run_evidence_gate, given)
    row = await run_of(harness, build, number)
    findings: list[str] = row.findings or []
    assert result.findings == len(findings)
    return result, findings


async def run_of(harness: ActivityHarness, build: str, number: int = 1) -> GateRun:
    async with transaction(harness.sessions) as tx:
        return await tx.session.get_one(GateRun, (uuid.UUID(build), number))


async def only_finding(harness: ActivityHarness, build: str, sandbox: Sandbox, *, hasty: bool = False) -> str:
    """Check that the product is bounced for one reason, and return the finding."""
    result, findings = await gate(harness, build, sandbox, hasty=hasty)
    assert len(findings) == 1, findings
    assert (result.sandbox_id, result.preview_url) == (None, None)
    assert await harness.sandboxes.find(build, Role.GATE) == []
    told = (await harness.events(build, "gate_bounced"))[0].data
    assert told == {"number": 1, "findings": findings}
    return findings[0]
