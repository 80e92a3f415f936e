"""The programs that products and their agent expect in a sandbox, and how to ask a sandbox for them.

`deploy/e2b/Dockerfile` installs all of them. A sandbox on one machine has those that the machine has below /usr.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PROBE_SECONDS = 10
"""The longest that one program may take to say its version."""

Version = tuple[int, ...]


@dataclass(frozen=True)
class Tool:
    """A program, what it is for, and how to get it on Debian or Ubuntu.

    `probe` is a shell command that prints its version, or anything if there is no `oldest`. `package` is that of apt;
    `install` is a command instead. Without an `essential` one no build works; without another one, some products don't.
    """

    name: str
    purpose: str
    probe: str
    package: str | None = None
    install: str | None = None
    oldest: Version | None = None
    essential: bool = False


TOOLS = (
    Tool("bash", "every command of the agent", "bash --version", "bash", essential=True),
    Tool("git", "the workspace's history", "git --version", "git", oldest=(2, 31), essential=True),
    Tool(
        "python3",
        "the agent's tools, FastAPI and Django products",
        "python3 --version",
        "python3",
        oldest=(3, 11),
        essential=True,
    ),
    Tool("venv", "environments of Python products", "python3 -c 'import ensurepip, venv; print(1)'", "python3-venv"),
    Tool("pip", "packages of Python products", "python3 -m pip --version", "python3-pip"),
    Tool(
        "uv",
        "Python products with a uv.lock",
        "uv --version",
        install="curl -LsSf https://astral.sh/uv/install.sh | UV_INSTALL_DIR=/usr/local/bin sh",
    ),
    Tool(
        "node",
        "React, Next.js and Express products",
        "node --version",
        install="scripts/setup --node",
        oldest=(22,),
    ),
    Tool("npm", "packages of JavaScript products", "npm --version", install="scripts/setup --node", oldest=(10,)),
    Tool(
        "pnpm",
        "JavaScript products with a pnpm-lock.yaml",
        "pnpm --version",
        install="npm install --global --prefix /usr/local pnpm",
    ),
    Tool("gcc", "modules in C of packages", "gcc --version", "build-essential"),
    Tool("g++", "modules in C++ of packages", "g++ --version", "build-essential"),
    Tool("make", "modules in C and C++ of packages", "make --version", "build-essential"),
    Tool("sqlite3", "looking into databases of products", "sqlite3 --version", "sqlite3"),
    Tool("rg", "fast searches by the agent's commands", "rg --version", "ripgrep"),
    Tool("curl", "asking a product's server", "curl --version", "curl"),
    Tool("unzip", "unpacking what packages download", "unzip -v", "unzip"),
    Tool("ps", "looking for processes", "ps --version", "procps"),
    Tool("fc-match", "text in images that products draw", "fc-match sans", "fontconfig fonts-dejavu-core"),
)


def probe_command(tools: Iterable[Tool] = TOOLS) -> str:
    """A command for the sandbox's shell that prints a line for each tool that is there: its name, a tab and its
    version."""
    asked = [f"ask {shlex.quote(tool.name)} {shlex.quote(f'timeout {PROBE_SECONDS} {tool.probe}')} &" for tool in tools]
    return "\n".join(
        [
            'ask() { said=$(sh -c "$2" 2>/dev/null) && printf "%s\\t%s\\n" "$1" "$(printf %s "$said" | head -n 1)"; }',
            *asked,
            "wait",
        ]
    )


def versions(output: str) -> dict[str, str]:
    """What `probe_command` printed: the first line of each tool's answer by its name."""
    return {name: text.strip() for name, tab, text in (line.partition("\t") for line in output.splitlines()) if tab}


@dataclass(frozen=True)
class Lack:
    """A tool that is not there (`found` is None) or too old."""

    tool: Tool
    found: str | None

    def text(self) -> str:
        """One phrase for people."""
        if self.found is None:
            return f"{self.tool.name} is missing ({self.tool.purpose})"
        oldest = ".".join(map(str, self.tool.oldest or ()))
        return f"{self.tool.name} is {self.found}, older than {oldest} ({self.tool.purpose})"


def lacks(found: Mapping[str, str], tools: Iterable[Tool] = TOOLS) -> list[Lack]:
    """What a sandbox lacks whose tools answered with these lines. A tool that hides its version counts as missing."""
    result = []
    for tool in tools:
        answer = found.get(tool.name)
        match = re.search(r"\d+(\.\d+)+", answer or "") or re.search(r"\d+", answer or "")
        if answer is None or (tool.oldest is not None and match is None):
            result.append(Lack(tool, None))
        elif tool.oldest is not None and match is not None and _parsed(match[0]) < tool.oldest:
            result.append(Lack(tool, match[0]))
    return result


def how_to_install(lacking: Iterable[Lack]) -> str:
    """Commands that install what is lacking on Debian or Ubuntu, each once."""
    packages = dict.fromkeys(name for each in lacking for name in (each.tool.package or "").split())
    commands = [f"apt-get install {' '.join(packages)}"] if packages else []
    commands += dict.fromkeys(each.tool.install for each in lacking if each.tool.install)
    return "; ".join(f"`{command}`" for command in commands)


def _parsed(version: str) -> Version:
    return tuple(int(part) for part in version.split("."))
