"""The API as the command line speaks to it."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from cli.exit_codes import Unreachable
from cli.feed_state import FeedEvent
from domain.errors import CofounderError, Misconfigured

_SILENCE_SECONDS = 60.0
"""The feed sends a heartbeat every 15 seconds; one that is silent for so long is dead."""

_GIVE_UP_SECONDS = 120.0
"""How long a feed that can't be reached is tried again."""

Json = dict[str, Any]


class ApiUnreachable(Unreachable):
    """Nobody answers at the API's address, or the answer broke off."""


class ApiUnavailable(Unreachable):
    """The API answers, but a server behind it doesn't."""


class ApiProblem(CofounderError):
    """The API answered with a problem; the message is its detail."""

    def __init__(self, status: int, detail: str, body: Json) -> None:
        super().__init__(detail)
        self.status = status
        self.body = body


class ApiClient:
    """Requests to one API. Raises `ApiUnreachable` and `ApiProblem`, whose messages are for people."""

    def __init__(self, url: str, token: str, user: str | None = None) -> None:
        """Raises `Misconfigured` where the URL is none."""
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "cofounder"}
        if user is not None:
            headers["X-Cofounder-User"] = user
        on_this_machine = (urlsplit(url).hostname or "") in ("127.0.0.1", "::1", "localhost")
        try:
            # A proxy in the environment is not meant for servers on this machine.
            self._http = httpx2.AsyncClient(
                base_url=self._url, headers=headers, timeout=30, trust_env=not on_this_machine
            )
        except httpx2.InvalidURL as error:
            raise Misconfigured(f"{url} is no address ({error}). Correct --api-url or COFOUNDER_API_URL.") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def create_project(self, brief: Json | None, interview: Json | None, name: str | None = None) -> Json:
        """A new project."""
        given = {"name": name, "brief": brief, "interview": interview}
        body = {key: value for key, value in given.items() if value is not None}
        return await self._json("POST", "/v1/projects", json_body=body)

    async def start_build(
        self, project_id: str, goal: str, *, sleep_policy: str | None = None, max_nights: int | None = None
    ) -> Json:
        """A new build. The request names itself, so that repeating it can't make a second one."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        body = _given({"goal": goal, "sleep_policy": sleep_policy, "max_nights": max_nights})
        return await self._json("POST", f"/v1/projects/{project_id}/builds", json_body=body, headers=headers)

    async def list_builds(
        self,
        *,
        statuses: Sequence[str] = (),
        project_id: str | None = None,
        only_open: bool = False,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Json:
        """A page of the user's builds, newest first; `next_cursor` leads to the next one."""
        asked = {"status": list(statuses) or None, "project_id": project_id, "open": "true" if only_open else None}
        return await self._json("GET", "/v1/builds", query=asked | {"limit": limit, "cursor": cursor})

    async def list_projects(self, *, limit: int | None = None, cursor: str | None = None) -> Json:
        """A page of the user's projects, newest first."""
        return await self._json("GET", "/v1/projects", query={"limit": limit, "cursor": cursor})

    async def read_project(self, project_id: str) -> Json:
        """A project."""
        return await self._json("GET", f"/v1/projects/{project_id}")

    async def read_build(self, build_id: str) -> Json:
        """A build."""
        return await self._json("GET", f"/v1/builds/{build_id}")

    async def wake(self, build_id: str) -> Json:
        """Have a build look again whether it can go on."""
        return await self._json("POST", f"/v1/builds/{build_id}/wake")

    async def cancel(self, build_id: str) -> Json:
        """Ask a build to end."""
        return await self._json("POST", f"/v1/builds/{build_id}/cancel")

    async def say(self, build_id: str, text: str) -> Json:
        """A message to the agent. The request names itself, so that repeating it can't say it twice."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return await self._json("POST", f"/v1/builds/{build_id}/messages", json_body={"text": text}, headers=headers)

    async def answer(self, build_id: str, question_id: str, given: Json) -> Json:
        """The answer to a build's question: `{"option": …}` or `{"text": …}`."""
        return await self._json(
            "POST", f"/v1/builds/{build_id}/answer", json_body={"question_id": question_id, **given}
        )

    async def restore(self, build_id: str, target: Json) -> Json:
        """Have the workspace put back: `{"snapshot": …}` or `{"commit": …}`. The request names itself."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return await self._json("POST", f"/v1/builds/{build_id}/restore", json_body=target, headers=headers)

    async def list_snapshots(self, build_id: str) -> Json:
        """The snapshots of a build that are kept, the current one first."""
        return await self._json("GET", f"/v1/builds/{build_id}/snapshots")

    async def read_preview(self, build_id: str) -> Json:
        """A build's preview."""
        return await self._json("GET", f"/v1/builds/{build_id}/preview")

    async def open_preview(self, build_id: str, seconds: int | None) -> Json:
        """Open a ready build's preview, or keep it open for longer."""
        body = {} if seconds is None else {"seconds": seconds}
        return await self._json("POST", f"/v1/builds/{build_id}/preview", json_body=body)

    @asynccontextmanager
    async def stream(self, path: str, query: Json | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """What the API has at the path, in pieces. Raises `ApiUnreachable` where it breaks off."""
        async with self._answer("GET", path, params=_given(query)) as answer:
            yield answer.aiter_bytes()

    async def is_live(self) -> bool:
        """Whether the API's process answers."""
        try:
            await self._json("GET", "/healthz")
        except CofounderError:
            return False
        return True

    async def follow(
        self, build_id: str, after: int = 0, on_trouble: Callable[[str | None], None] = lambda _: None
    ) -> AsyncGenerator[FeedEvent, None]:
        """A build's events, each once and in order, until the build is closed. Reconnects by itself.

        Args:
            after: begin with what follows this event.
            on_trouble: told what is wrong while the feed can't be reached, and None when it is again.
        """
        loop = asyncio.get_running_loop()
        last_heard, pause = loop.time(), 0.2
        while True:
            try:
                async with aclosing(self._follow_once(build_id, after)) as events:
                    async for event in events:
                        if event is None:
                            return
                        after = event.id
                        last_heard, pause = loop.time(), 0.2
                        on_trouble(None)
                        yield event
            except Unreachable as error:
                trouble: CofounderError = error
            except ApiProblem as error:
                if error.status < 500:
                    raise
                trouble = error
            else:
                # The server let go, at its own end or the build's: the next answer tells.
                last_heard = loop.time()
                await asyncio.sleep(0.1)
                continue
            if loop.time() - last_heard > _GIVE_UP_SECONDS:
                raise trouble
            on_trouble(str(trouble))
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _follow_once(self, build_id: str, after: int) -> AsyncGenerator[FeedEvent | None, None]:
        """The events of one connection; None where the build is closed and nothing follows."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx2.Timeout(10, read=_SILENCE_SECONDS)
        async with self._answer("GET", f"/v1/builds/{build_id}/events", headers=headers, timeout=timeout) as answer:
            if answer.status_code == 204:
                yield None
                return
            async for sent in httpx2.EventSource(answer):
                if sent.id and sent.data:
                    body = json.loads(sent.data)
                    at = datetime.fromisoformat(body["created_at"])
                    yield FeedEvent(int(sent.id), sent.event, body["turn"], at, body["data"])

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        json_body: Json | None = None,
        headers: Json | None = None,
    ) -> Json:
        async with self._answer(method, path, params=_given(query), json=json_body, headers=headers) as answer:
            await answer.aread()
            try:
                body = answer.json()
            except ValueError:
                body = None
            if not isinstance(body, dict):
                raise ApiUnreachable(f"What answers at {self._url} is not Cofounder's API. Correct COFOUNDER_API_URL.")
            return body

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx2.Response]:
        answered = False
        try:
            async with self._http.stream(method, path, **request) as answer:
                answered = True
                if answer.status_code >= 400:
                    await answer.aread()
                    raise _problem(answer)
                yield answer
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            cause = str(error) or type(error).__name__
            if answered:
                raise ApiUnreachable(f"The answer of the API at {self._url} broke off. Try again. ({cause})") from error
            raise ApiUnreachable(
                f"No API answers at {self._url}. Start one (`cofounder up`), or set COFOUNDER_API_URL to where it is. "
                f"({cause})"
            ) from error


def _given(query: Json | None) -> Json:
    return {name: value for name, value in (query or {}).items() if value is not None}


_KILL_SWITCH = "urn:cofounder:problem:autonomous-agent-off"


def _problem(answer: httpx2.Response) -> CofounderError:
    status = answer.status_code
    try:
        body = answer.json()
        detail = str(body["detail"])
    except (ValueError, KeyError, TypeError):
        body, detail = {}, f"The API answered with status {status}."
    if status in (502, 503, 504) and body.get("type") != _KILL_SWITCH:
        return ApiUnavailable(detail)
    if status == 401:
        detail = "The API does not accept the token. Set API_TOKEN to the API's."
    return ApiProblem(status, detail, body)
