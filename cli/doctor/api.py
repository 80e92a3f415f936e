"""Checks that our API answers and accepts the token."""

import uuid

from checks.check import CheckContext, CheckResult, fail, ok
from cli.api_client import ApiClient, ApiProblem, ApiUnreachable
from cli.exit_codes import Unreachable

_ACCEPTED = ("urn:cofounder:problem:not-found", "urn:cofounder:problem:insufficient-scope")
"""The problems with which the API answers someone it knows."""


async def check_api(context: CheckContext) -> CheckResult:
    """Check the API and its token."""
    settings = context.settings
    url = context.api_url or settings.cofounder_api_url
    if settings.api_token is None:
        return fail(
            "API_TOKEN is not set",
            "Set it to an API key, or to the token that the API was started with; for `cofounder up`: "
            ". .cofounder/up/env.sh",
        )
    async with ApiClient(url, settings.api_token.get_secret_value()) as api:
        try:
            await api.read_build(str(uuid.UUID(int=0)))
        except ApiUnreachable as error:
            return fail(str(error))
        except Unreachable as error:
            return fail(f"{url} answers, but does not work: {error}")
        except ApiProblem as error:
            if error.status == 401:
                return fail(str(error))
            if error.body.get("type") not in _ACCEPTED:
                return fail(f"{url} answers with status {error.status}: {error}", "Check that this is Cofounder's API.")
    return ok(f"{url} answers and accepts the token")
