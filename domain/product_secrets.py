"""The secrets that a founder sets for their product: names, limits, stand-ins, and the keys that encrypt the values.

A product reads a secret from the environment variable of its name. Only the `start` of a preview has the value; the
agent's commands and the gate have a stand-in.
"""

import base64
import binascii
import re
from collections.abc import Iterable

from domain.errors import InvalidInput
from domain.redaction import SHORTEST

NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""The name of an environment variable, in upper case: lower-case ones, such as http_proxy, are for programs."""

MAX_SECRETS = 64
"""Secrets of a project."""

MAX_VALUE_BYTES = 16 * 1024
"""Bytes of a value in UTF-8. All of a project's together stay below what Linux lets a process have."""

KEY_BYTES = 32

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")

_RESERVED_WORDS = """
    CDPATH CLASSPATH COLUMNS DISPLAY EDITOR ENV EUID GLOBIGNORE HISTFILE HOME HOST HOSTNAME IFS LANG LANGUAGE LINENO
    LINES LOGNAME MAIL MAILPATH OLDPWD OPENSSL_CONF OPENSSL_ENGINES OPTARG OPTIND PAGER PATH PORT PPID PS1 PS2 PS3 PS4
    PWD RANDOM REPLY SECONDS SHELL SHELLOPTS SHLVL TERM TMP TMPDIR TEMP TZ UID USER USERNAME VIRTUAL_ENV
    ALL_PROXY FTP_PROXY HTTP_PROXY HTTPS_PROXY NO_PROXY CURL_CA_BUNDLE REQUESTS_CA_BUNDLE SSL_CERT_DIR SSL_CERT_FILE
    """
_RESERVED = frozenset(_RESERVED_WORDS.split())
_RESERVED_BEGINNINGS = (
    *("BASH", "COFOUNDER_", "DYLD_", "E2B_", "GIT_", "GLIBC_", "JAVA_", "JDK_", "LC_", "LD_", "MALLOC_", "NODE_"),
    *("NPM_CONFIG_", "PERL", "PIP_", "PROMPT_", "PYTHON", "RUBY", "SSH_", "UV_", "XDG_"),
)
"""What a shell, an interpreter, a package manager, the sandbox or Cofounder itself reads."""


def check_name(name: str) -> None:
    """Check a name before a secret is set.

    Raises:
        InvalidInput: it is not one that a product may read a secret from.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} is not a secret's name. Use up to 64 capital letters, digits and _, with a letter first, "
            "such as STRIPE_API_KEY.",
            "name",
        )
    if name in _RESERVED or name.startswith(_RESERVED_BEGINNINGS):
        raise InvalidInput(
            f"{name} is reserved: programs in the sandbox read it themselves. Choose another name, such as "
            f"PRODUCT_{name}.",
            "name",
        )


def check_value(value: str) -> None:
    """Check a value before it is stored. The message quotes nothing of it.

    Raises:
        InvalidInput: it can't be an environment variable, or could not be blanked in logs.
    """
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInput("The value has a NUL character or is not valid text. Copy it again.", "value")
    if len("".join(value.split())) < SHORTEST:
        raise InvalidInput(
            f"The value is shorter than {SHORTEST} characters: blanking it in logs would blank other words. Put "
            "settings that are not secret into the idea brief.",
            "value",
        )
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise InvalidInput(f"The value is larger than {MAX_VALUE_BYTES // 1024} KB. Shorten it.", "value")
    if value.startswith(STAND_IN):
        raise InvalidInput(f"The value begins with {STAND_IN}, as stand-ins do. Send the real one.", "value")


STAND_IN = "stand-in-"
"""Begins the value that a secret has wherever the real one is not."""


def stand_in(name: str) -> str:
    """The harmless value that a secret has in the agent's commands, in the gate and in the install of a preview."""
    return f"{STAND_IN}{name}"


def stand_ins(names: Iterable[str]) -> dict[str, str]:
    """The environment with a stand-in for each secret."""
    return {name: stand_in(name) for name in names}


def parse_keys(text: str) -> dict[str, bytes]:
    """Read SECRETS_KEY: `id:key` or several of them, separated by commas; the first one encrypts.

    Raises:
        ValueError: says what is wrong, and quotes no key.
    """
    keys: dict[str, bytes] = {}
    for number, each in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        key_id, _, encoded = each.partition(":")
        if not _KEY_ID.fullmatch(key_id) or not encoded:
            raise ValueError(f"key {number} is not of the form id:key, with an id of letters, digits, . _ and -")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"key {key_id} is not base64; make one with `openssl rand -base64 {KEY_BYTES}`") from None
        if len(key) != KEY_BYTES:
            raise ValueError(
                f"key {key_id} has {len(key)} bytes, not {KEY_BYTES}; make one with `openssl rand -base64 {KEY_BYTES}`"
            )
        if key_id in keys:
            raise ValueError(f"the id {key_id} stands there twice")
        keys[key_id] = key
    if not keys:
        raise ValueError("has no key; it is of the form id:key")
    return keys


def key_texts(text: str) -> list[str]:
    """The keys in SECRETS_KEY as they stand there, without their ids."""
    return [each.partition(":")[2].strip() for each in text.split(",")]
