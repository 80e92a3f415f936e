"""Settings from the environment: an error names the variable and what to do, and quotes no secret."""

import json
import ssl
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clients.temporal import temporal_config
from domain.errors import Misconfigured
from settings import LOCAL_SANDBOX_ONLY, Settings, load_settings

PRICE: dict[str, Any] = {"input": 1, "output": 2.5, "cache_read": 0, "cache_write_5m": 1, "cache_write_1h": 1}


def prices(model: str, **changes: Any) -> str:
    """Return a MODEL_PRICES value with one model."""
    return json.dumps({model: PRICE | changes})


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DATABASE_URL", "mysql://h/d", "DATABASE_URL: must begin with postgresql://"),
        ("DATABASE_URL", "postgresql://u:geheim@h:port/d", "DATABASE_URL: is not of the form postgresql://"),
        ("DATABASE_URL", "postgresql://u:ge:heim/x@y@h:/d", "DATABASE_URL: is not of the form postgresql://"),
        ("S3_ENDPOINT_URL", "nonsense", "S3_ENDPOINT_URL: must be of the form https://host"),
        ("E2B_API_URL", "https://", "E2B_API_URL: must be of the form https://host"),
        ("E2B_SANDBOX_URL", "http://[::1", "E2B_SANDBOX_URL: "),
        ("ANTHROPIC_BASE_URL", "ftp://h", "ANTHROPIC_BASE_URL: must be of the form https://host"),
        ("COFOUNDER_API_URL", "http://h:99999", "COFOUNDER_API_URL: "),
        ("ANTHROPIC_API_KEY", "geheim\nheim", "ANTHROPIC_API_KEY: has a line break"),
        ("E2B_API_KEY", "geheim ", "E2B_API_KEY: has a line break, a space"),
        ("API_TOKEN", "geheimer schlüssel", "API_TOKEN: has a line break, a space at an end or a character"),
        ("FALLBACK_MODEL", "gpt", "FALLBACK_MODEL: gpt has no price; set it to one of claude-haiku-5-5, "),
        ("MODEL_PRICES", "{", "MODEL_PRICES: is not JSON"),
        ("MODEL_PRICES", "[]", "MODEL_PRICES: Input should be a valid dictionary"),
        ("MODEL_PRICES", "{}", "FALLBACK_MODEL: claude-sonnet-5-5 has no price"),
        ("MODEL_PRICES", prices("a", input="cheap"), "MODEL_PRICES: a.input: Input should be a valid decimal"),
        ("MODEL_PRICES", prices("a", output=-1), "MODEL_PRICES: a.output: Input should be greater than or equal to 0"),
        ("MODEL_PRICES", '{"a": {"input": 1}}', "MODEL_PRICES: a.cache_write_1h: Field required"),
        ("AUTONOMOUS_AGENT", "perhaps", "AUTONOMOUS_AGENT: Input should be a valid boolean"),
        ("GATE_ATTEMPTS", "0", "GATE_ATTEMPTS: Input should be greater than or equal to 1"),
        ("LOG_LEVEL", "LOUD", "LOG_LEVEL: String should match pattern"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT: String should match pattern"),
        (
            "SANDBOX_PRIVATE_HOSTS",
            "a.example,https://b.example",
            "SANDBOX_PRIVATE_HOSTS: https://b.example is not a host",
        ),
        (
            "SANDBOX_PIP_INDEX_URL",
            "file:///srv/simple",
            "SANDBOX_PIP_INDEX_URL: is a file:// URL, and sandboxes see no",
        ),
        ("SANDBOX_NPM_REGISTRY", "FILE:/srv", "SANDBOX_NPM_REGISTRY: is a file:// URL, and sandboxes see no directory"),
        (
            "SANDBOX_PIP_INDEX_URL",
            "https://u:ge/heim@h/simple",
            "SANDBOX_PIP_INDEX_URL: is not of the form https://host",
        ),
        ("SANDBOX_PIP_INDEX_URL", "https://u:heim@h/simple?x=1", "SANDBOX_PIP_INDEX_URL: is not of the form"),
        ("SANDBOX_NPM_REGISTRY", "https://u:heim@[::1]/", "SANDBOX_NPM_REGISTRY: is not of the form https://host"),
        ("SANDBOX_CA_BUNDLE", "/no/such/file", "SANDBOX_CA_BUNDLE: /no/such/file can't be read as certificates"),
        ("SANDBOX_CA_BUNDLE", "/etc/passwd", "SANDBOX_CA_BUNDLE: /etc/passwd can't be read as certificates"),
    ],
)
def test_wrong_value(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured) as refused:
        load_settings()
    assert says in str(refused.value)
    assert "heim" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_FORMAT", "xml")
    monkeypatch.setenv("PREVIEW_SECONDS", "1")
    with pytest.raises(Misconfigured, match=r"PREVIEW_SECONDS: .*; LOG_FORMAT: "):
        load_settings()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("postgres://u:p%40w@h/d", "postgresql+asyncpg://u:p%40w@h/d"),
        ("postgresql://u@h:1/d?sslmode=require", "postgresql+asyncpg://u@h:1/d?ssl=require"),
        ("postgresql+asyncpg://u@[::1]:1/d", "postgresql+asyncpg://u@[::1]:1/d"),
    ],
)
def test_database_url_is_taken_as_providers_write_it(monkeypatch: pytest.MonkeyPatch, given: str, read: str) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    assert load_settings().database_url == read


def test_good_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_PRICES", prices("mine"))
    monkeypatch.setenv("FALLBACK_MODEL", "mine")
    monkeypatch.setenv("AUTONOMOUS_AGENT", "false")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    settings = load_settings()
    assert settings.model_prices["mine"].output == Decimal("2.5")
    assert settings.autonomous_agent is False
    assert settings.s3_endpoint_url is None


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (
            "TEMPORAL_ADDRESS",
            "not an address",
            "TEMPORAL_ADDRESS is not an address, which is not of the form host:port",
        ),
        ("TEMPORAL_ADDRESS", "no-port.example", "TEMPORAL_ADDRESS is no-port.example"),
        ("TEMPORAL_ADDRESS", "http://localhost:7233", "TEMPORAL_ADDRESS is http://localhost:7233"),
        ("TEMPORAL_ADDRESS", "h:99999", "TEMPORAL_ADDRESS is h:99999"),
        ("TEMPORAL_PROFILE", "nowhere", "Profile 'nowhere' not found. Correct TEMPORAL_PROFILE"),
    ],
)
def test_wrong_temporal_configuration(variable: str, value: str, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        temporal_config({variable: value})
    assert says in str(refused.value)


@pytest.mark.parametrize("address", ["temporal.example:7233", "10.0.0.1:1", "[::1]:7233"])
def test_temporal_address(address: str) -> None:
    assert temporal_config({"TEMPORAL_ADDRESS": address})["target_host"] == address


def test_private_hosts_are_reached_too_unless_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_PRIVATE_HOSTS", " Mirror.example., pypi.org,")
    monkeypatch.setenv("SANDBOX_EGRESS_HOSTS", "pypi.org,a.example")
    assert load_settings().reachable_hosts == ["pypi.org", "a.example", "mirror.example"]
    monkeypatch.setenv("SANDBOX_EGRESS_HOSTS", "none")
    assert load_settings().reachable_hosts == []
    monkeypatch.setenv("SANDBOX_EGRESS_HOSTS", "all")
    assert load_settings().reachable_hosts is None


def test_the_password_of_a_mirror_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_PIP_INDEX_URL", "https://u:geheim%2Fund%20lang@h/simple")
    settings = load_settings()
    assert {"geheim%2Fund%20lang", "geheim/und lang"} <= set(settings.secret_values())
    assert "geheim" not in repr(settings)


@pytest.mark.parametrize("variable", [name.upper() for name in Settings.fields_of(LOCAL_SANDBOX_ONLY)])
def test_clouds_sandboxes_refuse_what_is_for_those_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    (tmp_path / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(ssl.create_default_context().get_ca_certs(True)[0]))
    value = {"SANDBOX_PRIVATE_HOSTS": "mirror.example", "SANDBOX_CA_BUNDLE": str(tmp_path / "ca.pem")}
    monkeypatch.setenv(variable, value.get(variable, "https://mirror.example/simple"))
    with pytest.raises(Misconfigured, match=f"{variable} can't be used with E2B's cloud, which does not reach"):
        load_settings().check_sandbox_service()
    monkeypatch.setenv("E2B_API_URL", "http://127.0.0.1:1")
    load_settings().check_sandbox_service()
