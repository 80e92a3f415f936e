"""Tokens of an identity provider over real HTTP: the usual attacks are refused, and outages and new keys are not."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from clients.oidc.documents import (
    FRESH_SECONDS,
    KEPT_SECONDS,
    LARGEST_DOCUMENT,
    RETRY_SECONDS,
    Unreadable,
    check_server,
)
from clients.oidc.provider import IdentityProvider, IdentityProviders
from domain.errors import IssuerUnavailable, TokenRefused
from domain.issuers import LEEWAY_SECONDS, Issuer
from domain.tokens import LONGEST_TOKEN
from tests.harness.identity_provider import (
    API,
    TestProvider,
    encoded,
    rsa_key,
    running_provider,
    signature_of,
    signed,
)

FOREIGN = rsa_key("a")
"""An attacker's key, under the id of the provider's."""


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[TestProvider]:
    async with running_provider() as running:
        yield running


@pytest.fixture
async def own_provider() -> AsyncIterator[TestProvider]:
    async with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
async def verifier(provider: TestProvider) -> IdentityProviders:
    return verifier_of(provider)


def verifier_of(
    provider: TestProvider, clock: Callable[[], float] = time.monotonic, **changes: Any
) -> IdentityProviders:
    return IdentityProviders([IdentityProvider(provider.issuer(**changes), clock=clock)])


def the_key(provider: TestProvider) -> RSAKey:
    key = provider.keys[0]
    assert isinstance(key, RSAKey)
    return key


def confused(provider: TestProvider, secret: str | bytes) -> str:
    """A token signed by HMAC with what everyone can read: the provider's public key."""
    text = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': 'a'})}.{encoded(provider.claims())}"
    key = secret.encode() if isinstance(secret, str) else secret
    mac = hmac.digest(key, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def unsigned(provider: TestProvider, algorithm: object, signature: str = "") -> str:
    return f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': 'a'})}.{encoded(provider.claims())}.{signature}"


def cut(token: str, part: int, characters: int) -> str:
    parts = token.split(".")
    parts[part] = parts[part][:-characters]
    return ".".join(parts)


def swapped(provider: TestProvider, **changes: Any) -> str:
    """A valid token whose claims were changed afterwards."""
    head, _, signature = provider.token().split(".")
    return f"{head}.{encoded(provider.claims(**changes))}.{signature}"


def public(key: RSAKey) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


def seconds(offset: float) -> float:
    return int(time.time()) + offset


Attack = Callable[[TestProvider], str]

ATTACKS: dict[str, tuple[Attack, str]] = {
    # The algorithm
    "alg none": (lambda p: unsigned(p, "none"), "does not consist of"),
    "alg none with a signature": (lambda p: unsigned(p, "none", "AAAA"), "algorithm that is not allowed"),
    "alg None": (lambda p: unsigned(p, "None", "AAAA"), "algorithm that is not allowed"),
    "alg NONE": (lambda p: unsigned(p, "NONE", "AAAA"), "algorithm that is not allowed"),
    "alg nOnE": (lambda p: unsigned(p, "nOnE", "AAAA"), "algorithm that is not allowed"),
    "alg none with a space": (lambda p: unsigned(p, "none ", "AAAA"), "algorithm that is not allowed"),
    "alg null": (lambda p: unsigned(p, None, "AAAA"), "names no algorithm"),
    "alg a list": (lambda p: unsigned(p, ["RS256"], "AAAA"), "names no algorithm"),
    "alg empty": (lambda p: unsigned(p, "", "AAAA"), "algorithm that is not allowed"),
    "no alg": (lambda p: signature_of(the_key(p), encoded({"kid": "a"}), p.claims()), "names no algorithm"),
    "HS256 with the public key as PEM": (lambda p: confused(p, the_key(p).as_pem(private=False)), "not allowed"),
    "HS256 with the public key as DER": (lambda p: confused(p, the_key(p).as_der(private=False)), "not allowed"),
    "HS256 with the modulus": (lambda p: confused(p, str(public(the_key(p))["n"])), "not allowed"),
    "HS256 with an empty secret": (lambda p: confused(p, ""), "not allowed"),
    "an algorithm that is not on the list": (
        lambda p: signature_of(the_key(p), encoded({"alg": "RS512", "kid": "a"}), p.claims(), "RS512"),
        "not allowed",
    ),
    "RS256 in small letters": (lambda p: p.token({"alg": "rs256"}), "not allowed"),
    "ES256 for an RSA key": (lambda p: p.token({"alg": "ES256"}), "not signed with a key"),
    # The key
    "another key of the same id": (lambda p: signed(FOREIGN, p.claims()), "not signed with a key"),
    "its own key in jwk": (lambda p: signed(FOREIGN, p.claims(), jwk=public(FOREIGN)), "not signed with a key"),
    "its own key in jwk, no kid": (
        lambda p: signed(FOREIGN, p.claims(), kid=None, jwk=public(FOREIGN)),
        "not signed with a key",
    ),
    "a URL in jku": (lambda p: signed(FOREIGN, p.claims(), jku=f"{p.url}/stolen"), "not signed with a key"),
    "a URL in x5u": (lambda p: signed(FOREIGN, p.claims(), x5u=f"{p.url}/stolen"), "not signed with a key"),
    "a certificate in x5c": (lambda p: signed(FOREIGN, p.claims(), x5c=["AAAA"]), "not signed with a key"),
    "kid of a path": (lambda p: p.token({"kid": "../../../../dev/null"}), "not signed with a key"),
    "kid of a file": (lambda p: p.token({"kid": "/etc/passwd"}), "not signed with a key"),
    "kid of a URL": (lambda p: p.token({"kid": f"{p.url}/stolen"}), "not signed with a key"),
    "kid of SQL": (lambda p: p.token({"kid": "a' union select 'secret' --"}), "not signed with a key"),
    "kid of a command": (lambda p: p.token({"kid": "a|id"}), "not signed with a key"),
    "kid with NUL": (lambda p: p.token({"kid": "a\0"}), "not signed with a key"),
    "kid very long": (lambda p: p.token({"kid": "a" * 9000}), "not signed with a key"),
    "kid empty": (lambda p: p.token({"kid": ""}), "not signed with a key"),
    "kid a number": (lambda p: p.token({"kid": 0}), "key id that is not a text"),
    "kid a list": (lambda p: p.token({"kid": ["a"]}), "key id that is not a text"),
    "an extension in crit": (lambda p: p.token({"crit": ["exp"], "exp": 1}), "extension"),
    "b64 false": (lambda p: p.token({"crit": ["b64"], "b64": False}), "extension"),
    # The times
    "expired": (lambda p: p.token(exp=seconds(-LEEWAY_SECONDS - 5)), "has expired"),
    "expired an age ago": (lambda p: p.token(exp=0), "has expired"),
    "expired before time": (lambda p: p.token(exp=-(10**30)), "has expired"),
    "no exp": (lambda p: p.token(exp=None), "not valid"),
    "exp a text": (lambda p: p.token(exp="9999999999"), "not valid"),
    "exp true": (lambda p: p.token(exp=True), "not valid"),
    "exp a list": (lambda p: p.token(exp=[seconds(60)]), "not valid"),
    "exp NaN": (lambda p: signed(the_key(p), p.claims(exp=float("nan"))), "can't be read"),
    "exp Infinity": (lambda p: signed(the_key(p), p.claims(exp=float("inf"))), "can't be read"),
    "exp 1e999": (lambda p: signed(the_key(p), encoded_infinity(p)), "not valid"),
    "not yet valid": (lambda p: p.token(nbf=seconds(LEEWAY_SECONDS + 60)), "by `nbf`"),
    "nbf a text": (lambda p: p.token(nbf="0"), "by `nbf`"),
    "issued in the future": (lambda p: p.token(iat=seconds(LEEWAY_SECONDS + 60)), "by `iat`"),
    "no iat": (lambda p: p.token(iat=None), "not valid"),
    # For whom, and by whom
    "another audience": (lambda p: p.token(aud="https://other.example"), "`aud`"),
    "another audience, as a list": (lambda p: p.token(aud=["https://other.example", "cofounder"]), "`aud`"),
    "the audience with a slash": (lambda p: p.token(aud=f"{API}/"), "`aud`"),
    "the audience in capitals": (lambda p: p.token(aud=API.upper()), "`aud`"),
    "the audience in a longer text": (lambda p: p.token(aud=f"{API} x"), "`aud`"),
    "the audience in an object": (lambda p: p.token(aud={API: API}), "`aud`"),
    "an ID token of the sign-in": (lambda p: p.token(aud="cofounder"), "`aud`"),
    "no audience": (lambda p: p.token(aud=None), "not valid"),
    "an empty audience": (lambda p: p.token(aud=[]), "`aud`"),
    "another issuer": (lambda p: p.token(iss="https://evil.example"), "not from an issuer"),
    "the issuer with a slash": (lambda p: p.token(iss=f"{p.url}/"), "not from an issuer"),
    "the issuer in capitals": (lambda p: p.token(iss=p.url.upper()), "not from an issuer"),
    "the issuer as a prefix": (lambda p: p.token(iss=f"{p.url}.evil.example"), "not from an issuer"),
    "the issuer in a list": (lambda p: p.token(iss=[p.url]), "not from an issuer"),
    "no issuer": (lambda p: p.token(iss=None), "not from an issuer"),
    "no sub": (lambda p: p.token(sub=None), "not valid"),
    "sub empty": (lambda p: p.token(sub=""), "not valid"),
    "sub blank": (lambda p: p.token(sub="   "), "`sub`"),
    "sub a number": (lambda p: p.token(sub=1), "not valid"),
    "sub a list": (lambda p: p.token(sub=["ada"]), "not valid"),
    "sub with NUL": (lambda p: p.token(sub="ada\0"), "`sub`"),
    "sub with half a character": (lambda p: p.token(sub="ada\ud800"), "`sub`"),
    "sub very long": (lambda p: p.token(sub="a" * 256), "`sub`"),
    "bound to a key of its holder": (lambda p: p.token(cnf={"jkt": "x"}), "bound to a key"),
    # The form
    "truncated by one character": (lambda p: p.token()[:-1], "not signed with a key"),
    "truncated by half": (lambda p: p.token()[: len(p.token()) // 2], "The token"),
    "header truncated": (lambda p: cut(p.token(), 0, 3), "can't be read"),
    "claims truncated": (lambda p: cut(p.token(), 1, 3), "can't be read"),
    "claims of another token": (lambda p: swapped(p, sub="root"), "not signed with a key"),
    "signature of another token": (
        lambda p: p.token(sub="root").rpartition(".")[0] + "." + p.token().rpartition(".")[2],
        "not signed with a key",
    ),
    "empty signature": (lambda p: p.token().rpartition(".")[0] + ".", "does not consist of"),
    "no signature": (lambda p: p.token().rpartition(".")[0], "does not consist of"),
    "signature of zeros": (lambda p: p.token().rpartition(".")[0] + "." + "A" * 342, "not signed with a key"),
    "signature with padding": (lambda p: p.token() + "==", "not signed with a key"),
    "a line break at the end": (lambda p: p.token() + "\n", "not signed with a key"),
    "claims with padding": (lambda p: p.token().replace(".", "=.", 2), "characters that a token does not have"),
    "four parts": (lambda p: p.token() + ".AAAA", "does not consist of"),
    "encrypted": (lambda p: f"{encoded({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.AAAA.AAAA.AAAA.AAAA", "is encrypted"),
    "a token in a token": (lambda p: signed(the_key(p), p.token()), "can't be read"),
    "a token that says it has one inside": (lambda p: p.token({"cty": "JWT"}), "for something else"),
    "JSON instead of compact form": (lambda p: '{"payload":"e30","signatures":[]}', "does not consist of"),
    "claims a list": (lambda p: signed(the_key(p), [p.claims()]), "can't be read"),
    "claims not JSON": (lambda p: signed(the_key(p), "exp=1"), "can't be read"),
    "claims nested deeply": (lambda p: signed(the_key(p), "[" * 5000 + "]" * 5000), "can't be read"),
    "a number of 6000 digits": (lambda p: signed(the_key(p), '{"exp":' + "9" * 6000 + "}"), "can't be read"),
    "sub twice": (lambda p: signed(the_key(p), twice(p, "sub", '"root"')), "names something twice"),
    "alg twice": (
        lambda p: signature_of(the_key(p), encoded('{"alg":"RS256","alg":"none","kid":"a"}'), p.claims()),
        "names something twice",
    ),
    "longer than a token may be": (lambda p: p.token(more="x" * LONGEST_TOKEN), "is longer than"),
    "a logout token": (lambda p: p.token({"typ": "logout+jwt"}), "for something else"),
    "typ a list": (lambda p: p.token({"typ": ["JWT"]}), "for something else"),
    "letters that are not ASCII": (lambda p: p.token() + "é", "The token"),
    "empty": (lambda p: "", "does not consist of"),
    "points": (lambda p: "..", "does not consist of"),
}


def encoded_infinity(provider: TestProvider) -> str:
    return twice(provider, "exp", "1e999", instead=True)


def twice(provider: TestProvider, name: str, value: str, *, instead: bool = False) -> str:
    """The claims as JSON text, with one of them twice, or with a value that JSON of Python does not write."""
    claims = provider.claims(**({name: None} if instead else {}))
    return json.dumps(claims)[:-1] + f', "{name}": {value}}}'


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_forged_token_is_refused_and_says_why(
    provider: TestProvider, verifier: IdentityProviders, name: str
) -> None:
    attack, says = ATTACKS[name]
    with pytest.raises(TokenRefused, match=says):
        await verifier.verify_bearer(attack(provider))
    assert "/stolen" not in provider.asked


VALID: dict[str, dict[str, Any]] = {
    "one audience": {},
    "several audiences": {"aud": ["other", API]},
    "expired a moment ago, by a clock that is behind": {"exp": 0, "leeway": -LEEWAY_SECONDS + 10},
    "issued in a moment, by a clock that is ahead": {"iat": 0, "leeway": LEEWAY_SECONDS - 10},
    "the longest subject": {"sub": "a" * 255},
    "a subject of another alphabet": {"sub": "Ада|1"},
}


@pytest.mark.parametrize("name", VALID)
async def test_a_valid_token_is_accepted(provider: TestProvider, verifier: IdentityProviders, name: str) -> None:
    changes = dict(VALID[name])
    leeway = changes.pop("leeway", None)
    changes = {key: seconds(leeway) if leeway is not None else value for key, value in changes.items()}
    claims = await verifier.verify_bearer(provider.token(**changes))
    assert claims.subject == changes.get("sub", "ada")
    assert claims.issuer.name == "test"


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_types_of_access_tokens_are_accepted(
    provider: TestProvider, verifier: IdentityProviders, typ: str | None
) -> None:
    await verifier.verify_bearer(provider.token({"typ": typ}))


async def test_each_asymmetric_kind_of_key_signs(own_provider: TestProvider) -> None:
    keys: list[Key] = [
        ECKey.generate_key("P-256", {"kid": "e"}),
        OKPKey.generate_key("Ed25519", {"kid": "o"}),
        rsa_key("r"),
    ]
    own_provider.keys = list(keys)
    verifier = verifier_of(own_provider)
    for key in keys:
        await verifier.verify_bearer(signed(key, own_provider.claims()))


async def test_a_token_without_a_key_id_needs_one_key(own_provider: TestProvider) -> None:
    clock = Clock()
    verifier = verifier_of(own_provider, clock)
    await verifier.verify_bearer(own_provider.token({"kid": None}))
    clock.now += RETRY_SECONDS
    own_provider.keys = [rsa_key("a")]
    await verifier.verify_bearer(own_provider.token({"kid": None}))
    own_provider.keys += [rsa_key("b")]
    with pytest.raises(TokenRefused, match="does not say with which key"):
        await verifier_of(own_provider).verify_bearer(own_provider.token({"kid": None}))


async def test_keys_that_verify_nothing_are_left_out(own_provider: TestProvider) -> None:
    """A symmetric key, a private one, a short one, one for encryption, and things that are not keys."""
    secret, short = OctKey.generate_key(256, {"kid": "s"}), RSAKey.generate_key(1024, {"kid": "w"})
    leaked, locked = rsa_key("l"), rsa_key("x")
    own_provider.keys += [
        dict(secret.as_dict(private=True)),
        short,
        dict(leaked.as_dict(private=True)),
        {**locked.as_dict(private=False), "use": "enc"},
        {"kty": "RSA", "kid": "n", "n": "!", "e": "AQAB"},
        {"kty": "EC", "kid": "m", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": ["RSA"]},
    ]
    verifier = verifier_of(own_provider)
    await verifier.verify_bearer(own_provider.token())
    for key in (short, leaked, locked):
        with pytest.raises(TokenRefused, match="not signed with a key"):
            await verifier.verify_bearer(signed(key, own_provider.claims()))


async def test_a_rotated_key_is_found_once_and_the_old_one_ends(own_provider: TestProvider) -> None:
    clock = Clock()
    verifier = verifier_of(own_provider, clock)
    old = own_provider.token()
    await verifier.verify_bearer(old)
    own_provider.keys = [rsa_key("b")]
    clock.now += RETRY_SECONDS
    await asyncio.gather(*(verifier.verify_bearer(own_provider.token()) for _ in range(20)))
    assert own_provider.asked.count("/keys") == 2
    with pytest.raises(TokenRefused):
        await verifier.verify_bearer(old)


async def test_unknown_keys_cause_no_storm(own_provider: TestProvider) -> None:
    verifier = verifier_of(own_provider, Clock())
    await verifier.verify_bearer(own_provider.token())
    for number in range(30):
        with pytest.raises(TokenRefused):
            await verifier.verify_bearer(own_provider.token({"kid": f"k{number}"}))
    assert own_provider.asked.count("/keys") == 1


async def test_a_withdrawn_key_is_not_accepted_for_longer_than_an_hour(own_provider: TestProvider) -> None:
    clock = Clock()
    verifier = verifier_of(own_provider, clock)
    token = own_provider.token()
    await verifier.verify_bearer(token)
    own_provider.keys = [rsa_key("b")]
    clock.now += FRESH_SECONDS + 1
    with pytest.raises(TokenRefused):
        await verifier.verify_bearer(token)


async def test_an_outage_refuses_no_one(own_provider: TestProvider) -> None:
    """Known keys go on working; for an unknown one the answer is: later."""
    clock = Clock()
    verifier = verifier_of(own_provider, clock)
    await verifier.verify_bearer(own_provider.token())
    own_provider.status = 503
    clock.now += FRESH_SECONDS + 1
    await verifier.verify_bearer(own_provider.token())
    clock.now += RETRY_SECONDS
    with pytest.raises(IssuerUnavailable, match="try again in 10 seconds"):
        await verifier.verify_bearer(own_provider.token({"kid": "new"}))
    with pytest.raises(TokenRefused, match="not signed with a key"):
        await verifier.verify_bearer(signed(FOREIGN, own_provider.claims()))
    clock.now += KEPT_SECONDS
    with pytest.raises(IssuerUnavailable):
        await verifier.verify_bearer(own_provider.token())
    own_provider.status = 200
    clock.now += RETRY_SECONDS
    await verifier.verify_bearer(own_provider.token())


WRONG: dict[str, Callable[[TestProvider], object]] = {
    "is away": lambda p: vars(p).update(status=500),
    "redirects": lambda p: vars(p).update(status=302, location="http://169.254.169.254/keys"),
    "is another issuer": lambda p: p.document.update(issuer="https://other.example"),
    "has its keys on a private address": lambda p: p.document.update(jwks_uri="https://10.0.0.1/keys"),
    "has its keys at a metadata service": lambda p: p.document.update(jwks_uri="http://169.254.169.254/keys"),
    "has its keys in a file": lambda p: p.document.update(jwks_uri="file:///etc/passwd"),
    "has its keys nowhere": lambda p: p.document.update(jwks_uri=None),
    "has an endless document": lambda p: p.document.update(more="x" * LARGEST_DOCUMENT),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_provider_that_can_not_be_believed_is_unavailable(own_provider: TestProvider, name: str) -> None:
    WRONG[name](own_provider)
    with pytest.raises(IssuerUnavailable):
        await verifier_of(own_provider).verify_bearer(own_provider.token())
    assert "/keys" not in own_provider.asked


async def test_keys_at_a_url_that_the_operator_names_need_no_document(own_provider: TestProvider) -> None:
    verifier = verifier_of(own_provider, jwks_url=f"{own_provider.url}/keys")
    await verifier.verify_bearer(own_provider.token())
    assert own_provider.asked == ["/keys"]


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [(["93.184.216.34"], True), (["93.184.216.34", "10.0.0.1"], False), (["127.0.0.1"], False), (["::1"], False)],
)
async def test_a_document_leads_to_public_servers_only(addresses: Sequence[str], allowed: bool) -> None:
    issuer = Issuer(name="a", issuer="https://id.example", audience=(API,))

    async def resolver(_: str) -> Sequence[str]:
        return addresses

    assert await check_server(issuer, "https://id.example/keys", resolver) == "https://id.example/keys"
    if allowed:
        await check_server(issuer, "https://keys.example/keys", resolver)
    else:
        with pytest.raises(Unreadable, match="private address"):
            await check_server(issuer, "https://keys.example/keys", resolver)


async def test_an_issuer_for_signing_in_only_takes_no_bearer_token(own_provider: TestProvider) -> None:
    with pytest.raises(TokenRefused, match="not from an issuer"):
        await verifier_of(own_provider, audience=()).verify_bearer(own_provider.token(aud="cofounder"))


async def test_each_token_is_checked_by_the_keys_of_its_own_issuer(
    provider: TestProvider, own_provider: TestProvider
) -> None:
    both = IdentityProviders(
        [IdentityProvider(each.issuer(name=name)) for name, each in (("a", provider), ("b", own_provider))]
    )
    assert (await both.verify_bearer(own_provider.token())).issuer.name == "b"
    with pytest.raises(TokenRefused, match="not signed with a key"):
        await both.verify_bearer(signed(provider.keys[0], own_provider.claims()))
