"""Errors as the vendor's API answers them."""

from typing import Any

STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 529,
}
"""HTTP status by error type, from the API's documentation."""


class ApiError(Exception):
    """An error of the vendor's API: its type, the message, further fields of `error`, and headers."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        fields: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = STATUS_OF[kind]
        self.message = message
        self.fields = fields or {}
        self.headers = headers or {}

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON of the response."""
        return {
            "type": "error",
            "error": {"type": self.kind, "message": self.message, **self.fields},
            "request_id": request_id,
        }


def invalid(message: str) -> ApiError:
    """Return the error for a request that breaks a rule of the API."""
    return ApiError("invalid_request_error", message)
