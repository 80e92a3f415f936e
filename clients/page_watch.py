"""Notes what happens while a browser shows a page: errors of its scripts, failed requests, dialogs, further windows."""

import asyncio
import contextlib
import re

from playwright.async_api import BrowserContext, ConsoleMessage, Dialog, Page, Request, Response
from playwright.async_api import Error as PlaywrightError

from domain.page_view import ERROR_CHARACTERS, MOST_ERRORS, URL_CHARACTERS, FailedRequest, origin_of, path_of

MOST_EVENTS = 500
"""Console messages and requests of a page that are read, each. A page that never stops costs nothing after that."""

MOST_WINDOWS = 10
"""A page that opens more windows than this is closed."""

_REPEATS_A_REQUEST = re.compile(r"^Failed to load resource\b")
_DEVELOPMENT_SOCKET = re.compile(
    r"WebSocket connection to '[^']*(?:[?&]token=|hmr|hot-update|sockjs-node|livereload|__vite|@vite)"
    r"|^\[(?:vite|HMR|webpack-dev-server)\]|failed to connect to websocket",
    re.IGNORECASE,
)
"""Reloading of development servers. A visitor does not miss it."""

_ICONS = re.compile(r"favicon|apple-touch-icon", re.IGNORECASE)
"""Icons that browsers ask for by themselves."""

_CANCELLED = "net::ERR_ABORTED"
"""The page itself cancelled the request, or it became a download."""


class PageWatch:
    """What has happened on one page since it was opened. Everything is bounded."""

    def __init__(self, context: BrowserContext, page: Page, url: str, *, accepts_dialogs: bool) -> None:
        """Watch the page. `accepts_dialogs`: confirm what it asks, as its user would who clicked; else decline."""
        self.console_errors: list[str] = []
        self.failed_requests: list[FailedRequest] = []
        self.notes: list[str] = []
        self.status = 0
        """Of the page that is shown now; 0 if it has not answered."""
        self.verdict = ""
        """Why the page was closed, if it was."""
        self._context = context
        self._page = page
        self._origin = origin_of(url)
        self._accepts_dialogs = accepts_dialogs
        self._messages = self._requests = self._windows = 0
        self._tasks: set[asyncio.Task[None]] = set()
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("response", self._on_response)
        page.on("requestfailed", self._on_failed)
        page.on("dialog", self._on_dialog)
        context.on("page", self._on_window)

    def note(self, text: str) -> None:
        """Keep a note, unless there are enough."""
        if len(self.notes) < MOST_ERRORS and text not in self.notes:
            self.notes.append(text)

    def _on_console(self, message: ConsoleMessage) -> None:
        self._messages += 1
        if self._messages > MOST_EVENTS:
            self._page.remove_listener("console", self._on_console)
        elif message.type == "error":
            self._add_error(message.text)

    def _on_error(self, error: PlaywrightError) -> None:
        self._messages += 1
        if self._messages > 2 * MOST_EVENTS:
            self._page.remove_listener("pageerror", self._on_error)
            return
        name = getattr(error, "name", "") or ""
        text = str(error)
        first = text if not name or name in text else f"{name}: {text}"
        self._add_error(f"Uncaught {first}")

    def _add_error(self, text: str) -> None:
        if not text.strip() or _REPEATS_A_REQUEST.match(text) or _DEVELOPMENT_SOCKET.search(text):
            return
        text = text.strip()[:ERROR_CHARACTERS]
        if len(self.console_errors) < MOST_ERRORS and text not in self.console_errors:
            self.console_errors.append(text)

    def _on_response(self, response: Response) -> None:
        if not self._counts_on():
            self._page.remove_listener("response", self._on_response)
            return
        if self._is_the_page(response.request):
            self.status = response.status
        elif response.status >= 400:
            self._add_request(response.request, f"status {response.status}", response.status)

    def _on_failed(self, request: Request) -> None:
        if not self._counts_on():
            self._page.remove_listener("requestfailed", self._on_failed)
        elif (reason := request.failure or "no answer") != _CANCELLED:
            self._add_request(request, reason, 0)

    def _counts_on(self) -> bool:
        self._requests += 1
        return self._requests <= MOST_EVENTS

    def _add_request(self, request: Request, reason: str, status: int) -> None:
        if len(self.failed_requests) >= MOST_ERRORS or _ICONS.search(request.url) or self._is_the_page(request):
            return
        is_own = origin_of(request.url) == self._origin
        address = (path_of(request.url) if is_own else request.url)[:URL_CHARACTERS]
        failed = FailedRequest(address, request.resource_type, reason, status)
        if failed not in self.failed_requests:
            self.failed_requests.append(failed)

    def _is_the_page(self, request: Request) -> bool:
        """Whether it asks for the page itself, whose status is told apart."""
        with contextlib.suppress(PlaywrightError):
            return request.is_navigation_request() and request.frame == self._page.main_frame
        return False

    async def _on_dialog(self, dialog: Dialog) -> None:
        answer = "accepted" if self._accepts_dialogs else "dismissed"
        self.note(f"A {dialog.type} dialog opened and was {answer}: {dialog.message[:ERROR_CHARACTERS]!r}.")
        with contextlib.suppress(PlaywrightError):
            await (dialog.accept() if self._accepts_dialogs else dialog.dismiss())

    def _on_window(self, window: Page) -> None:
        if window == self._page:
            return
        self._windows += 1
        if self._windows > MOST_WINDOWS:
            self.verdict = "It opens one window after another."
            self._close(self._context)
            return
        url = window.url[:URL_CHARACTERS]
        self.note(f"The page opened a further window, which was closed{f': {url}' if url.startswith('http') else ''}.")
        self._close(window)

    def _close(self, what: Page | BrowserContext) -> None:
        async def close() -> None:
            with contextlib.suppress(PlaywrightError):
                await what.close()

        task = asyncio.create_task(close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
