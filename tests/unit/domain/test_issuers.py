"""What OIDC_ISSUERS may say, and what an issuer's claims mean here."""

import json
from typing import Any

import pytest

from domain.errors import Refused
from domain.issuers import Issuer, VerifiedClaims, client_secrets, is_safe_url, own_path, parse_issuers

ENTRY: dict[str, Any] = {"name": "acme", "issuer": "https://id.acme.example/", "client_id": "cofounder"}


def claims_of(claims: dict[str, Any] | None = None, **issuer: Any) -> VerifiedClaims:
    return VerifiedClaims(Issuer(**{**ENTRY, **issuer}), "ada", claims or {})


def test_an_entry_needs_little() -> None:
    [issuer] = parse_issuers(json.dumps([ENTRY | {"audience": "api", "client_secret": "planted-secret"}]))
    assert issuer.algorithms == ("RS256", "ES256", "EdDSA")
    assert issuer.audience == ("api",)
    assert issuer.new_users
    assert "planted" not in repr(issuer)


def test_client_secrets_are_found() -> None:
    entries = [ENTRY | {"client_secret": "planted-secret"}, ENTRY | {"name": "b", "issuer": "https://b.example"}]
    assert client_secrets(json.dumps(entries)) == ["planted-secret"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithms": ["HS256"]}, "HS256 can't be allowed; choose from RS256"),
        ({"algorithms": ["RS256", "none"]}, "none can't be allowed"),
        ({"algorithms": ["NONE"]}, "NONE can't be allowed"),
        ({"algorithms": []}, "0.algorithms"),
        ({"issuer": "http://id.acme.example"}, "0.issuer: must be of the form https"),
        ({"issuer": "https://u:p@id.acme.example"}, "0.issuer: must be of the form https"),
        ({"issuer": "https://id.acme.example?x=1"}, "must not have a query"),
        ({"issuer": "https://id.acme.example#x"}, "0.issuer: must be of the form https"),
        ({"issuer": "id.acme.example"}, "0.issuer: must be of the form https"),
        ({"jwks_url": "file:///etc/passwd"}, "0.jwks_url: must be of the form https"),
        ({"client_id": None}, "needs a client_id"),
        ({"name": "A/../b"}, "0.name: String should match pattern"),
        ({"secret": "geheim"}, "0.secret: Extra inputs are not permitted"),
        ({"client_secret": {"geheim": 1}}, "0.client_secret"),
        ({"operators": {"claim": "groups"}}, "name both a claim and its values"),
        ({"email_domains": ["@acme.example"]}, "write domains without the @"),
        ({"request_scope": "email"}, "request_scope needs `openid`"),
    ],
)
def test_a_wrong_entry_is_named_and_quotes_no_secret(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r".") as wrong:
        parse_issuers(json.dumps([ENTRY | changes]))
    assert says in str(wrong.value)
    assert "geheim" not in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("{}", "valid tuple"),
        (json.dumps([ENTRY, ENTRY | {"issuer": "https://b.example"}]), "the same name"),
        (json.dumps([ENTRY, ENTRY | {"name": "b"}]), "the same issuer"),
    ],
)
def test_a_wrong_list_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_issuers(text)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://id.example", True),
        ("https://10.0.0.1/x", True),
        ("http://127.0.0.1:9000", True),
        ("http://localhost:9000", True),
        ("http://[::1]:9000", True),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1@evil.example", False),
        ("https://evil.example\\@id.example", False),
        ("https:///x", False),
        ("ftp://id.example", False),
        ("https://id.example:0", False),
        ("https://id.example:99999", False),
        ("https://id.exa\nmple", False),
    ],
)
def test_safe_urls(url: str, safe: bool) -> None:
    assert is_safe_url(url) is safe


@pytest.mark.parametrize("claim", ["admins", ["users", "admins"]])
def test_operators_by_claim(claim: object) -> None:
    rule = {"claim": "groups", "values": ["admins"]}
    assert claims_of({"groups": claim}, operators=rule).is_operator
    assert not claims_of({"groups": "admins users"}, operators=rule).is_operator
    for other in (None, "Admins", ["users"], {"admins": 1}, [["admins"]], 1):
        assert not claims_of({"groups": other}, operators=rule).is_operator


def test_operators_by_subject() -> None:
    assert claims_of(operators={"subjects": ["ada"]}).is_operator
    assert not claims_of(operators={"subjects": ["ad"]}).is_operator
    assert not claims_of({"groups": ["admins"]}).is_operator


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "read builds:write"}, {"builds:read", "account:read", "builds:write"}),
        ({"scope": ["read"]}, {"builds:read", "account:read"}),
        ({"scope": ""}, set()),
        ({"scope": 7}, set()),
        ({}, set()),
    ],
)
def test_a_scopes_claim_limits(claims: dict[str, Any], scopes: set[str]) -> None:
    named = claims_of(claims, scopes_claim="scope", scopes={"read": ["builds:read", "account:read"]})
    assert named.limited_to() == frozenset(scopes)
    assert claims_of(claims).limited_to() is None


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"email": "ada@acme.example"},
        {"email": "ada@acme.example", "email_verified": False},
        {"email": "ada@acme.example", "email_verified": "true"},
        {"email": "ada@evil.example", "email_verified": True},
        {"email": "ada@acme.example.evil.example", "email_verified": True},
        {"email": "ada@evil.example@acme.example", "email_verified": True},
        {"email": "ada@sub.acme.example", "email_verified": True},
        {"email": ["ada@acme.example"], "email_verified": True},
        {"email": "ada@acme.example\n", "email_verified": True},
        {"email": f"{'a' * 300}@acme.example", "email_verified": True},
    ],
)
def test_only_verified_addresses_of_the_domains_sign_in(claims: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"at acme\.example may sign in through acme"):
        claims_of(claims, email_domains=["Acme.example"]).check_domain()
    claims_of(claims).check_domain()


def test_a_verified_address_of_the_domain_signs_in() -> None:
    claims_of({"email": "Ada@ACME.example", "email_verified": True}, email_domains=["acme.example"]).check_domain()


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"name": "Ada Lovelace"}, "Ada Lovelace"),
        ({"preferred_username": "ada"}, "ada"),
        ({"name": "A\0da\n\ud800"}, "A da"),
        ({"name": " "}, None),
        ({"name": 7}, None),
        ({"name": "a" * 900}, "a" * 200),
        ({}, None),
    ],
)
def test_names_fit_a_line(claims: dict[str, Any], name: str | None) -> None:
    assert claims_of(claims).name == name


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/projects/1?a=b&c=https://x.example", "/a//b", "/#x", "/sign-ins", "/%2F/x"]
)
def test_own_paths_are_kept(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", None, "docs", "https://evil.example", "//evil.example", "///evil.example", "/\\evil.example"),
        *("\\\\evil.example", "/\t/evil.example", "/\n/evil.example", " //evil.example", "/ /evil.example"),
        *(
            "javascript:alert(1)",
            "/\0",
            "/é",
            "/" + "a" * 2000,
            "/sign-in",
            "/sign-in/acme",
            "/sign-in?x",
            "/sign-in#x",
        ),
    ],
)
def test_other_paths_lead_home(path: str | None) -> None:
    assert own_path(path) == "/"
