"""Settings with which the API does not start."""

import pytest
from pydantic import SecretStr

from api.main import application
from domain.errors import Misconfigured
from settings import Settings


def test_previews_need_a_domain_of_their_own() -> None:
    settings = Settings(
        api_token=SecretStr("a-token"),
        public_url="https://cofounder.example.com",
        preview_url="https://*.example.com",
    )
    with pytest.raises(Misconfigured, match="share a domain"):
        application(settings)
