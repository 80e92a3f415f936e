"""The part of the caller's environment that the demo's programs see."""

from pathlib import Path

import pytest

from cli.stack.programs import RealKeys, StartFailed, program_environment

STACK = {"DATABASE_URL": "postgresql://stack", "TEMPORAL_ADDRESS": "127.0.0.1:1"}
REHEARSAL = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:2", "ANTHROPIC_API_KEY": "rehearsal", "REHEARSAL_MODEL": "true"}
LOCAL_SANDBOX = {"E2B_API_URL": "http://127.0.0.1:3", "E2B_API_KEY": "local", "SANDBOX_EGRESS_HOSTS": "a.example"}
CALLER = {
    "PATH": "/bin",
    "HOME": "/home/caller",
    "ANTHROPIC_API_KEY": "costs money",
    "E2B_API_KEY": "costs money",
    "ANTHROPIC_BASE_URL": "https://elsewhere.example",
    "DATABASE_URL": "postgresql://production",
    "AWS_ACCESS_KEY_ID": "production",
    "TEMPORAL_ADDRESS": "production:7233",
    "AUTONOMOUS_AGENT": "false",
    "FALLBACK_MODEL": "other",
    "HTTPS_PROXY": "http://proxy.example",
}


def visible_environment(stack: dict[str, str], keys: RealKeys | None = None) -> dict[str, str]:
    """Return the environment of the programs."""
    return program_environment(CALLER, {**STACK, **stack}, keys or RealKeys(), Path("/tmp/x"))


def test_without_real_nothing_of_the_callers_services_is_seen() -> None:
    environment = visible_environment({**REHEARSAL, **LOCAL_SANDBOX})
    assert {**environment, **STACK, **REHEARSAL, **LOCAL_SANDBOX} == environment
    assert environment["PATH"] == "/bin"
    assert environment["HOME"] == "/tmp/x"
    for value in ("costs money", "production", "caller", "elsewhere", "other", "proxy.example"):
        assert not any(value in each for each in environment.values())
    assert "AUTONOMOUS_AGENT" not in environment


def test_real_model_with_local_sandboxes_reaches_what_their_server_allows() -> None:
    environment = visible_environment(LOCAL_SANDBOX, RealKeys(anthropic="real"))
    assert environment["ANTHROPIC_API_KEY"] == "real"
    assert "ANTHROPIC_BASE_URL" not in environment
    assert "REHEARSAL_MODEL" not in environment
    assert environment["E2B_API_KEY"] == "local"
    assert environment["SANDBOX_EGRESS_HOSTS"] == "a.example"
    assert environment["HTTPS_PROXY"] == "http://proxy.example"
    assert "127.0.0.1" in environment["NO_PROXY"]


def test_cloud_sandboxes_with_the_rehearsal_model() -> None:
    environment = visible_environment(REHEARSAL, RealKeys(e2b="real"))
    assert environment["E2B_API_KEY"] == "real"
    assert environment["ANTHROPIC_API_KEY"] == "rehearsal"
    assert "E2B_API_URL" not in environment
    assert "SANDBOX_EGRESS_HOSTS" not in environment


def test_real_needs_a_key() -> None:
    assert RealKeys.of({"ANTHROPIC_API_KEY": "a", "E2B_API_KEY": ""}) == RealKeys(anthropic="a")
    with pytest.raises(StartFailed, match="needs a key"):
        RealKeys.of({"ANTHROPIC_API_KEY": ""})
