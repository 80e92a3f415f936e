"""API keys: made, rotated, revoked, and checked when a request is made with one.

What is made with a key has no more scopes than the key, does not outlive it, and ends when it is revoked. So a leaked
key leaves nothing behind.
"""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from db import api_keys
from db.models import ApiKey
from db.transaction import Transaction
from db.users import require_user
from domain.api_keys import (
    ID_DIGITS,
    MAX_KEYS,
    OVERLAP,
    SECRET_DIGITS,
    ApiKeyText,
    check_name,
    check_scopes,
    expiry,
    parse,
)
from domain.audit import Action
from domain.errors import Conflict, CredentialRefused, NotFound
from domain.identity import How, Identity, Scope
from services.audit import record

NOTE_USE_EVERY = timedelta(minutes=1)
"""`last_used_at` is written at most this often, so that a request costs no write."""

_NO_SECRET = bytes(hashlib.sha256().digest_size)
"""Compared with instead of the hash of a key that does not exist, so that the answer takes as long."""


@dataclass(frozen=True)
class NewKey:
    """A key that was just made. `text` is the whole key: its user gets it once."""

    key: ApiKey
    text: str


async def create_key(
    tx: Transaction, maker: Identity, name: str, scopes: Iterable[Scope], lifetime: timedelta | None = None
) -> NewKey:
    """Make a key that acts for the maker's user.

    Args:
        lifetime: None for the default, or as long as the maker's own key lives if that is less.

    Raises:
        NotFound: an operator names a user who does not exist.
        InvalidInput: name, scopes or lifetime can't be had; the message says why.
        Conflict: the user has as many keys as they may.
    """
    await require_user(tx, maker.user_id)
    wanted = check_scopes(scopes, maker.scopes)
    name = check_name(name)
    expires_at = expiry(datetime.now(UTC), lifetime, await _expiry_of(tx, maker))
    if await api_keys.lock_keys_of(tx, maker.user_id) >= MAX_KEYS:
        raise Conflict(f"You have {MAX_KEYS} keys, the most that one may have. Revoke one that is not used.")
    new = await _add(tx, maker, name, wanted, expires_at)
    await record(tx, Action.KEY_CREATE, key_id=new.key.id)
    return new


async def rotate_key(tx: Transaction, maker: Identity, key_id: str, overlap: timedelta = OVERLAP) -> NewKey:
    """Replace a key by a new one with the same name, scopes and lifetime. Both work during the overlap.

    Raises:
        NotFound: the user has no such key.
        Conflict: the key has ended or was rotated before.
        InvalidInput: the key has scopes that the maker does not have.
    """
    old = await api_keys.lock_key(tx, maker.user_id, key_id)
    if old is None:
        raise NotFound(f"You have no key {key_id[:80]!r}.")
    now = datetime.now(UTC)
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        raise Conflict(f"The key {old.id} has ended. Make a new one.")
    if old.replaced_by is not None:
        raise Conflict(f"The key {old.id} was rotated before. Rotate its replacement: {old.replaced_by}.")
    scopes = check_scopes(map(Scope, old.scopes), maker.scopes)
    limit = await _expiry_of(tx, maker)
    # As long as the old one, and not in vain if the key that asks expires before that: it can't be outlived.
    expires_at = expiry(now, None if old.expires_at is None else old.expires_at - old.created_at, None)
    if await api_keys.lock_keys_of(tx, maker.user_id) >= 2 * MAX_KEYS:
        raise Conflict("Too many rotated keys still work. Wait for their overlap to end, or revoke one.")
    new = await _add(tx, maker, old.name, scopes, expires_at if limit is None else min(expires_at, limit))
    ends_at = now + overlap
    await api_keys.replace_key(tx, old.id, new.key.id, min(ends_at, old.expires_at or ends_at))
    await record(tx, Action.KEY_ROTATE, key_id=old.id, new_key_id=new.key.id)
    return new


async def list_keys(tx: Transaction, user_id: str) -> Sequence[ApiKey]:
    """The user's keys that work, the newest first."""
    return await api_keys.list_keys(tx, user_id)


async def revoke_key(tx: Transaction, user_id: str, key_id: str) -> list[str]:
    """End a key at once, with the keys that it made and those that it has replaced.

    Returns:
        The ids of all that ended; none if the key was revoked before.

    Raises:
        NotFound: the user has no such key.
    """
    if await api_keys.lock_key(tx, user_id, key_id) is None:
        raise NotFound(f"You have no key {key_id[:80]!r}.")
    ended = await api_keys.revoke_key(tx, key_id)
    if ended:
        await record(tx, Action.KEY_REVOKE, key_id=key_id, others=len(ended) - 1)
    return ended


async def identify_key(tx: Transaction, credential: str) -> Identity:
    """Who makes a request with this key. Notes that it is used.

    Raises:
        CredentialRefused: the key is not whole, not known, revoked or expired.
    """
    given = parse(credential)
    key = await api_keys.find_key(tx, given.id)
    if not secrets.compare_digest(given.secret_hash, _NO_SECRET if key is None else key.secret_hash) or key is None:
        raise CredentialRefused(
            "This API key is not known here. It may be of another deployment: check the API's address. Or make another "
            "key: `cofounder keys create`.",
            "key-unknown",
        )
    now = datetime.now(UTC)
    if key.revoked_at is not None:
        raise CredentialRefused(
            f"The API key {key.id} was revoked on {key.revoked_at:%Y-%m-%d}. Make another: `cofounder keys create`.",
            "key-revoked",
        )
    if key.expires_at is not None and key.expires_at <= now:
        successor = "" if key.replaced_by is None else f" The key {key.replaced_by} has taken its place."
        raise CredentialRefused(
            f"The API key {key.id} expired on {key.expires_at:%Y-%m-%d at %H:%M} UTC.{successor} Make another: "
            "`cofounder keys create`.",
            "key-expired",
        )
    if key.last_used_at is None or key.last_used_at < now - NOTE_USE_EVERY:
        await api_keys.note_use(tx, key.id, NOTE_USE_EVERY)
    scopes = frozenset(Scope(scope) for scope in key.scopes if scope in set(Scope))
    return Identity(key.user_id, scopes, How.API_KEY, key.user_id, key.id)


async def _add(tx: Transaction, maker: Identity, name: str, scopes: frozenset[Scope], expires_at: datetime) -> NewKey:
    text = ApiKeyText(secrets.token_hex(ID_DIGITS // 2), secrets.token_hex(SECRET_DIGITS // 2))
    with_key = maker.how is How.API_KEY and maker.credential_id is not None
    key = ApiKey(
        id=text.id,
        user_id=maker.user_id,
        name=name,
        secret_hash=text.secret_hash,
        scopes=sorted(scopes),
        created_by=api_keys.made_with_key(maker.credential_id or "") if with_key else maker.actor,
        expires_at=expires_at,
    )
    return NewKey(await api_keys.add_key(tx, key), str(text))


async def _expiry_of(tx: Transaction, maker: Identity) -> datetime | None:
    """When the key that the maker uses expires; None if they use none."""
    if maker.how is not How.API_KEY or maker.credential_id is None:
        return None
    key = await api_keys.find_key(tx, maker.credential_id)
    return None if key is None else key.expires_at
