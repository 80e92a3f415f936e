"""What workflow code must not do, read from its source: workers run it without the SDK's sandbox (ADR 0005).

Names are followed to where they come from, so it does not matter how something is imported or renamed.
"""

import ast
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path

from pydantic import BaseModel

ROOT = Path(__file__).parents[3]

OURS = ("domain", "workflows")
"""Modules of these are read, too, if a workflow imports them."""

MODULES_ALLOWED = {
    *("asyncio", "base64", "binascii", "calendar", "collections", "contextlib", "copy", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "hashlib", "itertools", "json", "math", "operator", "re"),
    *("string", "sys", "textwrap", "types", "typing", "unicodedata", "urllib.parse", "uuid", "__future__"),
    *("pydantic", "temporalio.workflow", "temporalio.common", "temporalio.exceptions", "temporalio.types"),
    *OURS,
    "activities",  # as references; `tests/unit/repository/test_imports.py` sees to it
}
"""Everything else may ask for the time, random numbers, files or the network."""

NAMES_FORBIDDEN = {
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
    *(f"asyncio.{name}" for name in ("sleep", "wait_for", "timeout", "timeout_at", "to_thread", "as_completed")),
    *(f"asyncio.{name}" for name in ("wait", "run", "open_connection", "create_subprocess_exec", "subprocess")),
    *(f"uuid.{name}" for name in ("uuid1", "uuid4", "getnode")),
    *(f"sys.{name}" for name in ("argv", "path", "modules", "stdin", "stdout", "stderr", "flags")),
}
"""Their result differs from one replay to the next, or Temporal does not see them."""

BUILTINS_FORBIDDEN = {
    *("id", "hash", "open", "input", "print", "breakpoint", "exec", "eval", "compile", "__import__"),
}
"""Calls of these are forbidden. Names alone are not: a field may be called `id`."""

CACHES = {"functools.cache", "functools.lru_cache"}

CACHES_ALLOWED: Mapping[str, str] = {
    "domain.payloads._defaults_of": "It depends on a class alone, and a class does not change.",
    "domain.tools._sent_schema": "It depends on a class alone, and a class does not change.",
}
"""Functions that may keep results, with the reason for each."""

IMMUTABLE = {
    *("frozenset", "tuple", "str", "bytes", "int", "float", "bool", "len", "max", "min", "sum", "object", "range"),
    *("type", "slice", "re.compile", "decimal.Decimal", "fractions.Fraction", "types.MappingProxyType"),
    *("datetime.timedelta", "datetime.date", "datetime.datetime", "datetime.time", "uuid.UUID"),
    *("typing.TypeVar", "typing.ParamSpec", "typing.NewType", "enum.auto", "dataclasses.field"),
    *("pydantic.Field", "pydantic.ConfigDict", "temporalio.common.SearchAttributeKey.for_keyword"),
}
"""What these return can't be changed, or is a declaration."""

METHODS_OF_TEXT = {"format", "join", "replace", "strip", "removeprefix", "removesuffix", "lower", "upper", "encode"}

READ_ONLY = {"Mapping", "Sequence", "Set", "Collection", "frozenset", "Options"}
"""A constant with such a type is not changed: mypy sees to it. `Options` are spread into a call, never kept."""

_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def modules() -> list[Path]:
    """The modules of `workflows/`, and those of `domain/` that they import, directly or not."""
    found, waiting = set(), sorted((ROOT / "workflows").glob("**/*.py"))
    while waiting:
        path = waiting.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        imported = imports_of(ast.parse(path.read_text()), name_of(path))
        for name in imported:
            parts = name.split(".")
            if parts[0] in OURS:
                waiting += [ROOT.joinpath(*parts[:length]).with_suffix(".py") for length in range(2, len(parts) + 1)]
    return sorted(found)


def name_of(path: Path) -> str:
    """The name under which a module is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(tree: ast.AST, module: str = "") -> list[str]:
    """The full names of all that is imported, wherever that is written: `random`, `random.choice`."""
    return [full for node in ast.walk(tree) for full, _, _ in _imported_by(node, module)]


def _imported_by(node: ast.AST, module: str) -> Iterator[tuple[str, str, str]]:
    """What an import statement imports: the full name, the name that it gets here, and what that stands for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.split(".")[0]
            yield alias.name, alias.asname or first, alias.name if alias.asname else first
    elif isinstance(node, ast.ImportFrom):
        package = module.split(".")[: -node.level] if node.level else []
        source = ".".join([*package, *((node.module,) if node.module else ())])
        for alias in node.names:
            full = f"{source}.{alias.name}"
            yield full, alias.asname or alias.name, full


def violations(source: str, module: str = "") -> list[str]:
    """What in a module is not deterministic, or is state: the line, and why.

    Args:
        source: its text.
        module: its name, for names that it defines and for relative imports; empty: it can't be imported.
    """
    return list(_Module(ast.parse(source), module).violations())


class _Module:
    def __init__(self, tree: ast.Module, module: str) -> None:
        self._tree = tree
        self._module = module
        self._stands_for = {
            here: full for node in ast.walk(tree) for _, here, full in _imported_by(node, module) if here != "*"
        }
        definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        self._defined = {node.name for node in tree.body if isinstance(node, definitions)}
        self._allowed = {
            node
            for function in tree.body
            if isinstance(function, ast.FunctionDef) and f"{module}.{function.name}" in CACHES_ALLOWED
            for decorator in function.decorator_list
            for node in ast.walk(decorator)
        }

    def violations(self) -> Iterator[str]:
        for node in ast.walk(self._tree):
            for what in self._of_node(node):
                yield f"{getattr(node, 'lineno', 0)}: {what}"
        for statement in _outside_functions(self._tree.body):
            if state := self._state(statement):
                yield f"{statement.lineno}: {state}"

    def _of_node(self, node: ast.AST) -> Iterator[str]:
        for full, _, _ in _imported_by(node, self._module):
            if full.endswith(".*") or not _is_allowed(full):
                yield f"imports {full}; MODULES_ALLOWED names what is deterministic"
            elif _is_forbidden(full):
                yield f"imports {full}"
        if isinstance(node, ast.Attribute) and _is_forbidden(name := self._full_name(node)):
            yield f"uses {name}"
        elif isinstance(node, ast.Call) and self._full_name(node.func) in BUILTINS_FORBIDDEN:
            yield f"calls {self._full_name(node.func)}"
        elif isinstance(node, ast.Global):
            yield f"changes {', '.join(node.names)} of its module"
        elif self._is_change_of_shared(node):
            yield f"{ast.unparse(node)} changes what all workflows share"
        if isinstance(node, ast.Name | ast.Attribute) and self._full_name(node) in CACHES and node not in self._allowed:
            yield "keeps results; CACHES_ALLOWED names those that may"
        if isinstance(node, _FUNCTIONS):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            if any(default is not None and self._can_change(default) for default in defaults):
                yield "has a default that can be changed"

    def _state(self, statement: ast.stmt) -> str | None:
        if isinstance(statement, ast.Assign):
            names, value, kind = [ast.unparse(each) for each in statement.targets], statement.value, ""
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            names, value, kind = [ast.unparse(statement.target)], statement.value, ast.unparse(statement.annotation)
        elif isinstance(statement, ast.AugAssign):
            names, value, kind = [ast.unparse(statement.target)], statement.value, ""
        else:
            return None
        is_read_only = kind.split("[")[0].split(".")[-1] in READ_ONLY or names in (["__all__"], ["model_config"])
        if is_read_only or not self._can_change(value):
            return None
        return f"{names[0]} can be changed; type it as Mapping, Sequence or frozenset, or use a frozen class"

    def _can_change(self, value: ast.expr) -> bool:
        match value:
            case ast.Tuple(elts=parts):
                return any(self._can_change(each) for each in parts)
            case ast.Starred(value=inner) | ast.NamedExpr(value=inner):
                return self._can_change(inner)
            case ast.IfExp(body=one, orelse=other) | ast.BinOp(left=one, right=other):
                return self._can_change(one) or self._can_change(other)
            case ast.BoolOp(values=parts):
                return any(self._can_change(each) for each in parts)
            case ast.Call():
                return self._returns_state(value)
        return isinstance(value, _DISPLAYS)

    def _returns_state(self, call: ast.Call) -> bool:
        """Whether what a call returns may be changed. Not if it is known, or of a frozen class with frozen values."""
        name = self._full_name(call.func)
        if name in IMMUTABLE or (isinstance(call.func, ast.Attribute) and call.func.attr in METHODS_OF_TEXT):
            return False
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        return not self._is_frozen(name) or any(self._can_change(each) for each in values)

    def _is_frozen(self, name: str) -> bool:
        if name in self._defined:
            name = f"{self._module}.{name}"
        module, _, attribute = name.rpartition(".")
        if not module or not _is_allowed(module):
            return False
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            return False  # such as a method of a class
        if not isinstance(found, type):
            return False
        # No public function says whether a dataclass is frozen.
        is_frozen_data = is_dataclass(found) and found.__dataclass_params__.frozen  # type: ignore[attr-defined]
        is_frozen_model = issubclass(found, BaseModel) and bool(found.model_config.get("frozen"))
        return is_frozen_data or is_frozen_model or issubclass(found, Enum | tuple)

    def _is_change_of_shared(self, node: ast.AST) -> bool:
        """Whether this sets or deletes an attribute of a module, a class or a function."""
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            owner = node.value
        elif isinstance(node, ast.Call) and node.args and self._full_name(node.func) in ("setattr", "delattr"):
            owner = node.args[0]
        else:
            return False
        return isinstance(owner, ast.Name) and owner.id in {*self._stands_for, *self._defined, "cls"}

    def _full_name(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._stands_for.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self._full_name(node.value)}.{node.attr}"
        return ""


def _outside_functions(body: Sequence[ast.AST]) -> Iterator[ast.stmt]:
    """The statements that run at import: those of the module and its classes, also in an `if` or a `try`."""
    for node in body:
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, ast.expr | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _outside_functions(list(ast.iter_child_nodes(node)))


def _is_allowed(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in MODULES_ALLOWED)


def _is_forbidden(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in NAMES_FORBIDDEN)
