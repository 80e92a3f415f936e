"""The program that lists and hashes a workspace inside its sandbox, here on temporary folders."""

import os
import subprocess
import sys
from pathlib import Path

from clients import sandbox_manifest
from domain.manifest import LEFT_OUT, Entry, link, parse_manifest


def found_in(root: Path) -> dict[str, Entry]:
    command = [sys.executable, "-IS", sandbox_manifest.__file__, "hash", str(root), *LEFT_OUT]
    output = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    return {entry.path: entry for entry in parse_manifest(output)}


def listed_in(root: Path) -> list[str]:
    command = [sys.executable, "-IS", sandbox_manifest.__file__, "list", str(root), *LEFT_OUT]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    return [path.decode("utf-8", "surrogateescape") for path in output.split(b"\0")[:-1]]


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


def write(root: Path, path: str, content: str = "x") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def test_what_git_ignores_is_left_out_below_certain_names_only(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, ".gitignore", "/node_modules/*\n.env\n__pycache__/\n/.cache/\n/dist/\nvenv/\n.pytest_cache/\n")
    kept = [".env", "build/a", "src/a.py", "dist/tracked", ".cache/kept"]
    left = [
        "node_modules/a/b",
        "src/__pycache__/a.pyc",
        "dist/made",
        ".cache/node_modules/a",
        "src/new/__pycache__/b",
        "venv/lib/a",
        "api/.pytest_cache/v",
    ]
    for path in kept + left:
        write(tmp_path, path)
    git(tmp_path, "add", "-f", "dist/tracked", ".gitignore")
    (tmp_path / "elsewhere").symlink_to("/")
    os.mkfifo(tmp_path / "pipe")
    found = found_in(tmp_path)
    paths = [path for path in found if not path.startswith(".git/")]
    assert {*kept, "elsewhere", ".gitignore", ".git"} <= set(paths)
    assert not set(left) & set(paths)
    assert not {"pipe", "node_modules/a", "src/__pycache__"} & set(paths)
    assert (found[".env"].ignored, found[".cache/kept"].ignored, found["build/a"].ignored) == (True, True, False)
    assert found["elsewhere"] == link("elsewhere", "/")
    assert listed_in(tmp_path) == list(found)


def test_hashing_does_not_write_to_the_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "a")
    git(tmp_path, "add", "a")
    os.utime(tmp_path / "a", (1, 1))  # git's index is stale now; a refresh would rewrite it
    assert found_in(tmp_path) == found_in(tmp_path)
