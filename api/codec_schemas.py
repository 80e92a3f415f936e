"""The bodies with which Temporal's UI has payloads decrypted, as its codec servers take them."""

import base64
import binascii
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from temporalio.api.common.v1 import Payload

from api.schemas import Body
from domain.errors import InvalidInput

_EXAMPLE: dict[str, Any] = {
    "payloads": [
        {"metadata": {"encoding": "YmluYXJ5L2VuY3J5cHRlZA==", "encryption-key-id": "bWFpbg=="}, "data": "c2VhbGVk"}
    ]
}
_DECODED: dict[str, Any] = {"payloads": [{"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "IkEgYmFrZXJ5Ig=="}]}

MAX_PAYLOADS = 1000
"""Payloads in one request. The size of the body is limited, too."""


class PayloadJson(BaseModel):
    """A payload in Temporal's JSON: values of the metadata and the data are base64."""

    metadata: dict[str, str] = Field(default_factory=dict)
    data: str = ""

    def payload(self) -> Payload:
        """The payload.

        Raises:
            InvalidInput: something is not base64.
        """
        try:
            metadata = {name: base64.b64decode(value, validate=True) for name, value in self.metadata.items()}
            return Payload(metadata=metadata, data=base64.b64decode(self.data, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidInput(
                "A payload's metadata and data are base64. Send them as Temporal does.", "payloads"
            ) from None

    @classmethod
    def of(cls, payload: Payload) -> Self:
        """The payload as JSON."""
        metadata = {name: base64.b64encode(value).decode() for name, value in payload.metadata.items()}
        return cls(metadata=metadata, data=base64.b64encode(payload.data).decode())


class EncodedPayloads(Body):
    """Payloads to decrypt."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    payloads: list[PayloadJson] = Field(max_length=MAX_PAYLOADS)


class DecodedPayloads(BaseModel):
    """The payloads in the order of the request; those that were plain are unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DECODED]})

    payloads: list[PayloadJson]
