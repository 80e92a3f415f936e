"""Settings from the environment: an error names the variable and what to do, and quotes no secret.

A setting's type brings its checks, names its secrets, and keeps it out of the tests' environment.
"""

import json
import re
import ssl
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import Field, SecretBytes, SecretStr, ValidationError

from clients.temporal import temporal_config
from domain.egress import EGRESS_SETS
from domain.errors import Misconfigured
from domain.rates import AssumedRates
from settings import (
    LOCAL_SANDBOX_ONLY,
    DatabaseUrl,
    HeaderSecret,
    HttpUrl,
    PackageIndexUrl,
    PreviewUrl,
    Settings,
    load_settings,
)
from tests.harness.environment import outside_variables

PASSWORD = "geheim%2Fund%20lang"

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
        ("PREVIEW_URL", "https://preview.example.com", "PREVIEW_URL: must be of the form https://*.host"),
        ("PREVIEW_URL", "https://preview.*.example.com", "PREVIEW_URL: must be of the form https://*.host"),
        ("PREVIEW_URL", "https://*.example.com/path", "PREVIEW_URL: must be of the form https://*.host"),
        ("PREVIEW_URL", "https://u:geheim@*.example.com", "PREVIEW_URL: must be of the form https://*.host"),
        ("ANTHROPIC_API_KEY", "geheim\nheim", "ANTHROPIC_API_KEY: has a line break"),
        ("E2B_API_KEY", "geheim ", "E2B_API_KEY: has a line break, a space"),
        ("API_TOKEN", "geheimer schlüssel", "API_TOKEN: has a line break, a space at an end or a character"),
        ("OIDC_ISSUERS", "acme", "OIDC_ISSUERS: is not JSON"),
        ("OIDC_ISSUERS", '[{"name": "acme", "client_secret": "geheim"}]', "OIDC_ISSUERS: 0.issuer: Field required"),
        ("FALLBACK_MODEL", "gpt", "FALLBACK_MODEL: gpt has no price; set it to one of claude-fable-5-2, "),
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
    monkeypatch.setenv("SANDBOX_EGRESS_HOSTS", "fonts, a.example")
    assert load_settings().reachable_hosts == [*EGRESS_SETS["fonts"], "a.example", "mirror.example", "pypi.org"]
    monkeypatch.setenv("SANDBOX_EGRESS_HOSTS", "none")
    assert load_settings().reachable_hosts == []
    monkeypatch.setenv("SANDBOX_EGRESS_HOSTS", "all")
    assert load_settings().reachable_hosts is None


def test_the_password_of_a_mirror_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_PIP_INDEX_URL", "https://u:geheim%2Fund%20lang@h/simple")
    settings = load_settings()
    assert {"geheim%2Fund%20lang", "geheim/und lang"} <= set(settings.secret_values())
    assert "geheim" not in repr(settings)


def test_client_secrets_of_issuers_are_blanked(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"name": "acme", "issuer": "https://id.acme.example", "client_id": "c", "client_secret": "geheim/und lang"}
    monkeypatch.setenv("OIDC_ISSUERS", json.dumps([entry]))
    settings = load_settings()
    assert {"geheim/und lang", "geheim%2Fund%20lang"} <= set(settings.secret_values())
    assert [issuer.name for issuer in settings.issuers] == ["acme"]
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


class Extended(Settings):
    """The settings of a newcomer, one of each type."""

    other_secret: SecretStr | None = None
    other_token: HeaderSecret | None = None
    other_tokens: list[HeaderSecret] = Field(default_factory=list)
    other_url: HttpUrl = "https://h"
    other_urls: dict[str, HttpUrl] = Field(default_factory=dict)
    other_index_url: PackageIndexUrl | None = None
    other_database_url: DatabaseUrl = "postgresql+asyncpg://u@h/d"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every secret of `Extended`, in the form that its type needs."""
    variables = {
        "OTHER_SECRET": "a secret, with a ü",
        "OTHER_TOKEN": "other-token-0123",
        "OTHER_TOKENS": '["first-of-tokens", "second-of-tokens"]',
        "OTHER_URL": f"https://u:{PASSWORD}-url@h/x",
        "OTHER_URLS": '{"a": "https://a-token-standing-alone@h"}',
        "OTHER_INDEX_URL": f"https://u:{PASSWORD}-index@h/simple",
        "OTHER_DATABASE_URL": f"postgres://u:{PASSWORD}-database@h:1/d",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_every_type_of_secret_is_blanked(environment: dict[str, str]) -> None:
    kinds = ("url", "index", "database")
    assert set(Extended().secret_values()) >= {
        "a secret, with a ü",
        "other-token-0123",
        *("first-of-tokens", "second-of-tokens"),
        "a-token-standing-alone",
        *(f"{PASSWORD}-{kind}" for kind in kinds),
        *(f"geheim/und lang-{kind}" for kind in kinds),
    }


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("other_token", "two\nlines", "has a line break"),
        ("other_tokens", ["fine", " not"], "has a line break, a space at an end"),
        ("other_url", "ftp://h", "must be of the form https://host"),
        ("other_urls", {"a": "h"}, "must be of the form https://host"),
        ("other_index_url", "file:///srv", "is a file:// URL"),
        ("other_database_url", "mysql://h/d", "must begin with postgresql://"),
    ],
)
def test_every_type_is_checked(name: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Extended.model_validate({name: value})


def test_no_test_sees_a_setting_of_the_machine(environment: dict[str, str]) -> None:
    theirs = ["AWS_PROFILE", "E2B_DOMAIN", "PGPASSWORD", "TEMPORAL_API_KEY", "https_proxy"]
    kept = ["PATH", "HOME", "LANG"]
    assert outside_variables([*environment, *theirs, *kept], Extended) == [*environment, *theirs]
    assert outside_variables(name.lower() for name in Settings.variables()) == list(
        map(str.lower, Settings.variables())
    )


def test_every_setting_has_the_type_that_its_name_calls_for() -> None:
    """A secret without a secret's type would not be blanked, a URL without a URL's type not checked."""
    harmless = {"aws_access_key_id", "max_output_tokens"}  # an id is public; these tokens are a model's
    secrets = {name for name in _named("keys?|tokens?|secrets?|passwords?|credentials?") if name not in harmless}
    assert "api_token" in secrets
    for name in secrets:
        assert _parts(Settings.model_fields[name].annotation) & {SecretStr}, f"{name} is not a HeaderSecret"
    urls = _named("urls?|endpoints?")
    typed = {name for kind in (HttpUrl, PackageIndexUrl, PreviewUrl, DatabaseUrl) for name in Settings.fields_of(kind)}
    assert "s3_endpoint_url" in urls
    assert urls <= typed, f"{urls - typed}: not one of the URL types"


def test_every_variable_has_the_name_of_its_field_and_every_secret_a_type_that_is_read() -> None:
    for name, field in Settings.model_fields.items():
        assert field.alias is field.validation_alias is None, f"{name} would be read from another variable"
        assert SecretBytes not in _parts(field.annotation), f"{name}: only a SecretStr is blanked"


def _named(words: str) -> set[str]:
    return {name for name in Settings.model_fields if re.search(rf"(^|_)({words})(_|$)", name)}


def _parts(annotation: object) -> set[object]:
    """The types that a type consists of."""
    return {annotation, *(part for argument in get_args(annotation) for part in _parts(argument))}


def test_limits_are_assumed_by_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_RATES", '{"a-model": {"requests": 5}}')
    assert load_settings().model_rates == {"a-model": AssumedRates(requests=5)}
    monkeypatch.setenv("MODEL_RATES", '{"a-model": {"requests": 0}}')
    with pytest.raises(Misconfigured, match="at least 1"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("HTTPS://Cofounder.Example.COM/", "https://cofounder.example.com"),
        ("https://cofounder.example.com:443", "https://cofounder.example.com"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_the_public_url_is_what_browsers_call_an_origin(
    monkeypatch: pytest.MonkeyPatch, given: str, origin: str
) -> None:
    monkeypatch.setenv("PUBLIC_URL", given)
    assert load_settings().public_url == origin


@pytest.mark.parametrize(
    "given", ["https://a.example/console", "https://a@b.example", "b.example", "https://b.example?x"]
)
def test_a_public_url_with_more_than_an_origin_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("PUBLIC_URL", given)
    with pytest.raises(Misconfigured, match="PUBLIC_URL"):
        load_settings()


def test_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1")
    assert load_settings().trusted_proxies == ["10.0.0.0/8", "127.0.0.1/32"]
    monkeypatch.setenv("TRUSTED_PROXIES", "the proxy")
    with pytest.raises(Misconfigured, match="neither an address nor a network"):
        load_settings()
