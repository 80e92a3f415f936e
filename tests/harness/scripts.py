"""Scripts for the rehearsal model: its turns, step by step, instead of those that it would choose."""

from typing import Any

PRODUCT = """cat > server.py <<'PY'
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<h1 style='background:#125;color:#fff;padding:4em'>A small product</h1>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Page).serve_forever()
PY
cat > test_it.py <<'PY'
import unittest
class T(unittest.TestCase):
    def test_it(self):
        self.assertIn("product", open("server.py").read())
PY
echo '{"install": "true", "check": "python3 -m unittest", "start": "python3 server.py", "port": 8000}' > cofounder.json
echo __pycache__ > .gitignore
echo '- [x] A visitor sees the page (check: test_it.py)' > PLAN.md
git add -A && git -c user.name=c -c user.email=c@example.org commit -qm "A small product"
"""
"""A command that writes and commits the smallest product that passes the gate."""


def bash(command: str, seconds: int | None = None) -> dict[str, Any]:
    """A step that calls bash."""
    return {"tool": "bash", "input": {"command": command, "timeout_ms": seconds and round(seconds * 1000)}}


def steps(*turns: list[dict[str, Any]]) -> dict[str, Any]:
    """A script of literal turns; the model ends its turn after them."""
    return {"kind": "steps", "turns": [[{"text": "On it."}, *turn] for turn in turns]}


SMALL = steps([bash(PRODUCT)])

HOLD_FILE = "/tmp/held"
"""A command waits at `HOLD` while this file is in the sandbox."""

HOLD = f"touch {HOLD_FILE}; while [ -e {HOLD_FILE} ]; do sleep 0.1; done"
"""Shell code that makes a command wait until `release_command`, so that a test has all the time it needs meanwhile."""


def hold(command: str = "true") -> dict[str, Any]:
    """A step that calls bash; the command waits for `release_command` first."""
    return bash(f"{HOLD}; {command}", 600)
