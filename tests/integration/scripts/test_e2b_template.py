"""The script builds the template with E2B's SDK. A server here speaks the API of E2B's template builder."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from scripts.e2b_template import DOCKERFILE, main
from tests.harness.dockerfile import stages
from tests.integration.local.sandbox.sandbox_server import API_KEY


class Builder(ThreadingHTTPServer):
    """Takes one template. `reason` is why its build fails; None: it succeeds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.reason: str | None = None


class _Requests(BaseHTTPRequestHandler):
    server: Builder

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, body))
        if self.headers["x-api-key"] != API_KEY:
            self._answer(401, {"code": 401, "message": "Invalid API key"})
        elif self.path == "/v3/templates":
            described = {"templateID": "t1", "buildID": "b1", "public": False, "aliases": [], "tags": ["default"]}
            self._answer(202, described | {"names": [body["name"]]})
        else:
            assert self.path == "/v2/templates/t1/builds/b1"
            self._answer(202, {})

    def do_GET(self) -> None:
        assert self.path.startswith("/templates/t1/builds/b1/status")
        offset = int(parse_qs(urlsplit(self.path).query).get("logsOffset", ["0"])[0])
        entry = {"timestamp": "2026-11-29T12:00:00Z", "message": "installing", "level": "info"}
        status: dict[str, Any] = {"templateID": "t1", "buildID": "b1", "logs": [], "logEntries": [entry][offset:]}
        status |= {"status": "ready"} if self.server.reason is None else {"status": "error"}
        if self.server.reason is not None:
            status["reason"] = {"message": self.server.reason}
        self._answer(200, status)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Builder]:
    with Builder() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("E2B_API_KEY", API_KEY)
        monkeypatch.setenv("E2B_API_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def test_e2b_builds_what_the_dockerfile_says(builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--name", "mine", "--memory-mb", "2048"]) == 0
    (_, asked), (_, started) = builder.requests
    assert asked == {"name": "mine", "cpuCount": 2, "memoryMB": 2048}
    [stage] = stages(DOCKERFILE)
    assert started["fromImage"] == stage.image
    runs = [" ".join(step["args"][0].split()) for step in started["steps"] if step["type"] == "RUN"]
    assert runs == stage.all("RUN")
    told = capsys.readouterr().out
    assert "installing" in told
    assert "Built mine (t1). Use it with E2B_TEMPLATE=mine." in told


def test_a_failed_build_says_why(
    builder: Builder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.reason = "no space left on device"
    assert main(["build"]) == 1
    assert "error: the template was not built: no space left on device" in capsys.readouterr().err
    monkeypatch.setenv("E2B_API_URL", "http://127.0.0.1:9")
    assert main(["build"]) == 1
    assert "the template was not built" in capsys.readouterr().err
    monkeypatch.setenv("E2B_API_URL", f"http://127.0.0.1:{builder.server_port}")
    monkeypatch.setenv("E2B_API_KEY", "e2b_other")
    assert main(["build"]) == 1
    assert "the template was not built" in capsys.readouterr().err
    monkeypatch.delenv("E2B_API_KEY")
    assert main(["build"]) == 1
    assert "E2B_API_KEY" in capsys.readouterr().err
