"""The tools: what the model is told of each, and the strict check of what it asks for.

A contributor adds a tool to `TOOLS`, and nowhere else when a command of the sandbox can do what it does. Otherwise
`clients/sandbox_runner.py` does it inside the sandbox (`look`, or `change` for a mutating one).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domain.errors import InvalidToolInput
from domain.text import storable

BASH_TIMEOUT_DEFAULT_SECONDS = 60
"""How long a `bash` call may run when the agent names no time."""

BASH_TIMEOUT_MAX_SECONDS = 600
"""The most that the agent may ask for."""

READ_LINES_DEFAULT = 2000


class ToolInput(BaseModel):
    """Strict: no coercion, no further fields, and every field is required; optional ones accept null."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


NotEmpty = Annotated[str, Field(min_length=1)]
Path = Annotated[str, Field(min_length=1, max_length=4096, description="Path relative to the workspace.")]


class BashInput(ToolInput):
    command: NotEmpty = Field(description="The command line.")
    timeout_seconds: Annotated[int, Field(ge=1)] | None = Field(
        description=f"Seconds until the whole process tree is ended. null means {BASH_TIMEOUT_DEFAULT_SECONDS}; at "
        f"most {BASH_TIMEOUT_MAX_SECONDS}.",
    )


class ReadFileInput(ToolInput):
    path: Path
    start_line: Annotated[int, Field(ge=1)] | None = Field(description="First line, from 1. null: from the top.")
    line_count: Annotated[int, Field(ge=1)] | None = Field(
        description=f"How many lines. null: up to {READ_LINES_DEFAULT}."
    )


class WriteFileInput(ToolInput):
    path: Path
    content: str = Field(description="The whole new content.")


class EditFileInput(ToolInput):
    path: Path
    old_text: NotEmpty = Field(description="The exact text to replace.")
    new_text: str = Field(description="What to put in its place.")
    replace_all: bool | None = Field(description="Replace every occurrence. null: false.")


class GlobInput(ToolInput):
    pattern: NotEmpty = Field(description="Glob pattern, ** for any depth.")


class GrepInput(ToolInput):
    pattern: NotEmpty = Field(description="Regular expression.")
    glob: str | None = Field(description="Only files that match this pattern. null: all.")


class TakeScreenshotInput(ToolInput):
    path: Annotated[str, Field(pattern="^/", max_length=2048)] = Field(
        description="The page's path on the server, such as /."
    )


@dataclass(frozen=True)
class Tool:
    """One tool as the model sees it.

    `mutating` calls run in order and as one detached process each; the others run side by side.
    """

    name: str
    description: str
    input: type[ToolInput]
    mutating: bool
    command: Callable[[Any], str] | None = None
    """What bash runs in the workspace for an input; such a tool is mutating. Its input may have `timeout_seconds`."""

    def __post_init__(self) -> None:
        if self.command is not None and not self.mutating:
            raise ValueError(f"The tool {self.name} is a command, so it is mutating.")

    def sent_schema(self) -> dict[str, Any]:
        """The JSON schema of the input, in the subset that the API's strict mode takes; we check the rest ourselves."""
        return _strict_subset(self.input.model_json_schema())


_NOT_IN_STRICT_MODE = {"title", "minLength", "maxLength", "minimum", "maximum", "pattern"}


def _strict_subset(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key not in _NOT_IN_STRICT_MODE}
    if "properties" in kept:
        kept["properties"] = {name: _strict_subset(rule) for name, rule in kept["properties"].items()}
    if "anyOf" in kept:
        kept["anyOf"] = [_strict_subset(option) for option in kept["anyOf"]]
    return kept


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "bash",
            "Run a command with bash in the workspace. Output is cut in the middle when long; the whole of it is kept "
            "in a file that the result names. Start servers in the background with nohup and &, output to a file.",
            BashInput,
            mutating=True,
            command=lambda given: str(given.command),
        ),
        Tool("read_file", "Read a text file of the workspace, with line numbers.", ReadFileInput, mutating=False),
        Tool(
            "write_file",
            "Write a text file of the workspace, whole; folders on the way are made.",
            WriteFileInput,
            mutating=True,
        ),
        Tool(
            "edit_file",
            "Replace one exact piece of a text file. The old text must occur exactly once unless replace_all is true.",
            EditFileInput,
            mutating=True,
        ),
        Tool(
            "glob",
            "List files of the workspace whose path matches a pattern, such as **/*.py; newest first.",
            GlobInput,
            mutating=False,
        ),
        Tool(
            "grep",
            "Search the text files of the workspace with a regular expression (Python's syntax).",
            GrepInput,
            mutating=False,
        ),
        Tool(
            "take_screenshot",
            "Take screenshots of the running product, desktop (1280x800) and mobile (390x844). Its server must already "
            "listen in the sandbox on the port that cofounder.json names.",
            TakeScreenshotInput,
            mutating=False,
        ),
    )
}


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


def check_tool_input(name: str, given: object) -> ToolInput:
    """The input of a tool call if it fits the tool's schema exactly.

    Raises:
        InvalidToolInput: the tool is unknown, or the input does not fit; the text is meant for the agent.
    """
    if name not in TOOLS:
        raise InvalidToolInput(f"There is no tool named {name}. The tools are: {', '.join(TOOLS)}.")
    try:
        return TOOLS[name].input.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'input'}: {e['msg']}" for e in error.errors())
        raise InvalidToolInput(f"The input of {name} does not fit its schema, so it was not run. {problems}") from None


def command_of(name: str, given: ToolInput) -> str | None:
    """What bash runs for a call of this tool; None where the tool is no command."""
    command = TOOLS[name].command
    return None if command is None else command(given)


def is_mutating(name: str) -> bool:
    """Whether calls of this tool must run in order. Unknown tools count as mutating."""
    return name not in TOOLS or TOOLS[name].mutating


def summarize_call(name: str, given: dict[str, Any], limit: int = 80) -> str:
    """One short line for the feed and the timeline, such as `bash: git commit -m "Add waitlist"`."""
    subject = str(given.get("command") or given.get("path") or given.get("pattern") or "").strip()
    first_line = subject.splitlines()[0] if subject else ""
    return storable(f"{name}: {first_line}" if first_line else name, limit)
