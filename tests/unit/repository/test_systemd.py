"""The units of systemd: accepted by systemd itself, with programs and settings that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from settings import Settings

ROOT = Path(__file__).parents[3]
UNITS = sorted(path for path in (ROOT / "deploy" / "systemd").iterdir() if path.suffix in (".service", ".target"))


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """The programs are taken from where every machine has some: they are installed elsewhere than here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on PATH")
    for unit in UNITS:
        text = re.sub(r"^ExecStart=/opt/cofounder/bin/\w+", "ExecStart=/bin/true", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    verified = subprocess.run(command, capture_output=True, text=True)
    found = [line for line in verified.stderr.splitlines() if "cofounder" in line]
    assert (verified.returncode, found) == (0, [])


def test_a_unit_with_a_mistake_is_not_accepted(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on PATH")
    (tmp_path / "cofounder-x.service").write_text("[Service]\nExecStart=/bin/true\nRestrt=always\n")
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "cofounder-x.service")]
    verified = subprocess.run(command, capture_output=True, text=True)
    assert "Restrt" in verified.stderr


def test_they_run_this_programs_commands() -> None:
    commands = {unit.name: re.findall(r"^ExecStart=/opt/cofounder/bin/(.*)$", unit.read_text(), re.M) for unit in UNITS}
    assert commands == {
        "cofounder-api.service": ["python -P -m api --host 127.0.0.1 --port 8000"],
        "cofounder-migrate.service": ["cofounder migrate"],
        "cofounder-worker@.service": ["python -P -m worker"],
        "cofounder.target": [],
    }


def test_a_worker_has_time_to_end_its_calls() -> None:
    [worker] = [unit for unit in UNITS if unit.name == "cofounder-worker@.service"]
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", worker.read_text(), re.M)
    assert int(seconds) >= Settings.model_fields["graceful_shutdown_seconds"].default + 60


def test_the_readme_names_settings_that_exist() -> None:
    for name in ("systemd", "kubernetes"):
        text = (ROOT / "deploy" / name / "README.md").read_text()
        named = set(re.findall(r"\b([A-Z][A-Z0-9]*_[A-Z0-9_]+)\b", text)) - {"TEMPORAL_ADDRESS"}
        assert named.difference(Settings.variables()) == set()
