"""`python -m api`: serve the API with the settings of the environment, until SIGTERM or Ctrl-C."""

import argparse
import sys

import uvicorn

from api.main import application
from api.protocol import Protocol
from domain.errors import Misconfigured
from logs import configure_logs
from settings import load_settings


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
    configure_logs(settings.log_format, settings.log_level)
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        http=Protocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is a number up to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
