"""Workflow code is deterministic and keeps no state in modules: workers run it without the SDK's sandbox (ADR 0005).

The sandbox, with which the tests run workflows, finds such calls only on the paths that a test takes.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

FORBIDDEN = {
    *(
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "datetime.datetime.now",
        "datetime.date.today",
    ),
    *("time.time", "time.monotonic", "time.perf_counter", "time.sleep", "monotonic", "perf_counter"),
    *(
        "asyncio.sleep",
        "asyncio.wait_for",
        "asyncio.timeout",
        "asyncio.to_thread",
        "asyncio.as_completed",
        "asyncio.wait",
    ),
    *("uuid4", "uuid1", "uuid.uuid4", "uuid.uuid1", "os.urandom", "os.getenv", "os.getpid", "id", "hash"),
    *("open", "input", "print"),
}
"""Calls whose result differs from one replay to the next, or that Temporal does not see."""

FORBIDDEN_MODULES = (
    "random.",
    "secrets.",
    "os.environ",
    "threading.",
    "subprocess.",
    "socket.",
    "Path.cwd",
    "time.time",
)
"""Names from these are not used at all."""

MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_CALLS = {
    "list",
    "dict",
    "set",
    "defaultdict",
    "deque",
    "Counter",
    "OrderedDict",
    "bytearray",
    "count",
    "itertools.count",
}

READ_ONLY = {"Mapping", "Sequence", "Set", "Collection", "frozenset", "Options"}
"""A constant with such a type is not changed: mypy sees to it. `Options` are spread into a call, never kept."""


def _modules() -> list[Path]:
    """The modules of `workflows/`, and those of `domain/` that they import, directly or not."""
    found, waiting = set(), sorted((ROOT / "workflows").glob("*.py"))
    while waiting:
        path = waiting.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.split(".")[0] in ("domain", "workflows")
            ):
                base = ROOT.joinpath(*node.module.split("."))
                waiting += [base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)]
    return sorted(found)


MODULES = _modules()


def violations(source: str) -> Iterator[str]:
    """What in a module is not deterministic, or is state."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN:
                yield f"{node.lineno}: calls {name}"
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(FORBIDDEN_MODULES):
            yield f"{node.lineno}: uses {ast.unparse(node)}"
        if isinstance(node, ast.Global):
            yield f"{node.lineno}: changes {', '.join(node.names)} of its module"
    for statement in tree.body:
        yield from _state(statement)
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                yield from _state(inner)


def _state(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign):
        names, value, kind = [ast.unparse(each) for each in statement.targets], statement.value, ""
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        names, value, kind = [ast.unparse(statement.target)], statement.value, ast.unparse(statement.annotation)
    else:
        return
    is_call = isinstance(value, ast.Call) and ast.unparse(value.func) in MUTABLE_CALLS
    is_read_only = kind.split("[")[0] in READ_ONLY or names == ["__all__"] or names == ["model_config"]
    if (isinstance(value, MUTABLE) or is_call) and not is_read_only:
        yield f"{statement.lineno}: {names[0]} can be changed; type it as Mapping, Sequence or frozenset"


def test_what_workflows_import_is_read() -> None:
    names = {str(path.relative_to(ROOT)) for path in MODULES}
    assert {"workflows/build.py", "domain/payloads.py", "domain/budget.py", "domain/outage.py"} <= names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_is_deterministic_and_keeps_no_state(path: Path) -> None:
    assert not list(violations(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "now = datetime.now(UTC)",
        "def f():\n    return uuid4()",
        "def f():\n    return random.random()",
        "def f():\n    return os.environ['X']",
        "async def f():\n    await asyncio.sleep(1)",
        "SEEN = {}",
        "SEEN: dict[str, int] = {}",
        "class A:\n    seen = []",
        "COUNT = 0\ndef f():\n    global COUNT",
    ],
)
def test_what_it_finds(source: str) -> None:
    assert list(violations(source))


@pytest.mark.parametrize(
    "source",
    ["NAMES: Mapping[str, int] = {'a': 1}", "A = frozenset({1})", "def f():\n    return workflow.now()", "X = (1, 2)"],
)
def test_what_it_lets_pass(source: str) -> None:
    assert not list(violations(source))
