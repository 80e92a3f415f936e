"""What follows from a setting's type: its checks, its secrets, and that tests take it out of the environment."""

import re
from typing import get_args

import pytest
from pydantic import Field, SecretBytes, SecretStr, ValidationError

from settings import DatabaseUrl, HeaderSecret, HttpUrl, PackageIndexUrl, Settings
from tests.harness.environment import outside_variables

PASSWORD = "geheim%2Fund%20lang"


class Extended(Settings):
    """The settings of a newcomer, one of each type."""

    other_secret: SecretStr | None = None
    other_token: HeaderSecret | None = None
    other_tokens: list[HeaderSecret] = Field(default_factory=list)
    other_url: HttpUrl = "https://h"
    other_urls: dict[str, HttpUrl] = Field(default_factory=dict)
    other_index_url: PackageIndexUrl | None = None
    other_database_url: DatabaseUrl = "postgresql+asyncpg://u@h/d"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every secret of `Extended`, in the form that its type needs."""
    variables = {
        "OTHER_SECRET": "a secret, with a ü",
        "OTHER_TOKEN": "other-token-0123",
        "OTHER_TOKENS": '["first-of-tokens", "second-of-tokens"]',
        "OTHER_URL": f"https://u:{PASSWORD}-url@h/x",
        "OTHER_URLS": '{"a": "https://a-token-standing-alone@h"}',
        "OTHER_INDEX_URL": f"https://u:{PASSWORD}-index@h/simple",
        "OTHER_DATABASE_URL": f"postgres://u:{PASSWORD}-database@h:1/d",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_every_type_of_secret_is_blanked(environment: dict[str, str]) -> None:
    kinds = ("url", "index", "database")
    assert set(Extended().secret_values()) >= {
        "a secret, with a ü",
        "other-token-0123",
        *("first-of-tokens", "second-of-tokens"),
        "a-token-standing-alone",
        *(f"{PASSWORD}-{kind}" for kind in kinds),
        *(f"geheim/und lang-{kind}" for kind in kinds),
    }


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("other_token", "two\nlines", "has a line break"),
        ("other_tokens", ["fine", " not"], "has a line break, a space at an end"),
        ("other_url", "ftp://h", "must be of the form https://host"),
        ("other_urls", {"a": "h"}, "must be of the form https://host"),
        ("other_index_url", "file:///srv", "is a file:// URL"),
        ("other_database_url", "mysql://h/d", "must begin with postgresql://"),
    ],
)
def test_every_type_is_checked(name: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Extended.model_validate({name: value})


def test_no_test_sees_a_setting_of_the_machine(environment: dict[str, str]) -> None:
    theirs = ["AWS_PROFILE", "E2B_DOMAIN", "PGPASSWORD", "TEMPORAL_API_KEY", "https_proxy"]
    kept = ["PATH", "HOME", "LANG"]
    assert outside_variables([*environment, *theirs, *kept], Extended) == [*environment, *theirs]
    assert outside_variables(name.lower() for name in Settings.variables()) == list(
        map(str.lower, Settings.variables())
    )


def test_every_setting_has_the_type_that_its_name_calls_for() -> None:
    """A secret without a secret's type would not be blanked, a URL without a URL's type not checked."""
    harmless = {"aws_access_key_id", "max_output_tokens"}  # an id is public; these tokens are a model's
    secrets = {name for name in _named("keys?|tokens?|secrets?|passwords?|credentials?") if name not in harmless}
    assert "api_token" in secrets
    for name in secrets:
        assert _parts(Settings.model_fields[name].annotation) & {SecretStr}, f"{name} is not a HeaderSecret"
    urls = _named("urls?|endpoints?")
    typed = {name for kind in (HttpUrl, PackageIndexUrl, DatabaseUrl) for name in Settings.fields_of(kind)}
    assert "s3_endpoint_url" in urls
    assert urls <= typed, f"{urls - typed}: not one of the URL types"


def test_every_variable_has_the_name_of_its_field_and_every_secret_a_type_that_is_read() -> None:
    for name, field in Settings.model_fields.items():
        assert field.alias is field.validation_alias is None, f"{name} would be read from another variable"
        assert SecretBytes not in _parts(field.annotation), f"{name}: only a SecretStr is blanked"


def _named(words: str) -> set[str]:
    return {name for name in Settings.model_fields if re.search(rf"(^|_)({words})(_|$)", name)}


def _parts(annotation: object) -> set[object]:
    """The types that a type consists of."""
    return {annotation, *(part for argument in get_args(annotation) for part in _parts(argument))}
