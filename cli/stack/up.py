"""`cofounder up`: runs the embedded stack, an API and a worker on this machine until Ctrl-C, and keeps the data."""

import asyncio
import base64
import contextlib
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.output import print_rows, write_json
from cli.stack.programs import (
    FOUNDER,
    RealKeys,
    check_stack,
    confirm_spending,
    local_preview_url,
    program_environment,
    run_until_signal,
    running_programs,
    stack_for,
    wait_for_first,
)
from db.migrate import migrate
from domain.product_secrets import KEY_BYTES
from local.ports import LOOPBACK, Ports
from local.postgres import for_shells
from local.prometheus import INSTALL, find_prometheus, prometheus
from local.stack import LocalStack

DATA = Path(".cofounder") / "up"

_PROGRAMS_ONLY = ("HOME", "TMPDIR", "PATH", "LANG", "PYTHONUNBUFFERED", "NO_PROXY", "GRACEFUL_SHUTDOWN_SECONDS")
"""Variables of the programs that env.sh leaves out, since a person's shell has its own."""

_BUILDS_QUERY = "/namespaces/default/workflows?query=WorkflowType%3D%22BuildWorkflow%22"
"""Filters the Temporal UI to builds, without the reaper's run of every minute."""


@dataclass(frozen=True)
class UpOptions:
    """Options of `cofounder up`. Without a port: last time's, 8000 or a free one."""

    data: Path = DATA
    port: int | None = None
    keys: RealKeys = field(default_factory=RealKeys)
    confirmed: bool = False
    as_json: bool = False
    observe: bool = False


async def run_up(console: Console, options: UpOptions) -> None:
    """Run everything until Ctrl-C.

    Raises:
        CofounderError, StackError: it could not start, or a part ended by itself; the message says what to do.
    """
    await run_until_signal(_run(console, options))


async def _run(console: Console, options: UpOptions) -> bool:
    ports = Ports()
    try:
        async with stack_for(console, options.keys, options.data) as stack:
            port = _port(ports, options.port, stack.data / "api-port")
            token = os.environ.get("API_TOKEN") or _stored_token(stack.data / "api-token")
            operators = os.environ.get("API_OPERATOR_TOKEN") or _stored_token(stack.data / "api-operator-token")
            key = os.environ.get("SECRETS_KEY") or _stored_token(stack.data / "secrets-key", _new_secrets_key)
            environment = {
                **program_environment(os.environ, stack.environment, options.keys, stack.data / "tmp"),
                "API_TOKEN": token,
                "API_OPERATOR_TOKEN": operators,
                "SECRETS_KEY": key,
                "API_USER": FOUNDER,
                "PREVIEW_URL": local_preview_url(port),
            }
            await migrate(environment["DATABASE_URL"])
            await check_stack(environment)
            if options.keys != RealKeys():
                await confirm_spending(
                    console, options.keys, environment["DATABASE_URL"], confirmed=options.confirmed or options.as_json
                )
            metrics = _metrics_addresses(ports) if options.observe else {}
            async with (
                running_programs(
                    console, stack, environment, port=port, token=token, logs=stack.data / "logs", metrics=metrics
                ) as programs,
                _prometheus(console, stack, ports, metrics) as prometheus_url,
            ):
                variables = {**environment, "COFOUNDER_API_URL": programs.api_url}
                link = await programs.api.make_sign_in_link()
                _print_environment(console, stack, variables, link["url"], options.as_json, prometheus_url)
                try:
                    await wait_for_first(asyncio.create_task(asyncio.Event().wait()), *programs.watchers)
                finally:
                    console.print("\nstopping…")
    finally:
        ports.release()
    return True


def _metrics_addresses(ports: Ports) -> dict[str, str]:
    return {name: f"{LOOPBACK}:{ports.choose(set())}" for name in ("api", "worker")}


@asynccontextmanager
async def _prometheus(
    console: Console, stack: LocalStack, ports: Ports, metrics: Mapping[str, str]
) -> AsyncIterator[str | None]:
    """Run Prometheus during the block if there are metrics to look at and it is installed; yields its address."""
    if not metrics:
        yield None
        return
    program = find_prometheus()
    if program is None:
        console.print(f"\nPrometheus is not installed, so nothing looks at the metrics. Install it:\n  {INSTALL}")
        yield None
        return
    port = ports.choose(set())
    targets = {f"cofounder-{name}": [address] for name, address in metrics.items()}
    command = prometheus(program, stack.data / "prometheus", port, targets)
    process = await stack.start_beside(command, log=(stack.data / "logs" / "prometheus.log").absolute())
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        await process.stop()


def _port(ports: Ports, port_option: int | None, port_file: Path) -> int:
    if port_option is not None:
        ports.demand(port_option, "api")
        port = port_option
    else:
        last = int(port_file.read_text()) if port_file.exists() else 8000
        port = last if ports.take(last) else ports.choose(set())
    port_file.write_text(str(port))
    return port


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def _new_secrets_key() -> str:
    return f"local:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def _stored_token(file: Path, new: Callable[[], str] = _new_token) -> str:
    """Last time's token, so that shells that have it still work; created the first time."""
    with contextlib.suppress(FileNotFoundError):
        if token := file.read_text().strip():
            return token
    token = new()
    _write_privately(file, token)
    return token


def _write_privately(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text)


def _print_environment(
    console: Console,
    stack: LocalStack,
    environment: Mapping[str, str],
    sign_in_url: str,
    as_json: bool,
    prometheus_url: str | None = None,
) -> None:
    variables = for_shells({name: value for name, value in environment.items() if name not in _PROGRAMS_ONLY})
    file = stack.data / "env.sh"
    _write_privately(
        file, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    )
    if as_json:
        document: dict[str, Any] = {
            "api_url": variables["COFOUNDER_API_URL"],
            "sign_in_url": sign_in_url,
            "temporal_ui_url": stack.temporal_ui_url,
            "environment_file": str(file),
            "environment": variables,
        }
        if prometheus_url is not None:
            document["prometheus_url"] = prometheus_url
        write_json(document)
        return
    console.print()
    addresses = [("API", variables["COFOUNDER_API_URL"]), ("Temporal UI", f"{stack.temporal_ui_url}{_BUILDS_QUERY}")]
    addresses += [] if prometheus_url is None else [("Prometheus", f"{prometheus_url}/alerts")]
    print_rows(console, [*addresses, ("data, logs", str(stack.data))])
    source = os.path.relpath(file)
    console.print(
        "\nOpen this to sign in. It works once, within ten minutes; `cofounder open` makes another:", style="bold"
    )
    console.print(f"  {sign_in_url}")
    console.print("\nIn another terminal:", style="bold")
    console.print(f"  . {shlex.quote(source if '/' in source else f'./{source}')}")
    program = _program()
    console.print(f'  {program} build --idea "A waitlist for my bakery"')
    console.print(f"  {program} list")
    console.print(f"  {program} open")
    console.print(f"  {program} doctor")
    console.print("\nEverything stays up until Ctrl-C. Builds are kept for the next start.", style="bold")


def _program() -> str:
    """The command to type: `cofounder`, or its path if the shell would not find it."""
    if shutil.which("cofounder") is not None or Path(sys.argv[0]).name != "cofounder":
        return "cofounder"
    return shlex.quote(os.path.relpath(sys.argv[0]))
