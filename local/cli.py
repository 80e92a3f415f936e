"""`cofounder local …`: the embedded stack, or one part of it, until Ctrl-C."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from local.errors import StackError
from local.own_servers import Egress

if TYPE_CHECKING:  # the stack's clients take a second to import, and other commands do not need them
    from local.stack import LocalStack, PartName, Progress

local_app = typer.Typer(
    no_args_is_help=True,
    help="Run the servers that a build needs on this machine, and print the environment that points clients at them.",
)

_DATA = Path(".cofounder") / "local"

_Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Directory for data and logs, kept afterwards. One stack at a time can use it. "
        f"By default each of these commands has its own in {_DATA}.",
    ),
]
_Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port to listen on. Default: the same as last time, or a free one."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of export lines.")]
_Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        help="With --egress proxy: a host, or a set of hosts such as git, that sandboxes reach instead of the sets "
        "packages and fonts. May be repeated.",
    ),
]
_PrivateHost = Annotated[
    list[str] | None,
    typer.Option(
        "--private-host",
        help="With --egress proxy: also this host, even if its address is private; repeatable. SANDBOX_PRIVATE_HOSTS "
        "names more.",
    ),
]
_Egress = Annotated[
    Egress, typer.Option("--egress", help="What sandboxes reach: nothing, or some hosts through a proxy.")
]


@local_app.command(epilog="Example: cofounder local up --port temporal=7233")
def up(
    data: _Data = None,
    port: Annotated[
        list[str] | None, typer.Option("--port", metavar="PART=N", help="Port of one part. May be repeated.")
    ] = None,
    egress: _Egress = "none",
    allow: _Allow = None,
    private_host: _PrivateHost = None,
    as_json: _Json = False,
) -> None:
    """Start everything."""
    from local.stack import PARTS

    _stay_up(PARTS, data or _DATA / "all", _ports_by_part(port or []), as_json, egress, allow or [], private_host or [])


@local_app.command(epilog="Example: cofounder local postgres")
def postgres(data: _Data = None, port: _Port = None, as_json: _Json = False) -> None:
    """Start PostgreSQL."""
    _stay_up_alone("postgres", data, port, as_json)


@local_app.command(epilog="Example: cofounder local temporal")
def temporal(data: _Data = None, port: _Port = None, as_json: _Json = False) -> None:
    """Start the Temporal server and its UI."""
    _stay_up_alone("temporal", data, port, as_json)


@local_app.command(epilog="Example: cofounder local s3")
def s3(data: _Data = None, port: _Port = None, as_json: _Json = False) -> None:
    """Start the object store, with its bucket."""
    _stay_up_alone("s3", data, port, as_json)


@local_app.command(epilog="Example: cofounder local sandbox --egress proxy --private-host pypi.example.com")
def sandbox(
    data: _Data = None,
    port: _Port = None,
    egress: _Egress = "none",
    allow: _Allow = None,
    private_host: _PrivateHost = None,
    as_json: _Json = False,
) -> None:
    """Start the E2B-compatible sandbox server."""
    _stay_up_alone("sandbox", data, port, as_json, egress, allow or [], private_host or [])


@local_app.command(epilog="Example: cofounder local model")
def model(data: _Data = None, port: _Port = None, as_json: _Json = False) -> None:
    """Start the rehearsal model: it always builds the same kind of product."""
    _stay_up_alone("model", data, port, as_json)


def _stay_up_alone(
    part: "PartName",
    data: Path | None,
    port: int | None,
    as_json: bool,
    egress: Egress = "none",
    allow: Sequence[str] = (),
    private_hosts: Sequence[str] = (),
) -> None:
    ports: dict[str, int] = {} if port is None else {part: port}
    _stay_up((part,), data or _DATA / part, ports, as_json, egress, allow, private_hosts)


def _stay_up(
    parts: "tuple[PartName, ...]",
    data: Path,
    ports: Mapping[str, int],
    as_json: bool,
    egress: Egress,
    allow: Sequence[str],
    private_hosts: Sequence[str],
) -> None:
    from local.operator_network import operator_network
    from local.stack import LocalStack
    from settings import load_settings

    for option, hosts in (("--allow", allow), ("--private-host", private_hosts)):
        if hosts and egress == "none":
            raise typer.BadParameter(f"{option} needs --egress proxy.")
    network = operator_network(load_settings(), os.environ, private_hosts) if egress == "proxy" else None
    stack = LocalStack(
        data, parts=parts, port_of=ports, egress=egress, allow=allow, network=network, on_progress=_print_progress
    )
    try:
        asyncio.run(_run_until_signal(stack, as_json))
    except StackError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


async def _run_until_signal(stack: "LocalStack", as_json: bool) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP. Raises `StackError` if a part dies."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    run = asyncio.create_task(_run(stack, as_json))
    stop_request = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({run, stop_request}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop_request.cancel()
        if not run.done():
            typer.echo("stopping…", err=True)
            run.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await run


async def _run(stack: "LocalStack", as_json: bool) -> None:
    started = time.monotonic()
    async with stack:
        _print_environment(stack, as_json)
        typer.echo(
            f"up after {time.monotonic() - started:.1f} s; data and logs in {stack.data}. Ctrl-C stops it.", err=True
        )
        await stack.wait()


def _print_environment(stack: "LocalStack", as_json: bool) -> None:
    from local.postgres import for_shells

    environment = for_shells(stack.environment)
    if as_json:
        environment |= {"temporal_ui_url": stack.temporal_ui_url} if stack.temporal_ui_url else {}
        typer.echo(json.dumps(environment))
    else:
        for key, value in environment.items():
            typer.echo(f"export {key}={shlex.quote(value)}")
        if stack.temporal_ui_url:
            typer.echo(f"Temporal UI: {stack.temporal_ui_url}", err=True)


def _print_progress(progress: "Progress") -> None:
    if progress.state == "ready":
        typer.echo(f"{progress.part}: ready after {progress.seconds:.1f} s", err=True)
    elif progress.state == "stopped":
        typer.echo(f"{progress.part}: stopped", err=True)


def _ports_by_part(options: list[str]) -> dict[str, int]:
    from local.stack import PARTS

    ports: dict[str, int] = {}
    for option in options:
        part, _, number = option.partition("=")
        if part not in PARTS or not number.isdigit() or not 0 < int(number) < 65536:
            raise typer.BadParameter(
                f"--port {option}: write PART=N. PART is one of {', '.join(PARTS)}, N a port from 1 to 65535."
            )
        ports[part] = int(number)
    return ports
