"""envd's plain HTTP: health, and files up and down.

A file's descriptor comes from inside the sandbox, and this side moves the bytes. It touches only regular files on a
disk, or sealed copies: anything else could block, or do something if a process with the server's rights reads or
writes it.
"""

import asyncio
import base64
import ctypes
import errno
import hashlib
import hmac
import os
import stat
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import PurePosixPath

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from local.sandbox import channel
from local.sandbox.errors import ApiError, http_error, not_served
from local.sandbox.multipart import MalformedMultipart, boundary_of, read_parts
from local.sandbox.rpc import USER, current_sandbox
from local.sandbox.sandbox import Sandbox

CHUNK_BYTES = 1 << 18
DIRECT_WRITE_BYTES = 1 << 16
"""Write this many bytes or fewer directly: that takes less time than handing them to a thread."""

OCTETS = "application/octet-stream"
METADATA_HEADER = "x-metadata-"
METADATA_ATTRIBUTE = "user.e2b."

_PROC_MAGIC = 0x9FA0
_libc = ctypes.CDLL(None, use_errno=True)


def is_signed(request: Request, token: str) -> bool:
    """Whether the request is signed with this token (see the SDK's `signature.py`). The signature may have expired."""
    query = request.query_params
    operation = "read" if request.method == "GET" else "write"
    parts = [query.get("path", ""), operation, query.get("username", ""), token]
    if expires := query.get("signature_expiration"):
        parts.append(expires)
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    signature = "v1_" + base64.b64encode(digest).decode().rstrip("=")
    return hmac.compare_digest(query.get("signature", "").encode(), signature.encode())


def has_expired(request: Request) -> bool:
    """Whether the time of a signed address is over. One without an expiry does not expire."""
    expires = request.query_params.get("signature_expiration")
    return expires is not None and not (expires.isascii() and expires.isdigit() and int(expires) > time.time())


async def download(request: Request) -> Response:
    """`GET /files?path=`: a regular file's contents, up to the size that it has at the request."""
    _check_user(request)
    path, descriptor = await _open(current_sandbox.get(), "open_for_reading", request.query_params.get("path", ""))
    try:
        size = _check_file(descriptor, path)
        if size <= CHUNK_BYTES:
            with os.fdopen(os.dup(descriptor), "rb", 0) as file:
                return Response(file.read(size), media_type=OCTETS)
        return StreamingResponse(_chunks(os.dup(descriptor), size), media_type=OCTETS)
    finally:
        os.close(descriptor)


async def upload(request: Request) -> Response:
    """`POST /files`: one file as the body, or any number of files as parts of a form."""
    _check_user(request)
    sandbox, path = current_sandbox.get(), request.query_params.get("path")
    kind = request.headers.get("content-type", "").lower()
    metadata = {
        name.removeprefix(METADATA_HEADER): value
        for name, value in request.headers.items()
        if name.startswith(METADATA_HEADER)
    }
    try:
        if kind.startswith("multipart/form-data"):
            boundary = boundary_of(request.headers["content-type"])
            written = []
            async for part in read_parts(_body(request), boundary):
                if part.name == "file":
                    written.append(await _store(sandbox, path or part.filename, metadata, part.chunks))
            return JSONResponse(written)
        if kind.startswith(OCTETS):
            return JSONResponse([await _store(sandbox, path, metadata, _body(request))])
    except MalformedMultipart as error:
        raise ApiError(400, str(error)) from error
    except ClientDisconnect as error:
        raise ApiError(400, "the upload was not finished") from error
    raise ApiError(400, f"unsupported content type: {kind or 'none'}")


def _check_user(request: Request) -> None:
    if (name := request.query_params.get("username", "")) not in ("", USER):
        raise not_served(f"the user {name!r} (everything belongs to {USER!r})")


async def _open(sandbox: Sandbox, operation: str, path: str) -> tuple[str, int]:
    try:
        reply = await sandbox.call(operation, path=path)
    except OSError as error:
        raise http_error(error) from error
    if len(reply.descriptors) != 1 or not isinstance(reply.value, str):
        channel.close_all(reply.descriptors)
        raise ApiError(500, "the sandbox's reply does not describe an open file")
    return reply.value, reply.descriptors[0]


def _check_file(descriptor: int, path: str) -> int:
    """The size of a regular file. Refuses everything else, and files of /proc, which only look regular."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or _filesystem_type(descriptor) == _PROC_MAGIC:
        raise ApiError(400, f"path is not a regular file: {path}")
    return status.st_size


def _filesystem_type(descriptor: int) -> int:
    """`f_type` of `fstatfs(2)`, which Python's `os.fstatvfs` leaves out."""
    buffer = ctypes.create_string_buffer(512)
    if _libc.fstatfs(descriptor, buffer):
        raise OSError(ctypes.get_errno(), "fstatfs failed")
    return ctypes.c_long.from_buffer(buffer).value


async def _chunks(descriptor: int, size: int) -> AsyncIterator[bytes]:
    with os.fdopen(descriptor, "rb", 0) as file:
        while size > 0 and (chunk := await asyncio.to_thread(file.read, min(CHUNK_BYTES, size))):
            size -= len(chunk)
            yield chunk


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The request's body, decompressed if it is gzip, in pieces of a bounded size."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        async for chunk in request.stream():
            yield chunk
        return
    if encoding != "gzip":
        raise ApiError(400, f"unsupported content encoding: {encoding}")
    inflate = zlib.decompressobj(31)
    try:
        async for chunk in request.stream():
            more = True
            while more and not inflate.eof:
                piece = inflate.decompress(chunk, CHUNK_BYTES)
                yield piece
                chunk = inflate.unconsumed_tail
                more = bool(chunk) or len(piece) == CHUNK_BYTES
    except zlib.error as error:
        raise ApiError(400, f"the body is not gzip: {error}") from error
    if not inflate.eof:
        raise ApiError(400, "the gzip body ends too early")


async def _store(
    sandbox: Sandbox, path: str | None, metadata: dict[str, str], chunks: AsyncIterator[bytes]
) -> dict[str, object]:
    """Write one file; return its description for the SDK."""
    if not path:
        raise ApiError(400, "a path is required")
    path, descriptor = await _open(sandbox, "open_for_writing", path)
    left = sandbox.limits.file_bytes
    try:
        _check_file(descriptor, path)
        async for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                raise OSError(errno.EFBIG, f"a file may have {sandbox.limits.file_bytes} bytes")
            await _write(descriptor, chunk)
        _set_metadata(descriptor, metadata)
    except OSError as error:
        raise http_error(error) from error
    finally:
        os.close(descriptor)
    written: dict[str, object] = {"path": path, "name": PurePosixPath(path).name, "type": "file"}
    return written | ({"metadata": metadata} if metadata else {})


async def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        if len(rest) <= DIRECT_WRITE_BYTES:
            rest = rest[os.write(descriptor, rest) :]
        else:
            rest = rest[await asyncio.to_thread(os.write, descriptor, rest) :]


def _set_metadata(descriptor: int, metadata: dict[str, str]) -> None:
    """Replace a file's metadata. Raises OSError (ENOTSUP) only if there is some and the disk can't store it."""
    try:
        for name in os.listxattr(descriptor):
            if name.startswith(METADATA_ATTRIBUTE) and name.removeprefix(METADATA_ATTRIBUTE) not in metadata:
                os.removexattr(descriptor, name)
    except OSError:
        if metadata:
            raise
    for name, value in metadata.items():
        os.setxattr(descriptor, METADATA_ATTRIBUTE + name, value.encode())
