"""Runs Prometheus beside a stack on this machine, with the alert rules of `deploy/observability/`."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local.ports import LOOPBACK
from local.process import Command

RULES = Path(__file__).parents[1] / "deploy" / "observability" / "rules"
"""In a checkout; an installed package has none."""

INSTALL = "sudo apt-get install --no-install-recommends prometheus"
"""The command that installs it on Debian and Ubuntu."""


def find_prometheus() -> Path | None:
    """Prometheus on PATH."""
    program = shutil.which("prometheus")
    return None if program is None else Path(program)


def prometheus(
    program: Path,
    directory: Path,
    port: int,
    targets: Mapping[str, Sequence[str]],
    *,
    rules: Path = RULES,
    interval_seconds: int = 5,
) -> Command:
    """Write a configuration into the directory, and return the command that runs Prometheus with it.

    Args:
        port: its page and API are there, on loopback.
        targets: addresses (`host:port`) by the name of their job.
        rules: a directory with rules as YAML.
        interval_seconds: between two looks at a target, and at the rules.
    """
    every = f"{interval_seconds}s"
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": every},
        "rule_files": [str(path) for path in sorted(rules.glob("*.yml"))],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
        ],
    }
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "prometheus.yml"
    file.write_text(json.dumps(configuration, indent=1))  # JSON is YAML
    return Command(
        [
            str(program),
            f"--config.file={file}",
            f"--storage.tsdb.path={directory / 'data'}",
            "--storage.tsdb.retention.time=7d",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
    )
