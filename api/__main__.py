"""`python -m api`: serve the API with the settings of the environment, until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import socket
import sys

from api.main import application, check_servers
from api.server import Server, exit_cleanly_on_signals
from domain.errors import Misconfigured, NoRowSecurity, WrongNamespace, WrongVersion
from logs import configure_logs
from settings import load_settings

STARTUP_FAILED = 3
"""Exit code if the application did not start. The log says why."""


def main() -> int:
    """Serve. If the settings are wrong, write a sentence to standard error and return 1."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        app = application(settings)
    except Misconfigured as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if problem := _port_problem(arguments.host, arguments.port):
        sys.stderr.write(f"error: {problem}\n")
        return 1
    configure_logs(settings.log_format, settings.log_level)
    exit_cleanly_on_signals()
    try:
        asyncio.run(check_servers(settings))
    except (WrongNamespace, WrongVersion, NoRowSecurity) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    server = Server(app, arguments.host, arguments.port)
    try:
        server.run()
    except Misconfigured as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if server.problem is not None:
        sys.stderr.write(f"error: {server.problem}\n")
        return 1
    return 0 if server.started else STARTUP_FAILED


def _port_problem(host: str, port: int) -> str | None:
    """Why the API can't listen there, with what to do; None if it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return f"The API can't listen on {host}, port {port}: {error.strerror}. Choose another with --host or --port."
    return None


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is a number up to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
