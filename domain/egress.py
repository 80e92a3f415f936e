"""Named sets of hosts that sandboxes may reach, and what is said about a host that they may not reach."""

import re
from collections.abc import Iterable, Sequence
from types import MappingProxyType

EGRESS_SETS = MappingProxyType(
    {
        "packages": (
            *("pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "registry.yarnpkg.com"),
            "nodejs.org",  # the header files with which npm compiles modules in C++
        ),
        "fonts": ("fonts.googleapis.com", "fonts.gstatic.com"),
        "git": (
            *("github.com", "api.github.com", "codeload.github.com", "raw.githubusercontent.com"),
            *("objects.githubusercontent.com", "release-assets.githubusercontent.com", "gitlab.com", "bitbucket.org"),
        ),
        "browsers": ("cdn.playwright.dev", "playwright.download.prss.microsoft.com"),
        "docs": (
            *("developer.mozilla.org", "docs.python.org", "nodejs.org", "react.dev", "vite.dev", "nextjs.org"),
            *("fastapi.tiangolo.com", "docs.djangoproject.com", "docs.sqlalchemy.org", "expressjs.com"),
        ),
    }
)
"""Hosts by the name of their set. What each lets out is in docs/adr/0009-named-sets-of-hosts.md."""

DEFAULT_SETS = ("packages", "fonts")
"""Under these every stack of tests/products builds. Never `git`: a push to another repository takes code and secrets
out."""

REFUSED_HOSTS_VARIABLE = "SANDBOX_REFUSED_HOSTS_URL"
"""Variable of sandboxes on this machine: where a command asks which hosts were refused. E2B's cloud does not tell."""

HOSTS_TOLD = 20
"""At most this many refused hosts are told of one call, and to the founder of one build."""

_HOST = re.compile(r"[a-z0-9_.-]{1,253}")


def hosts_of(names: Iterable[str]) -> list[str]:
    """Return the hosts that these names mean, each once: a name is a set's, or a host's.

    A host that has the name of a set is written with a dot at its end.
    """
    hosts = (host for name in names for host in EGRESS_SETS.get(name, (name.rstrip("."),)))
    return list(dict.fromkeys(hosts))


def sets_with(host: str) -> list[str]:
    """Return the names of the sets that contain a host."""
    return [name for name, hosts in EGRESS_SETS.items() if host in hosts]


def refused_hosts(told: object) -> list[str]:
    """Return the hosts in what a sandbox tells of its refusals. The agent could have made up all of it."""
    hosts = [host for host in told if isinstance(host, str) and _HOST.fullmatch(host)] if isinstance(told, list) else []
    return list(dict.fromkeys(hosts))[:HOSTS_TOLD]


def way_to_allow(host: str) -> str:
    """Say what an operator does to let sandboxes reach a host."""
    sets = " or ".join(f"its set `{name}`" for name in sets_with(host))
    return f"The operator allows it by adding {host}{f', or {sets},' if sets else ''} to SANDBOX_EGRESS_HOSTS."


def refusal_note(hosts: Sequence[str]) -> str:
    """Tell the agent which hosts its command was not let out to, and what it can do; empty without hosts."""
    if not hosts:
        return ""
    ways = " ".join(way_to_allow(host) for host in hosts)
    return (
        f"[The sandbox refused to connect to {', '.join(hosts)}: not among the hosts that it may reach. Trying again "
        f"does not help. Do without, for instance with a package from a registry that it reaches. {ways}]"
    )
