"""The headers of a request: the API's version, the betas, and the parameters that need a beta.

The names come from the installed SDK: `AnthropicBetaParam`, `ANTHROPIC_API_VERSION`, and the parameters of
`MessageCreateParams` with and without betas.
"""

import ast
from collections.abc import Mapping
from functools import cache
from typing import Any

from local.rehearsal.errors import ApiError, invalid
from local.rehearsal.models import sdk_source, traits
from local.rehearsal.prefix import content_blocks

OLD_VERSION = "2023-06-01"
"""The version before the SDK's; the API still takes it."""

COMPACTION = "compact-2026-09-04"
DISPLAY_UPDATES = "thinking-display-updates-2026-08-18"
BINDING_CONTROLS = "thinking-binding-controls-2026-08-01"
FALLBACKS = "server-side-fallback-2026-07-01"
FALLBACK_LISTS = "server-side-fallback-2026-06-01"
"""The older beta of `fallbacks`. It takes lists, not `default`."""

_NOT_SINCE_2026 = ("temperature", "top_p", "top_k")
"""Parameters that version 2026-10-21 removed."""


@cache
def current_version() -> str:
    """Return the version that the installed SDK sends."""
    for node in ast.walk(sdk_source("_constants.py")):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "ANTHROPIC_API_VERSION"
        ):
            return str(node.value.value)
    raise RuntimeError("The anthropic SDK has no ANTHROPIC_API_VERSION: its layout has changed.")


@cache
def known_betas() -> frozenset[str]:
    """Return the names in the installed SDK's `AnthropicBetaParam`."""
    nodes = ast.walk(sdk_source("types", "anthropic_beta_param.py"))
    return frozenset(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value[-3:].strip("-").isdigit()
    )


@cache
def _parameters(*path: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(sdk_source("types", *path, "message_create_params.py")):
        if isinstance(node, ast.ClassDef) and node.name.startswith("MessageCreateParams"):
            names |= {
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
    return frozenset(names)


def check_headers(headers: Mapping[str, str]) -> frozenset[str]:
    """Check key and version, and return the betas that the request names.

    Raises:
        ApiError: a header is missing, or has a value that the API does not know.
    """
    if not headers.get("x-api-key") and not headers.get("authorization"):
        raise ApiError("authentication_error", "x-api-key header is required")
    version = headers.get("anthropic-version")
    if not version:
        raise invalid("anthropic-version: header is required")
    if version not in (OLD_VERSION, current_version()):
        raise invalid(f'anthropic-version: "{version}" is not a valid version')
    betas = frozenset(filter(None, (name.strip() for name in headers.get("anthropic-beta", "").split(","))))
    if unknown := sorted(betas - known_betas()):
        names = ", ".join(f"`{name}`" for name in unknown)
        raise invalid(
            f"Unexpected value(s) {names} for the `anthropic-beta` header. Please consult our documentation at "
            "docs.anthropic.com or try again without the header."
        )
    return betas


def check_parameters(body: dict[str, Any], betas: frozenset[str], version: str) -> None:
    """Check that the request has no parameter that the API, its version or its betas do not know.

    Raises:
        ApiError: it has one.
    """
    model = str(body.get("model"))
    for name in body:
        if name not in _parameters() | _parameters("beta") | set(_NOT_SINCE_2026):
            raise _extra(name)
    if version != OLD_VERSION and (removed := [name for name in _NOT_SINCE_2026 if name in body]):
        raise _extra(removed[0])
    if body.get("compaction") is not None and COMPACTION not in betas:
        raise invalid(f"compaction: the `compaction` parameter requires anthropic-beta: {COMPACTION}")
    fallbacks = body.get("fallbacks")
    if fallbacks is not None and not betas & {FALLBACKS, FALLBACK_LISTS}:
        raise _extra("fallbacks")
    if fallbacks == "default" and FALLBACKS not in betas:
        raise invalid("fallbacks: Input should be a valid list")
    for name in sorted(set(body) - _parameters() - set(_NOT_SINCE_2026) - {"compaction", "fallbacks"}):
        raise _extra(name)  # the rehearsal model has no other beta parameter
    thinking = body.get("thinking") or {}
    kind = thinking.get("type")
    if thinking.get("display") == "updates":
        if DISPLAY_UPDATES not in betas:
            raise invalid(f"thinking.{kind}.display: Input should be 'summarized' or 'omitted'")
        if not traits(model).updates:
            raise invalid(f'thinking.{kind}.display: "updates" is not supported for this model.')
    if "block_binding" in thinking and BINDING_CONTROLS not in betas:
        raise _extra(f"thinking.{kind}.block_binding")
    _check_blocks(body.get("messages"), betas)


def _check_blocks(messages: Any, betas: frozenset[str]) -> None:
    needed = {"compaction": {COMPACTION, "compact-2026-01-12"}, "fallback": {FALLBACKS, FALLBACK_LISTS}}
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        for position, block in enumerate(content_blocks(content) if isinstance(content, str | list) else []):
            kind = block.get("type") if isinstance(block, dict) else None
            if kind in needed and not betas & needed[kind]:
                raise invalid(
                    f"messages.{index}.content.{position}: Input tag '{kind}' found using 'type' does not match any of "
                    "the expected tags"
                )


def _extra(name: str) -> ApiError:
    return invalid(f"{name}: Extra inputs are not permitted")
