"""Faults that are an error instead of an answer.

Codes and statuses are those of the SDK's error classes (`types/shared/…_error.py`): the spend limits of an organization
and of a contract are 429s, those of a linked organization 402s. Texts of errors without a class are as users report
them.
"""

from typing import Literal

from local.rehearsal.compaction import unavailable
from local.rehearsal.errors import ApiError

ErrorKind = Literal[
    "contract_spend_limit",
    "linked_organization_spend_limit",
    "linked_organization_billing",
    "billing",
    "usage_limit",
    "ramp_limit",
    "permission",
    "prompt_too_long",
    "request_too_large",
    "too_many_images",
    "invalid_signature",
    "thinking_modified",
    "gateway_timeout",
    "unknown_error_code",
]
"""Errors that no further attempt with the same request cures, apart from `ramp_limit` and `gateway_timeout`."""

_ERRORS: dict[str, tuple[str, str, str | None]] = {
    "overloaded": ("overloaded_error", "Overloaded", None),
    "rate_limited": ("rate_limit_error", "This request would exceed your rate limit.", None),
    "spend_limit": (
        "rate_limit_error",
        "Your organization has reached its spend limit.",
        "enforced_spend_limit_reached",
    ),
    "server_error": ("api_error", "Internal server error", None),
    "authentication": ("authentication_error", "invalid x-api-key", None),
    "contract_spend_limit": (
        "rate_limit_error",
        "Your organization has reached the spend limit of its contract.",
        "contract_spend_limit_reached",
    ),
    "linked_organization_spend_limit": (
        "billing_error",
        "The linked organization has reached a spend limit or lacks credit.",
        "linked_organization_spend_limit_reached",
    ),
    "linked_organization_billing": (
        "billing_error",
        "The linked organization cannot be billed.",
        "linked_organization_billing_unavailable",
    ),
    "billing": ("billing_error", "There is an issue with your organization's billing or payment information.", None),
    "usage_limit": (
        "invalid_request_error",
        "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
        None,
    ),
    "ramp_limit": (
        "rate_limit_error",
        "Your organization's usage has increased too quickly.",
        "ramp_limit_exceeded",
    ),
    "permission": ("permission_error", "Your API key does not have permission to use the specified resource.", None),
    "prompt_too_long": ("invalid_request_error", "prompt is too long: 1000123 tokens > 1000000 maximum", None),
    "request_too_large": ("request_too_large", "Request exceeds the maximum size", None),
    "too_many_images": (
        "invalid_request_error",
        "messages: Too many media: 0 document pages + 601 images > 600",
        None,
    ),
    "invalid_signature": (
        "invalid_request_error",
        "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation."
        " Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior` to \"drop_block\". That setting "
        "requires the `thinking-binding-controls-2026-08-01` value in the `anthropic-beta` header.",
        None,
    ),
    "thinking_modified": (
        "invalid_request_error",
        "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be "
        "modified. These blocks must remain as they were in the original response.",
        None,
    ),
    "gateway_timeout": ("timeout_error", "The request timed out.", None),
    "unknown_error_code": ("invalid_request_error", "Something that is new.", "a_code_of_tomorrow"),
}  # fmt: skip

ERROR_KINDS = frozenset(_ERRORS)
"""Every kind of fault that is an error, those of the fault runs included."""


def raise_error(kind: str, retry_after: float = 1.0) -> None:
    """Raise the error of a fault; do nothing if this kind is not an error.

    Raises:
        ApiError: the API's answer for this kind.
    """
    if kind == "compaction_unavailable":
        raise unavailable()
    if kind not in _ERRORS:
        return
    name, message, code = _ERRORS[kind]
    # Users have seen the code beside `details` as well; the program may read either.
    fields = {"error_code": code} if kind == "spend_limit" else None
    headers = {"retry-after": f"{retry_after:g}"} if kind == "rate_limited" else None
    raise ApiError(name, message, code=code, fields=fields, headers=headers)
