"""The operator's index or registry: reading its URL and rewriting its pages."""

import base64

import pytest

from local.sandbox.mirror import PackageSource, _is_below


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


@pytest.mark.parametrize(
    ("url", "target", "authorized"),
    [
        ("https://m.example/npm/", "/npm/left-pad", True),
        ("https://m.example/npm/", "/npm/@scope%2fpad", True),
        ("https://m.example/npm/", "/npm/left-pad/-/left-pad-1.0.0.tgz", True),
        ("https://m.example/npm/", "/npm/-/npm/v1/tokens", False),
        ("https://m.example/npm/", "/npm/%2D/npm/v1/tokens", False),
        ("https://m.example/", "/left-pad", True),
        ("https://m.example/", "/-/whoami", False),
        ("https://m.example/simple", "/simple/six/", True),
        ("https://m.example/simple", "/packages/six-1.17.0.tar.gz", True),
        ("https://m.example/simple", "/service/rest/v1/security/users", False),
        ("https://m.example/pypi/simple", "/pypi/anything", True),
    ],
)
def test_only_requests_for_packages_get_the_credentials(url: str, target: str, authorized: bool) -> None:
    assert PackageSource.of("SANDBOX_PIP_INDEX_URL", url).authorizes(target) is authorized


@pytest.mark.parametrize(
    "target", ["/npm/../x", "/npm/..%00/x", "/npm/%2e%2e/x", "/npm/..;/x", "/npm/..%5cx", "/other"]
)
def test_a_target_beside_the_served_path_is_refused(target: str) -> None:
    assert not _is_below("/npm/", target)
