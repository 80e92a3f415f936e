"""The build that every fault strikes: small, with each kind of tool call, and the same workspace at its end."""

from typing import Any

from tests.harness.faults import SECRET
from tests.workflows.scenarios import HOLD, PRODUCT, bash, steps

EFFECT = 'echo "$COFOUNDER_CALL" >> /tmp/effects'
"""What a call does outside of the workspace: nothing undoes it, and done twice it is there twice."""

_LEAK = f"printf '%s%s\\n' {SECRET[:9]} {SECRET[9:]}"
"""Prints the secret, without having it in its own text."""


def tool(name: str, **given: Any) -> dict[str, Any]:
    """A step that calls a tool."""
    return {"tool": name, "input": given}


def sample_script(*, held: bool = False) -> dict[str, Any]:
    """Commands, a written and an edited file, calls that read, two phases; `held`: the third turn's command waits.

    What is lost with a sandbox is called again; so each call, made again after it was half done, leaves the same.
    """
    hold = f"{HOLD}; " if held else ""
    script = steps(
        [bash(f"{EFFECT}; {_LEAK}; {PRODUCT}")],
        [
            tool("write_file", path="notes.md", content="one\n"),
            tool("read_file", path="notes.md"),
            tool("glob", pattern="*.py"),
            # Done twice, it leaves another text.
            tool("edit_file", path="notes.md", old_text="one", new_text="one and one more"),
        ],
        [bash(f"{EFFECT}; {hold}grep -qx three notes.md || echo three >> notes.md", 300)],
        [bash(f"{EFFECT}; git add -A; git commit -qm 'Add notes'")],
    )
    return script | {"repeats_lost": True}
