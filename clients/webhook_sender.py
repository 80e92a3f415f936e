"""Sends a message to a webhook, signed as Standard Webhooks says, and to no private address."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx2
from standardwebhooks import Webhook

from clients.dns import Resolve, resolve
from domain.errors import InvalidInput
from domain.webhooks import check_addresses, check_url, parse_retry_after

SECONDS = 15.0
"""A receiver has this long to answer."""

_READ_BYTES = 2048
"""Of the answer; it is not kept."""

_USER_AGENT = "Cofounder-Webhooks/1"


@dataclass(frozen=True)
class Answer:
    """How an attempt has ended. `error`: what was wrong, for people; None if the receiver has accepted the message."""

    error: str | None
    status: int | None = None
    retry_after: timedelta | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no message ever again."""
        return self.status == httpx2.codes.GONE


class WebhookSender:
    """Sends messages. Each has a connection of its own, to an address that was checked."""

    def __init__(self, private_hosts: Collection[str], resolver: Resolve = resolve) -> None:
        """`private_hosts`: those that the operator allows to have private addresses."""
        self._private_hosts = private_hosts
        self._resolve = resolver

    async def check(self, url: str) -> None:
        """Check that messages may go to this URL.

        Raises:
            InvalidInput: says what to do.
        """
        await self._address(url)

    async def send(self, url: str, secrets: Sequence[str], message_id: str, body: str) -> Answer:
        """Make one attempt, signed with each of the secrets. A receiver knows a repeated message by its id."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self._post(url, await self._address(url), _headers(secrets, message_id, body), body)
        except InvalidInput as error:
            return Answer(str(error))
        except TimeoutError:
            return Answer(f"It did not answer within {SECONDS:g} seconds.")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Answer(f"It could not be reached ({type(error).__name__}).")

    async def _address(self, url: str) -> str:
        host = check_url(url, self._private_hosts)
        try:
            addresses = await self._resolve(host)
        except (OSError, TimeoutError):
            raise InvalidInput(f"The name {host} could not be found. Check the URL.", "url") from None
        check_addresses(host, addresses, self._private_hosts)
        return addresses[0]

    async def _post(self, url: str, address: str, headers: dict[str, str], body: str) -> Answer:
        """Connect to the address that was checked, and not to one that the name might have a moment later."""
        parts = urlsplit(url)
        host = f"[{address}]" if ":" in address else address
        pinned = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()
        extensions = {"sni_hostname": parts.hostname}
        async with (
            httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=SECONDS) as http,
            http.stream(
                "POST",
                pinned,
                content=body.encode(),
                headers={**headers, "Host": parts.netloc},
                extensions=extensions,
            ) as response,
        ):
            read = 0
            async for part in response.aiter_raw():
                read += len(part)
                if read > _READ_BYTES:
                    break
        if response.is_success:
            return Answer(None, response.status_code)
        if response.is_redirect:
            return Answer(
                f"It answered with a redirect ({response.status_code}), and redirects are not followed. Use the URL "
                "to which it leads.",
                response.status_code,
            )
        retry_after = parse_retry_after(response.headers)
        return Answer(f"It answered with the status {response.status_code}.", response.status_code, retry_after)


def _headers(secrets: Sequence[str], message_id: str, body: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets),
    }
