"""Webhooks: which news of builds is sent, where it may go, and when a failed delivery is tried again."""

import base64
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from domain.addresses import METADATA_SERVICES, carried_address, is_public
from domain.errors import InvalidInput


class Topic(StrEnum):
    """What a delivery tells."""

    ASLEEP = "build.asleep"
    AWAKE = "build.awake"
    NEEDS_INPUT = "build.needs_input"
    READY = "build.ready"
    FAILED = "build.failed"
    TEST = "webhook.test"
    """Asked for by a person. Every webhook gets it."""


CHOICES = tuple(topic for topic in Topic if topic is not Topic.TEST)
"""The topics that a webhook is made for."""

MAX_WEBHOOKS = 20
"""Of one organisation."""

URL_MAX_CHARACTERS = 2000
DESCRIPTION_MAX_CHARACTERS = 200

RETRIES = (
    *(timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30)),
    *(timedelta(hours=2), timedelta(hours=5), timedelta(hours=10), timedelta(hours=10)),
)
"""How long after each failed attempt the next one is made. After the last, the delivery is dead."""

LONGEST_RETRY_AFTER = timedelta(hours=1)
"""A receiver can put off the next attempt by at most this, with `Retry-After`."""

OVERLAP = timedelta(days=1)
"""How long messages are signed with the old secret, too, after a rotation."""

LONGEST_OVERLAP = timedelta(days=7)

SIGNATURE_VERSION = "v1"
_SECRET_BYTES = 32


def new_secret() -> str:
    """A secret with which deliveries are signed, in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


def check_url(url: str, private_hosts: Collection[str]) -> str:
    """Return the host of a webhook's URL.

    Args:
        private_hosts: hosts that the operator allows to have private addresses, and to be reached without TLS.

    Raises:
        InvalidInput: says what to do. Does not quote the URL, which may have a secret in its path.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise InvalidInput("The URL is not valid. Send it as https://host/path.", "url") from None
    if parts.scheme not in ("https", "http") or not host or port == 0 or not url.isascii() or not url.isprintable():
        raise InvalidInput("The URL is not valid. Send it as https://host/path, in ASCII.", "url")
    if " " in url or "\\" in url:
        raise InvalidInput("The URL has a space or a backslash. Percent-encode them.", "url")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("The URL has a user or password before the @. Put a secret into its path instead.", "url")
    if parts.fragment:
        raise InvalidInput("The URL has a # with text behind it, which no server ever sees. Remove it.", "url")
    if parts.scheme == "http" and host not in private_hosts:
        raise InvalidInput("http:// shows your news to everyone on the way. Use https://.", "url")
    return host


def check_addresses(host: str, addresses: Iterable[str], private_hosts: Collection[str]) -> None:
    """Check that a webhook's host may be reached at all of these addresses.

    Raises:
        InvalidInput: one of them is not of the public internet, and the operator has not named the host.
    """
    for address in addresses:
        ip = carried_address(address)
        if ip is None or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in METADATA_SERVICES:
            raise InvalidInput(f"{host} has an address at which no webhook is delivered.", "url")
        if not is_public(address) and host not in private_hosts:
            raise InvalidInput(
                f"{host} has a private address, and webhooks go to public servers only. The operator can allow this "
                "host with WEBHOOK_PRIVATE_HOSTS.",
                "url",
            )


def wait_after(attempts: int, retry_after: timedelta | None = None) -> timedelta | None:
    """How long to wait after that many failed attempts; None if the delivery is dead.

    Args:
        retry_after: what the receiver has asked for.
    """
    if attempts > len(RETRIES):
        return None
    asked = min(retry_after or timedelta(), LONGEST_RETRY_AFTER)
    return max(RETRIES[max(attempts, 1) - 1], asked)


def parse_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """What a receiver asks for in `Retry-After`, if it is a number of seconds."""
    value = headers.get("retry-after", "")
    return timedelta(seconds=int(value)) if value.isascii() and value.isdigit() and len(value) < 7 else None
