"""The two servers that are this project's own: sandboxes, and the rehearsal model.

Each is a module run in its own process. It says on its standard output, in one line of JSON, how to reach it.
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

# What leads out of this machine; the sandbox server decides what of it a sandbox sees.
_WAY_OUT = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}


class OwnServer:
    """A module of this project that serves, and announces its variables as a line of JSON."""

    start_seconds = 30.0

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
        self._secrets = dict(secrets or {})  # not arguments, which everybody on the machine can read
        self._output = output
        self._temporary = temporary
        self._announced: dict[str, object] = {}

    async def prepare(self, run: Run) -> None:
        """Forget what an earlier run announced."""
        self._announced = {}

    def command(self) -> Command:
        """Return the module's command line."""
        way_out = {key: value for key, value in os.environ.items() if key.upper() in _WAY_OUT}
        return Command(
            # -P: whatever lies in the working directory is not importable
            arguments=[sys.executable, "-P", *self._arguments, "--die-with-parent"],
            environment={
                **way_out,
                **self._secrets,
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self._temporary),
                "TMPDIR": str(self._temporary),
                "LANG": "C.UTF-8",
                "PYTHONUNBUFFERED": "1",
            },
        )

    async def is_ready(self) -> bool:
        """The announcement is written when the server serves."""
        line, end, _ = self._output.read_text().partition("\n")
        if not end:
            return False
        announced = json.loads(line)
        if isinstance(announced, dict):
            self._announced = announced
        return bool(self._announced)

    def environment(self) -> dict[str, str]:
        """Return the variables in the announcement: what is written in capitals."""
        return {key: str(value) for key, value in self._announced.items() if key.isupper()}


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
    """Return the sandbox server; sandboxes live under `directory`.

    `egress="proxy"` lets them reach the hosts in `allow` (the server's own list if it is empty), what `network` names,
    and nothing else. `options` are further ones of `python -m local.sandbox`.
    """
    arguments = ["-m", "local.sandbox", "--root", str(directory), "--port", str(port)]
    arguments += ["--proxy-port", str(proxy_port), "--egress", egress, *(["--allow", *allow] if allow else [])]
    arguments += [*network.options(), *options]
    hint = (
        "It needs bubblewrap: run scripts/setup --system to see whether it works here. "
        "Where it cannot, use E2B's cloud: REAL=1 with E2B_API_KEY."
    )
    secrets = {"E2B_API_KEY": api_key, **network.environment()}
    return OwnServer("sandbox", arguments, output=output, temporary=temporary, hint=hint, secrets=secrets)


def rehearsal_model(directory: Path, *, port: int, options: Sequence[str], output: Path, temporary: Path) -> OwnServer:
    """Return the rehearsal model; its log of what it served is `served.jsonl` in `directory`.

    `options` are further ones of `python -m local.rehearsal`.
    """
    arguments = ["-m", "local.rehearsal", "--port", str(port), "--log", str(directory / "served.jsonl"), *options]
    return OwnServer("model", arguments, output=output, temporary=temporary, hint="Its log says why.")
