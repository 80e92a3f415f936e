"""The API's role in the database: its name, and its password as the server stores it."""

import base64
import hashlib
import hmac
import secrets

API_ROLE = "cofounder_api"
"""Roles belong to a whole PostgreSQL server, so all databases of one server share it. Privileges are each database's
own."""

_SCRAM_ROUNDS = 4096


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What PostgreSQL stores of a password (RFC 5803), so that no log of its statements has the password itself.

    For ASCII passwords: others would have to be normalized first.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    texts = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return f"SCRAM-SHA-256${_SCRAM_ROUNDS}:{texts[0]}${texts[1]}:{texts[2]}"
