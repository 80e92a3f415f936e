"""Parses a Dockerfile for tests: its stages, and the instructions of each stage in order."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """A build stage: the instructions from one FROM to the next."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Each instruction with the rest of its line, continuation lines joined."""

    def all(self, instruction: str) -> list[str]:
        """Return the rest of each line with this instruction."""
        return [rest for word, rest in self.steps if word == instruction]


def stages(dockerfile: Path = ROOT / "Dockerfile") -> list[Stage]:
    """Parse all stages of a Dockerfile; by default that of Cofounder's image."""
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text()).replace("\\\n", " ")
    parsed: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            parsed.append(Stage(image, name))
        else:
            parsed[-1].steps.append((instruction, re.sub(r"\s+", " ", rest)))
    return parsed


def context() -> list[str]:
    """Return the files and directories that .dockerignore lets in: it excludes everything, then lists exceptions."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return [line.removeprefix("!") for line in lines if line.startswith("!")]
