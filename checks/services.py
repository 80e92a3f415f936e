"""Checks that object store, model, sandbox service and previews answer and accept their keys. Costs nothing."""

import uuid
from typing import Any

import httpx2

from checks.check import CheckContext, CheckResult, fail, ok, warn
from clients.loopback import is_loopback, with_address
from clients.model.providers import check_providers
from clients.object_store import ObjectStore, store_config
from clients.sandbox import Sandboxes, sandbox_config
from domain.errors import NeedsPerson, SandboxUnavailable, StoreUnavailable
from domain.models import AS_OF
from domain.preview_address import preview_address
from settings import Settings

_ANTHROPIC = "https://api.anthropic.com"
_REQUEST_SECONDS = 8.0


async def check_object_store(context: CheckContext) -> CheckResult:
    """Check the bucket of snapshots and images."""
    config = store_config(context.settings)
    bucket = f"the bucket {config.bucket} at {config.endpoint_url or f'AWS, {config.region}'}"
    rights = "Allow its key s3:GetBucketVersioning, s3:ListBucketVersions and s3:DeleteObjectVersion"
    async with ObjectStore(config) as store:
        await store.check()
        is_versioned = await store.is_versioned()
        if is_versioned is None:
            return warn(
                f"{bucket} answers, but not whether it keeps versions of objects. If it does, they outlive an erasure",
                f"{rights}, unless the store does not know versions.",
            )
        if not is_versioned:
            return ok(f"{bucket} answers")
        try:
            is_gone = await store.probe_versions()
        except (NeedsPerson, StoreUnavailable) as error:
            is_gone, detail = False, f" ({error})"
        else:
            detail = ""
        if not is_gone:
            return warn(
                f"{bucket} answers, but versions of its objects can't be deleted, so erasures wait, and the reaper "
                f"deletes nothing{detail}",
                f"{rights}, and let no object lock or legal hold keep them.",
            )
    return ok(f"{bucket} answers; it keeps versions, and erasures delete them")


async def check_model(context: CheckContext) -> CheckResult:
    """Check Anthropic's API by listing its models, which costs nothing."""
    settings = context.settings
    context.needs_key("ANTHROPIC_API_KEY", settings.anthropic_api_key)
    check_providers(settings.model_prices)
    base = settings.anthropic_base_url or _ANTHROPIC
    if settings.anthropic_api_key is None:
        return fail(
            "ANTHROPIC_API_KEY is not set",
            "Set it to your key, or run `cofounder local model` (the rehearsal model) and export what it prints.",
        )
    headers = {"x-api-key": settings.anthropic_api_key.get_secret_value(), "anthropic-version": "2023-06-01"}
    try:
        async with httpx2.AsyncClient(timeout=_REQUEST_SECONDS, trust_env=not is_loopback(base)) as http:
            response = await http.get(f"{base.rstrip('/')}/v1/models", params={"limit": 1000}, headers=headers)
    except httpx2.TransportError as error:
        where = "ANTHROPIC_BASE_URL" if settings.anthropic_base_url else "the network and HTTPS_PROXY"
        return fail(f"no model API answers at {base} ({str(error) or type(error).__name__})", f"Check {where}.")
    if response.status_code in (401, 403):
        return fail(
            f"{base} does not accept the key (status {response.status_code})", "Set ANTHROPIC_API_KEY to a valid key."
        )
    if response.status_code >= 500:
        return fail(f"{base} answers with status {response.status_code}", "Try again later.")
    if settings.rehearsal_model:
        return ok(f"the rehearsal model at {base}: always builds the same kind of product, and costs nothing")
    found = _look_for_models(response, settings, base)
    if found.state == "ok" and (differences := _differences(response, settings)):
        return warn(
            f"the price table, as of {AS_OF:%Y-%m-%d}, and {base} differ: {'; '.join(differences)}",
            "Correct MODEL_PRICES. The API tells limits, not prices: compare those with the vendor's page.",
        )
    return found


def _differences(response: httpx2.Response, settings: Settings) -> list[str]:
    """What the API says of its models that the price table says otherwise."""
    described = {str(model["id"]): model for model in response.json()["data"]}
    differences: list[str] = []
    for name, price in settings.model_prices.items():
        if (model := described.get(name)) is None:
            continue
        if (stage := model.get("lifecycle", "active")) != "active":
            differences.append(f"{name} is {stage}")
        if (window := model.get("max_input_tokens")) and window < price.context_tokens:
            differences.append(f"{name} reads {window} tokens, not {price.context_tokens}")
        if (longest := model.get("max_tokens")) and longest < price.max_output_tokens:
            differences.append(f"{name} answers with {longest} tokens at most, not {price.max_output_tokens}")
        capabilities = model.get("capabilities") or {}
        if price.adaptive_thinking and not _supports(capabilities, "thinking", "types", "adaptive"):
            differences.append(f"{name} does not take adaptive thinking")
        refused = [effort for effort in price.efforts if not _supports(capabilities, "effort", effort)]
        if refused:
            differences.append(f"{name} does not take the effort {', '.join(refused)}")
    return differences


def _supports(capabilities: Any, *path: str) -> bool:
    """Whether a model has a capability. One that the API does not mention counts as there."""
    for name in path:
        if not isinstance(capabilities, dict) or name not in capabilities:
            return True
        capabilities = capabilities[name]
    return not isinstance(capabilities, dict) or capabilities.get("supported") is not False


def _look_for_models(response: httpx2.Response, settings: Settings, base: str) -> CheckResult:
    try:
        models = {str(model["id"]) for model in response.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return warn(f"{base} answers, but lists no models (status {response.status_code}); the key was not tried")
    model = settings.fallback_model
    if not any(name == model or name.startswith(f"{model}-") for name in models):
        return warn(
            f"{base} accepts the key, but does not list {model}", "Set FALLBACK_MODEL to a model that it serves."
        )
    return ok(f"{base} accepts the key and serves {model}")


async def check_sandboxes(context: CheckContext) -> CheckResult:
    """Check the sandbox service."""
    settings = context.settings
    context.needs_key("E2B_API_KEY", settings.e2b_api_key)
    if settings.e2b_api_key is None:
        return fail(
            "E2B_API_KEY is not set",
            "Set it to your E2B key, or run `cofounder local sandbox` and export what it prints.",
        )
    config = sandbox_config(settings)
    sandboxes = Sandboxes(config)
    try:
        await sandboxes.check()
        try:
            await sandboxes.probe()
        except SandboxUnavailable as busy:  # `check` raises what is worse
            return warn(str(busy), "Builds wait for it by themselves. If this lasts, see what its provider says.")
    except NeedsPerson as error:
        return fail(str(error))
    finally:
        await sandboxes.close()
    return ok(f"{config.api_url or 'E2B'} answers and accepts the key")


async def check_previews(context: CheckContext) -> CheckResult:
    """Check that the addresses of previews lead to the API, which answers that this one is private."""
    pattern = context.settings.preview_url
    url, headers = with_address(preview_address(pattern, uuid.UUID(int=0)))
    try:
        async with httpx2.AsyncClient(trust_env=not is_loopback(url), timeout=_REQUEST_SECONDS) as http:
            answer = await http.get(url, headers=headers)
    except httpx2.HTTPError as error:
        return fail(
            f"{pattern} does not answer: {str(error) or type(error).__name__}",
            "Start the API, and let a wildcard DNS record and certificate of PREVIEW_URL lead to it: docs/previews.md",
        )
    if answer.status_code != 401 or "X-Cofounder-Key" not in answer.text:
        return fail(
            f"{pattern} answers with status {answer.status_code}, not as the API does on the hosts of previews",
            "Set the same PREVIEW_URL for the API and the workers, and let a proxy in front of the API pass Host on.",
        )
    return ok(f"{pattern} leads to the API")
