"""Which texts are tokens for this API: the gateway of previews passes all others on to products."""

import base64
import json
from typing import Any

import pytest

from clients.oidc.provider import IdentityProvider, IdentityProviders
from domain.issuers import Issuer

ISSUER = Issuer(name="corp", issuer="https://id.example", client_id="console", audience=("cofounder",))


def token(**claims: Any) -> str:
    """A token with these claims and no signature that would hold."""
    parts = [{"alg": "RS256"}, {"iss": "https://id.example", "aud": "cofounder", "sub": "ada", **claims}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        (token(), True),
        (token(aud=["other", "cofounder"]), True),
        (token(aud="console"), True),
        (token(aud="a-product"), False),
        (token(aud=None), False),
        (token(iss="https://other.example"), False),
        ("a.b.c", False),
        ("theirs", False),
        ("", False),
    ],
)
def test_tokens_for_this_api(text: str, ours: bool) -> None:
    assert IdentityProviders([IdentityProvider(ISSUER)]).is_for_us(text) is ours
