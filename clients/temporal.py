"""Connecting to Temporal, wherever `temporalio.envconfig` says that it is."""

from collections.abc import Mapping

from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig

from domain.errors import Misconfigured


class CompactPayloadConverter(PydanticPayloadConverter):
    """Pydantic JSON that leaves out unset fields: a turn's share of history is bytes that somebody pays for."""

    def __init__(self) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))


DATA_CONVERTER = DataConverter(payload_converter_class=CompactPayloadConverter)
"""For every client, worker and replayer; all must use the same."""


async def connect_temporal(environment: Mapping[str, str] | None = None, *, lazy: bool = False) -> Client:
    """A client from TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS… or a profile.

    Args:
        environment: read these variables instead of the process's.
        lazy: connect at the first call; for the API, which must come up without a server.

    Raises:
        Misconfigured: the server can't be reached or the configuration can't be read.
    """
    config = ClientConfig.load_client_connect_config(override_env_vars=environment)
    address = config.get("target_host") or "localhost:7233"
    config["target_host"] = address
    try:
        return await Client.connect(**config, data_converter=DATA_CONVERTER, lazy=lazy)
    except RuntimeError as error:
        raise Misconfigured(
            f"Temporal does not answer at {address}. Start it (`cofounder local temporal`), or set TEMPORAL_ADDRESS "
            f"to where it is. ({error})"
        ) from error
