"""What each error of Anthropic's API means for a build. The stand-in has the bodies."""

import httpx2
import pytest
from anthropic import AsyncAnthropic

from clients.model.anthropic_errors import to_error
from domain.errors import (
    CofounderError,
    ConversationInvalid,
    ConversationTooLong,
    ModelCallFailed,
    NeedsPerson,
    RateLimited,
)
from domain.rates import RateKind, Reading
from local.rehearsal.error_faults import ERROR_KINDS, raise_error
from local.rehearsal.errors import ApiError
from local.rehearsal.rates import Rate, RateLimits

OPERATOR = {
    "spend_limit": "monthly spend limit of its API tier",
    "contract_spend_limit": "spend limit of its contract",
    "linked_organization_spend_limit": "has no credit left",
    "linked_organization_billing": "check the account",
    "billing": "payment method",
    "usage_limit": "usage limit that is set",
    "authentication": "ANTHROPIC_API_KEY",
    "permission": "ANTHROPIC_API_KEY",
    "unknown_error_code": "Something that is new.",
}
TOO_LONG = {"prompt_too_long", "request_too_large", "too_many_images"}
INVALID = {"invalid_signature", "thinking_modified"}
TRANSIENT = {"overloaded", "rate_limited", "server_error", "ramp_limit", "gateway_timeout"}


async def translate(raised: ApiError, status: int | None = None) -> CofounderError:
    request = httpx2.Request("POST", "https://model.example/v1/messages")
    response = httpx2.Response(status or raised.status, request=request, headers=raised.headers)
    async with AsyncAnthropic(api_key="a-key") as sdk:
        return to_error(sdk._make_status_error(raised.message, body=raised.body("req_1"), response=response))


def fault(kind: str) -> ApiError:
    with pytest.raises(ApiError) as raised:
        raise_error(kind)
    return raised.value


def test_every_error_of_the_stand_in_has_a_meaning() -> None:
    assert {*OPERATOR, *TOO_LONG, *INVALID, *TRANSIENT} == ERROR_KINDS


@pytest.mark.parametrize("kind", sorted(OPERATOR))
async def test_what_only_an_operator_can_change(kind: str) -> None:
    error = await translate(fault(kind))
    assert type(error) is NeedsPerson
    assert error.waiting_for == "operator"
    assert OPERATOR[kind] in str(error)
    assert fault(kind).message in str(error)


@pytest.mark.parametrize("in_stream", [False, True])
@pytest.mark.parametrize("kind", sorted(TOO_LONG | INVALID))
async def test_what_is_wrong_with_the_conversation(kind: str, in_stream: bool) -> None:
    error = await translate(fault(kind), 200 if in_stream else None)
    assert isinstance(error, ConversationTooLong if kind in TOO_LONG else ConversationInvalid)
    assert error.waiting_for == "founder"
    assert str(error).startswith("The agent's conversation" if kind in TOO_LONG else "The model does not accept")


@pytest.mark.parametrize("kind", sorted(TRANSIENT))
async def test_what_another_attempt_may_cure(kind: str) -> None:
    limited = kind in ("rate_limited", "ramp_limit")
    assert type(await translate(fault(kind))) is (RateLimited if limited else ModelCallFailed)


async def test_a_refusal_for_the_rate_says_how_long_and_what_the_limits_are() -> None:
    rates = RateLimits(lambda: 0.0)
    rates.add(Rate(requests=1))
    rates.admit("m", 0)
    with pytest.raises(ApiError) as raised:
        rates.admit("m", 0)
    error = await translate(raised.value)
    assert isinstance(error, RateLimited)
    assert error.retry_after_seconds == 60
    assert error.readings == {RateKind.REQUESTS: Reading(1, 0)}


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ApiError("invalid_request_error", "Disabled.", code="organization_on_hold"), NeedsPerson),
        (
            ApiError("rate_limit_error", "Beside.", fields={"error_code": "contract_spend_limit_reached"}),
            NeedsPerson,
        ),
        (ApiError("invalid_request_error", "Your credit balance is too low to access the API."), NeedsPerson),
        (ApiError("invalid_request_error", "No.", code="compaction_signature_invalid"), ConversationInvalid),
        (ApiError("overloaded_error", "Later.", code="compaction_unavailable"), ModelCallFailed),
        (ApiError("rate_limit_error", "Slow.", code="a_code_of_tomorrow"), RateLimited),
        (
            ApiError("invalid_request_error", "input length and `max_tokens` exceed context limit: 9"),
            ConversationTooLong,
        ),
        (ApiError("invalid_request_error", "messages.3.content.0.tool_use.name: odd"), ConversationInvalid),
        (ApiError("invalid_request_error", "max_tokens: 9 > 8"), NeedsPerson),
        (ApiError("not_found_error", "model: x"), NeedsPerson),
    ],
    ids=lambda value: value.message if isinstance(value, ApiError) else None,
)
async def test_further_errors(raised: ApiError, expected: type[CofounderError]) -> None:
    assert type(await translate(raised)) is expected
