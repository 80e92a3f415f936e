"""Which git servers and branches are accepted, what git's answers mean, and that a token is blanked in every form."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.push import PushFailure, blank_token, check_addresses, check_branch, explain, parse_target

TOKEN = "ghp_Secret+Token/0123456789"


@pytest.mark.parametrize(
    ("url", "name", "port"),
    [
        ("https://github.com/ada/pantry-pal.git", "github.com/ada/pantry-pal.git", 443),
        ("https://GitLab.example.com:8443/a/b/c", "gitlab.example.com:8443/a/b/c", 8443),
        ("https://[2606:4700::1111]/a/b.git", "[2606:4700::1111]/a/b.git", 443),
        ("http://127.0.0.1:3000/a.git", "127.0.0.1:3000/a.git", 3000),
    ],
)
def test_a_repository(url: str, name: str, port: int) -> None:
    target = parse_target(url, TOKEN)
    assert (target.name, target.port) == (name, port)
    assert target.url == f"{target.scheme}://{name}"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ext::sh -c touch% /tmp/x", "Only https://"),
        ("git@github.com:ada/x.git", "Only https://"),
        ("ssh://git@github.com/ada/x.git", "Only https://"),
        ("file:///etc/passwd", "Only https://"),
        ("/etc/passwd", "Only https://"),
        ("--upload-pack=touch /tmp/x", "Only https://"),
        ("https://ada:secret@github.com/ada/x.git", "token by itself"),
        ("https://ada@github.com/ada/x.git", "token by itself"),
        (f"https://github.com/{TOKEN}/x.git", "contains the token"),
        (f"https://github.com/{quote(TOKEN, safe='')}/x.git", "contains the token"),
        ("https://github.com/ada/x.git?private_token=abc", "has no ?"),
        ("https://github.com/ada/x.git#main", "has no ?"),
        ("https://github.com/ada/x.git?", "has no ?"),
        ("https://github.com", "not that of a repository"),
        ("https://github.com/a%0ahost=evil", "not that of a repository"),
        ("https://github.com/a b", "not that of a repository"),
        ("https://github.com:0/a", "not that of a repository"),
        ("https://github.com:99999/a", "not valid"),
        ("https://[::1/a", "not valid"),
        ("https:///a", "host is not a valid"),
        ("https://2130706433/a", "host is not a valid"),
        ("https://0x7f.1/a", "host is not a valid"),
        ("https://127.1/a", "host is not a valid"),
        ("https://a.0x7f/a", "host is not a valid"),
        ("https://[fe80::1%25eth0]/a", "host is not a valid"),
        ("https://-oProxyCommand=x/a", "host is not a valid"),
        ("https://münchen.example/a", "host is not a valid"),
    ],
)
def test_other_urls_are_refused_with_what_to_do(url: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        parse_target(url, TOKEN)
    assert refused.value.field == "url"
    assert "secret" not in str(refused.value)
    assert TOKEN not in str(refused.value)


@given(st.text(max_size=60))
def test_what_is_accepted_names_one_host(url: str) -> None:
    try:
        target = parse_target(url, "")
    except InvalidInput:
        return
    assert parse_target(target.url, "") == target


PRIVATE = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "168.63.129.16",
    "fd00:ec2::254",
    "100.100.100.200",
    "0.0.0.0",
    "::",
    "224.0.0.1",
]
HTTPS = parse_target("https://git.example.com/a", "")


def test_private_addresses_need_the_operator() -> None:
    check_addresses(HTTPS, ["8.8.8.8", "2606:4700::1111"], ())
    for address in PRIVATE:
        with pytest.raises(InvalidInput, match="PUSH_PRIVATE_HOSTS"):
            check_addresses(HTTPS, ["8.8.8.8", address], ["other.example.com"])
        check_addresses(HTTPS, [address], ["git.example.com"])


@pytest.mark.parametrize("address", [*NEVER, "fe80::1%eth0", "2001:0:7f00:1::1"])
def test_metadata_services_and_the_like_are_never_reached(address: str) -> None:
    for hosts in ((), ("git.example.com",)):
        with pytest.raises(InvalidInput):
            check_addresses(HTTPS, ["8.8.8.8", address], hosts)


def test_http_is_for_a_loopback_server_that_the_operator_names() -> None:
    target = parse_target("http://localhost:3000/a", "")
    check_addresses(target, ["127.0.0.1", "::1"], ["localhost"])
    for addresses, hosts in ((["127.0.0.1"], []), (["10.0.0.1"], ["localhost"]), (["8.8.8.8"], ["localhost"])):
        with pytest.raises(InvalidInput):
            check_addresses(target, addresses, hosts)


@pytest.mark.parametrize("branch", ["main", "feature/one", "v1.2", "a_b-c", "release/2026.1"])
def test_branches(branch: str) -> None:
    assert check_branch(branch) == branch


@pytest.mark.parametrize(
    "branch",
    [
        *("", "-d", "a..b", "a b", "a:b", "+main", "main:other", "a/", "/a", "a//b", ".a", "a.lock", "a/b.", "HEAD"),
        *("a@{1}", "a^", "a~1", "a*", "a\nb", "ä", "x" * 201),
    ],
)
def test_names_that_are_none(branch: str) -> None:
    with pytest.raises(InvalidInput, match="branch"):
        check_branch(branch)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("!\tHEAD:refs/heads/main\t[rejected] (fetch first)\nhint: Updates were rejected", "conflict"),
        ("!\tx\t[rejected] (non-fast-forward)", "conflict"),
        ("remote: GitLab: You are not allowed to push code to protected branches on this project.\n"
         "!\tx\t[remote rejected] (pre-receive hook declined)", "protected"),
        ("remote: error: GH013: Repository rule violations found\n!\tx\t[remote rejected] (push declined)", "declined"),
        ("!\tx\t[remote rejected] (refusing to allow a Personal Access Token to update workflow)", "declined"),
        ("remote: Permission to ada/x.git denied to bob.\nfatal: unable to access 'u': The requested URL "
         "returned error: 403", "not_allowed"),
        ("remote: Invalid username or token.\nfatal: Authentication failed for 'u'", "not_accepted"),
        ("remote: Support for password authentication was removed on August 13.\nfatal: unable to access 'u': The "
         "requested URL returned error: 403", "not_accepted"),
        ("remote: Personal access tokens (classic) are forbidden from accessing this repository.\nfatal: unable to "
         "access 'u': The requested URL returned error: 403", "not_allowed"),
        ("remote: error: GH006: Protected branch update failed for refs/heads/main.\nremote: \n"
         "!\tx\t[remote rejected] (protected branch hook declined)", "protected"),
        ("remote: Repository not found.\nfatal: repository 'u' not found", "not_found"),
        ("error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413", "too_large"),
        ("fatal: unable to access 'u': Could not resolve host: x", "unreachable"),
        ("fatal: unable to access 'u': SSL certificate problem: self-signed certificate", "unreachable"),
        ("fatal: unable to access 'u': The requested URL returned error: 502", "unreachable"),
        ("something else", "unknown"),
    ],
)  # fmt: skip
def test_what_git_says_becomes_a_reason_and_what_to_do(output: str, reason: str) -> None:
    failed = explain(HTTPS, "main", output)
    assert failed.details["reason"] == reason
    assert "git.example.com/a" in str(failed)


def test_a_name_of_a_repository_is_not_taken_for_an_error() -> None:
    target = parse_target("https://git.example.com/ssl/GH006-protected-branch.git", "")
    failed = explain(target, "main", f"fatal: unable to access '{target.url}/': The requested URL returned error: 403")
    assert failed.details["reason"] == PushFailure.NOT_ALLOWED


def test_a_long_answer_is_cut() -> None:
    assert len(str(explain(HTTPS, "main", "remote: " + "x" * 100_000))) < 1500


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60), st.binary(max_size=5))
def test_a_token_is_blanked_in_every_form(token: str, before: bytes) -> None:
    raw = token.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + raw + b"\n").decode()
        blanked = blank_token(f"remote: {encoded}", token)
        for shift in range(3):
            inner = encode(bytes(shift) + raw).decode().rstrip("=")[(0, 2, 3)[shift] : -1]
            assert inner not in blanked
    for form in (token, quote(token, safe=""), raw.hex(), raw.hex().upper()):
        assert form not in blank_token(f"says {form} here", token)
