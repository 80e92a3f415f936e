"""What sandboxes of this machine may use of the operator's network: private hosts, a package index, a registry."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from domain.errors import Misconfigured
from settings import HttpUrl, Settings, host_names, secret_text

_AWS_SERVERS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
"""The AWS chain reads these if S3_ENDPOINT_URL is unset."""


@dataclass(frozen=True)
class OperatorNetwork:
    """All of it is for sandboxes on this machine; E2B's cloud reaches no private address."""

    private_hosts: tuple[str, ...] = ()
    off_limits: tuple[tuple[str, str], ...] = ()
    """A setting, and a host that it names: no sandbox reaches its addresses."""
    pip_index_url: str | None = field(default=None, repr=False)
    npm_registry: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None

    def options(self) -> list[str]:
        """Options of `python -m local.sandbox`."""
        hosts = [f"--private-host={host}" for host in self.private_hosts]
        return [*hosts, *(f"--off-limits={setting}={host}" for setting, host in self.off_limits)]

    def environment(self) -> dict[str, str]:
        """Variables of `python -m local.sandbox`. Not options: everyone on the machine can read those, and a URL may
        have a password."""
        variables = {
            "SANDBOX_PIP_INDEX_URL": self.pip_index_url,
            "SANDBOX_NPM_REGISTRY": self.npm_registry,
            "SANDBOX_CA_BUNDLE": None if self.ca_bundle is None else str(self.ca_bundle.absolute()),
        }
        return {name: value for name, value in variables.items() if value is not None}


def operator_network(
    settings: Settings, environment: Mapping[str, str], private_hosts: Iterable[str] = ()
) -> OperatorNetwork:
    """The operator's network as settings and environment describe it.

    Args:
        settings: of this process.
        environment: the variables of this process, for what others than `settings.py` read.
        private_hosts: from the command line, in addition to those of SANDBOX_PRIVATE_HOSTS.

    Raises:
        Misconfigured: one of them is not a host's name, or Temporal's configuration can't be read.
    """
    try:
        hosts = tuple(dict.fromkeys([*(settings.sandbox_private_hosts or ()), *host_names(",".join(private_hosts))]))
    except ValueError as error:
        raise Misconfigured(f"--private-host: {error}") from error
    off_limits = [each for each in _off_limits(settings, environment) if each[1]] if hosts else []
    return OperatorNetwork(
        hosts,
        tuple(dict.fromkeys(off_limits)),
        secret_text(settings.sandbox_pip_index_url),
        secret_text(settings.sandbox_npm_registry),
        settings.sandbox_ca_bundle,
    )


def _off_limits(settings: Settings, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every host of DATABASE_URL, of Temporal, of the object store and of the APIs, as far as they are set."""
    from sqlalchemy.engine import make_url  # takes half a second, which most commands can do without

    database = make_url(settings.database_url)
    several = database.query.get("host", ())
    for host in (database.host or "", *((several,) if isinstance(several, str) else several)):
        for each in host.split(","):
            if not each.startswith("/"):  # a directory of Unix sockets, which no network reaches
                yield "DATABASE_URL", _without_port(each)
    urls = {name.upper(): getattr(settings, name) for name in settings.fields_of(HttpUrl)}
    urls |= {name: environment.get(name) for name in _AWS_SERVERS}
    for name, url in urls.items():
        yield name, urlsplit(url or "").hostname or ""
    yield "TEMPORAL_ADDRESS", urlsplit(f"//{_temporal_address(environment)}").hostname or ""


def _without_port(host: str) -> str:
    """`host:port` is how SQLAlchemy writes one of several hosts; an IPv6 address has more than one colon."""
    name, _, port = host.rpartition(":")
    return name if port.isdigit() and ":" not in name else host


def _temporal_address(environment: Mapping[str, str]) -> str:
    from temporalio.envconfig import ClientConfig  # takes a second, as above

    variables = {name: value for name, value in environment.items() if value}
    try:
        return ClientConfig.load_client_connect_config(override_env_vars=variables).get("target_host") or ""
    except (RuntimeError, ValueError, OSError) as error:
        raise Misconfigured(
            f"Temporal's configuration can't be read: {error}. Correct the TEMPORAL_ variables."
        ) from error
