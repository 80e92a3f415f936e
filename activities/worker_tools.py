"""Tools whose function runs in the worker, because they need a browser or the object store, which a sandbox lacks.

They only read. A call may run any number of times. Secrets and control characters are removed from their texts later,
by `activities/dispatch.py`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from activities.tool_outcome import ToolOutcome, no_server, screenshots_taken
from clients.browser import Browser, PageFailed
from clients.sandbox import Sandbox
from clients.sandbox_runner import WORKSPACE
from domain.errors import InvalidInput
from domain.product import PRODUCT_FILE, parse_product_manifest
from domain.tool_output import ImageRef
from domain.tools import TakeScreenshotInput

PAGE_ANSWER_SECONDS = 15.0
"""How long a page may take to answer before its screenshot is taken."""

DEFAULT_PORT = 8000
"""The port of a product that does not declare one yet."""


class ImageStore(Protocol):
    """Where screenshots are kept, by the SHA-256 of their bytes."""

    async def put_image(self, sha256_hex: str, webp: bytes) -> None:
        """Keep the image. Keeping it again changes nothing."""
        ...


@dataclass(frozen=True)
class ToolContext:
    """What a tool of the worker may use."""

    sandbox: Sandbox
    browser: Browser
    images: ImageStore


async def take_screenshot(context: ToolContext, request: TakeScreenshotInput) -> ToolOutcome:
    """Take screenshots of a page of the product that runs in the sandbox."""
    port = await _product_port(context.sandbox)
    answer = await context.sandbox.http_get(port, request.path, PAGE_ANSWER_SECONDS)
    if answer is None:
        return no_server(port)
    try:
        shots = await context.browser.views(context.sandbox.url(port) + request.path)
    except PageFailed as error:
        return ToolOutcome([str(error)], is_error=True)
    images: list[ImageRef] = []
    for shot in shots:
        name = sha256(shot.webp).hexdigest()
        await context.images.put_image(name, shot.webp)
        images.append(ImageRef(name))
    return screenshots_taken(request.path, port, shots, images)


async def _product_port(sandbox: Sandbox) -> int:
    try:
        text = (await sandbox.read(f"{WORKSPACE}/{PRODUCT_FILE}")).decode("utf-8", "replace")
        return parse_product_manifest(text).port
    except (FileNotFoundError, InvalidInput):
        return DEFAULT_PORT


WORKER_TOOLS: Mapping[str, Callable[[ToolContext, Any], Awaitable[ToolOutcome]]] = {"take_screenshot": take_screenshot}
"""The functions by the name of their tool. Each gets the tool's own checked input."""
