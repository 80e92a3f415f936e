"""The bodies of requests and responses about identities: who one is, API keys and sign-ins."""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.schemas import Body, OrganisationOut
from db.models import ApiKey, SignIn, User
from db.organisations import OwnOrganisation
from domain.api_keys import LIFETIME, LONGEST_LIFETIME, LONGEST_OVERLAP, NAME_MAX_CHARACTERS, OVERLAP
from domain.identity import How, Identity, Scope

_DAY = timedelta(days=1)


class ServerOut(BaseModel):
    """What someone who looks at a page needs to know about the server."""

    version: str
    builds_on: bool = Field(description="Whether you may start builds now, as far as operators' switches decide it.")
    builds_off_reason: str | None = Field(description="Why not, for people.")
    rehearsal: bool = Field(description="Whether the rehearsal model builds: always the same kind of product.")
    preview_origins: list[str] = Field(
        description="Where previews are served, as sources of a Content-Security-Policy: `*` is a host's first label."
    )
    temporal_ui_url: str | None = Field(
        description="The namespace in Temporal's UI, for operators: the workflow of a build is at "
        "`/workflows/build-{id}` below. Null for founders, and if TEMPORAL_UI_URL is unset."
    )


class MeOut(BaseModel):
    """Who makes the request, and what they may do."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ME]})

    user: str
    name: str | None
    email: str | None
    how: How = Field(description="By what the request was identified.")
    actor: str = Field(description="Who makes the request: the user, or `operator` if an operator acts for them.")
    credential_id: str | None = Field(description="The id of the API key or the sign-in.")
    scopes: list[Scope]
    is_operator: bool = Field(description="Whether money and what belongs to other users is shown.")
    organisations: list[OrganisationOut]
    server: ServerOut

    @classmethod
    def of(cls, identity: Identity, user: User, organisations: Iterable[OwnOrganisation], server: ServerOut) -> Self:
        """The identity, with its user's row and organisations."""
        return cls(
            user=user.id,
            name=user.name,
            email=user.email,
            how=identity.how,
            actor=identity.actor,
            credential_id=identity.credential_id,
            scopes=sorted(identity.scopes),
            is_operator=identity.is_operator,
            organisations=[OrganisationOut.of(each) for each in organisations],
            server=server,
        )


class NewKey(Body):
    """An API key to make. It acts for the user of the request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "the nightly export", "scopes": ["builds:read"], "days": 30}]}
    )

    name: str = Field(
        description=f"The program that will use the key: 1 to {NAME_MAX_CHARACTERS} printable characters.",
        min_length=1,
        max_length=NAME_MAX_CHARACTERS,
    )
    scopes: list[Scope] | None = Field(
        default=None,
        min_length=1,
        max_length=len(Scope),
        description="What the key may do, at most what you may. By default all that a founder may.",
    )
    days: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_LIFETIME // _DAY,
        description=f"The key expires after this many days; {LIFETIME // _DAY} by default. A key that is made with "
        "another key expires with that one at the latest.",
    )


class KeyRotation(Body):
    """How to rotate an API key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: int = Field(
        default=int(OVERLAP.total_seconds()),
        ge=0,
        le=int(LONGEST_OVERLAP.total_seconds()),
        description="The old key works this many seconds longer. 0: it ends at once.",
    )


class KeyOut(BaseModel):
    """An API key, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.API_KEY]})

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    replaced_by: str | None = Field(description="The key that a rotation made in its place.")

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """The key of the row."""
        return cls(
            id=key.id,
            name=key.name,
            scopes=_known(key.scopes),
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            replaced_by=key.replaced_by,
        )


class KeyList(BaseModel):
    """A user's API keys that work, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keys": [examples.API_KEY]}]})

    keys: list[KeyOut]


class MadeKeyOut(BaseModel):
    """An API key that was just made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"key": examples.API_KEY, "secret": examples.API_KEY_TEXT}]}
    )

    key: KeyOut
    secret: str = Field(description="The whole key, to send as `Authorization: Bearer …`. It is shown only this once.")


class NewSignInLink(Body):
    """A sign-in link to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scopes": ["builds:read", "account:read"]}]})

    scopes: list[Scope] | None = Field(
        default=None,
        min_length=1,
        max_length=len(Scope),
        description="What the sign-in may do, at most what you may. By default all that a founder may.",
    )


class SignInLinkOut(BaseModel):
    """A sign-in link. It works once."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SIGN_IN_LINK]})

    url: str = Field(description="Open it in a browser. The code is in the fragment, which browsers send to no server.")
    expires_at: datetime


class SignInCode(Body):
    """The code of a sign-in link."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "the code of the link"}]})

    code: str = Field(min_length=1, max_length=200)


class SignInOut(BaseModel):
    """A browser that is signed in."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SIGN_IN]})

    id: uuid.UUID
    method: str = Field(description="`link`, or the identity provider that identified the user.")
    scopes: list[Scope]
    created_at: datetime
    last_used_at: datetime = Field(description="To the minute.")
    expires_at: datetime
    current: bool = Field(description="Whether this request was made with it.")

    @classmethod
    def of(cls, row: SignIn, credential_id: str | None) -> Self:
        """The sign-in of the row, in the view of someone with this credential."""
        return cls(
            id=row.id,
            method=row.method,
            scopes=_known(row.scopes),
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            expires_at=row.expires_at,
            current=str(row.id) == credential_id,
        )


class SignInList(BaseModel):
    """A user's sign-ins that work, the one used last first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sign_ins": [examples.SIGN_IN]}]})

    sign_ins: list[SignInOut]


class SignedInOut(BaseModel):
    """Who has just signed in."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "ada", "sign_in": examples.SIGN_IN}]})

    user: str
    sign_in: SignInOut


def _known(scopes: Iterable[str]) -> list[Scope]:
    """The scopes that this version of the program knows."""
    return sorted(Scope(scope) for scope in scopes if scope in set(Scope))
