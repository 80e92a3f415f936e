"""The Dockerfile as the tests read it: its stages, and of each its instructions in their order."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass
class Stage:
    """From one FROM to the next."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instruction and the rest of its line, continuations joined."""

    def all(self, instruction: str) -> list[str]:
        """The rests of the lines with this instruction."""
        return [rest for word, rest in self.steps if word == instruction]


def stages() -> list[Stage]:
    """All stages of the Dockerfile."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    found: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            found.append(Stage(image, name))
        else:
            found[-1].steps.append((instruction, re.sub(r"\s+", " ", rest)))
    return found


def context() -> list[str]:
    """The files and directories that .dockerignore lets in: it shuts out everything, then names what comes in."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return [line.removeprefix("!") for line in lines if line.startswith("!")]
