"""Identity providers that an operator trusts, and what they may say about a person.

An issuer vouches for people in two ways: with a JWT that a program sends in `Authorization: Bearer`, whose `aud` is one
of `audience`; and with the ID token of a browser's sign-in, whose `aud` is `client_id`. Neither is taken for the other.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic import model_validator as whole

from domain.errors import Refused

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""What an operator can allow. A symmetric algorithm would make every reader of a key an issuer, and `none` everyone."""

DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")

LEEWAY_SECONDS = 30
"""How far the issuer's clock and ours may be apart."""

_LONGEST_SUBJECT = 255
"""Characters; OpenID Connect allows no more."""

_LONGEST_NAME = 200
_LONGEST_EMAIL = 254

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+")


def is_safe_url(url: str) -> bool:
    """Whether what the server at this URL says can be trusted to come from there: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        known = bool(parts.hostname) and parts.port != 0 and not parts.username and not parts.password
    except ValueError:
        return False
    printable = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    return known and printable and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))


class Operators(BaseModel):
    """Whom an issuer makes an operator: by subject, or by a value in a claim such as `groups`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subjects: tuple[str, ...] = ()
    claim: str | None = Field(default=None, min_length=1)
    values: tuple[str, ...] = ()

    @whole(mode="after")
    def _claim_has_values(self) -> "Operators":
        if (self.claim is None) != (not self.values):
            raise ValueError("name both a claim and its values, or neither")
        return self


class Issuer(BaseModel):
    """An identity provider, as in an entry of OIDC_ISSUERS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9](-?[a-z0-9]){0,30}$")
    """In the address of its sign-in: `/sign-in/NAME`."""
    title: str | None = Field(default=None, min_length=1, max_length=60)
    """What people read; the name if there is none."""
    issuer: str
    """Exactly what its tokens have as `iss`, with or without a slash at the end."""
    client_id: str | None = Field(default=None, min_length=1)
    """Our id there, for signing in with a browser. None: no one signs in through it."""
    client_secret: SecretStr | None = None
    audience: tuple[str, ...] = ()
    """What a bearer token must have in `aud`. Empty: no bearer token of it is accepted."""
    algorithms: tuple[str, ...] = Field(default=DEFAULT_ALGORITHMS, min_length=1)
    jwks_url: str | None = None
    """Where its public keys are. None: where its discovery document says."""
    request_scope: str = "openid profile email"
    """What a browser's sign-in asks for."""
    scopes_claim: str | None = Field(default=None, min_length=1)
    """The claim of a bearer token that limits its scopes. None: the token may do all that its user may."""
    scopes: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """What the values of that claim mean in scopes of ours. One that is not here means the scope of its own name."""
    operators: Operators = Operators()
    new_users: bool = True
    """Whether a subject that was never seen before becomes a user."""
    email_domains: tuple[str, ...] = ()
    """Only people whose verified email address is in one of these domains. Empty: everyone whom the issuer knows."""

    @field_validator("audience", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        if value is not None and (not is_safe_url(value) or urlsplit(value).fragment):
            raise ValueError("must be of the form https://host/path; http is only for this machine")
        return value

    @field_validator("issuer")
    @classmethod
    def _without_query(cls, value: str) -> str:
        if urlsplit(value).query:
            raise ValueError("must not have a query")
        return value

    @field_validator("algorithms")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [each for each in value if each not in ALGORITHMS]:
            raise ValueError(f"{', '.join(unknown)} can't be allowed; choose from {', '.join(ALGORITHMS)}")
        return value

    @field_validator("email_domains")
    @classmethod
    def _lower_case(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("@" in each or not each for each in value):
            raise ValueError("write domains without the @, such as example.com")
        return tuple(each.lower() for each in value)

    @whole(mode="after")
    def _is_for_something(self) -> "Issuer":
        if self.client_id is None and not self.audience:
            raise ValueError("needs a client_id for signing in with a browser, or an audience for bearer tokens")
        if self.client_id is not None and "openid" not in self.request_scope.split():
            raise ValueError("request_scope needs `openid`")
        return self

    @property
    def label(self) -> str:
        """What people call it."""
        return self.title or self.name


_ISSUERS = TypeAdapter(tuple[Issuer, ...])


def parse_issuers(text: str) -> Sequence[Issuer]:
    """Read the value of OIDC_ISSUERS.

    Raises:
        ValueError: says what is wrong, without quoting a secret.
    """
    try:
        issuers = _ISSUERS.validate_python(json.loads(text))
    except ValidationError as error:
        raise ValueError("; ".join(_mistakes(error))) from None
    except ValueError as error:
        raise ValueError(f"is not JSON ({error}); write a list of issuers") from None
    for what, values in (("name", [each.name for each in issuers]), ("issuer", [each.issuer for each in issuers])):
        if len(set(values)) < len(values):
            raise ValueError(f"two issuers have the same {what}; each needs its own")
    return issuers


def _mistakes(error: ValidationError) -> Iterable[str]:
    for each in error.errors(include_input=False, include_url=False):
        place = ".".join(map(str, each["loc"]))
        yield f"{place}: {each['msg'].removeprefix('Value error, ')}" if place else each["msg"]


def client_secrets(text: str) -> list[str]:
    """The secrets in the value of OIDC_ISSUERS."""
    return [each.client_secret.get_secret_value() for each in parse_issuers(text) if each.client_secret is not None]


@dataclass(frozen=True)
class VerifiedClaims:
    """Claims of a token that was verified, about one subject of an issuer."""

    issuer: Issuer
    subject: str
    claims: Mapping[str, Any]

    @property
    def name(self) -> str | None:
        """What the person is called."""
        return _line(self.claims.get("name") or self.claims.get("preferred_username"), _LONGEST_NAME)

    @property
    def email(self) -> str | None:
        """The person's address, if the issuer has verified it."""
        email = self.claims.get("email")
        is_email = isinstance(email, str) and len(email) <= _LONGEST_EMAIL and _EMAIL.fullmatch(email)
        return str(email) if is_email and self.claims.get("email_verified") is True else None

    @property
    def is_operator(self) -> bool:
        """Whether the issuer makes this subject an operator."""
        rule = self.issuer.operators
        return self.subject in rule.subjects or (
            rule.claim is not None and bool(set(values_of(self.claims.get(rule.claim))) & set(rule.values))
        )

    def limited_to(self) -> frozenset[str] | None:
        """The scopes that the token is limited to; None if its issuer limits none."""
        issuer = self.issuer
        if issuer.scopes_claim is None:
            return None
        values = values_of(self.claims.get(issuer.scopes_claim), separated=True)
        return frozenset(scope for value in values for scope in issuer.scopes.get(value, (value,)))

    def check_domain(self) -> None:
        """Check that the person's address is in one of the issuer's domains, if it names any.

        Raises:
            Refused: says which domains may sign in.
        """
        domains = self.issuer.email_domains
        if domains and (self.email or "").rpartition("@")[2].lower() not in domains:
            raise Refused(
                f"Only verified email addresses at {' or '.join(domains)} may sign in through {self.issuer.label}. "
                "Sign in with such an address, or ask the operator."
            )


def values_of(claim: object, *, separated: bool = False) -> list[str]:
    """The texts in a claim: one, or a list; or `separated` by spaces, as scopes are."""
    if isinstance(claim, str):
        return claim.split() if separated else [claim]
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []


def is_subject(value: object) -> bool:
    """Whether a claim can be the name of a person at an issuer."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_SUBJECT and value.isprintable() and bool(value.strip())


def _line(value: object, longest: int) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(each if each.isprintable() else " " for each in value).strip()[:longest] or None


def own_path(return_to: str | None) -> str:
    """Return where a browser goes after its sign-in: `return_to` if that is a path of ours, else `/`.

    Browsers read `//host`, `/\\host` and `/<tab>/host` as another server.
    """
    path = return_to or "/"
    good = path.startswith("/") and not path.startswith("//") and len(path) <= 2000
    good = good and all("!" <= each <= "~" and each != "\\" for each in path)
    return path if good and not re.match(r"/sign-in([/?#]|$)", path) else "/"
