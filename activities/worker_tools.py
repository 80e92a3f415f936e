"""Tools whose function runs in the worker, because they need a browser or the object store, which a sandbox lacks.

A call may run any number of times, except a `look` with steps: those act on the product that runs in the sandbox, so
`activities/dispatch.py` runs them once and otherwise says that their outcome is unknown. Secrets and control characters
are removed from the texts there, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from activities.tool_outcome import ToolOutcome, no_server, page_not_shown, page_seen, screenshots_taken
from clients.browser import Browser, PageFailed
from clients.images import UnreadableImage, fit_for_model
from clients.sandbox import Sandbox
from clients.sandbox_runner import IMAGE_BYTES, WORKSPACE
from domain.errors import InvalidInput
from domain.page_view import VIEWPORTS, PageStep
from domain.product import PRODUCT_FILE, parse_product_manifest
from domain.tool_output import ImageRef
from domain.tools import LookInput, TakeScreenshotInput

PAGE_ANSWER_SECONDS = 15.0
"""How long a page may take to answer before its screenshot is taken."""

DEFAULT_PORT = 8000
"""The port of a product that does not declare one yet."""


@dataclass(frozen=True)
class ToolContext:
    """What a tool of the worker may use. `keep`: keeps a WebP image for the build, and returns its SHA-256."""

    sandbox: Sandbox
    browser: Browser
    keep: Callable[[bytes], Awaitable[str]]


async def take_screenshot(context: ToolContext, request: TakeScreenshotInput) -> ToolOutcome:
    """Take screenshots of a page of the product that runs in the sandbox."""
    port = await _product_port(context.sandbox)
    answer = await context.sandbox.http_get(port, request.path, PAGE_ANSWER_SECONDS)
    if answer is None:
        return no_server(port)
    try:
        shots = await context.browser.views(context.sandbox.upstream(port), request.path)
    except PageFailed as error:
        return page_not_shown(error)
    images = [ImageRef(await context.keep(shot.webp)) for shot in shots]
    return screenshots_taken(request.path, port, shots, images)


async def read_image(context: ToolContext, path: str, path_in_sandbox: str) -> ToolOutcome:
    """Show an image of the workspace. `path`: as the agent has named it."""
    try:
        data = await context.sandbox.read_up_to(path_in_sandbox, IMAGE_BYTES)
        if data is None:
            raise UnreadableImage(f"it has grown to more than {IMAGE_BYTES} bytes")
        image = await asyncio.to_thread(fit_for_model, data)
    except (UnreadableImage, FileNotFoundError, InvalidInput) as error:
        return ToolOutcome([f"{path} is an image, but {error}."], is_error=True)
    name = await context.keep(image.webp)
    shown = f", shown as {image.width}x{image.height}" if image.width < image.source_width else ""
    return ToolOutcome([ImageRef(name), f"{path}: {image.source_width}x{image.source_height} pixels{shown}."])


async def look(context: ToolContext, request: LookInput) -> ToolOutcome:
    """Open a page of the product, do the steps on it, and tell what a visitor then has before them."""
    port = await _product_port(context.sandbox)
    if await context.sandbox.http_get(port, request.path, PAGE_ANSWER_SECONDS) is None:
        return no_server(port)
    viewport = next(each for each in VIEWPORTS if each.name == request.viewport)
    steps = [PageStep(step.action, step.selector, step.text) for step in request.steps]
    try:
        view = await context.browser.view(
            context.sandbox.upstream(port), viewport, request.path, steps=steps, full_page=request.full_page
        )
    except PageFailed as error:
        return page_not_shown(error)
    return page_seen(request.path, port, view, ImageRef(await context.keep(view.webp)))


async def _product_port(sandbox: Sandbox) -> int:
    try:
        text = (await sandbox.read(f"{WORKSPACE}/{PRODUCT_FILE}")).decode("utf-8", "replace")
        return parse_product_manifest(text).port
    except (FileNotFoundError, InvalidInput):
        return DEFAULT_PORT


WORKER_TOOLS: Mapping[str, Callable[[ToolContext, Any], Awaitable[ToolOutcome]]] = {
    "take_screenshot": take_screenshot,
    "look": look,
}
"""The functions by the name of their tool. Each gets the tool's own checked input."""
