"""An identity provider for tests: its documents and keys over HTTP, and tokens that can be wrong in any way."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from joserfc import jws
from joserfc.jwk import Key, RSAKey

from domain.issuers import Issuer

API = "https://api.cofounder.example"
"""The audience of tokens for this API."""

_ALGORITHM = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}


def rsa_key(kid: str | None = "a") -> RSAKey:
    """A new key to sign with."""
    return RSAKey.generate_key(2048, {"kid": kid} if kid is not None else {})


def encoded(part: object) -> str:
    """A part of a token: JSON, or a text as it is."""
    text = part if isinstance(part, str) else json.dumps(part)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def signed(key: Key, claims: object, **header: Any) -> str:
    """A token with a correct signature, whatever its header and claims say. A header of None is left out."""
    head = {"alg": _ALGORITHM[key.key_type], "typ": "JWT", "kid": key.kid, **header}
    return signature_of(key, encoded({name: value for name, value in head.items() if value is not None}), claims)


def signature_of(key: Key, head: str, claims: object, algorithm: str | None = None) -> str:
    """A token of an encoded header, with a correct signature."""
    text = f"{head}.{encoded(claims)}"
    model = jws.JWSRegistry.algorithms[algorithm or _ALGORITHM[key.key_type]]
    return f"{text}.{base64.urlsafe_b64encode(model.sign(text.encode(), key)).rstrip(b'=').decode()}"


class TestProvider:
    """A provider's server. Change `keys`, `document` or `status` to have it rotate its keys, lie or fail."""

    __test__ = False

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Any] = [rsa_key()]
        """Keys, or entries of the document with its keys as they are."""
        self.document: dict[str, Any] = {}
        self.status = 200
        self.location: str | None = None
        self.asked: list[str] = []
        """The paths of all requests so far."""
        self.answer: dict[str, Any] = {}
        """What it answers to a code."""
        self.exchanged: list[tuple[dict[str, str], str | None]] = []
        """The forms with which codes were exchanged, each with its `Authorization`."""

    def issuer(self, **changes: Any) -> Issuer:
        """The entry of OIDC_ISSUERS for it."""
        return Issuer(**{"name": "test", "issuer": self.url, "client_id": "cofounder", "audience": API, **changes})

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a valid token. One of None is left out."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": API, "sub": "ada", "iat": now, "exp": now + 300, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A token by its first key."""
        return signed(self.keys[0], self.claims(**changes), **(header or {}))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        headers = dict(line.split(": ", 1) for line in head.lower().splitlines()[1:] if line)
        self.asked.append(path)
        if path == "/token":
            form = parse_qsl((await reader.readexactly(int(headers["content-length"]))).decode())
            spelled = [line for line in head.splitlines() if line.lower().startswith("authorization:")]
            self.exchanged.append((dict(form), spelled[0].split(": ")[1] if spelled else None))
        endpoints = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize?hint=1",
            "token_endpoint": f"{self.url}/token",
        }
        documents = {
            "/token": self.answer,
            "/.well-known/openid-configuration": endpoints | self.document,
            "/keys": {"keys": [key if isinstance(key, dict) else key.as_dict(private=False) for key in self.keys]},
        }
        body = json.dumps(documents.get(path, {})).encode()
        location = f"Location: {self.location}\r\n" if self.location else ""
        status = self.status if path in documents else 404
        writer.write(
            f"HTTP/1.1 {status} X\r\n{location}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        )
        writer.write(body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def running_provider() -> AsyncIterator[TestProvider]:
    """Serve a provider on a free port of this machine."""
    provider = TestProvider()
    server = await asyncio.start_server(provider._serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield provider
