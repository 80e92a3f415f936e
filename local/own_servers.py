"""The two servers of this project: the sandbox server and the rehearsal model.

Each is a module that runs in its own process. It prints one line of JSON that says how to reach it.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from local.process import Command, Run

if TYPE_CHECKING:  # it imports the settings, which the command line does without until it needs them
    from local.operator_network import OperatorNetwork

Egress = Literal["none", "proxy"]

# Variables that a process needs to reach the internet. The sandbox server decides which of them a sandbox sees.
_NETWORK_VARIABLES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}


class OwnServer:
    """A server of this project, which announces its variables in one line of JSON."""

    start_seconds = 180.0

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        output: Path,
        temporary: Path,
        hint: str,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.hint = hint
        self._arguments = arguments
        self._secrets = dict(secrets or {})  # not arguments, which every user of the machine can read
        self._output = output
        self._temporary = temporary
        self._announcement: dict[str, object] = {}

    async def prepare(self, run: Run) -> None:
        """Forget the announcement of an earlier run."""
        self._announcement = {}

    def command(self) -> Command:
        """Return the module's command line."""
        network = {key: value for key, value in os.environ.items() if key.upper() in _NETWORK_VARIABLES}
        return Command(
            # -P: nothing in the working directory can be imported
            arguments=[sys.executable, "-P", *self._arguments, "--die-with-parent"],
            environment={
                **network,
                **self._secrets,
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self._temporary),
                "TMPDIR": str(self._temporary),
                "LANG": "C.UTF-8",
                "PYTHONUNBUFFERED": "1",
            },
        )

    async def is_ready(self) -> bool:
        """Return True once the server has announced itself, which it does when it serves."""
        line, end, _ = self._output.read_text().partition("\n")
        if not end:
            return False
        announcement = json.loads(line)
        if isinstance(announcement, dict):
            self._announcement = announcement
        return bool(self._announcement)

    def environment(self) -> dict[str, str]:
        """Return the variables in the announcement: its keys in capitals."""
        return {key: str(value) for key, value in self._announcement.items() if key.isupper()}


def sandbox_server(
    directory: Path,
    *,
    port: int,
    proxy_port: int,
    egress: Egress,
    allow: Sequence[str],
    network: "OperatorNetwork",
    api_key: str,
    output: Path,
    temporary: Path,
    options: Sequence[str] = (),
) -> OwnServer:
    """Return the sandbox server, which keeps its sandboxes in `directory`.

    With `egress="proxy"` sandboxes reach the hosts in `allow`, or in the server's own list if that is empty, the hosts
    that `network` names, and nothing else. `options` are more options of `python -m local.sandbox`.
    """
    arguments = ["-m", "local.sandbox", "--root", str(directory), "--port", str(port)]
    arguments += ["--proxy-port", str(proxy_port), "--egress", egress, *(["--allow", *allow] if allow else [])]
    arguments += [*network.options(), *options]
    hint = (
        "It needs bubblewrap. To see whether that works here, run: scripts/setup --system. "
        "If it does not, use E2B's cloud: set REAL=1 and E2B_API_KEY."
    )
    secrets = {"E2B_API_KEY": api_key, **network.environment()}
    return OwnServer("sandbox", arguments, output=output, temporary=temporary, hint=hint, secrets=secrets)


def rehearsal_model(directory: Path, *, port: int, options: Sequence[str], output: Path, temporary: Path) -> OwnServer:
    """Return the rehearsal model, which logs each request that it served to `served.jsonl` in `directory`.

    `options` are more options of `python -m local.rehearsal`.
    """
    arguments = ["-m", "local.rehearsal", "--port", str(port), "--log", str(directory / "served.jsonl"), *options]
    return OwnServer("model", arguments, output=output, temporary=temporary, hint="See why in its log.")
