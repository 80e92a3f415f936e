"""Messages with file descriptors between the server and pid 1 of a sandbox.

A message is one datagram of a `SOCK_SEQPACKET` Unix socket pair: a tag byte and JSON, with descriptors attached
(`SCM_RIGHTS`). A message too large for a datagram travels in a sealed memfd, which is then the first descriptor.

Both sides run this file, the sandbox's side with only the standard library of the system's Python. Neither side trusts
the other's sizes: reads are bounded, and a memfd is accepted only if it is sealed, because any other descriptor could
block its reader or change under it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Mapping, Sequence

TYPE_CHECKING = False  # see guest.py
if TYPE_CHECKING:
    from typing import Any

INLINE_BYTES = 60_000
"""Larger messages go into a memfd; the kernel's default limit for one datagram is about 200 kB."""

MAX_MESSAGE_BYTES = 16 << 20
"""Refuse larger messages, in either direction."""

MAX_DESCRIPTORS = 8

_INLINE, _MEMFD = b"J", b"M"
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class ChannelClosed(Exception):
    """The other side is gone."""


class MalformedMessage(Exception):
    """The other side sent something that is not a message, or a message to be sent is too large."""


def send(channel: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message. Its descriptors are duplicated and stay open here.

    Raises `MalformedMessage` above `MAX_MESSAGE_BYTES`, `BlockingIOError` if a non-blocking channel is full.
    """
    data = json.dumps(message).encode()
    if len(data) <= INLINE_BYTES:
        socket.send_fds(channel, [_INLINE + data], list(descriptors))
        return
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"a message of {len(data)} bytes is above the limit of {MAX_MESSAGE_BYTES}")
    sealed = sealed_memfd(data)
    try:
        socket.send_fds(channel, [_MEMFD], [sealed, *descriptors])
    finally:
        os.close(sealed)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one message and its descriptors, which belong to the caller.

    Raises `ChannelClosed`, `MalformedMessage` (no descriptor is left open), `BlockingIOError` on an empty
    non-blocking channel.
    """
    data, descriptors, flags, _ = socket.recv_fds(
        channel, INLINE_BYTES + len(_INLINE), MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    try:
        if not data:
            raise ChannelClosed
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise MalformedMessage("truncated")
        tag, body = data[:1], data[1:]
        if tag == _MEMFD and descriptors:
            memfd = descriptors.pop(0)
            try:
                body = _read_sealed(memfd)
            finally:
                os.close(memfd)
        elif tag != _INLINE:
            raise MalformedMessage(f"unknown tag {tag!r}")
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MalformedMessage("not JSON") from error
        if not isinstance(message, dict):
            raise MalformedMessage("not a JSON object")
    except BaseException:
        close_all(descriptors)
        raise
    return message, descriptors


def sealed_memfd(data: bytes) -> int:
    """A descriptor, at offset 0, of an anonymous file with these contents that can't be changed."""
    memfd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(memfd, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
        os.lseek(memfd, 0, os.SEEK_SET)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors, even if some are closed already."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _read_sealed(memfd: int) -> bytes:
    try:
        seals = fcntl.fcntl(memfd, fcntl.F_GET_SEALS)
    except OSError as error:  # EINVAL: it is not a memfd
        raise MalformedMessage("not a memfd") from error
    size = os.fstat(memfd).st_size
    if seals & _SEALS != _SEALS or size > MAX_MESSAGE_BYTES:
        raise MalformedMessage("the memfd is not sealed, or too large")
    return os.pread(memfd, size, 0)
