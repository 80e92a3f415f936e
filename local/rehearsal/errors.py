"""Errors as the vendor's API answers them."""

from typing import Any

STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""HTTP status by error type, from the API's documentation and the SDK's `_exceptions.py`."""


class ApiError(Exception):
    """An error of the vendor's API: its type, the message, further fields of `error`, and headers.

    `code` becomes `error.details.error_code`, where the SDK looks for it.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        fields: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = STATUS_OF[kind]
        self.message = message
        self.code = code
        self.fields = ({"details": {"error_code": code}} if code else {}) | (fields or {})
        self.headers = headers or {}

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON of the response."""
        return {
            "type": "error",
            "error": {"type": self.kind, "message": self.message, **self.fields},
            "request_id": request_id,
        }


def invalid(message: str, code: str | None = None) -> ApiError:
    """Return the error for a request that breaks a rule of the API."""
    return ApiError("invalid_request_error", message, code=code)
