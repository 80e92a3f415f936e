"""Every environment variable of Cofounder, in one class. Only entry points build it, and pass it in.

`temporalio.envconfig` reads Temporal's own variables (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY,
TEMPORAL_TLS…, profiles). botocore reads the AWS chain (AWS_PROFILE, instance roles…) if the AWS variables here are
unset.
"""

import json
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import quote, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.build_settings import BuildSettings
from domain.egress import DEFAULT_SETS, EGRESS_SETS, hosts_of
from domain.errors import Misconfigured
from domain.issuers import Issuer, client_secrets, parse_issuers
from domain.models import default_prices
from domain.payload_keys import parse_payload_keys, payload_key_texts
from domain.preview_address import PLACEHOLDER
from domain.pricing import ModelPrice
from domain.product_secrets import key_texts, parse_keys
from domain.push import LONGEST_PUSH
from domain.rates import AssumedRates
from domain.request_limits import RequestClass, RequestLimit, RequestLimits
from domain.worker_roles import WorkerRole, parse_roles

HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
"""In lower case, without a dot at the end."""

_SHORTEST_SECRET = 12
"""Characters. Blanking anything shorter would blank half a page."""


def secret_text(secret: SecretStr | None) -> str | None:
    """Return what a secret says, for the client that needs it; None if it is unset."""
    return None if secret is None else secret.get_secret_value()


def host_names(text: str) -> list[str]:
    """Read names of hosts, separated by commas. Raises ValueError if one is not a name."""
    hosts = [host.strip().lower().rstrip(".") for host in text.split(",") if host.strip()]
    for host in hosts:
        if not HOST_NAME.fullmatch(host):
            raise ValueError(f"{host} is not a host's name; write the name alone, such as pypi.example.com")
    return hosts


@dataclass(frozen=True)
class HoldsSecrets:
    """Marks the type of a setting whose value has secrets inside: `find` returns them."""

    find: Callable[[str], Iterable[str]]


LOCAL_SANDBOX_ONLY = "only for sandboxes on this machine"
"""Marks a setting that E2B's sandboxes can't use: what sandboxes on this machine may use of its network."""


def _url_secrets(url: str) -> list[str]:
    parts = urlsplit(url)
    return [secret] if (secret := parts.password or parts.username) else []  # a token may stand alone


def _database_secrets(url: str) -> list[str]:
    password = urlsplit(url).password
    return [password] if password else []


def _fits_a_header(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise ValueError("has a line break, a space at an end or a character that is not ASCII; copy it again")
    return value


def _secrets_key(value: SecretStr) -> SecretStr:
    parse_keys(value.get_secret_value())
    return value


def _payload_key(value: SecretStr) -> SecretStr:
    parse_payload_keys(value.get_secret_value())
    return value


def _oidc_issuers(value: SecretStr) -> SecretStr:
    parse_issuers(value.get_secret_value())
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("must be of the form https://host or http://host:port")
    return value


def _origin(value: str) -> str:
    parts = urlsplit(_http_url(value))
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("is an address without a path, a query or a user, such as https://cofounder.example.com")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    is_usual = parts.port in (None, {"http": 80, "https": 443}[parts.scheme])
    return f"{parts.scheme}://{host}" if is_usual else f"{parts.scheme}://{host}:{parts.port}"


def _preview_url(value: str) -> str:
    parts = urlsplit(value)
    good = parts.scheme in ("http", "https") and parts.port != 0 and value.count(PLACEHOLDER) == 1
    name = (parts.hostname or "").replace(PLACEHOLDER, "a" * 32)
    good = good and PLACEHOLDER in (parts.hostname or "").partition(".")[0] and HOST_NAME.fullmatch(name) is not None
    if not good or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            f"must be of the form https://{PLACEHOLDER}.host or http://{PLACEHOLDER}.host:port; a build's id takes the "
            f"place of {PLACEHOLDER}"
        )
    usual = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname}{port}"


def _package_index_url(value: SecretStr) -> SecretStr:
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


def _asyncpg_url(value: str) -> str:
    from sqlalchemy.engine import make_url  # importing it takes half a second, which most commands don't need
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


def _listening_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not host or not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("is not of the form host:port, such as 127.0.0.1:9464")
    return value


def _egress_hosts(value: object) -> object:
    if isinstance(value, str):
        if value.strip() in ("none", "all"):
            return [] if value.strip() == "none" else None
        return [host.strip() for host in value.split(",") if host.strip()]
    return value


def _host_names(value: object) -> object:
    return (host_names(value) or None) if isinstance(value, str) else value


def _networks(value: object) -> object:
    return [each.strip() for each in value.split(",") if each.strip()] or None if isinstance(value, str) else value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError(f"{value} is neither an address nor a network such as 10.0.0.0/8") from None


def _certificates(value: Path) -> Path:
    try:
        ssl.create_default_context(cafile=value)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"{value} can't be read as certificates in PEM form: {error}") from None
    return value


def _worker_roles(value: object) -> object:
    return parse_roles(value) if isinstance(value, str) else value


def _json(value: object) -> object:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not JSON ({error}); it maps models to their values") from None
    return value


HeaderSecret = Annotated[SecretStr, AfterValidator(_fits_a_header)]
"""A key or token that is sent in an HTTP header. All of it is secret, as with every `SecretStr`."""

Password = Annotated[SecretStr, AfterValidator(_fits_a_header)]
"""A password of a server of ours."""

SecretsKey = Annotated[SecretStr, AfterValidator(_secrets_key), HoldsSecrets(key_texts)]
"""Keys that encrypt founders' secrets, as `id:key`, separated by commas."""

PayloadKey = Annotated[SecretStr, AfterValidator(_payload_key), HoldsSecrets(payload_key_texts)]
"""Keys that encrypt what Temporal stores, as `id:key`, separated by commas; `plain` in front encrypts nothing."""

OidcIssuers = Annotated[SecretStr, AfterValidator(_oidc_issuers), HoldsSecrets(client_secrets)]
"""A JSON list of identity providers. Only their client secrets are blanked in texts."""

MetricsAddress = Annotated[str, AfterValidator(_listening_address)]
"""host:port to listen on."""

HttpUrl = Annotated[str, AfterValidator(_http_url), HoldsSecrets(_url_secrets)]
"""The URL of a server that Cofounder itself talks to. No sandbox reaches its host."""

Origin = Annotated[HttpUrl, AfterValidator(_origin)]
"""The URL of a server of ours as browsers write it: in lower case, without a path and without the usual port."""

PreviewUrl = Annotated[str, AfterValidator(_preview_url)]
"""The origins of previews, with `*` in the place of a build's id: in lower case, without the usual port."""

DeploymentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
"""The name of a deployment. Temporal puts a dot or a colon between it and a version."""

PackageIndexUrl = Annotated[SecretStr, AfterValidator(_package_index_url), HoldsSecrets(_url_secrets)]
"""The URL of an index of packages. Only a password or token in it is blanked in texts."""

DatabaseUrl = Annotated[str, AfterValidator(_asyncpg_url), HoldsSecrets(_database_secrets)]
"""The URL of a PostgreSQL database, rewritten for asyncpg."""

EgressHosts = Annotated[list[str] | None, NoDecode, BeforeValidator(_egress_hosts)]
"""Hosts and names of sets of them, separated by commas; `none` is an empty list, `all` is None."""

HostNames = Annotated[list[str] | None, NoDecode, BeforeValidator(_host_names)]
"""Valid names of hosts, separated by commas."""

Networks = Annotated[list[Annotated[str, AfterValidator(_network)]] | None, NoDecode, BeforeValidator(_networks)]
"""Addresses and networks, separated by commas."""

WorkerRoles = Annotated[list[WorkerRole] | None, NoDecode, BeforeValidator(_worker_roles)]
"""Roles of workers, separated by commas."""

CertificateFile = Annotated[Path, AfterValidator(_certificates)]
"""A file with certificates in PEM form."""

ModelRates = Annotated[dict[str, AssumedRates], NoDecode, BeforeValidator(_json)]
"""JSON that maps models to limits."""

ModelPrices = Annotated[dict[str, ModelPrice], NoDecode, BeforeValidator(_json)]
"""JSON that maps each model to its prices."""


class Settings(BuildSettings, BaseSettings):
    """All settings. Durations are in seconds, prices in USD per million tokens.

    A setting's type says how it is checked, which secrets its value holds, and who may use it. So a key or token is a
    `HeaderSecret` or a `SecretStr`, and a URL has one of the types above. Those that shape a build are inherited.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: DatabaseUrl = Field(
        default="postgresql+asyncpg://cofounder@127.0.0.1:5432/cofounder",
        description="PostgreSQL: postgresql://user:password@host:port/name. The API's user is `cofounder_api`.",
    )
    api_database_password: Password | None = Field(
        default=None,
        description="Password that `cofounder migrate` gives the API's database user `cofounder_api`; unset: none, or "
        "the one that it has.",
    )
    temporal_task_queue: str = Field(
        default="cofounder", description="Temporal task queue of workflows and activities."
    )
    database_connections: int | None = Field(
        default=None,
        ge=2,
        description="Connections to the database that this process opens at most. Unset: 40 for a worker, 20 for an "
        "API. All processes together must stay below max_connections of PostgreSQL, or of the pooler in front of it; "
        "`cofounder doctor` adds them up.",
    )
    max_activities: int = Field(
        default=100,
        ge=1,
        description="Activities that a worker runs at once. A build that works takes one, most of the time to wait for "
        "a model or a sandbox.",
    )
    max_cached_workflows: int = Field(
        default=1000,
        ge=1,
        description="Builds, open previews among them, whose workflows a worker holds in memory, about 0.2 MB each. "
        "One that is not held is replayed whenever something happens to it: let this be more than the builds that one "
        "worker has, asleep or not.",
    )
    worker_roles: WorkerRoles = Field(
        default=None,
        description="What this worker does, comma-separated: `build` (workflows, model calls, tool calls), `archive` "
        "(workspaces and snapshots), `browser` (gates and looks at pages). It takes only what is on the task queues of "
        "these roles. Unset: all work.",
    )
    max_archive_activities: int = Field(
        default=20, ge=1, description="As MAX_ACTIVITIES, for the queue of the role `archive` if it has one."
    )
    max_browser_activities: int = Field(
        default=8,
        ge=1,
        description="As MAX_ACTIVITIES, for the queue of the role `browser` if it has one. Most of a gate is a wait "
        "for the product's install and checks.",
    )

    temporal_deployment_name: DeploymentName = Field(
        default="cofounder", description="Name of the workers' deployment in Temporal, with TEMPORAL_WORKER_BUILD_ID."
    )
    temporal_worker_build_id: str | None = Field(
        default=None,
        description="Version of this worker, such as the image's tag: a build keeps to one until it may move to "
        "another. Unset: workers have no version.",
    )

    s3_endpoint_url: HttpUrl | None = Field(default=None, description="URL of the S3 server; unset means AWS.")
    project_snapshot_bucket: str = Field(default="cofounder-snapshots", description="Bucket for snapshots and images.")
    aws_access_key_id: str | None = Field(
        default=None, description="S3 access key; unset means the AWS chain (profile, instance role)."
    )
    aws_secret_access_key: SecretStr | None = Field(default=None, description="S3 secret key.")
    aws_region: str = Field(default="us-east-1", description="S3 region.")

    anthropic_api_key: HeaderSecret | None = Field(default=None, description="Anthropic API key.")
    anthropic_base_url: HttpUrl | None = Field(
        default=None, description="URL of another server for the Messages API; unset means Anthropic's."
    )
    rehearsal_model: bool = Field(
        default=False, description="true if ANTHROPIC_BASE_URL is the rehearsal model; builds then say so."
    )
    fallback_model: str = Field(
        default="claude-sonnet-5-5", description="Model if neither the user nor the plan names one."
    )
    product_judge: bool = Field(
        default=True,
        description="Let a model compare each product that passes the other checks with its brief. false: no such call "
        "is made.",
    )
    judge_model: str | None = Field(
        default=None,
        description="Model of that comparison if neither the user nor the plan names one; unset: claude-haiku-5-5, or "
        "the build's own if that has no price.",
    )
    model_prices: ModelPrices = Field(
        default_factory=default_prices, description="Prices per model as JSON, in USD per million tokens."
    )
    model_rates: ModelRates = Field(
        default_factory=dict,
        description="Limits per minute that a model is taken to have until its API has named its own, as JSON: "
        '{"model": {"requests": 50, "input": 30000, "output": 8000}}. Unset: no limit until its first answer.',
    )
    model_rate_patience_seconds: float = Field(
        default=60,
        ge=0,
        le=600,
        description="A call that the model's rate limit does not allow yet waits this many seconds in its activity; "
        "after that its build waits.",
    )
    max_output_tokens: int = Field(
        default=64_000,
        ge=256,
        description="Longest output of a model call in tokens, thinking included; 128000 at most.",
    )
    stream_idle_seconds: float = Field(
        default=120, gt=0, description="Give up a model call after this many seconds without an event."
    )

    e2b_api_key: HeaderSecret | None = Field(default=None, description="Key of the sandbox service.")
    e2b_api_url: HttpUrl | None = Field(default=None, description="URL of the control plane; unset means E2B's cloud.")
    e2b_sandbox_url: HttpUrl | None = Field(default=None, description="URL of the data plane; unset means E2B's cloud.")
    e2b_template: str = Field(default="base", description="Template of new sandboxes.")
    sandbox_ttl_seconds: int = Field(
        default=1800, ge=60, description="Time to live of a sandbox in seconds; extended while it is used."
    )
    sandbox_quota: int | None = Field(
        default=None,
        ge=0,
        description="Sandboxes that may run at once, over all workers; more builds wait. Leave some of what your E2B "
        "plan allows. Unset or 0: no limit.",
    )
    sandbox_starts_per_second: float | None = Field(
        default=None, gt=0, description="Sandboxes started or resumed per second, over all workers; unset: no limit."
    )
    sandbox_hours_per_day: float = Field(
        default=12,
        gt=0,
        le=24,
        description="Hours a UTC day that a build may have a sandbox; then it sleeps until the next day. 24: no limit.",
    )
    sandbox_egress_hosts: EgressHosts = Field(
        default=list(DEFAULT_SETS),
        description="Hosts that sandboxes can reach, comma-separated, with names of sets among them: "
        f"{', '.join(f'`{name}`' for name in EGRESS_SETS)} (docs/operating.md). `none` for no host, `all` for the open "
        "internet.",
    )
    sandbox_private_hosts: Annotated[HostNames, LOCAL_SANDBOX_ONLY] = Field(
        default=None,
        description="Hosts that local sandboxes also reach, even at private addresses; comma-separated.",
    )
    sandbox_pip_index_url: Annotated[PackageIndexUrl | None, LOCAL_SANDBOX_ONLY] = Field(
        default=None, description="Package index of local sandboxes; they never see a password in it."
    )
    sandbox_npm_registry: Annotated[PackageIndexUrl | None, LOCAL_SANDBOX_ONLY] = Field(
        default=None, description="npm registry of local sandboxes; they never see a password in it."
    )
    sandbox_ca_bundle: Annotated[CertificateFile | None, LOCAL_SANDBOX_ONLY] = Field(
        default=None, description="PEM file with all certificates that local sandboxes trust."
    )

    autonomous_agent: bool = Field(
        default=True, description="Kill switch: false refuses new builds and pauses running ones until it is true."
    )
    gate_command_seconds: int = Field(
        default=600, ge=1, description="Seconds that a product's install or check may take."
    )
    gate_start_seconds: float = Field(
        default=60, gt=0, description="Seconds that a product may take to answer after its start."
    )
    snapshots_kept: int = Field(
        default=5,
        ge=1,
        description="Snapshots kept per open build. Those of overwritten histories stay, too.",
    )
    chromium_path: Path | None = Field(default=None, description="Path of Chromium; unset means the first one on PATH.")
    reaper_spares_seconds: float = Field(
        default=120, ge=0, description="The reaper ignores sandboxes younger than this many seconds."
    )
    reaper_seconds: int = Field(default=60, ge=5, description="Seconds between two runs of the reaper.")
    prober_seconds: int = Field(
        default=15, ge=1, description="Seconds between two runs of the prober, which asks what is down for an answer."
    )
    conversation_days: int | None = Field(
        default=None,
        ge=1,
        description="Days for which the conversation and the feed of a build that has ended stay in the database; then "
        "they go into one object, from which `cofounder export` has them. Unset: for ever.",
    )
    graceful_shutdown_seconds: float = Field(
        default=600,
        ge=0,
        description="Seconds that a stopping worker gives running model calls to end; all else ends within 10.",
    )

    secrets_key: SecretsKey | None = Field(
        default=None,
        description="Encrypts the secrets that founders set for their products: id:key, where the key is what "
        "`openssl rand -base64 32` prints. Several are separated by commas: the first encrypts, all decrypt. Unset: "
        "founders can't set any. Keep a copy: without it they have to be set again.",
    )

    payload_key: PayloadKey | None = Field(
        default=None,
        description="Encrypts what Temporal stores of builds: id:key as in SECRETS_KEY, the same for workers, API and "
        "commands. Several are separated by commas: the first encrypts, all decrypt; `plain` in front encrypts nothing "
        "(docs/data.md). Unset: plain text. Keep a copy: without it no build can continue.",
    )

    api_token: HeaderSecret | None = Field(
        default=None,
        description="Bearer token of the API, for one machine. For commands, an API key (`cofounder keys create`) does "
        "as well.",
    )
    api_operator_token: HeaderSecret | None = Field(
        default=None, description="Bearer token of operators, who change accounts and see money. Unset: no one can."
    )
    api_user: str = Field(
        default="founder", description="User of API_TOKEN, and of API_OPERATOR_TOKEN unless a request names another."
    )
    public_url: Origin = Field(
        default="http://127.0.0.1:8000",
        description="URL under which browsers reach the API and the console, without a path. Requests for another host "
        "are refused, and so are those that another site's page makes.",
    )
    allowed_hosts: HostNames = Field(
        default=None,
        description="Names under which the API answers, in addition to PUBLIC_URL's; comma-separated, without "
        "ports. On loopback 127.0.0.1, localhost and ::1 are among them.",
    )
    oidc_issuers: OidcIssuers | None = Field(
        default=None,
        description="Identity providers as a JSON list: their JWTs are accepted, and people sign in through them "
        "(docs/operating.md). Unset: none.",
    )
    preview_url: PreviewUrl = Field(
        default="http://*.localhost:8000",
        description="URL of previews, with `*` in the place of a build's id. The API serves them. In production a "
        "domain that is used for nothing else, with a wildcard certificate (docs/previews.md).",
    )
    web_dist: str | None = Field(
        default=None,
        description="Directory with the built files of the web console. Unset: those that scripts/setup builds, or "
        "that were installed.",
    )
    temporal_ui_url: HttpUrl | None = Field(
        default=None,
        description="URL of Temporal's UI as operators' browsers reach it; the console links to it. Unset: no links.",
    )
    trusted_proxies: Networks = Field(
        default=None,
        description="Addresses and networks of proxies in front of the API, comma-separated: what they say in "
        "X-Forwarded-For is the client's address. Unset: that of the connection is.",
    )
    reads_per_minute: int = Field(
        default=1200, ge=0, description="Requests a minute with which a user may read through the API. 0: no limit."
    )
    writes_per_minute: int = Field(
        default=300, ge=0, description="Requests a minute with which a user may change something. 0: no limit."
    )
    expensive_requests_per_minute: int = Field(
        default=30,
        ge=0,
        description="Builds and previews that a user may start in a minute, with pushes, downloads of workspaces, and "
        "files read out of large ones. 0: no limit.",
    )
    new_projects_per_day: int = Field(
        default=200, ge=0, description="Projects that a user may make in 24 hours. 0: no limit."
    )
    failed_sign_ins_per_minute: int = Field(
        default=60,
        ge=0,
        description="Requests a minute with wrong credentials from an address; then its tokens and sign-in links are "
        "refused for a while, even right ones. 0: no limit.",
    )
    open_feeds_per_user: int = Field(
        default=100, ge=0, description="Live feeds that a user may have open at once in one API process. 0: no limit."
    )
    cofounder_api_url: HttpUrl = Field(
        default="http://127.0.0.1:8000", description="URL of the API that the command line talks to."
    )

    push_seconds: int = Field(
        default=600,
        ge=10,
        le=int(LONGEST_PUSH.total_seconds()),
        description="Seconds that a push of a build's code to a git server may take.",
    )
    push_max_megabytes: int = Field(
        default=500, ge=1, le=4000, description="Largest git history that is pushed, in megabytes."
    )
    push_private_hosts: HostNames = Field(
        default=None,
        description="Git servers that may be pushed to although their addresses are private; comma-separated.",
    )

    webhook_private_hosts: HostNames = Field(
        default=None,
        description="Hosts that webhooks may be delivered to although their addresses are private; comma-separated. "
        "They may also be reached over http.",
    )

    metrics_address: MetricsAddress | None = Field(
        default=None,
        description="Address, as host:port, at which this program serves /livez, /readyz and /metrics to anyone who "
        "reaches it; 127.0.0.1 or a network of your own (docs/observability.md). Unset: it does not, and counts "
        "nothing.",
    )
    log_format: str = Field(default="json", pattern="^(json|console)$", description="json or console.")
    log_level: str = Field(
        default="INFO", pattern="(?i)^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."
    )

    @property
    def issuers(self) -> Sequence[Issuer]:
        """The identity providers of OIDC_ISSUERS."""
        return () if self.oidc_issuers is None else parse_issuers(self.oidc_issuers.get_secret_value())

    @property
    def reachable_hosts(self) -> list[str] | None:
        """The hosts that SANDBOX_EGRESS_HOSTS means, and SANDBOX_PRIVATE_HOSTS unless the first are none. None: the
        open internet."""
        if not self.sandbox_egress_hosts:
            return self.sandbox_egress_hosts
        return list(dict.fromkeys([*hosts_of(self.sandbox_egress_hosts), *(self.sandbox_private_hosts or ())]))

    @property
    def request_limits(self) -> RequestLimits:
        """The limits of requests to the API."""
        day = 86_400.0
        return RequestLimits(
            {
                RequestClass.READ: RequestLimit(self.reads_per_minute),
                RequestClass.WRITE: RequestLimit(self.writes_per_minute),
                RequestClass.EXPENSIVE: RequestLimit(self.expensive_requests_per_minute),
                RequestClass.NEW_PROJECT: RequestLimit(self.new_projects_per_day, day),
                RequestClass.WRONG_CREDENTIALS: RequestLimit(self.failed_sign_ins_per_minute),
            },
            self.open_feeds_per_user,
        )

    def check_sandbox_service(self) -> None:
        """Refuse settings for sandboxes on this machine if sandboxes are E2B's.

        Raises:
            Misconfigured: names them, and says what to do.
        """
        local = self.fields_of(LOCAL_SANDBOX_ONLY)
        names = [name.upper() for name in local if getattr(self, name) is not None]
        if names and self.e2b_api_url is None:
            raise Misconfigured(
                f"{' and '.join(names)} can't be used with E2B's cloud, which does not reach this network. Unset what "
                "is for sandboxes on this machine, or set E2B_API_URL to what `cofounder local sandbox` prints."
            )

    @classmethod
    def variables(cls) -> list[str]:
        """The environment variables that the settings are read from."""
        return [name.upper() for name in cls.model_fields]

    @classmethod
    def fields_of(cls, mark: Any) -> list[str]:
        """The names of the settings of a type such as `HttpUrl`, or with a mark such as `LOCAL_SANDBOX_ONLY`."""
        wanted = getattr(mark, "__metadata__", (mark,))
        marks = {name: list(_marks(field)) for name, field in cls.model_fields.items()}
        return [name for name, found in marks.items() if all(each in found for each in wanted)]

    def secret_values(self) -> list[str]:
        """The values to blank in all text that leaves a sandbox. Omits short ones, which would blank half a page."""
        values: list[str] = []
        for name, field in type(self).model_fields.items():
            finders = [mark.find for mark in _marks(field) if isinstance(mark, HoldsSecrets)]
            for value in _leaves(getattr(self, name)):
                text = value.get_secret_value() if isinstance(value, SecretStr) else value
                if finders and isinstance(text, str):
                    secrets = [secret for find in finders for secret in find(text)]
                    values += [form for secret in secrets for form in _forms(secret)]
                elif isinstance(value, SecretStr):
                    values.append(value.get_secret_value())
        return [value for value in values if len(value) >= _SHORTEST_SECRET]

    @model_validator(mode="after")
    def _models_are_priced(self) -> "Settings":
        for name, model in {"FALLBACK_MODEL": self.fallback_model, "JUDGE_MODEL": self.judge_model}.items():
            if model is not None and model not in self.model_prices:
                priced = ", ".join(sorted(self.model_prices))
                raise ValueError(f"{name}: {model} has no price; set it to one of {priced}, or add it to MODEL_PRICES")
        return self


def _marks(field: FieldInfo) -> Iterator[Any]:
    """Everything that a field's type is annotated with, also inside `… | None`, `list[…]` and the like."""
    yield from field.metadata
    annotations = [field.annotation]
    while annotations:
        annotation = annotations.pop()
        metadata = getattr(annotation, "__metadata__", ())
        yield from metadata
        annotations += [each for each in get_args(annotation) if each not in metadata]


def _forms(secret: str) -> set[str]:
    """A part of a URL as it stands there, without percent-encoding, and with all of it."""
    return {secret, plain := unquote(secret), quote(plain, safe="")}


def _leaves(value: Any) -> Iterator[Any]:
    """The values in lists and dictionaries, however deep; or the value itself."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


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
