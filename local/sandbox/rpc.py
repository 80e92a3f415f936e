"""What the two envd services share: the sandbox of a request, its user, and codecs that answer 400 to bad messages."""

import asyncio
import base64
import binascii
from contextvars import ContextVar
from typing import Any, TypeVar

from connectrpc.code import Code
from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.errors import ConnectError
from connectrpc.request import Headers, RequestContext
from protobuf import Message

from local.sandbox.errors import rpc_not_served
from local.sandbox.sandbox import Sandbox

AnyMessage = TypeVar("AnyMessage", bound=Message)

current_sandbox: ContextVar[Sandbox] = ContextVar("current_sandbox")
"""Set by the server for each request that belongs to a sandbox."""

client_left: ContextVar["asyncio.Future[None]"] = ContextVar("client_left")
"""Done once the client of a request has closed its connection. connectrpc notices that only at its next message."""

USER = "user"
KEEPALIVE_SECONDS = 90.0

Context = RequestContext[Any, Any]


def keepalive_seconds(ctx: Context) -> float:
    """How often the client of a stream wants to hear that it is alive."""
    try:
        return min(max(float(ctx.request_headers.get("keepalive-ping-interval", KEEPALIVE_SECONDS)), 1.0), 3600.0)
    except ValueError:
        return KEEPALIVE_SECONDS


def pause_before_keepalive(ctx: Context, what: str) -> float:
    """Seconds to wait for the next message of a stream. Raises ConnectError once its deadline has passed."""
    left = ctx.timeout_ms
    if left is None:
        return keepalive_seconds(ctx)
    if left <= 0:
        raise ConnectError(Code.DEADLINE_EXCEEDED, f"the {what}'s deadline has passed")
    return min(keepalive_seconds(ctx), left / 1000)


def check_user(headers: Headers) -> None:
    """Refuse requests for another user: there is only one."""
    kind, _, credentials = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return
    try:
        name = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ConnectError(Code.INVALID_ARGUMENT, "the Authorization header is not Basic") from error
    if name not in ("", USER):
        raise rpc_not_served(f"the user {name!r} (everything runs as {USER!r})")


class StrictCodec:
    """A codec of connectrpc whose decoding errors are the client's fault, not the server's."""

    def __init__(self, codec: Codec[Message, Message]) -> None:
        self._codec = codec

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Message) -> bytes:
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[AnyMessage]) -> AnyMessage:
        try:
            return self._codec.decode(data, message_class)  # type: ignore[return-value]
        except ConnectError:
            raise
        except Exception as error:  # each codec has exceptions of its own
            raise ConnectError(Code.INVALID_ARGUMENT, f"not a {message_class.__name__}: {error}") from error


CODECS = [StrictCodec(proto_binary_codec()), StrictCodec(proto_json_codec())]
