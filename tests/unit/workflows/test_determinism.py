"""Workflow code is deterministic and keeps no state in modules: workers run it without the SDK's sandbox (ADR 0005).

The sandbox, with which the tests run workflows, finds such calls only on the paths that a test takes.
"""

import ast
import importlib
from pathlib import Path

import pytest

from tests.unit.workflows.determinism import CACHES_ALLOWED, ROOT, imports_of, modules, name_of, violations

MODULES = modules()

_IMPORTS = "from datetime import UTC, datetime\n"


def test_what_workflows_import_is_read() -> None:
    names = {str(path.relative_to(ROOT)) for path in MODULES}
    assert {"workflows/build.py", "domain/payloads.py", "domain/budget.py", "domain/outage.py"} <= names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_is_deterministic_and_keeps_no_state(path: Path) -> None:
    assert violations(path.read_text(), name_of(path)) == []


@pytest.mark.parametrize("name", CACHES_ALLOWED)
def test_a_cache_that_is_allowed_exists(name: str) -> None:
    module, _, function = name.rpartition(".")
    assert hasattr(getattr(importlib.import_module(module), function), "cache_info")


@pytest.mark.parametrize(
    "source",
    [
        *("now = datetime.now(UTC)", "from datetime import datetime as d\nclock = d.now", "import uuid\nuuid.uuid4()"),
        *("import datetime as dt\ndef f():\n    return dt.datetime.now()", "from uuid import uuid4"),
        *("from random import choice", "import random as r", "def f():\n    import random", "from os import environ"),
        *("from time import time", "from time import monotonic as m", "import os.path", "import importlib"),
        *("from pathlib import Path", "import structlog", "from temporalio.client import Client"),
        *("from asyncio import sleep", "import asyncio as a\nasync def f():\n    await a.sleep(1)"),
        *("from asyncio import *", "def f(x):\n    return hash(x)", "def f(x):\n    return id(x)"),
        "import sys\ndef f():\n    return sys.argv",
    ],
)
def test_finds_what_is_not_deterministic(source: str) -> None:
    assert violations(_IMPORTS + source)


@pytest.mark.parametrize(
    "source",
    [
        *("SEEN = {}", "SEEN: dict[str, int] = {}", "class A:\n    seen = []", "COUNT = 0\ndef f():\n    global COUNT"),
        *("class Thing: ...\nCACHE = Thing()", "from domain.payloads import LoopState\nCACHE = LoopState()"),
        *("if True:\n    SEEN = {}", "try:\n    pass\nexcept ValueError:\n    SEEN = []", "with x:\n    SEEN = set()"),
        "class A:\n    if True:\n        seen = {}",
        "for x in y:\n    SEEN = list()",
        "match x:\n  case 1:\n    A = []",
        *("import itertools\nNEXT = itertools.count()", "NEXT = (n for n in x)", "A = B = ({},)"),
        "A = x or []",
        "import functools\n@functools.cache\ndef f(x): ...",
        "from functools import lru_cache as c\n@c(9)\ndef f(x): ...",
        *("from functools import cache\nf = cache(g)", "def f(seen={}): ...", "f = lambda *, seen=[]: seen"),
        "class A: ...\ndef f():\n    A.seen = 1",
        "def f():\n    f.count += 1",
        "import json\ndef f():\n    json.x = 1",
        *("class A:\n    @classmethod\n    def f(cls):\n        cls.seen = 1", "def f():\n    setattr(f, 'a', 1)"),
        "from domain.payloads import BuildInput\nX = BuildInput(build_id='1', state=[])",
    ],
)
def test_finds_state(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize(
    "source",
    [
        "NAMES: Mapping[str, int] = {'a': 1}",
        "A = frozenset({1})",
        "def f():\n    return workflow.now()",
        "X = (1, 2)",
        *("import re\nA = re.compile('a')", "from datetime import timedelta as t\nA = t(1)", "A = ', '.join(x)"),
        *("from domain.payloads import BuildInput\nX = BuildInput(build_id='1')", "def f():\n    seen = {}"),
        *("class A:\n    def f(self):\n        self.seen = {}", "import uuid\nA = uuid.uuid5", "def f(id): ..."),
        *("X = (1, 2)", "def f(state):\n    setattr(state, 'a', 1)"),
    ],
)
def test_lets_the_rest_pass(source: str) -> None:
    assert violations(source) == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        *(("import domain.budget", ""), ("import domain.budget as b", ""), ("from domain import budget", "")),
        *(("from domain.budget import x", ""), ("from .budget import x", "domain.payloads")),
        *(("from . import budget", "domain.payloads"), ("from ..domain import budget", "workflows.build")),
    ],
)
def test_follows_imports_however_they_are_written(source: str, module: str) -> None:
    assert any(name.startswith("domain.budget") for name in imports_of(ast.parse(source), module))
