"""Lets Temporal's SDK count, and reads what it has counted.

The SDK serves its metrics itself, at a port of loopback; `/metrics` of the process shows them with its own.
"""

import asyncio
import logging
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass

from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
)

_HOST = "127.0.0.1"
_ATTEMPTS = 5
_READ_SECONDS = 3.0


def forwarded_logs() -> LoggingConfig:
    """Let the SDK's core write its warnings as log records. By itself it prints them, with the texts of failures."""
    return LoggingConfig(
        filter=LoggingConfig.default.filter,
        forwarding=LogForwardingConfig(
            logging.getLogger("temporalio.core"),
            append_target_to_name=False,
            prepend_target_on_message=False,
            append_log_fields_to_message=False,
        ),
    )


@dataclass(frozen=True)
class SdkMetrics:
    """A runtime for Temporal clients that counts. Make one in a process: each has threads of its own."""

    runtime: Runtime
    port: int

    @classmethod
    def open(cls) -> "SdkMetrics":
        """Make the runtime. Another process may take the chosen port first, so this tries several.

        Raises:
            RuntimeError: no port could be used.
        """
        for remaining in reversed(range(_ATTEMPTS)):
            port = _free_port()
            config = PrometheusConfig(
                bind_address=f"{_HOST}:{port}",
                counters_total_suffix=True,
                unit_suffix=True,
                durations_as_seconds=True,
            )
            try:
                return cls(Runtime(telemetry=TelemetryConfig(logging=forwarded_logs(), metrics=config)), port)
            except RuntimeError:
                if not remaining:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def read(self) -> bytes:
        """What the SDK has counted, in Prometheus's text format; empty if it does not answer."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{_HOST}:{self.port}/metrics", timeout=_READ_SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except (urllib.error.URLError, OSError):
            return b""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
