"""Imports point one way, so that each package can be understood from the packages below it."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

ALLOWED = {
    "domain": set(),
    "clients": {"domain", "settings"},
    "db": {"domain", "settings"},
    "observing": {"domain", "clients", "db"},
    "checks": {"domain", "clients", "db", "settings"},
    "services": {"domain", "clients", "db"},
    "activities": {"domain", "clients", "db", "services", "settings", "observing"},
    "workflows": {"domain", "activities"},
    "api": {"domain", "clients", "db", "checks", "services", "settings", "logs", "observing"},
    "local": {"domain", "settings"},
    "cli": {"domain", "clients", "db", "checks", "services", "workflows", "local", "settings"},
}
FIRST_PARTY = {*ALLOWED, "worker", "settings", "logs", "tests", "bench"}

STDLIB_AND_PYDANTIC_ONLY = "domain"

STATEMENTS_IN_DB = ("activities", "services", "api")
"""Packages whose statements are all in `db/`: of SQLAlchemy they know only the errors."""

SHORT_FUNCTIONS = (
    "activities/think.py",
    "activities/dispatch.py",
    "activities/tool_outcome.py",
    "activities/turn/*.py",
)
"""Where functions stay short: a turn and a tool call are the heart of a build, and have to be read in one go."""

LONGEST_FUNCTION = 60
"""Lines, docstring and decorators included."""


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imported(path: Path) -> set[str]:
    """The top-level names that a module imports anywhere."""
    return {name.split(".")[0] for name in _imported_modules(path)}


@functools.cache
def _imported_modules(path: Path) -> frozenset[str]:
    """The full names that a module imports anywhere: of modules, and of what it takes from them."""
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package: str) -> None:
    modules = _modules(package)
    assert modules
    for path in modules:
        name = path.relative_to(ROOT).as_posix()
        allowed = ALLOWED[package] | {package}
        assert not (_imported(path) & FIRST_PARTY) - allowed, name


def test_settings_are_below_all_packages_but_the_domain() -> None:
    assert _imported(ROOT / "settings.py") & FIRST_PARTY == {"domain"}


@pytest.mark.parametrize("package", ["domain", "clients", "services", "activities", "workflows"])
def test_only_entry_points_read_the_environment(package: str) -> None:
    for path in _modules(package):
        assert "load_settings" not in path.read_text(), path.name


def test_no_test_module_is_imported() -> None:
    """What tests share is in `tests/harness/`, or beside them in a module that is not a test."""
    for path in [*_modules("tests"), *_modules("bench")]:
        for name in _imported_modules(path):
            assert not (name.startswith("tests.") and ".test_" in name), path


def test_benchmarks_use_the_harness_and_only_their_own_tests_use_them() -> None:
    own = (ROOT / "tests/unit/bench", ROOT / "tests/integration/bench")
    for path in _modules("tests"):
        assert "bench" not in _imported(path) or path.parent in own, path
    for path in _modules("bench"):
        for name in _imported_modules(path):
            assert not name.startswith("tests.") or name.startswith("tests.harness."), path


def test_the_harness_uses_no_tests() -> None:
    for path in _modules("tests/harness"):
        for name in _imported_modules(path):
            assert not name.startswith("tests.") or name.startswith("tests.harness."), path


def test_domain_is_pure() -> None:
    import sys

    for path in _modules("domain"):
        foreign = _imported(path) - set(sys.stdlib_module_names) - {"domain", "pydantic"}
        assert not foreign, path.name
        assert not _imported(path) & {"os", "socket", "subprocess", "requests", "random", "time"}, path.name


def test_nothing_happens_at_import() -> None:
    """No module of ours reads the environment or opens anything when it is imported: settings are built on demand."""
    for package in ALLOWED:
        for path in _modules(package):
            for node in _tree(path).body:
                called = [
                    ast.unparse(call.func)
                    for call in ast.walk(node)
                    if isinstance(call, ast.Call)
                    and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                ]
                assert not {"load_settings", "Settings", "open", "os.getenv", "os.environ.get"} & set(called), path


@pytest.mark.parametrize("package", STATEMENTS_IN_DB)
def test_statements_are_in_db(package: str) -> None:
    for path in _modules(package):
        for name in _imported_modules(path):
            assert name.split(".")[0] != "sqlalchemy" or name.startswith("sqlalchemy.exc."), f"{path}: {name}"


@pytest.mark.parametrize("package", sorted({*ALLOWED, "worker.py"} - {"db"}))
def test_only_db_uses_the_session_of_a_transaction(package: str) -> None:
    for path in _modules(package) or [ROOT / package]:
        for node in ast.walk(_tree(path)):
            assert not (isinstance(node, ast.Attribute) and node.attr == "session"), f"{path}:{node.lineno}"


@pytest.mark.parametrize("package", ["db", *STATEMENTS_IN_DB])
def test_functions_take_a_transaction(package: str) -> None:
    """None takes an ORM session, and none takes either that or a transaction."""
    for path in _modules(package):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.arg) and node.annotation is not None:
                assert not _is_other_unit_of_work(node.annotation), f"{path}:{node.lineno}: {node.arg}"


@pytest.mark.parametrize(
    ("annotation", "is_other"),
    [
        ("Transaction", False),
        ("Callable[[Transaction, Build | None], Awaitable[bool]]", False),
        ("AsyncSession", True),
        ("orm.AsyncSession", True),
        ("'AsyncSession'", True),
        ("AsyncSession | Transaction", True),
        ("Transaction | None", True),
        ("Union[Connection, Transaction]", True),
        ("Optional[Transaction]", True),
    ],
)
def test_an_annotation_of_another_unit_of_work_is_noticed(annotation: str, *, is_other: bool) -> None:
    assert _is_other_unit_of_work(ast.parse(annotation, mode="eval").body) == is_other


def _is_other_unit_of_work(annotation: ast.expr) -> bool:
    """Whether an annotation is or contains an ORM session, or a union with a transaction."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _is_other_unit_of_work(ast.parse(annotation.value, mode="eval").body)
    for node in ast.walk(annotation):
        if ast.unparse(node).endswith("AsyncSession"):
            return True
        elif isinstance(node, ast.BinOp):
            if "Transaction" in (ast.unparse(node.left), ast.unparse(node.right)):
                return True
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(("Union", "Optional")):
            kinds = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if "Transaction" in map(ast.unparse, kinds):
                return True
    return False


@pytest.mark.parametrize("pattern", SHORT_FUNCTIONS)
def test_functions_stay_short(pattern: str) -> None:
    paths = sorted(ROOT.glob(pattern))
    assert paths
    for path in paths:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                assert (node.end_lineno or first) - first < LONGEST_FUNCTION, f"{path.name}: {node.name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """At import time: an import inside a function or under TYPE_CHECKING is not one."""
    paths = {path: path.relative_to(ROOT) for package in ALLOWED for path in _modules(package)}
    modules = {".".join(name.with_suffix("").parts).removesuffix(".__init__"): path for path, name in paths.items()}
    graph = {name: _imported_at_load(path, set(modules)) - {name} for name, path in modules.items()}
    assert sum(map(len, graph.values())) > 500
    list(graphlib.TopologicalSorter(graph).static_order())


def _imported_at_load(path: Path, modules: set[str]) -> set[str]:
    """The modules of ours that are loaded when this one is."""
    loaded: set[str] = set()
    statements: list[ast.stmt] = list(_tree(path).body)
    while statements:
        node = statements.pop()
        if isinstance(node, ast.Import):
            loaded |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            loaded |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.With | ast.Try):
            statements += node.body
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            statements += [*node.body, *node.orelse]
    return loaded & modules
