"""One identity provider: verifies its tokens, and turns the code of a browser's sign-in into an ID token."""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import structlog
from joserfc.errors import ClaimError, ExpiredTokenError
from joserfc.jwk import Key
from joserfc.jwt import JWTClaimsRegistry

from clients.dns import Resolve, resolve
from clients.oidc.documents import DocumentCache, Unreadable, check_server, fetch, read_document
from clients.oidc.keys import is_signed, keys_for, public_keys
from domain.errors import TokenRefused
from domain.issuers import LEEWAY_SECONDS, Issuer, VerifiedClaims, is_safe_url, is_subject
from domain.tokens import UnverifiedToken, looks_like_token, read_token

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Code:
    """What a browser brings back from a provider, and what proves that we had sent it there."""

    code: str
    verifier: str
    """The PKCE verifier whose challenge went with the browser."""
    nonce: str
    redirect_uri: str


class IdentityProvider:
    """An issuer and what is known of it. Asks for its documents when they are first needed."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        clock: Callable[[], float] = time.monotonic,
        resolver: Resolve = resolve,
    ) -> None:
        self.issuer = issuer
        self._resolver = resolver
        self._document = DocumentCache(issuer.label, self._read_document, clock)
        self._keys = DocumentCache(issuer.label, self._read_keys, clock)

    async def verify_bearer(self, text: str) -> VerifiedClaims:
        """Verify a token that a program sends in `Authorization: Bearer`.

        Raises:
            TokenRefused: says why.
            IssuerUnavailable: the provider does not answer, and the token's key is not known.
        """
        token = _read(text)
        await self._check_signature(text, token)
        return self._check_claims(token, self.issuer.audience)

    async def _check_signature(self, text: str, token: UnverifiedToken) -> None:
        algorithm, kid = token.header["alg"], token.header.get("kid")
        if algorithm not in self.issuer.algorithms:
            raise TokenRefused(
                f"The token is signed with an algorithm that is not allowed for {self.issuer.label}. Get one that is "
                f"signed with {' or '.join(self.issuer.algorithms)}."
            )
        keys = keys_for(await self._keys.get(), kid, algorithm)
        if not keys or (kid is None and not is_signed(text, keys[0], algorithm)):
            await self._keys.renew()
            keys = keys_for(await self._keys.get(), kid, algorithm)
            if not keys and self._keys.failed:
                raise self._keys.unavailable()
        if kid is None and len(keys) > 1:
            raise TokenRefused(
                f"The token does not say with which key of {self.issuer.label} it is signed. Get one with a `kid`."
            )
        if not keys or not is_signed(text, keys[0], algorithm):
            raise TokenRefused(
                f"The token is not signed with a key that {self.issuer.label} publishes. Copy all of it, or get "
                "another."
            )

    def _check_claims(self, token: UnverifiedToken, audience: Sequence[str]) -> VerifiedClaims:
        label = self.issuer.label
        rules = JWTClaimsRegistry(
            now=int(time.time()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self.issuer.issuer},
            aud={"essential": True, "values": list(audience)},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            rules.validate(dict(token.claims))
        except ExpiredTokenError:
            raise TokenRefused(f"The token has expired. Get another from {label}.") from None
        except ClaimError as error:
            raise TokenRefused(
                f"The token is not valid here or now: {_PROBLEMS.get(error.claim, error.description)}. Get another "
                f"from {label}, and check the clocks and the audience."
            ) from None
        if not is_subject(token.claims["sub"]):
            raise TokenRefused(f"The token's `sub` can't be the name of a person. Tell the operator of {label}.")
        if "cnf" in token.claims:
            raise TokenRefused("The token is bound to a key of its holder, which is not supported. Get a bearer token.")
        return VerifiedClaims(self.issuer, token.claims["sub"], token.claims)

    async def sign_in_url(self, *, state: str, nonce: str, challenge: str, redirect_uri: str) -> str:
        """The provider's page to which a browser goes to sign in. `challenge`: that of PKCE, by S256.

        Raises:
            IssuerUnavailable: the provider does not answer, and its documents are not known.
        """
        page = (await self._document.get()).get("authorization_endpoint")
        if not isinstance(page, str) or not is_safe_url(page) or urlsplit(page).fragment:
            _log.warning("an identity provider names no page for signing in", issuer=self.issuer.label)
            raise self._document.unavailable()
        query = {
            "response_type": "code",
            "client_id": self.issuer.client_id or "",
            "redirect_uri": redirect_uri,
            "scope": self.issuer.request_scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{page}{'&' if urlsplit(page).query else '?'}{urlencode(query)}"

    async def names_itself(self) -> bool:
        """Whether the provider promises to name itself with each code (RFC 9207).

        Raises:
            IssuerUnavailable: the provider does not answer, and its documents are not known.
        """
        return (await self._document.get()).get("authorization_response_iss_parameter_supported") is True

    async def verify_code(self, code: Code) -> VerifiedClaims:
        """Exchange the code for an ID token, and verify that.

        Raises:
            TokenRefused: the provider does not accept the code, or its token is not for this sign-in.
            IssuerUnavailable: the provider does not answer.
        """
        document = await self._document.get()
        try:
            url = await check_server(self.issuer, document.get("token_endpoint"), self._resolver)
            status, answer = await self._exchange(url, document, code)
        except Unreadable as error:
            _log.warning("an identity provider can't exchange a code", issuer=self.issuer.label, reason=str(error))
            raise self._document.unavailable() from None
        text = answer.get("id_token")
        if status != 200 or not isinstance(text, str):
            reason = str(answer.get("error", "no ID token"))[:60]
            _log.warning("an identity provider refuses a code", issuer=self.issuer.label, status=status, reason=reason)
            raise TokenRefused(
                f"{self.issuer.label} did not complete the sign-in. Sign in again. If that fails too, tell the "
                "operator."
            )
        token = _read(text)
        await self._check_signature(text, token)
        client_id = self.issuer.client_id or ""
        claims = self._check_claims(token, (client_id,))
        several = isinstance(claims.claims["aud"], list) and len(claims.claims["aud"]) > 1
        if (
            claims.claims.get("nonce") != code.nonce
            or claims.claims.get("azp", None if several else client_id) != client_id
        ):
            raise TokenRefused(f"The answer of {self.issuer.label} belongs to another sign-in. Sign in again.")
        return claims

    async def _exchange(self, url: str, document: Mapping[str, Any], code: Code) -> tuple[int, dict[str, Any]]:
        form = {
            "grant_type": "authorization_code",
            "code": code.code,
            "redirect_uri": code.redirect_uri,
            "code_verifier": code.verifier,
            "client_id": self.issuer.client_id or "",
        }
        headers = {}
        if self.issuer.client_secret is not None:
            secret = self.issuer.client_secret.get_secret_value()
            methods = document.get("token_endpoint_auth_methods_supported")
            if isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods:
                form["client_secret"] = secret
            else:
                pair = f"{quote(form['client_id'], safe='')}:{quote(secret, safe='')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return await fetch(url, form=form, headers=headers)

    async def _read_document(self) -> Mapping[str, Any]:
        url = self.issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await read_document(url)
        if document.get("issuer") != self.issuer.issuer:
            raise Unreadable(
                f"{url} is the document of {document.get('issuer')!r}; write that exactly as `issuer` in OIDC_ISSUERS "
                "if it is the one that you mean"
            )
        return document

    async def _read_keys(self) -> Sequence[Key]:
        url = self.issuer.jwks_url
        if url is None:
            url = await check_server(self.issuer, (await self._document.get()).get("jwks_uri"), self._resolver)
        return public_keys(await read_document(url))


_PROBLEMS = {
    "iss": "its `iss` is another issuer",
    "aud": "its `aud` does not name this API",
    "nbf": "its time has not begun, by `nbf`",
    "iat": "it was issued in the future, by `iat`",
}


def _read(text: str) -> UnverifiedToken:
    try:
        return read_token(text)
    except ValueError as error:
        raise TokenRefused(f"The token {error}.") from None


class IdentityProviders:
    """The providers of OIDC_ISSUERS."""

    def __init__(self, providers: Sequence[IdentityProvider]) -> None:
        self._providers = providers

    @property
    def take_bearer_tokens(self) -> bool:
        """Whether bearer tokens of any of them are accepted."""
        return any(each.issuer.audience for each in self._providers)

    def for_sign_in(self) -> Sequence[Issuer]:
        """Those through which people can sign in with a browser."""
        return [each.issuer for each in self._providers if each.issuer.client_id is not None]

    def named(self, name: str) -> IdentityProvider | None:
        """The provider of that name, if people can sign in through it."""
        found = (each for each in self._providers if each.issuer.name == name and each.issuer.client_id is not None)
        return next(found, None)

    def is_for_us(self, text: str) -> bool:
        """Whether a text says that it is a token of one of them for this API. Its signature is not checked."""
        if not looks_like_token(text):
            return False
        try:
            token = read_token(text)
        except ValueError:
            return False
        claimed = token.claims.get("aud")
        audience = {each for each in (claimed if isinstance(claimed, list) else [claimed]) if isinstance(each, str)}
        issuers = [each.issuer for each in self._providers if each.issuer.issuer == token.issuer]
        return any(audience & {*each.audience, each.client_id} for each in issuers)

    async def verify_bearer(self, text: str) -> VerifiedClaims:
        """Verify a token that a program sends in `Authorization: Bearer`. Its `iss` says by whose keys.

        Raises:
            TokenRefused: says why.
            IssuerUnavailable: the provider does not answer, and the token's key is not known.
        """
        named = _read(text).issuer
        for provider in self._providers:
            if provider.issuer.issuer == named and provider.issuer.audience:
                return await provider.verify_bearer(text)
        raise TokenRefused(
            "The token is not from an issuer whose tokens are accepted here. Get one from such an issuer, or use an "
            "API key."
        )
