"""`python -m local.sandbox`: serve E2B-compatible sandboxes on this machine.

Prints one line of JSON as soon as it serves: the variables that point the `e2b` SDK here, and the port of `get_host`
names. Logs go to stderr. `--probe` says whether sandboxes can run here (exit code 0) or why not (1).

With `--egress proxy` it reads SANDBOX_PRIVATE_HOSTS, SANDBOX_PIP_INDEX_URL, SANDBOX_NPM_REGISTRY and SANDBOX_CA_BUNDLE,
and, to keep private hosts away from them, the settings that name servers.
"""

import argparse
import asyncio
import json
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from local.sandbox.confinement import Limits, probe


def main() -> int:
    arguments = _parser().parse_args()
    result = probe()
    if arguments.probe or not result.ok:
        (sys.stdout if arguments.probe else sys.stderr).write(result.text() + "\n")
        return 0 if result.ok else 1
    if arguments.root is None:
        sys.stderr.write("--root is required\n")
        return 2
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for library in ("uvicorn", "httpx2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    return _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    # Not at the top: --probe has to answer at once.
    from domain.egress import DEFAULT_SETS
    from domain.errors import Misconfigured
    from local.operator_network import operator_network
    from local.sandbox.egress import egress_proxy
    from local.sandbox.registry import RootInUse
    from local.sandbox.server import Options, serve
    from settings import load_settings

    egress, ca_bundle = None, None
    if arguments.egress == "proxy":
        try:
            network = operator_network(load_settings(), os.environ, arguments.private_host)
        except Misconfigured as error:
            sys.stderr.write(f"{error}\n")
            return 1
        ca_bundle = network.ca_bundle
        off_limits = [*network.off_limits, *arguments.off_limits]
        egress = egress_proxy(arguments.allow or DEFAULT_SETS, network, off_limits)
    options = Options(
        root=arguments.root,
        api_key=arguments.api_key or os.environ.get("E2B_API_KEY") or f"e2b_{secrets.token_hex(20)}",
        port=arguments.port,
        proxy_port=arguments.proxy_port,
        egress=egress,
        ca_bundle=ca_bundle,
        limits=Limits(
            processes=arguments.max_processes,
            file_bytes=arguments.max_file_bytes,
            memory_bytes=arguments.max_memory_bytes,
        ),
        max_sandboxes=arguments.max_sandboxes,
        max_running=arguments.max_running,
        die_with_parent=arguments.die_with_parent,
        oracle=arguments.oracle,
    )
    try:
        asyncio.run(serve(options, _announce))
    except (RootInUse, OSError) as error:
        sys.stderr.write(f"the sandbox server could not start: {error}\n")
        return 1
    return 0


def _announce(variables: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(variables) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.sandbox", description=__doc__)
    limits = Limits()
    parser.add_argument("--probe", action="store_true", help="say whether sandboxes can run here, and exit")
    parser.add_argument("--root", type=Path, help="directory of the sandboxes; one server at a time uses it")
    parser.add_argument("--port", type=int, default=0, help="port of the API; 0: any free one")
    parser.add_argument("--proxy-port", type=int, default=0, help="port of get_host names; 0: any free one")
    parser.add_argument(
        "--egress", choices=["none", "proxy"], default="none", help="nothing outside, or some hosts by a proxy"
    )
    parser.add_argument(
        "--allow",
        nargs="+",
        action="extend",
        metavar="HOST",
        help="with --egress proxy: these hosts and sets of hosts instead of `packages` and `fonts`",
    )
    parser.add_argument(
        "--private-host",
        action="append",
        default=[],
        metavar="HOST",
        help="with --egress proxy: also this host, even if its address is private; may be repeated",
    )
    parser.add_argument(
        "--off-limits",
        action="append",
        default=[],
        type=_off_limits,
        metavar="SETTING=HOST",
        help="a server that SETTING names, whose addresses no private host may have; may be repeated",
    )
    parser.add_argument("--api-key", help="default: E2B_API_KEY of the environment, or a new one")
    parser.add_argument("--max-sandboxes", type=int, default=50, help="number of sandboxes, paused ones included")
    parser.add_argument("--max-running", type=int, help="number of sandboxes that run at once; default: no limit")
    parser.add_argument(
        "--max-memory-bytes", type=int, default=limits.memory_bytes, help="memory of one sandbox; 0 for no limit"
    )
    parser.add_argument(
        "--max-processes", type=int, default=limits.processes, help="number of processes and threads of one sandbox"
    )
    parser.add_argument("--max-file-bytes", type=int, default=limits.file_bytes, help="size of one file in a sandbox")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the parent process dies")
    parser.add_argument("--oracle", type=Path, help="directory for the log that fault tests compare with")
    return parser


def _off_limits(option: str) -> tuple[str, str]:
    setting, _, host = option.partition("=")
    if not setting or not host:
        raise argparse.ArgumentTypeError(f"write SETTING=HOST, not {option}")
    return setting, host


if __name__ == "__main__":
    sys.exit(main())
