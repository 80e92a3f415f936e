"""pip and npm in a local sandbox, with the registry that this machine uses and with a mirror that needs a password."""

import asyncio
import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from e2b import AsyncSandbox

from domain.addresses import is_public
from local.sandbox.addresses import AddressRules
from local.sandbox.egress import NPM_PORT, PIP_PORT, EgressProxy
from local.sandbox.mirror import Mirror, PackageSource
from local.sandbox.server import Options, serve
from tests.integration.local.sandbox.package_server import (
    ELSEWHERE,
    HOST,
    INDEX,
    PASSWORD,
    REGISTRY,
    USER,
    PackageServer,
    package_server,
    with_credentials,
)
from tests.integration.local.sandbox.sandbox_server import API_KEY, new_sandbox, sandbox_server

SECONDS = 240
PIP_INSTALL = "python3 -m pip install --no-cache-dir --retries 1 --target /tmp/pip iniconfig"
NPM_INSTALL = "mkdir -p /tmp/npm && cd /tmp/npm && npm init -y > /dev/null && npm install --fetch-retries=0 is-number"


async def output(sandbox: AsyncSandbox, command: str) -> str:
    """Run a command and return its output, however it ends."""
    return (await sandbox.commands.run(f"({command}) 2>&1 || true", timeout=SECONDS)).stdout


async def need(sandbox: AsyncSandbox, command: str) -> None:
    if "missing" in await output(sandbox, f"{command} > /dev/null 2>&1 || echo missing"):
        pytest.skip(f"sandboxes have no {command.split(' --')[0]}: this machine has none under /usr")


def ask(*command: str) -> str:
    """Ask a package manager of this machine about its configuration. Returns an empty text if it says nothing."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def ca_bundle() -> str | None:
    """Return the file of certificates that this machine trusts."""
    for path in (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile):
        if path and Path(path).is_file():
            return path
    return None


def environment(**variables: str) -> dict[str, str]:
    bundle = ca_bundle()
    return {**({"SANDBOX_CA_BUNDLE": bundle} if bundle else {}), **variables}


def reachable_as(url: str, *more_hosts: str) -> list[str]:
    """Return options with which sandboxes reach this machine's registry and the other hosts to which it links."""
    try:
        context = ssl.create_default_context(cafile=ca_bundle())
        httpx.get(url, verify=context, timeout=60, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        pytest.skip(f"this machine does not reach its package registry: {error!r}")
    options = ["--egress", "proxy"]
    for host in (urlsplit(url).hostname or "", *more_hosts):
        with suppress(OSError):  # a machine that knows only its mirror
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
            private = not any(map(is_public, addresses))
            options += [f"--private-host={host}"] if private else ["--allow", host]
    return options


def python_index() -> str:
    """Return the index that this machine's pip uses."""
    index = os.environ.get("PIP_INDEX_URL") or ask(sys.executable, "-m", "pip", "config", "get", "global.index-url")
    index = index or ask("pip3", "config", "get", "global.index-url") or "https://pypi.org/simple"
    return index if index.startswith("http") else "https://pypi.org/simple"


def npm_registry() -> str:
    """Return the registry that this machine's npm uses."""
    registry = ask("npm", "config", "get", "registry")
    return registry if registry.startswith("http") else "https://registry.npmjs.org/"


@pytest.mark.thorough
async def test_pip_installs_from_the_index_of_this_machine(tmp_path: Path) -> None:
    index = python_index()
    options = reachable_as(f"{index.rstrip('/')}/iniconfig/", "files.pythonhosted.org")
    given = environment(SANDBOX_PIP_INDEX_URL=index)
    async with sandbox_server(tmp_path / "root", *options, environment=given) as server, new_sandbox(server) as sandbox:
        await need(sandbox, "python3 -m pip --version")
        said = await output(sandbox, PIP_INSTALL)
        assert "Successfully installed iniconfig" in said, said + server.log()
        assert "Looking in indexes: http://127.0.0.1:" in said
        assert "IniConfig" in await output(
            sandbox, "PYTHONPATH=/tmp/pip python3 -c 'print(__import__(\"iniconfig\").IniConfig)'"
        )


@pytest.mark.thorough
async def test_npm_installs_from_the_registry_of_this_machine(tmp_path: Path) -> None:
    registry = npm_registry()
    options = reachable_as(f"{registry.rstrip('/')}/is-number")
    given = environment(SANDBOX_NPM_REGISTRY=registry)
    async with sandbox_server(tmp_path / "root", *options, environment=given) as server, new_sandbox(server) as sandbox:
        await need(sandbox, "npm --version")
        said = await output(sandbox, NPM_INSTALL)
        assert "added 1 package" in said, said + server.log()
        assert "true" in await output(sandbox, "cd /tmp/npm && node -p 'require(\"is-number\")(1)'")
        lock = await sandbox.files.read("/tmp/npm/package-lock.json")
        assert "sha512" in lock
        assert "127.0.0.1" not in lock  # it belongs to the product, which is used elsewhere too


async def test_pip_and_npm_install_through_the_proxy(tmp_path: Path) -> None:
    """Without an operator's index, the tools use their default hosts."""
    options = reachable_as("https://pypi.org/simple/iniconfig/", "files.pythonhosted.org", "registry.npmjs.org")
    async with (
        sandbox_server(tmp_path / "root", *options, environment=environment()) as server,
        new_sandbox(server) as sandbox,
    ):
        await need(sandbox, "python3 -m pip --version")
        said = await output(sandbox, PIP_INSTALL)
        assert "Successfully installed iniconfig" in said, said + server.log()
        await need(sandbox, "npm --version")
        said = await output(sandbox, NPM_INSTALL)
        assert "added 1 package" in said, said + server.log()


async def test_a_private_host_never_leads_to_this_machine_or_its_servers(tmp_path: Path) -> None:
    own = next(
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    )
    hosts = ("localhost", "127.0.0.1", "169.254.169.254", own, "10.20.30.40", "10.20.30.41")
    options = ["--egress", "proxy", *(f"--private-host={host}" for host in hosts)]
    given = {"DATABASE_URL": "postgresql://u:geheim@10.20.30.40/d"}
    async with (
        sandbox_server(
            tmp_path / "root", *options, "--off-limits=TEMPORAL_ADDRESS=10.20.30.41", environment=given
        ) as server,
        new_sandbox(server) as sandbox,
    ):
        for host, reason in (
            ("localhost", "a loopback address, which SANDBOX_PRIVATE_HOSTS never allows"),
            ("127.0.0.1", "a loopback address, which SANDBOX_PRIVATE_HOSTS never allows"),
            ("169.254.169.254", "a link-local address, which SANDBOX_PRIVATE_HOSTS never allows"),
            (own, "an address of this machine, which SANDBOX_PRIVATE_HOSTS never allows"),
            ("10.20.30.40", "the address of DATABASE_URL, which SANDBOX_PRIVATE_HOSTS never allows"),
            ("10.20.30.41", "the address of TEMPORAL_ADDRESS, which SANDBOX_PRIVATE_HOSTS never allows"),
            (
                "10.20.30.42",
                "it is not on the list of allowed hosts. The operator allows it by adding 10.20.30.42 to",
            ),
        ):
            said = await output(sandbox, f"curl -s -m 20 --noproxy '' -w '%{{http_code}}' http://{host}/")
            assert f"may not reach {host}: it" in said
            assert reason in said
            assert said.endswith("403")
            assert reason in server.log()


@pytest.mark.parametrize(
    ("command", "host"), [(PIP_INSTALL, "pypi.org"), (NPM_INSTALL, "registry.npmjs.org")], ids=["pip", "npm"]
)
async def test_pip_and_npm_say_why_a_host_is_refused(tmp_path: Path, command: str, host: str) -> None:
    arguments = ("--egress", "proxy", "--allow", "allowed.example")
    async with sandbox_server(tmp_path / "root", *arguments) as server, new_sandbox(server) as sandbox:
        await need(sandbox, "npm --version" if "npm" in command else "python3 -m pip --version")
        said = await output(sandbox, command)
        assert f"This sandbox may not reach {host}: it is not on the list of allowed hosts." in said
        assert "SANDBOX_EGRESS_HOSTS" in said


@pytest.mark.parametrize("setting", ["SANDBOX_PIP_INDEX_URL", "SANDBOX_NPM_REGISTRY"])
def test_a_directory_is_refused_as_index(tmp_path: Path, setting: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local.sandbox", "--root", str(tmp_path), "--egress", "proxy"],
        env={**os.environ, setting: "file:///srv/packages"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"{setting}: is a file:// URL, and sandboxes see no directory of this machine" in done.stderr
    assert "Traceback" not in done.stderr


def cofounder(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_the_command_line_passes_everything_on(tmp_path: Path) -> None:
    """`cofounder local sandbox` gives its server the hosts, the index and what is off limits, and passes the password
    only in the environment."""
    arguments = ("local", "sandbox", "--json", "--data", str(tmp_path / "data"), "--egress", "proxy")
    process = cofounder(
        *arguments,
        "--private-host=10.20.30.40",
        SANDBOX_PRIVATE_HOSTS="10.20.30.41",
        SANDBOX_PIP_INDEX_URL="http://reader:geheim@10.20.30.41/simple/",
        DATABASE_URL="postgresql://u@10.20.30.40/d",
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line, process.stderr.read()
        printed = json.loads(line)
        assert printed["SANDBOX_EGRESS_HOSTS"].endswith("fonts.gstatic.com,10.20.30.41,10.20.30.40")
        for child in psutil.Process(process.pid).children(recursive=True):
            assert "geheim" not in " ".join(child.cmdline())
        sdk = {"api_key": printed["E2B_API_KEY"], "api_url": printed["E2B_API_URL"]}
        sandbox = await AsyncSandbox.create(timeout=300, sandbox_url=printed["E2B_SANDBOX_URL"], **sdk)
        assert await output(sandbox, "echo $PIP_INDEX_URL") == f"http://127.0.0.1:{PIP_PORT}/simple/\n"
        said = await output(sandbox, "curl -s --noproxy '' http://10.20.30.40/")
        assert "has the address of DATABASE_URL, which SANDBOX_PRIVATE_HOSTS never allows" in said
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (["--private-host", "a.example"], {}, "--private-host needs --egress proxy."),
        (["--egress", "proxy", "--private-host", "http://a"], {}, "--private-host: http://a is not a host's name"),
        (["--egress", "proxy"], {"SANDBOX_PIP_INDEX_URL": "file:///srv"}, "SANDBOX_PIP_INDEX_URL: is a file:// URL"),
    ],
)
def test_the_command_line_refuses(tmp_path: Path, arguments: list[str], variables: dict[str, str], says: str) -> None:
    process = cofounder("local", "sandbox", "--data", str(tmp_path / "data"), *arguments, **variables)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert says in " ".join(said.replace("│", " ").split())
    assert "Traceback" not in said


class TestMirrorWithPassword:
    """The server runs in this process, because only a test may allow a mirror at a loopback address."""

    @pytest.fixture
    def upstream(self, tmp_path: Path):  # type: ignore[no-untyped-def]
        if shutil.which("openssl") is None:
            pytest.skip("this machine lacks openssl, which makes the certificate")
        with package_server(tmp_path) as running:
            yield running

    @pytest.fixture
    async def sandbox(self, tmp_path: Path, upstream: PackageServer) -> AsyncIterator[AsyncSandbox]:
        async with in_process(tmp_path, upstream, USER, PASSWORD) as sandbox:
            yield sandbox

    async def test_pip_installs(self, sandbox: AsyncSandbox, upstream: PackageServer) -> None:
        await need(sandbox, "python3 -m pip --version")
        said = await output(sandbox, "python3 -m pip install --no-cache-dir --target /tmp/pip demo-package")
        assert "Successfully installed demo-package-2.0" in said
        assert "from the mirror" in await output(sandbox, "cat /tmp/pip/demo_package.py")
        assert ("/team/pypi/files/demo_package-2.0-py3-none-any.whl", f"{HOST}:{upstream.port}") in upstream.requests

    async def test_npm_installs(self, sandbox: AsyncSandbox) -> None:
        await need(sandbox, "npm --version")
        said = await output(sandbox, "mkdir /tmp/npm && cd /tmp/npm && npm init -y && npm install @demo/package")
        assert "added 1 package" in said
        assert "from the mirror" in await output(sandbox, "cat /tmp/npm/node_modules/@demo/package/index.js")

    async def test_the_password_is_nowhere_inside(self, sandbox: AsyncSandbox, tmp_path: Path) -> None:
        await output(sandbox, "python3 -m pip -v download --no-cache-dir -d /tmp/pip demo-package > /tmp/pip.log")
        seen = await output(
            sandbox,
            "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; cat /tmp/pip.log;"
            "curl -si ${PIP_INDEX_URL}demo-package/; curl -si ${npm_config_registry}@demo%2fpackage",
        )
        assert "127.0.0.1" in seen
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        for secret in (PASSWORD, basic, "secret", "p%2Fss", "rd-of-the-mirror", "uthorization"):
            assert secret not in seen
        assert "demo_package-2.0" in seen
        assert "@demo/package/-/package-1.0.0.tgz" in seen
        assert not await output(sandbox, "grep -rls rd-of-the-mirror /etc /home /mnt /opt /run /tmp /var")
        assert not [
            path
            for path in (tmp_path / "root").rglob("*")
            if path.is_file() and b"rd-of-the-mirror" in path.read_bytes()
        ]

    @pytest.mark.parametrize(
        "path",
        [
            ELSEWHERE,
            "/team/pypi/../security/apikey",
            "/team/pypi/simple/%2e%2e/%2e%2e/security/apikey",
            "/team/pypi/simple/..;/..;/security/apikey",
            "/team/pypi/simple/%252e%252e/%252e%252e/security/apikey",
            "/team/pypi/simple/..%5c..%5csecurity/apikey",
            "/team/pypi/simple/.%09./../security/apikey",
        ],
    )
    async def test_only_what_is_beside_the_index_is_read_with_it(
        self, sandbox: AsyncSandbox, upstream: PackageServer, path: str
    ) -> None:
        said = await output(sandbox, f"curl -s --path-as-is -w '%{{http_code}}' 'http://127.0.0.1:{PIP_PORT}{path}'")
        assert said.endswith("403")
        assert f"may not read {path} of {HOST}: SANDBOX_PIP_INDEX_URL serves only what is below /team/pypi/." in said
        assert not upstream.requests

    async def test_nothing_is_written(self, sandbox: AsyncSandbox, upstream: PackageServer) -> None:
        for method in ("PUT", "POST", "DELETE", "TRACE"):
            said = await output(sandbox, f"curl -s -X {method} http://127.0.0.1:{NPM_PORT}{REGISTRY}demo")
            assert f"may only read from {HOST}: {method} is not passed on" in said
        assert not upstream.requests

    async def test_a_wrong_password_is_reported(self, tmp_path: Path, upstream: PackageServer) -> None:
        async with in_process(tmp_path, upstream, USER, "wrong") as sandbox:
            await need(sandbox, "npm --version")
            said = await output(sandbox, "mkdir /tmp/npm && cd /tmp/npm && npm install --fetch-retries=0 @demo/package")
            assert f"{HOST} does not accept the credentials of SANDBOX_NPM_REGISTRY. Tell the operator." in said
            assert "wrong" not in said

    async def test_another_certificate_is_refused(self, tmp_path: Path, upstream: PackageServer) -> None:
        async with in_process(tmp_path, upstream, USER, PASSWORD, trusted=False) as sandbox:
            said = await output(sandbox, "curl -s -w '%{http_code}' $PIP_INDEX_URL")
            assert f"{HOST} of SANDBOX_PIP_INDEX_URL did not answer" in said
            assert "CERTIFICATE_VERIFY_FAILED" in said
            assert said.endswith("502")
        assert not upstream.requests


@asynccontextmanager
async def in_process(
    directory: Path, upstream: PackageServer, user: str, password: str, *, trusted: bool = True
) -> AsyncIterator[AsyncSandbox]:
    """Create a sandbox of a server in this process that resolves the mirror's name to loopback."""

    async def resolve(host: str) -> Sequence[str]:
        return {HOST: ["127.0.0.1"]}[host]

    rules = AddressRules([HOST], resolve=resolve, also_allowed=["127.0.0.1"])
    trust = ssl.create_default_context(cafile=upstream.certificate if trusted else None)

    def mirror(setting: str, path: str, port: int) -> Mirror:
        url = with_credentials(f"{upstream.origin}{path}", user, password)
        return Mirror(PackageSource.of(setting, url), port, rules, trust)

    egress = EgressProxy(
        [],
        rules,
        pip=mirror("SANDBOX_PIP_INDEX_URL", INDEX, PIP_PORT),
        npm=mirror("SANDBOX_NPM_REGISTRY", REGISTRY, NPM_PORT),
    )
    announced: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    options = Options(root=directory / "root", api_key=API_KEY, egress=egress, ca_bundle=upstream.certificate)
    serving: asyncio.Future[None] = asyncio.create_task(serve(options, announced.set_result))
    either: list[asyncio.Future[Any]] = [announced, serving]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    try:
        url = str(announced.result()["E2B_API_URL"])
        sandbox = await AsyncSandbox.create(timeout=300, api_key=API_KEY, api_url=url, sandbox_url=url)
        yield sandbox
        await sandbox.kill()
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
