"""Every environment variable of Cofounder in one class. Built only in entry points, then passed in.

Temporal's own variables (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS…, profiles) are read by
`temporalio.envconfig`, and the AWS chain (AWS_PROFILE, instance roles…) by botocore, when the variables here are unset.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url

from domain.errors import Misconfigured
from domain.pricing import ModelPrice, Price


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
        "claude-sonnet-5-5": ModelPrice(**_price("2", "10", "0.20")),
        "claude-haiku-5-5": ModelPrice(
            **_price("0.10", "0.50", "0.01"), above_prompt_tokens=100_000, above=Price(**_price("0.50", "2.50", "0.05"))
        ),
    }


class Settings(BaseSettings):
    """All settings, with what they are for. Durations are in seconds, money in microdollars, unless said otherwise."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: str = Field(
        default="postgresql+asyncpg://cofounder@127.0.0.1:5432/cofounder", description="PostgreSQL, for asyncpg."
    )
    temporal_task_queue: str = Field(default="cofounder", description="Task queue of workflows and activities.")

    s3_endpoint_url: str | None = Field(default=None, description="S3 server; unset means AWS.")
    project_snapshot_bucket: str = Field(default="cofounder-snapshots", description="Bucket of snapshots and images.")
    aws_access_key_id: str | None = Field(default=None, description="S3 key; unset means the AWS chain.")
    aws_secret_access_key: SecretStr | None = Field(default=None, description="S3 secret.")
    aws_region: str = Field(default="us-east-1", description="S3 region.")

    anthropic_api_key: SecretStr | None = Field(default=None, description="Key of the Anthropic API.")
    anthropic_base_url: str | None = Field(default=None, description="Another server of the Messages protocol.")
    rehearsal_model: bool = Field(default=False, description="ANTHROPIC_BASE_URL is the rehearsal model; say so.")
    fallback_model: str = Field(default="claude-sonnet-5-5", description="Model where user and plan name none.")
    model_prices: dict[str, ModelPrice] = Field(
        default_factory=default_prices, description="JSON: prices per model in USD per million tokens."
    )
    max_output_tokens: int = Field(default=16_000, ge=256, description="max_tokens of a call.")
    stream_idle_seconds: float = Field(default=120, gt=0, description="A stream without events for so long is dead.")

    e2b_api_key: SecretStr | None = Field(default=None, description="Key of the sandbox service.")
    e2b_api_url: str | None = Field(default=None, description="Another control plane than E2B's cloud.")
    e2b_sandbox_url: str | None = Field(default=None, description="Another data plane than E2B's cloud.")
    e2b_template: str = Field(default="base", description="Template of new sandboxes.")
    sandbox_ttl_seconds: int = Field(default=1800, ge=60, description="Time to live, extended while in use.")
    sandbox_egress_hosts: Annotated[list[str] | None, NoDecode] = Field(
        default=None, description="Hosts that sandboxes reach, comma-separated; 'none' for none; unset for all."
    )

    autonomous_agent: bool = Field(default=True, description="The kill switch: false refuses new builds.")
    tool_call_cap: int | None = Field(default=None, ge=1, description="Tool calls a build; unset means the plan's.")
    tool_timeout_max_seconds: int = Field(default=600, ge=1, description="The longest a bash call may ask for.")
    gate_attempts: int = Field(default=3, ge=1, description="Evidence gates before a person is asked.")
    gate_command_seconds: int = Field(default=600, ge=1, description="The longest that install or check may take.")
    gate_start_seconds: float = Field(default=60, gt=0, description="How long a product may take to answer.")
    continue_as_new_turns: int | None = Field(default=None, ge=1, description="Turns a run; unset: as the server says.")
    snapshots_kept: int = Field(default=5, ge=1, description="Snapshots kept of an open build.")
    preview_seconds: int = Field(default=3600, ge=60, description="How long a preview stays open.")
    chromium_path: Path | None = Field(default=None, description="Chromium; unset means the first found on PATH.")
    reaper_seconds: int = Field(default=60, ge=5, description="How often the reaper looks.")
    graceful_shutdown_seconds: float = Field(default=10, ge=0, description="How long a stopping worker lets work end.")

    api_token: SecretStr | None = Field(default=None, description="Bearer token of the API.")
    api_user: str = Field(default="founder", description="User of requests that name none.")
    cofounder_api_url: str = Field(default="http://127.0.0.1:8000", description="API that the command line talks to.")

    log_format: str = Field(default="json", pattern="^(json|console)$", description="json or console.")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    def secret_values(self) -> list[str]:
        """The secrets themselves, to be blanked wherever text leaves a sandbox. Short ones would blank half a page."""
        secrets = (
            self.anthropic_api_key,
            self.e2b_api_key,
            self.aws_secret_access_key,
            self.api_token,
        )
        values = [secret.get_secret_value() for secret in secrets if secret is not None]
        password = make_url(self.database_url).password
        return [value for value in [*values, *([str(password)] if password else [])] if len(value) >= 12]

    @field_validator("sandbox_egress_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return [] if value.strip() == "none" else [host.strip() for host in value.split(",") if host.strip()]
        return value

    @field_validator("database_url")
    @classmethod
    def _asyncpg(cls, value: str) -> str:
        for prefix in ("postgres://", "postgresql://"):
            if value.startswith(prefix):
                return "postgresql+asyncpg://" + value.removeprefix(prefix)
        if not value.startswith("postgresql+asyncpg://"):
            raise ValueError("must begin with postgresql://")
        return value

    @model_validator(mode="after")
    def _fallback_is_priced(self) -> "Settings":
        if self.fallback_model not in self.model_prices:
            known = ", ".join(sorted(self.model_prices))
            raise ValueError(f"FALLBACK_MODEL is {self.fallback_model}, which has no price. Known models: {known}")
        return self


def load_settings() -> Settings:
    """The settings from the environment.

    Raises:
        Misconfigured: names each variable that is wrong, and why.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])).upper() or 'settings'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False)
        ]
        raise Misconfigured("The settings are wrong. " + "; ".join(problems)) from None
