"""Pushing a build's code to a git server: which addresses and branches are accepted, and what git's answers mean."""

import base64
import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from urllib.parse import quote, urlsplit

from domain.addresses import METADATA_SERVICES, carried_address, is_public
from domain.errors import InvalidInput, PushFailed

LONGEST_PUSH = timedelta(hours=1)
"""PUSH_SECONDS is at most this."""

URL_MAX_CHARACTERS = 2000
TOKEN_MAX_CHARACTERS = 4000
BRANCH_MAX_CHARACTERS = 200

DEFAULT_USERNAME = "x-access-token"
"""What GitHub's and GitLab's servers accept as the user of a token."""

_PORTS = {"https": 443, "http": 80}
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~%+@,=-]+)+/?")
_CONTROL = re.compile(r"%[01][0-9a-f]|%7f", re.IGNORECASE)
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+@=-]*)*")


@dataclass(frozen=True)
class GitTarget:
    """A repository on a git server. `host` has no brackets, even if it is an IPv6 address."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """The host, with the port if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL for git."""
        return f"{self.scheme}://{self.origin}{self.path}"

    @property
    def name(self) -> str:
        """The repository as people read it: host and path."""
        return f"{self.origin}{self.path}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, which needs no DNS."""
        return carried_address(self.host) is not None


def parse_target(url: str, token: str) -> GitTarget:
    """Parse the URL of a repository.

    Raises:
        InvalidInput: the URL is not accepted; says what to do. Never quotes the URL, which may hold a password.
    """
    if token and (token in url or quote(token, safe="") in url):
        raise InvalidInput("The URL contains the token. Send the URL without it, and the token by itself.", "url")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidInput("The URL is not valid. Send it as https://host/owner/repository.git.", "url") from None
    if parts.scheme not in _PORTS:
        raise InvalidInput(
            "Only https:// URLs can be pushed to. Copy the HTTPS address of the repository, not the SSH one.", "url"
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            "The URL has a user or password before the @. Remove it: send the token by itself, which keeps it out of "
            "logs.",
            "url",
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise InvalidInput("The URL of a repository has no ? and no #. Send it without what follows.", "url")
    if not _is_host(host):
        raise InvalidInput("The URL's host is not a valid name or IP address. Names are in ASCII.", "url")
    if port == 0 or not _PATH.fullmatch(parts.path) or _CONTROL.search(parts.path) or not url.isascii():
        raise InvalidInput(
            "The URL is not that of a repository. Send it as https://host/owner/repository.git, with other characters "
            "percent-encoded.",
            "url",
        )
    return GitTarget(parts.scheme, host, port or _PORTS[parts.scheme], parts.path)


def _is_host(host: str) -> bool:
    """Whether it is an IP address in its usual form, or a name that no program can read as a number."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _HOST_NAME.fullmatch(host) is not None and not _NUMBER.fullmatch(host.rpartition(".")[2])
    return not isinstance(address, ipaddress.IPv6Address) or address.scope_id is None


def check_addresses(target: GitTarget, addresses: Iterable[str], private_hosts: Collection[str]) -> None:
    """Check that the target may be reached at all of these addresses.

    Args:
        addresses: all that its host resolves to.
        private_hosts: hosts that the operator allows to have private addresses.

    Raises:
        InvalidInput: an address is not allowed.
    """
    found = [(address, carried_address(address)) for address in addresses]
    is_listed = target.host in private_hosts
    for address, ip in found:
        if ip is None or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in METADATA_SERVICES:
            raise InvalidInput(f"{target.host} has an address at which no git server is reached.", "url")
        if not is_public(address) and not is_listed:
            raise InvalidInput(
                f"{target.host} has a private address, and only public servers can be pushed to. The operator can "
                "allow this host with PUSH_PRIVATE_HOSTS.",
                "url",
            )
    if target.scheme == "http" and not (is_listed and all(ip and ip.is_loopback for _, ip in found)):
        raise InvalidInput("http:// sends your token and code in clear. Use the repository's https:// URL.", "url")


def check_branch(branch: str) -> str:
    """Return the name of a branch.

    Raises:
        InvalidInput: it is not a name that every git server takes.
    """
    parts = branch.split("/")
    is_good = _BRANCH.fullmatch(branch) is not None and len(branch) <= BRANCH_MAX_CHARACTERS and branch != "HEAD"
    if not is_good or ".." in branch or "@{" in branch or any(part.endswith((".", ".lock")) for part in parts):
        raise InvalidInput(
            "This is not a usable name for a branch. Choose another: letters, digits, and - _ . / between them.",
            "branch",
        )
    return branch


# ---- what git says


class PushFailure(StrEnum):
    """Why a push has failed, for programs."""

    NOT_ACCEPTED = "not_accepted"
    """The server does not accept the token, or asks for one."""
    NOT_ALLOWED = "not_allowed"
    """The token's owner may not push to this repository."""
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    """The branch has commits that the build does not have."""
    PROTECTED = "protected"
    DECLINED = "declined"
    """A rule or hook of the server declined it."""
    TOO_LARGE = "too_large"
    REDIRECTED = "redirected"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    UNUSABLE = "unusable"
    """The history in the snapshot is not one that can be pushed."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class _Answer:
    pattern: re.Pattern[str]
    failure: PushFailure
    sentence: str


def _answer(pattern: str, failure: PushFailure, sentence: str) -> _Answer:
    return _Answer(re.compile(pattern, re.IGNORECASE), failure, sentence)


_ANSWERS = (  # the first that fits
    _answer(
        r"\((fetch first|non-fast-forward|needs force|stale info)\)",
        PushFailure.CONFLICT,
        "Branch {branch} of {name} has commits that this build does not have, so nothing was pushed and nothing was "
        "overwritten. Push to another branch, and merge the two there.",
    ),
    _answer(
        r"GH001|exceeds? .{0,60}(file size|size limit|maximum)|file size limit|larger than .{0,40}limit|"
        r"requested URL returned error: 413|pack exceeds maximum|large file storage",
        PushFailure.TOO_LARGE,
        "{name} does not take files or pushes of this size. Ask the agent to remove the large file from the history, "
        "then push again.",
    ),
    _answer(
        r"protected branch|GH006|cannot (force-)?(push|update) (to )?(this |a )?protected|"
        r"not allowed to push code to protected",
        PushFailure.PROTECTED,
        "Branch {branch} of {name} is protected. Push to another branch and open a pull request from it, or allow "
        "pushes in the repository's settings.",
    ),
    _answer(
        r"\[remote rejected\]|hook declined|refusing to allow",
        PushFailure.DECLINED,
        "{name} declined the push to branch {branch}. Do what the server says, or push to another branch.",
    ),
    _answer(
        r"authentication failed|password authentication was removed|could not read (username|password)|"
        r"invalid (username|credentials)|"
        r"requested URL returned error: 401",
        PushFailure.NOT_ACCEPTED,
        "{name} does not accept the token. Check that it is complete, still valid, and meant for this server.",
    ),
    _answer(
        r"requested URL returned error: 403|permission to .{1,300} denied|write access to repository not granted|"
        r"not allowed to (push|upload)",
        PushFailure.NOT_ALLOWED,
        "The token may not push to {name}. Give it the right to write to this repository's code.",
    ),
    _answer(
        r"requested URL returned error: 404|repository .{0,2100}not found|does not appear to be a git repository",
        PushFailure.NOT_FOUND,
        "There is no repository {name}, or the token may not see it. Create an empty one there first, or correct the "
        "URL.",
    ),
    _answer(
        r"requested URL returned error: 30\d|unable to update url base from redirection",
        PushFailure.REDIRECTED,
        "{name} redirects to another address, and pushes follow no redirect. Send the repository's current URL.",
    ),
    _answer(
        r"certificate|SSL|TLS",
        PushFailure.UNREACHABLE,
        "The certificate of {name} could not be verified, so nothing was sent there. Use a server whose certificate is "
        "publicly trusted. One in your own network is trusted once the operator has installed its authority on the "
        "API's machine.",
    ),
    _answer(
        r"could not resolve host|failed to connect|couldn't connect|connection (timed out|refused|reset)|timed? ?out|"
        r"empty reply|recv failure|send failure|early EOF|hung up|curl|requested URL returned "
        r"error: 5\d\d|not valid: is this a git repository",
        PushFailure.UNREACHABLE,
        "The git server of {name} could not be used. Check the URL and the server, then push again.",
    ),
)


def explain(target: GitTarget, branch: str, output: str) -> PushFailed:
    """Turn what git printed into an error that a founder can act on. `output` has no secret any more."""
    # Without the URL: a repository may be called like an error.
    answer = output.replace(target.url, "")
    known = next((each for each in _ANSWERS if each.pattern.search(answer)), None)
    sentence = "{name} did not take the push." if known is None else known.sentence
    failure = PushFailure.UNKNOWN if known is None else known.failure
    words = _words(output)
    quoted = f" The server's answer: {words}" if words else ""
    return PushFailed(sentence.format(name=target.name, branch=branch) + quoted, failure)


_QUOTED_CHARACTERS = 600
_NOISE = re.compile(r"^(hint:|To |Done$|error: failed to push some refs|warning:|\s*$)")


def _words(output: str) -> str:
    lines = [line for line in output.splitlines() if not _NOISE.match(line)]
    remote = [line.partition(":")[2].strip() for line in lines if line.startswith("remote:")]
    rejected = [line.split("\t")[-1].strip() for line in lines if line.startswith("!\t")]
    chosen = [*(each for each in remote if each), *rejected] or [line.strip() for line in lines]
    text = " ".join(" ".join(chosen).split())
    return text if len(text) <= _QUOTED_CHARACTERS else text[: _QUOTED_CHARACTERS - 1] + "…"


def blank_token(text: str, token: str) -> str:
    """Remove a token from a text: as it is, and as a server sees or repeats it (percent-encoded, base64, hex)."""
    for form in _in_base64(token):
        # With the rest of the word: its ends also hold bits of the token.
        text = re.sub(rf"[\w+/=-]{{0,100}}{re.escape(form)}[\w+/=-]{{0,100}}", "***", text)
    raw = token.encode()
    for form in (quote(token, safe=""), quote(token), raw.hex(), raw.hex().upper(), token):
        text = text.replace(form, "***")
    return text


def _in_base64(token: str) -> Sequence[str]:
    """What base64 makes of the token, for each of the three places where it may begin."""
    raw = token.encode()
    encodings: tuple[Callable[[bytes], bytes], ...] = (base64.b64encode, base64.urlsafe_b64encode)
    # Drop the characters that also depend on the bytes before and after it.
    inner = {
        encode(bytes(shift) + raw).decode().rstrip("=")[(0, 2, 3)[shift] : -1]
        for encode in encodings
        for shift in range(3)
    }
    return sorted((form for form in inner if len(form) >= _SHORTEST_FORM), key=len, reverse=True)


_SHORTEST_FORM = 6
"""Characters of an encoded form. Blanking anything shorter would blank ordinary words."""
