"""What an error of Anthropic's API means for a build: by its code, then by its type, then by its status.

Codes: the SDK's `types/shared/*_error_details.py`, of which "Treat an unrecognized error_code as the bare type".
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from anthropic import APIStatusError

from clients.model.anthropic_limits import read_limits
from domain.errors import ConversationInvalid, ConversationTooLong, ModelCallFailed, NeedsPerson, RateLimited

_TRANSIENT_TYPES = {"overloaded_error", "rate_limit_error", "api_error", "timeout_error"}

_BILLING = (
    "Anthropic cannot bill the account that belongs to ANTHROPIC_API_KEY. Check its payment method and credit in the "
    "Anthropic Console, then wake the build."
)
_USAGE_LIMIT = (
    "The Anthropic account has reached the usage limit that is set for it. Raise the limit in the Anthropic Console or "
    "wait until it is reset, then wake the build."
)

_FOR_OPERATORS: Mapping[str, str] = {
    "enforced_spend_limit_reached": "The Anthropic account has reached the monthly spend limit of its API tier. Raise "
    "the limit in the Anthropic Console or wait for the next month, then wake the build.",
    "contract_spend_limit_reached": "The Anthropic account has reached the spend limit of its contract. Ask Anthropic "
    "to raise it, then wake the build.",
    "linked_organization_spend_limit_reached": "The organization that Anthropic bills for these calls has reached its "
    "spend limit or has no credit left. Ask its owner to raise the limit or to add credit, then wake the build.",
    "linked_organization_billing_unavailable": "Anthropic cannot bill the organization that pays for these calls. Ask "
    "its owner to check the account in the Anthropic Console, then wake the build.",
    "organization_on_hold": "Anthropic has disabled the organization for trust and safety reasons. Appeal to Anthropic "
    "or set the key of another organization as ANTHROPIC_API_KEY, then wake the build.",
}
"""By code: what only an operator can change, whatever status it comes with."""

_TOO_LONG_CODES = {"request_body_too_large_after_decoding"}

# These errors have no code, so that their text is all there is to tell them by. It is compared without backticks and
# in lower case. If Anthropic words one in another way, the build asks a person, as with any unknown error.
_USAGE_LIMIT_TEXTS = ("reached your specified api usage limits",)
_BILLING_TEXTS = ("credit balance is too low",)
_TOO_LONG_TEXTS = ("prompt is too long", "exceed context limit", "too many media", "too many images")
_INVALID_TEXTS = ("invalid signature in thinking block", "blocks in the latest assistant message cannot be modified")
_MESSAGES_PATH = ("messages.", "messages:")
"""How the text begins if the request is wrong in its messages. They are stored, so no one can change them."""


def to_error(error: APIStatusError) -> ModelCallFailed | NeedsPerson:
    """Turn an error answer into one of our errors. An error event inside a stream has status 200 and its own type."""
    code, kind, status = _code_of(error) or "", error.type, error.status_code
    message = str(error) or type(error).__name__
    if code in _FOR_OPERATORS:
        return NeedsPerson(f"{_FOR_OPERATORS[code]} ({message})", "operator")
    if _is_transient(kind, status):
        wait = _retry_after(error)
        retry = f" It can be asked again in {wait:.0f} s." if wait else ""
        text = f"The model's API answered {status} {kind or ''}: {message}{retry}"
        if status == 429 or kind == "rate_limit_error":
            return RateLimited(text, wait, read_limits(error.response.headers))
        return ModelCallFailed(text, wait)
    if status == 402 or kind == "billing_error":
        return NeedsPerson(f"{_BILLING} ({message})", "operator")
    if status in (401, 403) or kind in ("authentication_error", "permission_error"):
        return NeedsPerson(
            f"The Anthropic API does not accept the key. Check ANTHROPIC_API_KEY. ({message})", "operator"
        )
    if kind == "not_found_error":
        return NeedsPerson(
            "The Anthropic API does not know the model. Choose another one for the plan or the user, or another "
            f"FALLBACK_MODEL. ({message})",
            "operator",
        )
    if _is_too_large(code, kind, status):
        return ConversationTooLong(error.api_message or message)
    return _from_invalid_request(code, error.api_message or message, message)


def _from_invalid_request(code: str, api_message: str, message: str) -> NeedsPerson:
    text = api_message.lower().replace("`", "")
    if _has_one(text, _USAGE_LIMIT_TEXTS):
        return NeedsPerson(f"{_USAGE_LIMIT} ({message})", "operator")
    if _has_one(text, _BILLING_TEXTS):
        return NeedsPerson(f"{_BILLING} ({message})", "operator")
    if _has_one(text, _TOO_LONG_TEXTS):
        return ConversationTooLong(api_message)
    if code.startswith("compaction_") or _has_one(text, _INVALID_TEXTS) or text.startswith(_MESSAGES_PATH):
        return ConversationInvalid(api_message)
    return NeedsPerson(f"The Anthropic API refuses the request: {message}", "operator")


def _is_transient(kind: str | None, status: int) -> bool:
    if status == 200:
        return kind in _TRANSIENT_TYPES or kind is None
    return status in (408, 409, 429) or status >= 500


def _is_too_large(code: str, kind: str | None, status: int) -> bool:
    return status == 413 or kind == "request_too_large" or code in _TOO_LONG_CODES


def _has_one(text: str, parts: Sequence[str]) -> bool:
    return any(part in text for part in parts)


def _code_of(error: APIStatusError) -> str | None:
    """The error's code. It stands in `details`, where the SDK reads it; users have also seen it beside them."""
    fields = error.body.get("error") if isinstance(error.body, Mapping) else None
    beside = fields.get("error_code") if isinstance(fields, Mapping) else None
    return error.error_code or (beside if isinstance(beside, str) else None)


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds until the server accepts another request; its header gives seconds or a date."""
    value = error.response.headers.get("retry-after", "")
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
