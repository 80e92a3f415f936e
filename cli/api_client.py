"""A client for the API."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

import httpx2

from cli.exit_codes import Unreachable
from cli.feed_state import FeedEvent
from clients.loopback import is_loopback
from domain.build_options import BuildOptions
from domain.errors import CofounderError, Misconfigured
from domain.push import LONGEST_PUSH

_ANSWER_SECONDS = 30.0
"""Give up a request after this many seconds without an answer."""

_LIVE_SECONDS = 5.0
"""Count a process as not alive after this many seconds without an answer. Who waits for it asks again."""

_LONGEST_RETRY_SECONDS = 60
"""Repeat a request that was one too many, once, if the API takes it again within this many seconds."""

_SILENCE_SECONDS = 60.0
"""Reconnect after this many seconds without data. The feed sends a heartbeat every 15 seconds."""

_GIVE_UP_SECONDS = 120.0
"""Give up after the feed has been unreachable for this many seconds."""

Json = dict[str, Any]


class ApiUnreachable(Unreachable):
    """The API's address does not answer, or the response broke off."""


class ApiUnavailable(Unreachable):
    """The API answers, but a server behind it does not."""


class ApiProblem(CofounderError):
    """The API answered with a problem; the message is the problem's detail."""

    def __init__(self, status: int, detail: str, body: Json) -> None:
        super().__init__(detail)
        self.status = status
        self.body = body


class ApiClient:
    """Sends requests to an API. Raises `ApiUnreachable`, `ApiUnavailable` and `ApiProblem`: messages for people."""

    def __init__(self, url: str, token: str, user: str | None = None) -> None:
        """Create a client; `user` is who it acts for, if not the API's default user.

        Raises:
            Misconfigured: the URL is not valid.
        """
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "cofounder"}
        if user is not None:
            headers["X-Cofounder-User"] = user
        try:
            # Proxies from the environment are not meant for servers on this machine.
            self._http = httpx2.AsyncClient(
                base_url=self._url, headers=headers, timeout=_ANSWER_SECONDS, trust_env=not is_loopback(url)
            )
        except httpx2.InvalidURL as error:
            raise Misconfigured(
                f"{url} is not a valid URL ({error}). Correct --api-url or COFOUNDER_API_URL."
            ) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def create_project(
        self,
        brief: Json | None,
        interview: Json | None,
        name: str | None = None,
        organisation_id: str | None = None,
    ) -> Json:
        """Create a project. `organisation_id`: whose it is; by default the user's own."""
        body = _without_none({"name": name, "brief": brief, "interview": interview, "organisation_id": organisation_id})
        return await self._json("POST", "/v1/projects", json_body=body)

    async def start_build(
        self, project_id: str, goal: str, options: BuildOptions | None = None, start_from: Json | None = None
    ) -> Json:
        """Start a build. An idempotency key keeps a repeated request from starting a second one.

        `start_from`: `{"build_id": …, "snapshot": …}`, with which it begins; by default the project's newest version.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        body = {"goal": goal, **(options.changed() if options is not None else {})}
        body |= {} if start_from is None else {"start_from": _without_none(start_from)}
        return await self._json("POST", f"/v1/projects/{project_id}/builds", json_body=body, headers=headers)

    async def list_builds(
        self,
        *,
        statuses: Sequence[str] = (),
        project_id: str | None = None,
        only_open: bool = False,
        started_by_me: bool = False,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Json:
        """Read a page of the builds that the user may see, newest first; `next_cursor` leads to the next page."""
        filters = {
            "status": list(statuses) or None,
            "project_id": project_id,
            "open": "true" if only_open else None,
            "started_by_me": "true" if started_by_me else None,
        }
        return await self._json("GET", "/v1/builds", query=filters | {"limit": limit, "cursor": cursor})

    async def list_projects(
        self, *, archived: bool = False, limit: int | None = None, cursor: str | None = None
    ) -> Json:
        """Read a page of the user's projects, newest first: of those that are archived, or of the others."""
        query = {"archived": "true" if archived else None, "limit": limit, "cursor": cursor}
        return await self._json("GET", "/v1/projects", query=query)

    async def change_project(self, project_id: str, changes: Json) -> Json:
        """Rename a project, archive it or un-archive it: `{"name": …, "archived": …}`."""
        return await self._json("PATCH", f"/v1/projects/{project_id}", json_body=changes)

    async def list_versions(self, project_id: str, before: int | None = None) -> Json:
        """Read a page of a project's versions, the newest first. `before`: `next_before` of the previous page."""
        query = {"before": before, "limit": 100}
        return await self._json("GET", f"/v1/projects/{project_id}/versions", query=query)

    async def read_project(self, project_id: str) -> Json:
        """Read a project."""
        return await self._json("GET", f"/v1/projects/{project_id}")

    async def read_build(self, build_id: str) -> Json:
        """Read a build."""
        return await self._json("GET", f"/v1/builds/{build_id}")

    async def list_turns(self, build_id: str, *, before: int | None = None, limit: int | None = None) -> Json:
        """Read a page of a build's turns, the newest first; `next_before` leads to the next page."""
        return await self._json("GET", f"/v1/builds/{build_id}/turns", query={"before": before, "limit": limit})

    async def read_tool_call(self, build_id: str, tool_use_id: str) -> Json:
        """Read a tool call with its input and result."""
        return await self._json("GET", f"/v1/builds/{build_id}/tool-calls/{quote(tool_use_id, safe='')}")

    async def wake(self, build_id: str) -> Json:
        """Make a build check again whether it can continue."""
        return await self._json("POST", f"/v1/builds/{build_id}/wake")

    async def finish(self, build_id: str) -> Json:
        """Have a build's product checked as it is."""
        return await self._json("POST", f"/v1/builds/{build_id}/finish")

    async def cancel(self, build_id: str) -> Json:
        """Cancel a build."""
        return await self._json("POST", f"/v1/builds/{build_id}/cancel")

    async def say(self, build_id: str, text: str) -> Json:
        """Send the agent a message. An idempotency key keeps a repeated request from sending it twice."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return await self._json("POST", f"/v1/builds/{build_id}/messages", json_body={"text": text}, headers=headers)

    async def list_messages(self, build_id: str) -> Json:
        """List the messages to a build's agent, in order."""
        return await self._json("GET", f"/v1/builds/{build_id}/messages")

    async def take_back_message(self, build_id: str, number: int) -> None:
        """Take back a message that the agent has not read."""
        async with self._open("DELETE", f"/v1/builds/{build_id}/messages/{number}"):
            pass

    async def answer(self, build_id: str, question_id: str, choice: Json) -> Json:
        """Answer a build's question with `{"option": …}` or `{"text": …}`."""
        return await self._json(
            "POST", f"/v1/builds/{build_id}/answer", json_body={"question_id": question_id, **choice}
        )

    async def restore(self, build_id: str, target: Json) -> Json:
        """Restore the workspace to `{"snapshot": …}` or `{"commit": …}`. Sent with an idempotency key."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return await self._json("POST", f"/v1/builds/{build_id}/restore", json_body=target, headers=headers)

    async def list_snapshots(self, build_id: str) -> Json:
        """List a build's stored snapshots, the current one first."""
        return await self._json("GET", f"/v1/builds/{build_id}/snapshots")

    async def list_files(self, build_id: str, snapshot: str, *, after: int | None = None) -> Json:
        """Read a page of a snapshot's files; `next_after` leads to the next page. `snapshot`: number, or `latest`."""
        path = f"/v1/builds/{build_id}/snapshots/{snapshot}/files"
        return await self._json("GET", path, query={"after": after, "limit": 5_000})

    async def read_file(self, build_id: str, snapshot: str, file: str) -> Json:
        """Read a file of a snapshot with its text. `snapshot`: number, or `latest`."""
        return await self._json("GET", f"/v1/builds/{build_id}/snapshots/{snapshot}/file", query={"path": file})

    async def list_phases(self, build_id: str) -> Json:
        """List a build's phases that have ended, and how much each has changed."""
        return await self._json("GET", f"/v1/builds/{build_id}/phases")

    async def read_diff(self, build_id: str, phase: int | None) -> Json:
        """Read what a phase has changed; without one, what the build has."""
        of = "" if phase is None else f"/phases/{phase}"
        return await self._json("GET", f"/v1/builds/{build_id}{of}/diff")

    async def read_preview(self, build_id: str) -> Json:
        """Read a build's preview."""
        return await self._json("GET", f"/v1/builds/{build_id}/preview")

    async def open_preview(self, build_id: str, seconds: int | None, *, restart: bool = False) -> Json:
        """Open a ready build's preview, or extend it. `restart`: start its product again, even if it is open."""
        body = _without_none({"seconds": seconds, "restart": restart or None})
        return await self._json("POST", f"/v1/builds/{build_id}/preview", json_body=body)

    async def make_preview_link(self, build_id: str, hours: int | None) -> Json:
        """Make a link with which anyone can see a build's preview."""
        body = _without_none({"hours": hours})
        return await self._json("POST", f"/v1/builds/{build_id}/preview/links", json_body=body)

    async def list_preview_links(self, build_id: str) -> Json:
        """List the links to a build's preview that work."""
        return await self._json("GET", f"/v1/builds/{build_id}/preview/links")

    async def revoke_preview_link(self, build_id: str, link_id: str) -> None:
        """Revoke a preview link."""
        async with self._open("DELETE", f"/v1/builds/{build_id}/preview/links/{quote(link_id, safe='')}"):
            pass

    async def erase_project(self, project_id: str, name: str) -> Json:
        """Have a project deleted for good. `name`: its name, as a confirmation."""
        return await self._json("DELETE", f"/v1/projects/{project_id}", json_body={"name": name})

    async def erase_account(self, user_id: str) -> Json:
        """Have the user's account deleted for good. `user_id`: the user's id, as a confirmation."""
        return await self._json("DELETE", "/v1/account", json_body={"user_id": user_id})

    async def create_export(self, project_id: str | None) -> Json:
        """Have a project exported in the background, or without one the account."""
        path = "/v1/account/exports" if project_id is None else f"/v1/projects/{project_id}/exports"
        return await self._json("POST", path, headers={"Idempotency-Key": uuid.uuid4().hex})

    async def list_exports(self) -> Json:
        """List the exports that the user has asked for in the background."""
        return await self._json("GET", "/v1/exports")

    async def read_export(self, export_id: str) -> Json:
        """Read an export that is written in the background."""
        return await self._json("GET", f"/v1/exports/{export_id}")

    async def list_certificates(self, project_id: str) -> Json:
        """List the certificates of a project."""
        return await self._json("GET", f"/v1/projects/{project_id}/certificates")

    async def read_certificate(self, certificate_id: str) -> Json:
        """Read a certificate. That of an account's erasure needs no token that works."""
        return await self._json("GET", f"/v1/certificates/{certificate_id}")

    async def list_erasures(self) -> Json:
        """List the erasures that the user has asked for."""
        return await self._json("GET", "/v1/erasures")

    async def read_erasure(self, erasure_id: str) -> Json:
        """Read an erasure."""
        return await self._json("GET", f"/v1/erasures/{erasure_id}")

    async def list_secrets(self, project_id: str) -> Json:
        """List the names of a project's secrets."""
        return await self._json("GET", f"/v1/projects/{project_id}/secrets")

    async def set_secret(self, project_id: str, name: str, value: str) -> Json:
        """Set a secret of a project, or replace its value."""
        path = f"/v1/projects/{project_id}/secrets/{quote(name, safe='')}"
        return await self._json("PUT", path, json_body={"value": value})

    async def remove_secret(self, project_id: str, name: str) -> None:
        """Remove a secret of a project."""
        async with self._open("DELETE", f"/v1/projects/{project_id}/secrets/{quote(name, safe='')}"):
            pass

    async def list_organisations(self) -> Json:
        """List the user's organisations, with the user's role in each."""
        return await self._json("GET", "/v1/organisations")

    async def create_organisation(self, name: str) -> Json:
        """Create an organisation."""
        return await self._json("POST", "/v1/organisations", json_body={"name": name})

    async def rename_organisation(self, organisation_id: str, name: str) -> Json:
        """Give an organisation another name."""
        return await self._json("PATCH", f"/v1/organisations/{organisation_id}", json_body={"name": name})

    async def list_members(self, organisation_id: str) -> Json:
        """List an organisation's members."""
        return await self._json("GET", f"/v1/organisations/{organisation_id}/members")

    async def set_member(self, organisation_id: str, user: str, role: str) -> Json:
        """Add a member, or change their role."""
        path = f"/v1/organisations/{organisation_id}/members/{quote(user, safe='')}"
        return await self._json("PUT", path, json_body={"role": role})

    async def remove_member(self, organisation_id: str, user: str) -> Json:
        """Remove a member."""
        return await self._json("DELETE", f"/v1/organisations/{organisation_id}/members/{quote(user, safe='')}")

    async def move_project(self, project_id: str, organisation_id: str) -> Json:
        """Move a project to another organisation."""
        body = {"organisation_id": organisation_id}
        return await self._json("PUT", f"/v1/projects/{project_id}/organisation", json_body=body)

    async def read_me(self) -> Json:
        """Read who makes the requests."""
        return await self._json("GET", "/v1/me")

    async def read_ops(self, what: str, **query: Any) -> Json:
        """Read what operators see: `what` is the path after `/v1/ops/`."""
        return await self._json("GET", f"/v1/ops/{what}", query=query)

    async def write_ops(self, method: str, what: str, body: Json | None = None, **query: Any) -> Json:
        """Do what operators do: `what` is the path after `/v1/ops/`."""
        return await self._json(method, f"/v1/ops/{what}", json_body=body, query=query)

    async def create_bulk_run(self, body: Json) -> Json:
        """Act on many builds. An idempotency key keeps a repeated request from doing so twice."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return await self._json("POST", "/v1/ops/bulk", json_body=body, headers=headers)

    async def list_keys(self) -> Json:
        """List the user's API keys, without their secrets."""
        return await self._json("GET", "/v1/keys")

    async def create_key(self, name: str, scopes: Sequence[str] | None, days: int | None) -> Json:
        """Make an API key. The result has its secret, which can't be read again."""
        return await self._json(
            "POST", "/v1/keys", json_body=_without_none({"name": name, "scopes": scopes or None, "days": days})
        )

    async def rotate_key(self, key_id: str, overlap_seconds: int) -> Json:
        """Replace an API key. The old one works that much longer."""
        path = f"/v1/keys/{quote(key_id, safe='')}/rotate"
        return await self._json("POST", path, json_body={"overlap_seconds": overlap_seconds})

    async def revoke_key(self, key_id: str) -> None:
        """End an API key at once."""
        async with self._open("DELETE", f"/v1/keys/{quote(key_id, safe='')}"):
            pass

    async def make_sign_in_link(self, scopes: Sequence[str] | None = None) -> Json:
        """Make a link with which a browser can sign in as the user, once."""
        return await self._json("POST", "/v1/sign-in-links", json_body=_without_none({"scopes": scopes or None}))

    async def list_sign_ins(self) -> Json:
        """List the browsers in which the user is signed in."""
        return await self._json("GET", "/v1/sign-ins")

    async def end_sign_in(self, sign_in_id: str) -> None:
        """Sign a browser of the user out."""
        async with self._open("DELETE", f"/v1/sign-ins/{quote(sign_in_id, safe='')}"):
            pass

    async def create_webhook(self, wanted: Json) -> Json:
        """Make a webhook. The result has its secret, which can't be read again."""
        return await self._json("POST", "/v1/webhooks", json_body=_without_none(wanted))

    async def list_webhooks(self) -> Json:
        """List the webhooks of all organisations that the user owns."""
        return await self._json("GET", "/v1/webhooks")

    async def change_webhook(self, webhook_id: str, change: Json) -> Json:
        """Change what is not None of a webhook."""
        return await self._json("PATCH", _webhook(webhook_id), json_body=_without_none(change))

    async def rotate_webhook_secret(self, webhook_id: str, overlap_seconds: int) -> Json:
        """Give a webhook a new secret, which is in the result and can't be read again."""
        body = {"overlap_seconds": overlap_seconds}
        return await self._json("POST", f"{_webhook(webhook_id)}/rotate", json_body=body)

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook with its deliveries."""
        async with self._open("DELETE", _webhook(webhook_id)):
            pass

    async def test_webhook(self, webhook_id: str) -> Json:
        """Send a message that only shows that the webhook works."""
        return await self._json("POST", f"{_webhook(webhook_id)}/test")

    async def list_deliveries(
        self, webhook_id: str, state: str | None = None, *, limit: int | None = None, cursor: str | None = None
    ) -> Json:
        """List a page of a webhook's deliveries, the newest first; `next_cursor` leads to the next page."""
        query = {"state": state, "limit": limit, "cursor": cursor}
        return await self._json("GET", f"{_webhook(webhook_id)}/deliveries", query=query)

    async def replay_delivery(self, webhook_id: str, delivery_id: str) -> Json:
        """Send a message again."""
        return await self._json("POST", f"{_webhook(webhook_id)}/deliveries/{quote(delivery_id, safe='')}/replay")

    async def list_screenshots(self, build_id: str, before: str | None = None) -> Json:
        """List a page of a build's screenshots, the newest first. `before`: `next_before` of the previous page."""
        return await self._json("GET", f"/v1/builds/{build_id}/screenshots", query={"before": before, "limit": 100})

    async def push(self, build_id: str, wanted: Json) -> Json:
        """Push the code to `{"url": …, "token": …}`. The API answers when the push has ended."""
        seconds = LONGEST_PUSH.total_seconds()
        body = _without_none(wanted)
        return await self._json("POST", f"/v1/builds/{build_id}/push", json_body=body, read_seconds=seconds)

    @asynccontextmanager
    async def stream(self, path: str, query: Json | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the bytes at the path. Raises `ApiUnreachable` if the connection breaks off."""
        async with self._open("GET", path, params=_without_none(query)) as response:
            yield response.aiter_bytes()

    async def is_live(self) -> bool:
        """Whether the API's process answers."""
        try:
            await self._json("GET", "/healthz", read_seconds=_LIVE_SECONDS)
        except CofounderError:
            return False
        return True

    async def follow(
        self, build_id: str, after: int = 0, on_trouble: Callable[[str | None], None] = lambda _: None
    ) -> AsyncGenerator[FeedEvent, None]:
        """Yield a build's events, each once and in order, until the build is closed. Reconnects automatically.

        Args:
            after: begin with what follows this event.
            on_trouble: called with the problem while the feed is unreachable, and with None when it is back.
        """
        loop = asyncio.get_running_loop()
        last_contact, pause = loop.time(), 0.2
        while True:
            try:
                async with aclosing(self._follow_once(build_id, after)) as events:
                    async for event in events:
                        if event is None:
                            return
                        after = event.id
                        last_contact, pause = loop.time(), 0.2
                        on_trouble(None)
                        yield event
            except Unreachable as error:
                trouble: CofounderError = error
            except ApiProblem as error:
                if error.status < 500:
                    raise
                trouble = error
            else:
                # The server closed the feed: it stops, or the build is closed. The next response tells which.
                last_contact = loop.time()
                await asyncio.sleep(0.1)
                continue
            if loop.time() - last_contact > _GIVE_UP_SECONDS:
                raise trouble
            on_trouble(str(trouble))
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _follow_once(self, build_id: str, after: int) -> AsyncGenerator[FeedEvent | None, None]:
        """Yield the events of one connection, and None if the build is closed and no event follows."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx2.Timeout(10, read=_SILENCE_SECONDS)
        async with self._open("GET", f"/v1/builds/{build_id}/events", headers=headers, timeout=timeout) as response:
            if response.status_code == 204:
                yield None
                return
            async for message in httpx2.EventSource(response):
                if message.id and message.data:
                    body = json.loads(message.data)
                    at = datetime.fromisoformat(body["created_at"])
                    yield FeedEvent(int(message.id), message.event, body["turn"], at, body["data"])

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        json_body: Json | None = None,
        headers: Json | None = None,
        read_seconds: float = _ANSWER_SECONDS,
    ) -> Json:
        wait = httpx2.Timeout(_ANSWER_SECONDS, read=read_seconds)
        request = {"json": json_body, "headers": headers, "timeout": wait}
        async with self._open(method, path, params=_without_none(query), **request) as response:
            await response.aread()
            try:
                body = response.json()
            except ValueError:
                body = None
            if not isinstance(body, dict):
                raise ApiUnreachable(f"The server at {self._url} is not Cofounder's API. Correct COFOUNDER_API_URL.")
            return body

    @asynccontextmanager
    async def _open(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx2.Response]:
        """Send a request, and once more if the API says how soon it may be repeated."""
        responded = False
        try:
            async with AsyncExitStack() as closing:
                response = await closing.enter_async_context(self._http.stream(method, path, **request))
                if (seconds := _retry_after(response)) is not None:
                    await response.aclose()
                    await asyncio.sleep(seconds)
                    response = await closing.enter_async_context(self._http.stream(method, path, **request))
                responded = True
                if response.status_code >= 400:
                    await response.aread()
                    raise _problem(response)
                yield response
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            cause = str(error) or type(error).__name__
            if responded:
                raise ApiUnreachable(
                    f"The response of the API at {self._url} broke off. Try again. ({cause})"
                ) from error
            raise ApiUnreachable(
                f"No API answers at {self._url}. Start one (`cofounder up`), or set COFOUNDER_API_URL to its address. "
                f"({cause})"
            ) from error


def sign_in_url(link: Json, build_id: str | None = None) -> str:
    """The URL of a sign-in link, leading to a build if one is named. All of it is in the fragment."""
    path = "" if build_id is None else f"&to={quote(f'/builds/{build_id}', safe='')}"
    return f"{link['url']}{path}"


def _retry_after(response: httpx2.Response) -> int | None:
    """Seconds until a request that was one too many may be repeated; None if that is too long, or it was not."""
    seconds = response.headers.get("retry-after", "")
    if response.status_code != 429 or not seconds.isdecimal() or int(seconds) > _LONGEST_RETRY_SECONDS:
        return None
    return int(seconds)


def _webhook(webhook_id: str) -> str:
    return f"/v1/webhooks/{quote(webhook_id, safe='')}"


def _without_none(fields: Json | None) -> Json:
    return {name: value for name, value in (fields or {}).items() if value is not None}


_KILL_SWITCH = "urn:cofounder:problem:autonomous-agent-off"


def _problem(response: httpx2.Response) -> CofounderError:
    status = response.status_code
    try:
        body = response.json()
        detail = str(body["detail"])
    except (ValueError, KeyError, TypeError):
        body, detail = {}, f"The API answered with status {status}."
    if status in (502, 503, 504) and body.get("type") != _KILL_SWITCH:
        return ApiUnavailable(detail)
    if status == 401 and "reason" not in body:  # a key's problem says by itself what is wrong with it
        detail = (
            "The API does not accept the token. Set API_TOKEN to an API key (`cofounder keys create`) or to the token "
            "that the API was started with."
        )
    return ApiProblem(status, detail, body)
