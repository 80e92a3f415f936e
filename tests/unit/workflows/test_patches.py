"""`workflows/patches.py` has every patch id, and nothing else does."""

import ast
import importlib.metadata
from datetime import date
from pathlib import Path

from workflows import patches
from workflows.patches import Patch

WORKFLOWS = Path(patches.__file__).parent
PATCHES = {name: value for name, value in vars(patches).items() if isinstance(value, Patch)}
PATCH_CALLS = ("workflow.patched", "workflow.deprecate_patch")


def _trees() -> dict[str, ast.Module]:
    return {path.name: ast.parse(path.read_text()) for path in WORKFLOWS.glob("*.py") if path.name != "patches.py"}


def test_ids_differ_and_each_patch_says_when_it_goes() -> None:
    assert len({patch.id for patch in PATCHES.values()}) == len(PATCHES) > 0
    for patch in PATCHES.values():
        assert date(2026, 11, 20) <= patch.since <= date.today()
        assert len(patch.commit) >= 7
        assert patch.gates
        assert "is open" in patch.deprecate_when


def test_no_patch_stays_longer_than_it_says() -> None:
    version = tuple(map(int, importlib.metadata.version("cofounder").split(".")))
    for patch in PATCHES.values():
        assert version < tuple(map(int, patch.dropped_in.split("."))), (
            f"{patch.id} was to go in {patch.dropped_in}: drop it if `cofounder deploy patches` counts 0, else say when"
        )
    assert set(patches.EVERY_PATCH) == set(PATCHES.values())


def test_patches_are_asked_by_name_and_each_is_asked() -> None:
    asked = [
        ast.unparse(argument)
        for tree in _trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PATCH_CALLS
        for argument in node.args
    ]
    assert set(asked) == {f"patches.{name}.id" for name in PATCHES}


def test_no_other_module_spells_a_patch_id() -> None:
    ids = {patch.id for patch in PATCHES.values()}
    for name, tree in _trees().items():
        literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not literals & ids, name
