"""The operator's index or registry: reading its URL and rewriting its pages."""

import base64

import pytest

from local.sandbox.mirror import PackageSource


@pytest.mark.parametrize(
    ("url", "index_path", "served_path"),
    [
        ("https://m.example/simple", "/simple/", "/"),
        ("https://m.example/artifactory/pypi/all/simple/", "/artifactory/pypi/all/simple/", "/artifactory/pypi/all/"),
        ("https://m.example/root/pypi/+simple/", "/root/pypi/+simple/", "/root/pypi/"),
        ("https://m.example/repository/npm", "/repository/npm/", "/repository/npm/"),
        ("https://m.example", "/", "/"),
    ],
)
def test_what_lies_beside_an_index_is_served(url: str, index_path: str, served_path: str) -> None:
    source = PackageSource.of("SANDBOX_PIP_INDEX_URL", url)
    assert (source.index_path, source.served_path, source.authorization) == (index_path, served_path, None)


@pytest.mark.parametrize(
    ("credentials", "authorization"),
    [
        ("user%40a:p%2Fw", "Basic " + base64.b64encode(b"user@a:p/w").decode()),
        ("token", "Basic " + base64.b64encode(b"token:").decode()),
        ("_authToken:to%2Bken", "Bearer to+ken"),
    ],
)
def test_credentials_of_a_url(credentials: str, authorization: str) -> None:
    source = PackageSource.of("SANDBOX_NPM_REGISTRY", f"https://{credentials}@M.example:8443/npm/")
    assert (source.authority, source.authorization) == ("m.example:8443", authorization)
    assert authorization.split()[1] not in repr(source)


@pytest.mark.parametrize(
    ("link", "rewritten"),
    [
        ('"https://m.example:8443/npm/a"', '"X/npm/a"'),
        ('"https://M.EXAMPLE/npm/a"', '"X/npm/a"'),
        ('"http://user:pw@m.example:8443/a"', '"X/a"'),
        (r'"https:\/\/m.example:8443\/a"', r'"X\/a"'),
        ('"https://m.example:9000/a"', '"https://m.example:9000/a"'),
        ('"https://m.example.org/a"', '"https://m.example.org/a"'),
        ('"https://am.example/a"', '"https://am.example/a"'),
        ('"https://other.example/?u=https://m-example/"', '"https://other.example/?u=https://m-example/"'),
        ('"https://files.example/a"', '"https://files.example/a"'),
    ],
)
def test_links_to_the_source_itself_are_found(link: str, rewritten: str) -> None:
    source = PackageSource.of("SANDBOX_NPM_REGISTRY", "https://u:p@m.example:8443/npm/")
    assert source.own_links().sub(b"X", link.encode()) == rewritten.encode()
