"""What sandboxes on this machine may use of its network to install packages, and which hosts answer.

Without any setting it is found out: a registry that resolves to a private address is a mirror of this network, and its
certificate is in the system's store.
"""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from clients.dns import resolve
from domain.addresses import is_public
from local.operator_network import OperatorNetwork
from settings import Settings, secret_text

REGISTRY_HOSTS = {"pip": ("pypi.org", "files.pythonhosted.org"), "npm": ("registry.npmjs.org",)}

_ANSWER_SECONDS = 20.0


async def network_of(settings: Settings, hosts: Iterable[str]) -> OperatorNetwork:
    """Return the network that the settings describe, with the private ones among the hosts."""
    private = [host for host in hosts if await _is_private(host)]
    return OperatorNetwork(
        private_hosts=tuple(dict.fromkeys([*(settings.sandbox_private_hosts or ()), *private])),
        pip_index_url=secret_text(settings.sandbox_pip_index_url),
        npm_registry=secret_text(settings.sandbox_npm_registry),
        ca_bundle=settings.sandbox_ca_bundle or _system_certificates(),
    )


async def unreachable(network: OperatorNetwork, needs: Sequence[str], hosts: Sequence[str]) -> list[str]:
    """Return which of the registries and hosts do not answer."""
    mirrors = {"pip": network.pip_index_url, "npm": network.npm_registry}
    wanted = [*hosts]
    for need in needs:
        mirror = mirrors[need]
        wanted += REGISTRY_HOSTS[need] if mirror is None else [urlsplit(mirror).hostname or ""]
    answers = await asyncio.gather(*(_answers(host, network.ca_bundle) for host in wanted))
    return [host for host, has_answered in zip(wanted, answers, strict=True) if not has_answered]


def _system_certificates() -> Path | None:
    debian = Path("/etc/ssl/certs/ca-certificates.crt")
    path = ssl.get_default_verify_paths().cafile
    return Path(path) if path else debian if debian.exists() else None


async def _is_private(host: str) -> bool:
    try:
        addresses = await resolve(host)
    except OSError:
        return False
    return not any(is_public(address) for address in addresses)


async def _answers(host: str, ca_bundle: Path | None) -> bool:
    trust = ssl.create_default_context(cafile=ca_bundle)
    async with httpx2.AsyncClient(verify=trust, timeout=_ANSWER_SECONDS) as http:
        try:
            return (await http.head(f"https://{host}/")).status_code < 500
        except httpx2.HTTPError:
            return False
