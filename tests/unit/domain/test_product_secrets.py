"""Names and values that a secret may have, and the keys that encrypt it."""

import base64

import pytest

from domain.errors import InvalidInput
from domain.product_secrets import MAX_VALUE_BYTES, check_name, check_value, key_texts, parse_keys, stand_ins

KEY = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize("name", ["STRIPE_API_KEY", "A", "GITHUB_TOKEN", "DB_HOST", "S3_SECRET_2", "A" * 64])
def test_a_name_of_an_environment_variable(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "1A", "_A", "a", "http_proxy", "A-B", "A B", "A=B", "A\n", "É", "A\x00", "A" * 65]
)
def test_not_a_name(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a secret's name"):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "PORT", "LD_PRELOAD", "LD_LIBRARY_PATH", "NODE_OPTIONS", "PYTHONPATH", "PYTHONSTARTUP"),
        *("BASH_ENV", "ENV", "IFS", "GIT_CONFIG_COUNT", "COFOUNDER_CALL", "E2B_SANDBOX", "HTTPS_PROXY", "SHELLOPTS"),
        *("NPM_CONFIG_REGISTRY", "PIP_INDEX_URL", "RUBYOPT", "PERL5LIB", "PS4", "UID", "PROMPT_COMMAND"),
    ],
)
def test_a_name_that_programs_read(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is reserved"):
        check_name(name)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("tiny", "shorter than 8"),
        ("x     y\n", "shorter than 8"),
        ("a value with\x00a NUL", "NUL"),
        ("a lone \ud800 surrogate", "not valid text"),
        ("ü" * MAX_VALUE_BYTES, "larger than 16 KB"),
        ("stand-in-STRIPE", "begins with stand-in-"),
    ],
)
def test_a_value_that_is_refused_is_not_quoted(value: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        check_value(value)
    assert value not in str(refused.value)


def test_a_value_may_have_lines() -> None:
    check_value("-----BEGIN KEY-----\nabc\n-----END KEY-----\n")
    check_value("x" * MAX_VALUE_BYTES)


def test_a_stand_in_says_whose_it_is() -> None:
    assert stand_ins(["A", "B"]) == {"A": "stand-in-A", "B": "stand-in-B"}


def test_keys_are_read_in_order() -> None:
    assert list(parse_keys(f" new:{KEY}, 2025-01:{KEY} ")) == ["new", "2025-01"]
    assert key_texts(f" new:{KEY}, 2025-01:{KEY} ") == [KEY, KEY]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (KEY, "not of the form id:key"),
        (f":{KEY}", "not of the form id:key"),
        (f"a b:{KEY}", "not of the form id:key"),
        ("main:not base64!", "key main is not base64"),
        ("main:c2hvcnQ=", "has 5 bytes, not 32"),
        (f"main:{KEY},main:{KEY}", "stands there twice"),
        (",", "has no key"),
    ],
)
def test_keys_that_are_refused_are_not_quoted(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        parse_keys(text)
    assert "c2hvcnQ" not in str(refused.value)
    assert KEY not in str(refused.value)
