"""The seven tools: what the model is told of each, and the strict check of what it asks for.

A contributor adds a tool here (its schema and kind) and in `activities/dispatch.py` (what it does).
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from jsonschema import Draft202012Validator

from domain.errors import InvalidToolInput

BASH_TIMEOUT_DEFAULT_SECONDS = 60
"""How long a `bash` call may run when the agent names no time."""

BASH_TIMEOUT_MAX_SECONDS = 600
"""The most that the agent may ask for."""


@dataclass(frozen=True)
class Tool:
    """One tool as the model sees it.

    `mutating` calls run in order and as one detached process each; the others run side by side.
    """

    name: str
    description: str
    properties: dict[str, Any]
    mutating: bool

    def schema(self) -> dict[str, Any]:
        """The JSON schema of the input. Strict: every property is required, optional ones accept null."""
        return {
            "type": "object",
            "properties": self.properties,
            "required": list(self.properties),
            "additionalProperties": False,
        }

    def sent_schema(self) -> dict[str, Any]:
        """The schema without the string constraints, which the API's strict mode does not take; we check those."""
        kept = {
            name: {key: value for key, value in rule.items() if key not in ("minLength", "pattern")}
            for name, rule in self.properties.items()
        }
        return self.schema() | {"properties": kept}


_PATH = {"type": "string", "minLength": 1, "description": "Path relative to the workspace."}

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "bash",
            "Run a command with bash in the workspace. Output is cut in the middle when long; the whole of it is kept "
            "in a file that the result names. Start servers in the background with nohup and &, output to a file.",
            {
                "command": {"type": "string", "minLength": 1, "description": "The command line."},
                "timeout_seconds": {
                    "type": ["integer", "null"],
                    "description": f"Seconds until the whole process tree is ended. null means "
                    f"{BASH_TIMEOUT_DEFAULT_SECONDS}; at most {BASH_TIMEOUT_MAX_SECONDS}.",
                },
            },
            mutating=True,
        ),
        Tool(
            "read_file",
            "Read a text file of the workspace, with line numbers.",
            {
                "path": _PATH,
                "start_line": {"type": ["integer", "null"], "description": "First line, from 1. null: from the top."},
                "line_count": {"type": ["integer", "null"], "description": "How many lines. null: up to 2000."},
            },
            mutating=False,
        ),
        Tool(
            "write_file",
            "Write a text file of the workspace, whole; folders on the way are made.",
            {"path": _PATH, "content": {"type": "string", "description": "The whole new content."}},
            mutating=True,
        ),
        Tool(
            "edit_file",
            "Replace one exact piece of a text file. The old text must occur exactly once unless replace_all is true.",
            {
                "path": _PATH,
                "old_text": {"type": "string", "minLength": 1, "description": "The exact text to replace."},
                "new_text": {"type": "string", "description": "What to put in its place."},
                "replace_all": {"type": ["boolean", "null"], "description": "Replace every occurrence. null: false."},
            },
            mutating=True,
        ),
        Tool(
            "glob",
            "List files of the workspace whose path matches a pattern, such as **/*.py; newest first.",
            {"pattern": {"type": "string", "minLength": 1, "description": "Glob pattern, ** for any depth."}},
            mutating=False,
        ),
        Tool(
            "grep",
            "Search the text files of the workspace with a regular expression (Python's syntax).",
            {
                "pattern": {"type": "string", "minLength": 1, "description": "Regular expression."},
                "glob": {"type": ["string", "null"], "description": "Only files that match this pattern. null: all."},
            },
            mutating=False,
        ),
        Tool(
            "take_screenshot",
            "Take screenshots of the running product, desktop (1280x800) and mobile (390x844). Its server must already "
            "listen in the sandbox on the port that cofounder.json names.",
            {"path": {"type": "string", "pattern": "^/", "description": "The page's path on the server, such as /."}},
            mutating=False,
        ),
    )
}


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(TOOLS[name].schema())


def render_tools() -> str:
    """The `tools` array of a request as JSON text. Stored with the prompt and sent as these bytes from then on."""
    return json.dumps(
        [
            {"name": tool.name, "description": tool.description, "strict": True, "input_schema": tool.sent_schema()}
            for tool in TOOLS.values()
        ],
        ensure_ascii=False,
        separators=(",", ":"),
    )


def check_tool_input(name: str, given: object) -> dict[str, Any]:
    """The input of a tool call if it fits the tool's schema exactly.

    Raises:
        InvalidToolInput: the tool is unknown, or the input does not fit; the text is meant for the agent.
    """
    if name not in TOOLS:
        raise InvalidToolInput(f"There is no tool named {name}. The tools are: {', '.join(TOOLS)}.")
    problems = [
        f"{'/'.join(map(str, error.absolute_path)) or 'input'}: {error.message}"
        for error in _validator(name).iter_errors(given)
    ]
    if problems:
        raise InvalidToolInput(f"The input of {name} does not fit its schema, so it was not run. {'; '.join(problems)}")
    return cast(dict[str, Any], given)


def is_mutating(name: str) -> bool:
    """Whether calls of this tool must run in order. Unknown tools count as mutating."""
    return name not in TOOLS or TOOLS[name].mutating


def summarize_call(name: str, given: dict[str, Any], limit: int = 80) -> str:
    """One short line for the feed and the timeline, such as `bash: git commit -m "Add waitlist"`."""
    subject = str(given.get("command") or given.get("path") or given.get("pattern") or "").strip()
    first_line = subject.splitlines()[0] if subject else ""
    text = f"{name}: {first_line}" if first_line else name
    return text if len(text) <= limit else text[: limit - 1] + "…"
