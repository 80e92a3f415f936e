"""Errors in the forms that the SDK turns into readable exceptions: JSON with `code` and `message`, or Connect's."""

import errno
from collections.abc import Mapping
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from starlette.responses import JSONResponse

from local.sandbox.guest_link import GuestLost

HTTP_STATUS = {
    errno.EACCES: 403,
    errno.EISDIR: 400,
    errno.EINVAL: 400,
    errno.ELOOP: 400,
    errno.ENAMETOOLONG: 400,
    errno.ENOENT: 404,
    errno.ENOTDIR: 400,
    errno.ENOTSUP: 501,
    errno.ENXIO: 400,
    errno.EPERM: 403,
    errno.EROFS: 403,
    errno.EFBIG: 413,
    errno.EDQUOT: 507,
    errno.ENOSPC: 507,
}

RPC_CODE = {
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EEXIST: Code.ALREADY_EXISTS,
    errno.EINVAL: Code.INVALID_ARGUMENT,
    errno.EISDIR: Code.INVALID_ARGUMENT,
    errno.ELOOP: Code.INVALID_ARGUMENT,
    errno.ENAMETOOLONG: Code.INVALID_ARGUMENT,
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENOTDIR: Code.INVALID_ARGUMENT,
    errno.ENOTEMPTY: Code.FAILED_PRECONDITION,
    errno.EMSGSIZE: Code.FAILED_PRECONDITION,
    errno.EOVERFLOW: Code.FAILED_PRECONDITION,
    errno.EPERM: Code.PERMISSION_DENIED,
    errno.EROFS: Code.PERMISSION_DENIED,
    errno.ESRCH: Code.NOT_FOUND,
}


class ApiError(Exception):
    """An HTTP error response."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.extra = extra

    def response(self) -> JSONResponse:
        content = {"code": self.status, "message": self.message, **self.extra}
        return JSONResponse(content, status_code=self.status, headers=self.headers)


def not_served(what: str) -> ApiError:
    """The error for a feature of E2B's cloud that this server does not have."""
    return ApiError(501, f"The local sandbox server does not serve {what}; E2B's cloud does.")


def rpc_not_served(what: str) -> ConnectError:
    return ConnectError(Code.UNIMPLEMENTED, f"The local sandbox server does not serve {what}; E2B's cloud does.")


def http_error(error: OSError) -> ApiError:
    """The HTTP error for a failed operation inside a sandbox."""
    if isinstance(error, GuestLost):
        return ApiError(502, error.reason)
    return ApiError(HTTP_STATUS.get(error.errno or 0, 500), error.strerror or str(error))


def rpc_error(error: OSError) -> ConnectError:
    """The Connect error for a failed operation inside a sandbox."""
    if isinstance(error, GuestLost):
        return ConnectError(Code.UNAVAILABLE, error.reason)
    return ConnectError(RPC_CODE.get(error.errno or 0, Code.INTERNAL), error.strerror or str(error))
