"""Confinement of a sandbox: bubblewrap's arguments, visible files, limits, and a probe whether it works here.

Every sandbox has its own user, pid, network, mount, IPC, UTS and cgroup namespaces. It sees /usr read-only, a small
generated /etc, and two directories of its own. It has no network but its own loopback, no capabilities, and cannot
create user namespaces, with which most ways out of a sandbox begin. Memory is limited by pid 1,
which ends the largest process. It has no limit on disk: that needs quotas that an ordinary machine does not grant.

If the server runs as root, a sandbox's processes are uid 65534 on the host, never root.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.sandbox.guest import HOME, MEMORY

NOBODY_UID = 65534
USER_ID = 1000
HOSTNAME = "e2b.local"
RUN_BYTES = 64 << 20
PROBE_SECONDS = 20.0
OLDEST_BUBBLEWRAP = (0, 8)
"""The first version with `--disable-userns`."""

GUEST_PATH = "/opt/sandbox"
CA_BUNDLE_PATH = "/opt/ca-bundle.pem"
NODE_PATH = "/opt/node"
_GUEST_FILES = (
    "local/__init__.py",
    "local/sandbox/__init__.py",
    *(f"local/sandbox/{name}.py" for name in ("channel", "guest", "guest_entry", "guest_usage", "guest_watch")),
)
_GUEST_PROGRAM = f"import sys; sys.path.insert(0, {GUEST_PATH!r}); from local.sandbox.guest import main; main()"
_COMPILE = """
import py_compile, sys
for path in sys.argv[1:]:
    py_compile.compile(path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
"""

_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
"""Only /usr is visible inside, so a Python of pyenv or uv does not count."""

OWN_PREFIX = f"{HOME}/.local"
"""Where `npm install --global` and `pip install --user` put programs: nothing else on PATH can be written to."""

_PATH = f"{OWN_PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_STAGE = "/mnt"

_GENERATED_ETC = {
    "passwd": f"root:x:0:0::/root:/bin/bash\nuser:x:{USER_ID}:{USER_ID}::{HOME}:/bin/bash\n",
    "group": f"root:x:0:\nuser:x:{USER_ID}:\n",
    "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
}

_HOST_ETC = (
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "ssl/certs",
    "ssl/openssl.cnf",
)
"""What programs under /usr need from the host's /etc. Nothing here is secret; /etc/ssl/private is left out."""


@dataclass(frozen=True)
class Limits:
    """Limits of one sandbox's processes (see `setrlimit`)."""

    processes: int = 1024
    """Number of processes and threads together."""
    file_bytes: int = 8 << 30
    """Size of one file in bytes, uploads included."""
    core_bytes: int = 0
    memory_bytes: int = 4 << 30
    """Memory of all processes together. The largest one is ended when it is exceeded: see `guest.py`."""

    def by_resource(self) -> dict[str, int]:
        """The limits by the part of their names after RLIMIT_."""
        return {"NPROC": self.processes, "FSIZE": self.file_bytes, "CORE": self.core_bytes}


@dataclass(frozen=True)
class Probe:
    """Whether sandboxes can run on this machine. If not, the reason and the remedy."""

    ok: bool
    reason: str
    remedy: str = ""

    def text(self) -> str:
        return self.reason if self.ok else f"{self.reason}\n{self.remedy}"


@dataclass(frozen=True)
class Confinement:
    """Confines the sandboxes below `root`. Call `prepare` first."""

    root: Path
    limits: Limits = field(default_factory=Limits)
    run_as: int | None = field(default_factory=lambda: NOBODY_UID if os.geteuid() == 0 else None)
    """The uid of sandboxes on the host, or None for the server's own."""
    ca_bundle: Path | None = None
    """Certificates that sandboxes see at `CA_BUNDLE_PATH`, as they were when the server started."""
    node: Path | None = None
    """The directory of a Node.js with npm, which sandboxes see at `NODE_PATH`."""

    @property
    def runtime(self) -> Path:
        return self.root / "runtime"

    @property
    def search_path(self) -> str:
        """PATH inside."""
        return f"{NODE_PATH}/bin:{_PATH}" if self.node is not None else _PATH

    def prepare(self) -> None:
        """Write what every sandbox mounts read-only: a small /etc, the guest program, and the CA bundle."""
        for directory in (self.root, self.runtime):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o711)  # uid 65534 may pass through, not list
        if self.node is not None:
            (self.runtime / "node").mkdir(exist_ok=True)
        etc = self.runtime / "etc"
        etc.mkdir(exist_ok=True)
        for name, text in _GENERATED_ETC.items():
            (etc / name).write_text(text)
        package = Path(__file__).parents[2]
        for name in _GUEST_FILES:
            copy = self.runtime / "guest" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((package / name).read_bytes())
        if self.ca_bundle is not None:
            copy = self.runtime / "ca-bundle.pem"
            copy.write_bytes(self.ca_bundle.read_bytes())
            copy.chmod(0o644)
        for path in (etc, self.runtime / "guest"):
            _let_everyone_read(path)

    def compile_guest(self) -> None:
        """Compile the guest program for the Python that runs it, which can't do so itself: it would compile it in each
        sandbox. Do nothing if that fails."""
        files = [str(self.runtime / "guest" / name) for name in _GUEST_FILES]
        subprocess.run(
            [find_python() or _PYTHONS[0], "-I", "-S", "-c", _COMPILE, *files], capture_output=True, check=False
        )
        _let_everyone_read(self.runtime / "guest")

    def make_directories(self, directory: Path) -> None:
        """Make one sandbox's directories. Its home and /tmp belong to the user of its processes on the host."""
        directory.mkdir(exist_ok=True)
        directory.chmod(0o711)
        for name, mode in (("home", 0o755), ("tmp", 0o1777)):
            path = directory / name
            path.mkdir(exist_ok=True)
            path.chmod(mode)
            if self.run_as is not None:
                os.chown(path, self.run_as, self.run_as)

    def guest_command(self, directory: Path, channel_descriptor: int) -> list[str]:
        """The command that boots the sandbox in this directory. It has to inherit the channel's descriptor."""
        limits = json.dumps({**self.limits.by_resource(), MEMORY: self.limits.memory_bytes})
        guest = [find_python() or _PYTHONS[0], "-I", "-S", "-c", _GUEST_PROGRAM, str(channel_descriptor), limits]
        return self.command(directory, guest)

    def command(self, directory: Path, program: list[str]) -> list[str]:
        """The command that runs a program as pid 1 of the sandbox in this directory."""
        root, mounts = self.root, []
        if self.run_as is not None and not passable(self.root):
            # Uid 65534 can't pass through /root, for example. So mount the data elsewhere, too, for this process.
            root = Path(_STAGE)
            mounts.append((self.root, root))
        inside = root / directory.relative_to(self.root)
        runtime = root / self.runtime.relative_to(self.root)
        node = self.node
        if self.run_as is not None and node is not None and not passable(node):
            mounts.append((node, runtime / "node"))
            node = runtime / "node"
        return [
            *self._outer(mounts),
            "bwrap",
            *("--unshare-user", "--disable-userns", "--unshare-all"),
            *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"),
            *("--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", HOSTNAME, "--clearenv"),
            *("--ro-bind", "/usr", "/usr", *_links_into_usr()),
            *_etc_binds(runtime / "etc"),
            *("--ro-bind", str(runtime / "guest"), GUEST_PATH),
            *(("--ro-bind", str(runtime / "ca-bundle.pem"), CA_BUNDLE_PATH) if self.ca_bundle is not None else ()),
            *(("--ro-bind", str(node), NODE_PATH) if node is not None else ()),
            *("--proc", "/proc", "--dev", "/dev", "--size", str(RUN_BYTES), "--tmpfs", "/run"),
            *("--bind", str(inside / "home"), HOME, "--bind", str(inside / "tmp"), "/tmp"),
            *("--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--remount-ro", "/"),
            *("--chdir", HOME, "--", *program),
        ]

    def _outer(self, mounts: list[tuple[Path, Path]]) -> list[str]:
        """The beginning of a command that mounts directories for this process alone and becomes the user."""
        if self.run_as is None:
            return []
        outer = ["setpriv", f"--reuid={self.run_as}", f"--regid={self.run_as}", "--clear-groups", "--"]
        for directory, at in reversed(mounts):
            script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
            outer[:0] = ["/bin/sh", "-c", script, "sh", str(directory), str(at)]
        if mounts:
            outer[:0] = ["unshare", "--mount", "--propagation=private", "--"]
        return outer


def passable(path: Path) -> bool:
    """Whether every user can pass through all directories on the way to this path."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


def _let_everyone_read(directory: Path) -> None:
    for each in (directory, *directory.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


def find_python() -> str | None:
    """The Python that runs pid 1, or None if there is none under /usr."""
    return next((path for path in _PYTHONS if Path(path).exists()), None)


def find_node() -> Path | None:
    """The directory of the Node.js that `scripts/setup --node` has set up in this checkout, or None.

    A Node.js below /usr is visible to sandboxes as it is.
    """
    program = Path(__file__).parents[2] / ".cofounder" / "tools" / "bin" / "node"
    return program.resolve().parents[1] if program.exists() else None


def probe() -> Probe:
    """Try to confine a program in the way of a sandbox. Takes hardly more than `PROBE_SECONDS`.

    Never raises: if it can't work here, the result has a reason and a remedy.
    """
    if missing := _missing():
        return missing
    try:
        done = run_confined([find_python() or _PYTHONS[0], "-I", "-S", "-c", "pass"], PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return Probe(False, f"bubblewrap did not answer within {PROBE_SECONDS:g} seconds.", _ALTERNATIVE)
    except OSError as error:
        return Probe(False, f"bubblewrap could not be tried: {error}", _ALTERNATIVE)
    if done.returncode == 0:
        return Probe(True, "Sandboxes can run here: bubblewrap confines a program.")
    return explain(done.stderr.strip(), _sysctls(), is_root=os.geteuid() == 0)


def run_confined(program: list[str], seconds: float, node: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a sandbox of its own that no server knows, with the PATH of sandboxes.

    Raises OSError, `subprocess.TimeoutExpired`.
    """
    with tempfile.TemporaryDirectory(prefix="cofounder-probe-") as name:
        confinement = Confinement(Path(name).resolve(), node=node)
        confinement.prepare()
        directory = confinement.root / "sandbox"
        confinement.make_directories(directory)
        return subprocess.run(
            confinement.command(directory, ["/usr/bin/env", f"PATH={confinement.search_path}", *program]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


_ALTERNATIVE = "Or use E2B's cloud: set E2B_API_KEY and REAL=1."


def explain(message: str, sysctls: Mapping[str, str], *, is_root: bool) -> Probe:
    """The likely reason for bubblewrap's error message, given the kernel settings that can forbid user namespaces."""
    reason = f"bubblewrap does not work here: {message or 'it failed without a message'}"
    remedies = []
    if sysctls.get("kernel.apparmor_restrict_unprivileged_userns") == "1" and not is_root:
        reason += "\nAppArmor forbids unprivileged user namespaces (the default of Ubuntu since 24.04)."
        remedies.append(
            "Give bwrap an AppArmor profile with the `userns` permission, or run"
            " `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or run as root."
        )
    if sysctls.get("kernel.unprivileged_userns_clone") == "0" and not is_root:
        reason += "\nThe kernel forbids unprivileged user namespaces."
        remedies.append("Run `sysctl -w kernel.unprivileged_userns_clone=1`, or run as root.")
    if sysctls.get("user.max_user_namespaces") == "0":
        reason += "\nThe kernel allows no user namespaces at all."
        remedies.append("Run `sysctl -w user.max_user_namespaces=15000`.")
    if not remedies:
        remedies.append(
            "In a container, allow user namespaces and mounts"
            " (for example `--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined`)."
            " On your own machine, try to run as root."
        )
    return Probe(False, reason, "\n".join([*remedies, _ALTERNATIVE]))


def _missing() -> Probe | None:
    if platform.system() != "Linux":
        return Probe(False, f"Sandboxes need Linux; this is {platform.system()}.", _ALTERNATIVE)
    if shutil.which("bwrap") is None:
        install = "Install bubblewrap: `apt-get install bubblewrap` (or your distribution's package of that name)."
        return Probe(False, "bubblewrap (bwrap) is not installed.", f"{install}\n{_ALTERNATIVE}")
    if os.geteuid() == 0 and (absent := [name for name in ("setpriv", "unshare") if shutil.which(name) is None]):
        return Probe(False, f"{' and '.join(absent)} of util-linux is missing.", "Run `apt-get install util-linux`.")
    if find_python() is None:
        return Probe(False, "Python 3 is missing under /usr.", "Run `apt-get install python3`.")
    try:
        done = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, timeout=0.5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Probe(False, f"bwrap --version failed: {error}", _ALTERNATIVE)
    version = re.search(r"(\d+)\.(\d+)", done.stdout)
    if version and (int(version[1]), int(version[2])) < OLDEST_BUBBLEWRAP:
        oldest = ".".join(map(str, OLDEST_BUBBLEWRAP))
        return Probe(False, f"{done.stdout.strip()} is too old; {oldest} or newer is needed.", _ALTERNATIVE)
    return None


def _sysctls() -> dict[str, str]:
    names = (
        "kernel.apparmor_restrict_unprivileged_userns",
        "kernel.unprivileged_userns_clone",
        "user.max_user_namespaces",
    )
    values = {}
    for name in names:
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists():
            values[name] = path.read_text().strip()
    return values


def _links_into_usr() -> list[str]:
    """Arguments for /bin, /lib and so on: links on a distribution with a merged /usr, directories on others."""
    arguments = []
    for top in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        path = Path(top)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), top]
        else:
            arguments += ["--ro-bind-try", top, top]
    return arguments


def _etc_binds(generated: Path) -> list[str]:
    arguments = []
    for name in _GENERATED_ETC:
        arguments += ["--ro-bind", str(generated / name), f"/etc/{name}"]
    versioned = sorted(path.name for pattern in ("python3*", "java-*") for path in Path("/etc").glob(pattern))
    for name in (*_HOST_ETC, *versioned):
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return arguments
