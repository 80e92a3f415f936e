"""Every environment variable of Cofounder, in one class. Only entry points build it, and pass it in.

`temporalio.envconfig` reads Temporal's own variables (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY,
TEMPORAL_TLS…, profiles). botocore reads the AWS chain (AWS_PROFILE, instance roles…) if the AWS variables here are
unset.
"""

import json
import re
import ssl
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.errors import Misconfigured
from domain.pricing import ModelPrice, Price

HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
"""In lower case, without a dot at the end."""

LOCAL_SANDBOX_SETTINGS = (
    "SANDBOX_PRIVATE_HOSTS",
    "SANDBOX_PIP_INDEX_URL",
    "SANDBOX_NPM_REGISTRY",
    "SANDBOX_CA_BUNDLE",
)
"""What sandboxes on this machine may use of its network."""


def host_names(text: str) -> list[str]:
    """Read names of hosts, separated by commas. Raises ValueError if one is not a name."""
    hosts = [host.strip().lower().rstrip(".") for host in text.split(",") if host.strip()]
    for host in hosts:
        if not HOST_NAME.fullmatch(host):
            raise ValueError(f"{host} is not a host's name; write the name alone, such as pypi.example.com")
    return hosts


def _price(input_: str, output: str, cache_read: str) -> dict[str, Decimal]:
    base = Decimal(input_)
    return {
        "input": base,
        "output": Decimal(output),
        "cache_read": Decimal(cache_read),
        "cache_write_5m": base * Decimal("1.25"),
        "cache_write_1h": base * 2,
    }


def default_prices() -> dict[str, ModelPrice]:
    """USD per million tokens, from Anthropic's documentation of November 2026; cache writes are 1.25x and 2x input."""
    return {
        "claude-opus-5-5": ModelPrice(**_price("4", "20", "0.20")),
        "claude-sonnet-5-5": ModelPrice(**_price("2", "10", "0.10")),
        "claude-haiku-5-5": ModelPrice(
            **_price("0.10", "0.50", "0.01"), above_prompt_tokens=100_000, above=Price(**_price("0.50", "2.50", "0.05"))
        ),
    }


class Settings(BaseSettings):
    """All settings. Durations are in seconds, prices in USD per million tokens."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: str = Field(
        default="postgresql+asyncpg://cofounder@127.0.0.1:5432/cofounder",
        description="PostgreSQL: postgresql://user:password@host:port/name.",
    )
    temporal_task_queue: str = Field(
        default="cofounder", description="Temporal task queue of workflows and activities."
    )

    s3_endpoint_url: str | None = Field(default=None, description="URL of the S3 server; unset means AWS.")
    project_snapshot_bucket: str = Field(default="cofounder-snapshots", description="Bucket for snapshots and images.")
    aws_access_key_id: str | None = Field(
        default=None, description="S3 access key; unset means the AWS chain (profile, instance role)."
    )
    aws_secret_access_key: SecretStr | None = Field(default=None, description="S3 secret key.")
    aws_region: str = Field(default="us-east-1", description="S3 region.")

    anthropic_api_key: SecretStr | None = Field(default=None, description="Anthropic API key.")
    anthropic_base_url: str | None = Field(
        default=None, description="URL of another server for the Messages API; unset means Anthropic's."
    )
    rehearsal_model: bool = Field(
        default=False, description="true if ANTHROPIC_BASE_URL is the rehearsal model; builds then say so."
    )
    fallback_model: str = Field(
        default="claude-sonnet-5-5", description="Model if neither the user nor the plan names one."
    )
    model_prices: Annotated[dict[str, ModelPrice], NoDecode] = Field(
        default_factory=default_prices, description="Prices per model as JSON, in USD per million tokens."
    )
    max_output_tokens: int = Field(default=16_000, ge=256, description="max_tokens of a model call.")
    stream_idle_seconds: float = Field(
        default=120, gt=0, description="Give up a model call after this many seconds without an event."
    )

    e2b_api_key: SecretStr | None = Field(default=None, description="Key of the sandbox service.")
    e2b_api_url: str | None = Field(default=None, description="URL of the control plane; unset means E2B's cloud.")
    e2b_sandbox_url: str | None = Field(default=None, description="URL of the data plane; unset means E2B's cloud.")
    e2b_template: str = Field(default="base", description="Template of new sandboxes.")
    sandbox_ttl_seconds: int = Field(
        default=1800, ge=60, description="Time to live of a sandbox in seconds; extended while it is used."
    )
    sandbox_max_seconds: int = Field(
        default=3600,
        ge=1,
        description="Replace a sandbox before it has run for this many seconds; E2B: 3600 on Hobby, 86400 on Pro.",
    )
    sandbox_egress_hosts: Annotated[list[str] | None, NoDecode] = Field(
        default=["pypi.org", "files.pythonhosted.org", "registry.npmjs.org"],
        description="Hosts that sandboxes can reach, comma-separated; `none` for no host, `all` for the open internet.",
    )
    sandbox_private_hosts: Annotated[list[str] | None, NoDecode] = Field(
        default=None,
        description="Hosts that local sandboxes also reach, even at private addresses; comma-separated.",
    )
    sandbox_pip_index_url: SecretStr | None = Field(
        default=None, description="Package index of local sandboxes; they never see a password in it."
    )
    sandbox_npm_registry: SecretStr | None = Field(
        default=None, description="npm registry of local sandboxes; they never see a password in it."
    )
    sandbox_ca_bundle: Path | None = Field(
        default=None, description="PEM file with all certificates that local sandboxes trust."
    )

    autonomous_agent: bool = Field(
        default=True, description="Kill switch: false refuses new builds and pauses running ones until it is true."
    )
    tool_call_cap: int | None = Field(
        default=None, ge=1, description="Tool calls per build; unset means the plan's limit."
    )
    tool_timeout_max_seconds: int = Field(
        default=600, ge=1, description="Longest timeout that a bash call may ask for, in seconds."
    )
    gate_attempts: int = Field(default=3, ge=1, description="Evidence gates before a person is asked.")
    gate_command_seconds: int = Field(
        default=600, ge=1, description="Seconds that a product's install or check may take."
    )
    gate_start_seconds: float = Field(
        default=60, gt=0, description="Seconds that a product may take to answer after its start."
    )
    continue_as_new_turns: int | None = Field(
        default=None, ge=1, description="Turns per workflow run; unset means until the server suggests a new run."
    )
    snapshots_kept: int = Field(default=5, ge=1, description="Snapshots kept per open build.")
    preview_seconds: int = Field(default=3600, ge=60, description="Seconds that a preview stays open.")
    chromium_path: Path | None = Field(default=None, description="Path of Chromium; unset means the first one on PATH.")
    reaper_spares_seconds: float = Field(
        default=120, ge=0, description="The reaper ignores sandboxes younger than this many seconds."
    )
    reaper_seconds: int = Field(default=60, ge=5, description="Seconds between two runs of the reaper.")
    graceful_shutdown_seconds: float = Field(
        default=10, ge=0, description="Seconds that a stopping worker gives its work to finish."
    )

    api_token: SecretStr | None = Field(default=None, description="Bearer token of the API.")
    api_operator_token: SecretStr | None = Field(
        default=None, description="Bearer token of operators, who change accounts and see money. Unset: no one can."
    )
    api_user: str = Field(default="founder", description="User of requests that do not name one.")
    cofounder_api_url: str = Field(
        default="http://127.0.0.1:8000", description="URL of the API that the command line talks to."
    )

    log_format: str = Field(default="json", pattern="^(json|console)$", description="json or console.")
    log_level: str = Field(
        default="INFO", pattern="(?i)^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."
    )

    @property
    def reachable_hosts(self) -> list[str] | None:
        """SANDBOX_EGRESS_HOSTS, and SANDBOX_PRIVATE_HOSTS unless the first are none. None: the open internet."""
        if not self.sandbox_egress_hosts:
            return self.sandbox_egress_hosts
        return list(dict.fromkeys([*self.sandbox_egress_hosts, *(self.sandbox_private_hosts or ())]))

    def check_sandbox_service(self) -> None:
        """Refuse settings for sandboxes on this machine if sandboxes are E2B's.

        Raises:
            Misconfigured: names them, and says what to do.
        """
        names = [name for name in LOCAL_SANDBOX_SETTINGS if getattr(self, name.lower()) is not None]
        if names and self.e2b_api_url is None:
            raise Misconfigured(
                f"{' and '.join(names)} can't be used with E2B's cloud, which does not reach this network. Unset what "
                "is for sandboxes on this machine, or set E2B_API_URL to what `cofounder local sandbox` prints."
            )

    def secret_values(self) -> list[str]:
        """The values to blank in all text that leaves a sandbox. Omits short ones, which would blank half a page."""
        secrets = (
            self.anthropic_api_key,
            self.e2b_api_key,
            self.aws_secret_access_key,
            self.api_token,
            self.api_operator_token,
        )
        values = [secret.get_secret_value() for secret in secrets if secret is not None]
        from sqlalchemy.engine import make_url  # importing it takes half a second, which most commands don't need

        passwords = [make_url(self.database_url).password]
        for url in (self.sandbox_pip_index_url, self.sandbox_npm_registry):
            if url is not None:
                parts = urlsplit(url.get_secret_value())
                passwords.append(parts.password or parts.username)  # a token may stand alone
        values += [form for password in passwords if password for form in {str(password), unquote(str(password))}]
        return [value for value in values if len(value) >= 12]

    @field_validator("sandbox_egress_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        if isinstance(value, str):
            if value.strip() in ("none", "all"):
                return [] if value.strip() == "none" else None
            return [host.strip() for host in value.split(",") if host.strip()]
        return value

    @field_validator("sandbox_private_hosts", mode="before")
    @classmethod
    def _private_hosts(cls, value: object) -> object:
        return (host_names(value) or None) if isinstance(value, str) else value

    @field_validator("sandbox_pip_index_url", "sandbox_npm_registry")
    @classmethod
    def _package_source(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        url = value.get_secret_value()
        if url.lower().startswith("file:"):
            raise ValueError(
                "is a file:// URL, and sandboxes see no directory of this machine; serve it over https:// or http://"
            )
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and not parts.query and not parts.fragment and parts.port != 0
            good = good and HOST_NAME.fullmatch((parts.hostname or "").rstrip(".")) is not None
        except ValueError:
            good = False
        if not good or not url.isascii() or not url.isprintable() or " " in url:
            # Without the parser's words or the URL: they may quote from the password.
            raise ValueError(
                "is not of the form https://host/path or https://user:password@host/path; special characters in the "
                "password are percent-encoded"
            )
        return value

    @field_validator("sandbox_ca_bundle")
    @classmethod
    def _certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=value)
            except OSError as error:  # ssl.SSLError is one
                raise ValueError(f"{value} can't be read as certificates in PEM form: {error}") from None
        return value

    @field_validator("database_url")
    @classmethod
    def _asyncpg(cls, value: str) -> str:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        scheme, _, rest = value.partition("://")
        if scheme not in ("postgres", "postgresql", "postgresql+asyncpg"):
            raise ValueError("must begin with postgresql://")
        try:
            url = make_url(f"postgresql+asyncpg://{rest}")
        except (ArgumentError, ValueError):
            # Not the parser's own message, which may quote the password.
            raise ValueError(
                "is not of the form postgresql://user:password@host:port/name; percent-encode special characters in "
                "the password"
            ) from None
        if "sslmode" in url.query:  # libpq's name for asyncpg's ssl
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
        return url.render_as_string(hide_password=False)

    @field_validator("s3_endpoint_url", "anthropic_base_url", "e2b_api_url", "e2b_sandbox_url", "cofounder_api_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError("must be of the form https://host or http://host:port")
        return value

    @field_validator("anthropic_api_key", "e2b_api_key", "api_token", "api_operator_token")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        secret = value.get_secret_value() if value is not None else ""
        if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
            raise ValueError("has a line break, a space at an end or a character that is not ASCII; copy it again")
        return value

    @field_validator("model_prices", mode="before")
    @classmethod
    def _prices(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                return json.loads(value)
            except ValueError as error:
                raise ValueError(f"is not JSON ({error}); it maps each model to its prices") from None
        return value

    @model_validator(mode="after")
    def _fallback_is_priced(self) -> "Settings":
        if self.fallback_model not in self.model_prices:
            priced = ", ".join(sorted(self.model_prices))
            raise ValueError(
                f"FALLBACK_MODEL: {self.fallback_model} has no price; set it to one of {priced}, or add it to "
                "MODEL_PRICES"
            )
        return self


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        Misconfigured: names each variable that is wrong, and says why.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            ": ".join([*_variable(each["loc"]), each["msg"].removeprefix("Value error, ")])
            for each in error.errors(include_input=False)
        ]
        raise Misconfigured("The settings are wrong. " + "; ".join(problems)) from None


def _variable(location: tuple[int | str, ...]) -> list[str]:
    """The variable's name, and the path inside its value if there is one."""
    name, *parts = location or ("",)
    return [word for word in (str(name).upper(), ".".join(map(str, parts))) if word]
