"""The build that every fault strikes: small, with each kind of tool call, and always the same workspace at its end."""

from typing import Any

from domain.tools import TOOLS
from tests.harness.faults import SECRET
from tests.harness.planted import LEAKS
from tests.harness.scripts import HOLD, PRODUCT, bash, steps

EFFECT = 'echo "$COFOUNDER_CALL" >> /tmp/effects'
"""A side effect outside the workspace: nothing undoes it, and a call that runs twice leaves two lines."""

_LEAK = f"printf '%s%s\\n' {SECRET[:9]} {SECRET[9:]}"
"""Prints the secret without containing it."""


_LEAKING_PRODUCT = LEAKS + PRODUCT.replace('"python3 ', '"python3 leak.py && exec python3 ')
"""The small product, whose check and start also print what was planted. The agent's own command does so too."""


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    """A step that calls a tool. Parameters that are not given are null, since a tool requires each of them."""
    return {"tool": name, "input": dict.fromkeys(TOOLS[name].sent_schema()["properties"]) | parameters}


_LONG_TURNS = [[bash(f"yes 'line {turn}.{call}' | head -c 14000") for call in range(3)] for turn in range(5)]


_STUCK_TURNS = [[bash("echo again")] for _ in range(5)]


def sample_script(*, hold: bool = False, long: bool = False, stuck: bool = False) -> dict[str, Any]:
    """Commands, a written and an edited file, calls that only read, two phases. `hold`: the third turn's command waits.
    `long`: turns before them print so much that the conversation is summed up. `stuck`: turns before them repeat a call
    until the founder is asked.

    The model repeats calls that were lost with a sandbox, so a call repeated after it was half done must leave the same
    files.
    """
    wait = f"{HOLD}; " if hold else ""
    script = steps(
        *(_LONG_TURNS if long else ()),
        *(_STUCK_TURNS if stuck else ()),
        [bash(f"{EFFECT}; {_LEAK}; {_LEAKING_PRODUCT}python3 leak.py; env | grep ^PLANTED_ | base64")],
        [
            tool("write_file", file_path="notes.md", content="one\n"),
            tool("read_file", file_path="notes.md"),
            tool("glob", pattern="*.py"),
            # Leaves another text if it runs twice.
            tool("edit_file", file_path="notes.md", old_string="one", new_string="one and one more"),
        ],
        [bash(f"{EFFECT}; {wait}grep -qx three notes.md || echo three >> notes.md", 300)],
        [bash(f"{EFFECT}; git add -A; git commit -qm 'Add notes'")],
    )
    return script | {"repeats_lost": True}
