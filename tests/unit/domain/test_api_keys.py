"""The text of API keys, and how long they live."""

from datetime import UTC, datetime, timedelta

import pytest

from domain import api_keys
from domain.api_keys import LENGTH, LIFETIME, LONGEST_LIFETIME, ApiKeyText
from domain.errors import CredentialRefused, InvalidInput
from domain.identity import FOUNDER_SCOPES, OPERATOR_SCOPES, Scope

KEY = ApiKeyText("0123456789abcdef", "7" + "ab" * 31 + "8")
TEXT = str(KEY)
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_a_key_is_read_back_and_shows_its_secret_nowhere_else() -> None:
    assert api_keys.parse(TEXT) == KEY
    assert (len(TEXT), TEXT.startswith("cf_0123456789abcdef_7abab")) == (LENGTH, True)
    assert KEY.secret not in repr(KEY)


@pytest.mark.parametrize(
    "text",
    [
        *(TEXT[:length] for length in (3, 10, 20, LENGTH - 9, LENGTH - 8, LENGTH - 1)),
        f"{TEXT}x",
        f"{TEXT}\n",
        TEXT.replace("_7", "_8"),
        TEXT.replace("abcdef_", "abcdee_"),
        TEXT.upper().replace("CF_", "cf_"),
        "cf_" + "é" * (LENGTH - 3),
        TEXT.replace("ab", "a\x00", 1),
    ],
)
def test_a_key_that_is_not_whole_is_recognised(text: str) -> None:
    assert api_keys.is_key(text)
    with pytest.raises(CredentialRefused, match="incomplete or mistyped"):
        api_keys.parse(text)


def test_other_credentials_are_no_keys() -> None:
    assert not any(map(api_keys.is_key, ("", "cf", "a-token", "eyJhbGciOi.x.y", "CF_abc")))


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", "a\x00b", "bell\x07"])
def test_a_name_is_something_to_read(name: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 100 printable characters"):
        api_keys.check_name(name)
    assert api_keys.check_name("  the nightly export ") == "the nightly export"


def test_nobody_gives_away_more_than_they_have() -> None:
    assert api_keys.check_scopes(FOUNDER_SCOPES, FOUNDER_SCOPES) == FOUNDER_SCOPES
    with pytest.raises(InvalidInput, match="can't give away ops:write"):
        api_keys.check_scopes([Scope.BUILDS_READ, Scope.OPS_WRITE], FOUNDER_SCOPES)
    with pytest.raises(InvalidInput, match="at least one scope"):
        api_keys.check_scopes([], OPERATOR_SCOPES)


def test_a_key_does_not_outlive_the_key_that_makes_it() -> None:
    soon = NOW + timedelta(days=3)
    assert api_keys.expiry(NOW, None, None) == NOW + LIFETIME
    assert api_keys.expiry(NOW, None, soon) == soon
    assert api_keys.expiry(NOW, timedelta(days=1), soon) == NOW + timedelta(days=1)
    with pytest.raises(InvalidInput, match="expires on 2026-12-02"):
        api_keys.expiry(NOW, timedelta(days=4), soon)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=-1), LONGEST_LIFETIME + timedelta(seconds=1)])
def test_a_lifetime_has_limits(lifetime: timedelta) -> None:
    with pytest.raises(InvalidInput, match="between 1 and 366 days"):
        api_keys.expiry(NOW, lifetime, None)
