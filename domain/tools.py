"""The tools: what the model is told about each, and a strict check of its input.

To add a tool, add it to `TOOLS`. That is all if a command in the sandbox does its work. Otherwise add the function of
the same name to the table of the place where it runs; see `RunsIn`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from domain.errors import InvalidToolInput
from domain.former_inputs import current_input
from domain.product import PRODUCT_FILE
from domain.text import storable

BASH_TIMEOUT_DEFAULT_SECONDS = 120
"""How long a `bash` call may run if the agent names no time."""

BASH_TIMEOUT_MAX_SECONDS = 600
"""The longest time that the agent may ask for."""

SHORTEST_TIMEOUT_MS = 1000
"""A shorter time is a mistake: seconds were meant."""

READ_LINES_DEFAULT = 2000

LOOK_STEPS_MAX = 20
"""Steps of one `look`."""


class ToolInput(BaseModel):
    """Strict: no coercion and no additional fields. The model is told that every field is required and that optional
    ones accept null; one that is missing counts as null, as some gateways leave nulls out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


NotEmpty = Annotated[str, Field(min_length=1)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096, description="Path relative to the workspace.")]
Folder = Annotated[str, Field(min_length=1, max_length=4096)]


class BashInput(ToolInput):
    command: NotEmpty = Field(description="The command line.")
    timeout_ms: Annotated[int, Field(ge=SHORTEST_TIMEOUT_MS)] | None = Field(
        default=None,
        description="Milliseconds until the whole process tree is ended. null means "
        f"{BASH_TIMEOUT_DEFAULT_SECONDS * 1000}; at most {BASH_TIMEOUT_MAX_SECONDS * 1000}.",
    )


class ReadFileInput(ToolInput):
    file_path: FilePath
    view_range: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="The first and the last line, counted from 1, such as [1, 500]; 0 as the last one goes to the end. "
        f"null: the first {READ_LINES_DEFAULT} lines. Not for images.",
    )


class WriteFileInput(ToolInput):
    file_path: FilePath
    content: str = Field(description="The whole new content.")


class EditFileInput(ToolInput):
    file_path: FilePath
    old_string: NotEmpty = Field(description="The exact text to replace, without line numbers.")
    new_string: str = Field(description="What to put in its place.")
    replace_all: bool | None = Field(default=None, description="Replace every occurrence. null: false.")


class GlobInput(ToolInput):
    pattern: NotEmpty = Field(description="Glob pattern, ** for any depth.")
    path: Folder | None = Field(default=None, description="The folder to search below. null: the workspace.")


class GrepInput(ToolInput):
    pattern: NotEmpty = Field(description="Regular expression.")
    path: Folder | None = Field(default=None, description="The folder or file to search. null: the workspace.")
    glob: str | None = Field(default=None, description="Only files that match this pattern. null: all.")


class TakeScreenshotInput(ToolInput):
    path: Annotated[str, Field(pattern="^/", max_length=2048)] = Field(
        description="The page's path on the server, such as /."
    )


class AskFounderInput(ToolInput):
    question: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="The question in plain words, with what depends on it. Up to 1,000 characters."
    )
    options: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=2, max_length=6)] = (
        Field(description="Two to six answers to choose from, each up to 200 characters.")
    )
    default: str = Field(description="The option with which you go on now, word for word.")

    @model_validator(mode="after")
    def _default_is_an_option(self) -> Self:
        if len(set(self.options)) < len(self.options):
            raise ValueError("options: give each option once")
        if self.default not in self.options:
            raise ValueError("default: must be one of the options, word for word")
        return self


class LookStep(ToolInput):
    action: Literal["click", "fill", "press", "wait"] = Field(
        description="click an element; fill an input or choose an option; press a key; wait for an element, for a text "
        "or, with neither, for a second."
    )
    selector: Annotated[str, Field(max_length=500)] = Field(
        default="",
        description="The element: CSS, or text= and what stands on it, such as text=Join. Empty: none, for press and "
        "wait only.",
    )
    text: Annotated[str, Field(max_length=2000)] = Field(
        default="", description="What to fill in, the key, such as Enter, or the text to wait for. Empty: none."
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.action in ("click", "fill") and not self.selector.strip():
            raise ValueError(f"selector: {self.action} needs the element, such as text=Join or input[name=email]")
        if self.action == "press" and not self.text:
            raise ValueError("text: press needs the name of a key, such as Enter or ArrowDown")
        return self


class LookInput(ToolInput):
    path: Annotated[str, Field(pattern="^/", max_length=2048)] = Field(
        description="The page's path on the server, such as /."
    )
    viewport: Literal["desktop", "mobile"] = Field(
        default="desktop", description="desktop is 1280x800, mobile is 390x844."
    )
    steps: Annotated[list[LookStep], Field(max_length=LOOK_STEPS_MAX)] = Field(
        default=[],
        description=f"What to do on the page before looking, in order; up to {LOOK_STEPS_MAX}. Empty: only look.",
    )
    full_page: bool = Field(
        default=False, description="Picture the page down to its end. false: what the viewport shows."
    )


class RunsIn(Enum):
    """Where a tool does its work, and so where its function is."""

    COMMAND = auto()
    """Bash runs `Tool.command` in the workspace. Such a tool can change anything."""
    SANDBOX = auto()
    """A function of `clients/sandbox_runner.py` does, inside the sandbox: in `CHANGES` if it is mutating, otherwise in
    `QUERIES`."""
    WORKER = auto()
    """A function of `activities/worker_tools.py` does, outside the sandbox. There is no journal in which a second
    attempt would find what the first one did: it says that the outcome of a call that acts (`Tool.acts`) is
    unknown."""

    DATABASE = auto()
    """`activities/dispatch.py` does, in the transaction that stores the result. It needs no sandbox, and can't be
    mutating: that is for the workspace."""


@dataclass(frozen=True)
class Tool:
    """One tool as the model sees it."""

    name: str
    description: str
    input: type[ToolInput]
    runs_in: RunsIn
    mutating: bool = False
    """Its calls run in order, and as one detached process each; the others run side by side."""
    command: Callable[[Any], str] | None = None
    """Returns what bash runs in the workspace for an input, which may have `timeout_ms`."""
    subject: Callable[[dict[str, Any]], object] = lambda tool_input: (
        tool_input.get("file_path") or tool_input.get("path")
    )
    """What a call is about, for its summary; the input may be any JSON object."""
    acts: Callable[[Any], bool] | None = None
    """For a mutating tool of the worker: whether a call with this input may change something, so that it must not be
    run twice."""
    images: int = 0
    """Images in the result of a call."""

    def __post_init__(self) -> None:
        if (self.command is not None) is not (self.runs_in is RunsIn.COMMAND):
            raise ValueError(f"The tool {self.name} must have a command if it runs as one, and only then.")
        if self.runs_in is RunsIn.COMMAND and not self.mutating:
            raise ValueError(f"The tool {self.name} runs a command, so it must be marked as mutating.")
        if (self.acts is not None) is not (self.runs_in is RunsIn.WORKER and self.mutating):
            raise ValueError(
                f"The tool {self.name} must say which calls act if it is mutating in the worker, and only then."
            )
        if self.runs_in is RunsIn.DATABASE and self.mutating:
            raise ValueError(f"The tool {self.name} writes rows, not the workspace, so it can't be mutating.")

    def sent_schema(self) -> Mapping[str, Any]:
        """Return the input's JSON schema in the subset that the API's strict mode accepts. We check the rest."""
        return _sent_schema(self.input)


@cache
def _sent_schema(tool_input: type[ToolInput]) -> Mapping[str, Any]:
    schema = _strict_subset(_inlined(tool_input.model_json_schema()))
    schema.pop("description", None)  # the docstring of the input's class, which is for us
    return {**schema, "required": list(schema["properties"])}


_NOT_IN_STRICT_MODE = frozenset(
    ("title", "default", "minLength", "maxLength", "minimum", "maximum", "pattern", "minItems", "maxItems")
)


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its definitions where they are used, without the docstrings of their classes, which are for us."""
    definitions = schema.get("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            found = inline(definitions[part["$ref"].rpartition("/")[2]])
            return {key: value for key, value in found.items() if key != "description"}
        return {key: inline(value) for key, value in part.items() if key != "$defs"}

    inlined: dict[str, Any] = inline(schema)
    return inlined


def _strict_subset(schema: dict[str, Any]) -> dict[str, Any]:
    subset = {key: value for key, value in schema.items() if key not in _NOT_IN_STRICT_MODE}
    if "properties" in subset:
        subset["properties"] = {name: _strict_subset(rule) for name, rule in subset["properties"].items()}
        subset["required"] = list(subset["properties"])
    if "anyOf" in subset:
        subset["anyOf"] = [_strict_subset(option) for option in subset["anyOf"]]
    if "items" in subset:
        subset["items"] = _strict_subset(subset["items"])
    return subset


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "bash",
            "Run a command with bash in the workspace, in a shell of its own: variables and cd do not last until the "
            "next call. Use it for git, installs, tests and everything that the other tools do not do; to look at and "
            "change files, those are better. Output is cut in the middle when long, and the whole of it is kept in a "
            "file that the result names. Start servers in the background with nohup and &, their output to a file and "
            "their process id to another, and stop them by that id, never by name: a name also fits what runs your "
            "commands.",
            BashInput,
            RunsIn.COMMAND,
            mutating=True,
            command=lambda tool_input: str(tool_input.command),
            subject=lambda tool_input: tool_input.get("command"),
        ),
        Tool(
            "read_file",
            "Read a text file of the workspace with line numbers, or look at an image (PNG, JPEG, GIF, WebP). Read a "
            "file before you edit it, and what a package has installed before you use it: its README, its types, its "
            f"source. Without a range you get up to {READ_LINES_DEFAULT} lines, and the last line says how to read on. "
            "Read several files in one message.",
            ReadFileInput,
            RunsIn.SANDBOX,
        ),
        Tool(
            "write_file",
            "Write a text file of the workspace, whole, in UTF-8; folders on the way are made. Use it for new files, "
            "and for one that changes nearly everywhere. For an existing file prefer edit_file, which can't lose what "
            "you did not mean to change. Write the whole content: a remark such as `rest as before` would replace the "
            "rest.",
            WriteFileInput,
            RunsIn.SANDBOX,
            mutating=True,
        ),
        Tool(
            "edit_file",
            "Replace a piece of text in a file of the workspace. Copy old_string exactly from what read_file shows, "
            "indentation included and line numbers left out, with enough of the text around it to occur only once, "
            "unless replace_all is true. Line ends, encoding and the rest of the file stay as they are. This is the "
            "tool for changing existing files.",
            EditFileInput,
            RunsIn.SANDBOX,
            mutating=True,
        ),
        Tool(
            "glob",
            "List files of the workspace whose path matches a pattern, such as **/*.py; newest first. Use it to get to "
            "know a workspace and to find a file by its name; grep finds one by its content. Folders such as "
            "node_modules and .git are left out.",
            GlobInput,
            RunsIn.SANDBOX,
            subject=lambda tool_input: tool_input.get("pattern"),
        ),
        Tool(
            "grep",
            "Search the text files of the workspace line by line with a regular expression in Python's syntax. Use it "
            "to find where something is defined and everywhere it is used before you change it. Narrow a search with a "
            "folder or a glob such as *.ts. Folders such as node_modules and .git are left out; for those use bash.",
            GrepInput,
            RunsIn.SANDBOX,
            subject=lambda tool_input: tool_input.get("pattern"),
        ),
        Tool(
            "take_screenshot",
            "Take screenshots of a page of the running product, desktop (1280x800) and mobile (390x844), and see them. "
            "Use it after each change that shows, before you call a page done. The product's server must already "
            f"listen in the sandbox on the port that {PRODUCT_FILE} names: start it in the background first.",
            TakeScreenshotInput,
            RunsIn.WORKER,
            images=2,
        ),
        Tool(
            "look",
            "Open a page of the running product in a browser as a visitor does, do the steps on it, and see it: a "
            "picture, the visible text, console errors, failed requests and what is broken. Use it to try each user "
            "story on desktop and mobile, and to find out why a page does not work; take_screenshot is enough to see "
            "both sizes. Every call opens the page again in a fresh browser, without cookies; the steps really act on "
            "the product's data. If a step can't be done, you are told what could be clicked instead.",
            LookInput,
            RunsIn.WORKER,
            mutating=True,
            acts=lambda tool_input: bool(tool_input.steps),
            images=1,
        ),
        Tool(
            "ask_founder",
            "Ask the founder to choose between two to six options, and go on at once with the one that you give as the "
            "default: nothing waits for the answer, which reaches you as a message if it comes. Use it seldom, for a "
            "choice that is theirs and that the brief leaves open, such as a name, a price or what is public. Do not "
            "ask whether to go on, nor what you can find out or undo later. What nothing can be done without is a "
            "blocker, which you name when you end your turn.",
            AskFounderInput,
            RunsIn.DATABASE,
            subject=lambda tool_input: tool_input.get("question"),
        ),
    )
}


def render_tools() -> str:
    """Render the `tools` array of a request as JSON text. It is stored with the prompt, and never changes."""
    return json.dumps(
        [
            {"name": tool.name, "description": tool.description, "strict": True, "input_schema": tool.sent_schema()}
            for tool in TOOLS.values()
        ],
        ensure_ascii=False,
        separators=(",", ":"),
    )


def check_tool_input(name: str, value: object) -> ToolInput:
    """Check that the input of a tool call fits the tool's schema exactly.

    Raises:
        InvalidToolInput: the tool is unknown, or the input does not fit; the message is for the agent.
    """
    if name not in TOOLS:
        raise InvalidToolInput(f"There is no tool named {name}. The tools are: {', '.join(TOOLS)}.")
    try:
        return TOOLS[name].input.model_validate(current_input(name, value) if isinstance(value, dict) else value)
    except ValidationError as error:
        problem = describe_problems(name, error)
        raise InvalidToolInput(f"The input of {name} does not fit its schema, so it was not run. {problem}") from None


def describe_problems(name: str, error: ValidationError) -> str:
    """Say what is wrong with a call's input, and what the tool takes."""
    problems = dict.fromkeys(_problem(e) for e in error.errors())
    return f"{'; '.join(problems)}. Call it again with {_expected(TOOLS[name])}."


_MEANT_SECONDS = "timeout_ms: it is in milliseconds, so 120 seconds are 120000"


def _problem(error: Mapping[str, Any]) -> str:
    location = [str(part) for part in error["loc"] if not str(part).startswith(("constrained-", "list["))]
    if location == ["timeout_ms"] and error["type"] == "greater_than_equal":
        return _MEANT_SECONDS
    if error["type"] == "string_unicode":
        return f"{'.'.join(location)}: has a lone surrogate (\\ud800 to \\udfff). Write the character itself"
    return f"{'.'.join(location) or 'input'}: {error['msg']}"


def _expected(tool: Tool) -> str:
    """The fields of a tool's input, with their types, for an error."""
    fields = [f"{field} ({_kind(rule)})" for field, rule in tool.sent_schema()["properties"].items()]
    return ", ".join(fields) or "an empty object"


def _kind(rule: Mapping[str, Any]) -> str:
    if "anyOf" in rule:
        return " or ".join(map(_kind, rule["anyOf"]))
    if "enum" in rule:
        return " or ".join(map(str, rule["enum"]))
    if rule.get("items", {}).get("type") == "object":
        each = [f"{field} ({_kind(part)})" for field, part in rule["items"]["properties"].items()]
        return f"array of objects with {', '.join(each)}"
    return str(rule.get("type", "any"))


def is_mutating(name: str) -> bool:
    """Whether calls of this tool must run in order. Unknown tools count as mutating."""
    return name not in TOOLS or TOOLS[name].mutating


def uses_browser(name: str) -> bool:
    """Whether calls of this tool look at pages with the worker's browser."""
    return name in TOOLS and TOOLS[name].runs_in is RunsIn.WORKER


def summarize_call(name: str, tool_input: dict[str, Any], limit: int = 80) -> str:
    """Summarize a call in one line for the feed and the timeline, such as `bash: git commit -m "Add waitlist"`."""
    subject = str((TOOLS[name].subject(tool_input) if name in TOOLS else _guessed_subject(tool_input)) or "").strip()
    first_line = subject.splitlines()[0] if subject else ""
    return storable(f"{name}: {first_line}" if first_line else name, limit)


def tool_of(summary: str) -> str:
    """The tool's name alone, of a call's summary."""
    name = summary.partition(":")[0]
    return name if name in TOOLS else "unknown tool"


def _guessed_subject(tool_input: dict[str, Any]) -> object:
    return next(filter(None, map(tool_input.get, ("command", "file_path", "path", "pattern"))), None)
