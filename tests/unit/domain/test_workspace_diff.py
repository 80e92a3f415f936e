"""git's own output, read as a list of changed files with bounded patches."""

import subprocess
from pathlib import Path

import pytest

from domain import workspace_diff
from domain.workspace_diff import GitDiff, StoredDiff, WorkspaceDiff, read_diff

_OPTIONS = ("-M", "--no-color", "--no-ext-diff", "--no-textconv")


class Repository:
    """A git repository of a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> bytes:
        """Run git."""
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        command = ("git", *identity, *arguments)
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True).stdout

    def commit(self) -> str:
        """Commit everything."""
        self.git("add", "-A")
        self.git("commit", "-qm", "A commit", "--allow-empty")
        return self.git("rev-parse", "HEAD").decode().strip()

    def diff(self, base: str, commit: str, cut: int | None = None) -> WorkspaceDiff:
        """Read what has changed, from a patch that may be cut."""
        listing = self.git("diff", "--raw", "--numstat", "-z", *_OPTIONS, base, commit)
        patch = self.git("diff", "--patch", *_OPTIONS, base, commit)
        return read_diff(GitDiff(base, commit, listing, patch[:cut]))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_every_kind_of_change_is_read(repository: Repository) -> None:
    path = repository.path
    (path / "changed.py").write_text("one\ntwo\n")
    (path / "gone.txt").write_text("gone\n")
    (path / "old name.txt").write_text("the same\n" * 10)
    (path / "turns.txt").write_text("becomes a link\n")
    (path / "script.sh").write_text("echo\n")
    (path / "logo.png").write_bytes(b"\x89PNG\0old")
    before = repository.commit()
    (path / "changed.py").write_text("one\nzwei\ndrei\n--- not a header\ndiff --git a/x b/x\n")
    (path / "gone.txt").unlink()
    (path / "old name.txt").rename(path / 'new "name".txt')
    (path / "turns.txt").unlink()
    (path / "turns.txt").symlink_to("changed.py")
    (path / "script.sh").chmod(0o755)
    (path / "logo.png").write_bytes(b"\x89PNG\0new")
    (path / "ünï.txt").write_bytes(b"caf\xe9\n")
    (path / b"raw-\xff".decode("utf-8", "surrogateescape")).write_text("x\n")
    diff = repository.diff(before, repository.commit())
    changes = {change.path: change for change in diff.changes}
    statuses = {name: change.status for name, change in changes.items()}
    assert statuses == {
        "changed.py": "modified",
        "gone.txt": "deleted",
        'new "name".txt': "renamed",
        "turns.txt": "type_changed",
        "script.sh": "modified",
        "logo.png": "modified",
        "ünï.txt": "added",
        "raw-\ufffd": "added",
    }
    assert (diff.files, diff.truncated, len(diff.changes)) == (8, False, 8)
    changed = changes["changed.py"]
    assert (changed.additions, changed.deletions) == (4, 1)
    assert changed.patch is not None
    assert changed.patch.startswith("diff --git a/changed.py b/changed.py\n")
    assert changed.patch.endswith("+diff --git a/x b/x\n")
    assert changes['new "name".txt'].old_path == "old name.txt"
    assert (changes["logo.png"].binary, changes["logo.png"].patch) == (True, None)
    assert "new mode 100755" in (changes["script.sh"].patch or "")
    assert "deleted file" in (changes["turns.txt"].patch or "")
    assert "new file mode 120000" in (changes["turns.txt"].patch or "")
    assert "+caf\ufffd" in (changes["ünï.txt"].patch or "")
    assert diff.additions == sum(change.additions for change in diff.changes)
    stored = StoredDiff(phase=diff)
    assert StoredDiff.model_validate_json(stored.model_dump_json()) == stored


def test_a_large_diff_is_cut_and_says_so(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_diff, "FILE_PATCH_MOST", 2_000)
    monkeypatch.setattr(workspace_diff, "PATCH_MOST", 4_500)
    monkeypatch.setattr(workspace_diff, "FILES_MOST", 5)
    before = repository.commit()
    for name in "abcdefg":
        (repository.path / name).write_text(f"{name}\n" * (2_000 if name == "a" else 500))
    diff = repository.diff(before, repository.commit())
    assert (diff.files, diff.additions, diff.truncated) == (7, 5_000, True)
    assert [change.path for change in diff.changes] == list("abcde")
    assert [change.truncated for change in diff.changes] == [True, False, True, True, True]
    assert sum(len(change.patch or "") for change in diff.changes) <= 4_500
    first = diff.changes[0]
    assert first.patch is not None
    assert first.patch.endswith("\n+a\n")
    assert first.additions == 2_000
    assert f"@@ -0,0 +1,{first.patch.count(chr(10) + '+a')} @@" in first.patch
    assert diff.changes[4].patch is None


def test_a_patch_that_was_read_in_part_is_truncated(repository: Repository) -> None:
    before = repository.commit()
    for name in "ab":
        (repository.path / name).write_text(f"{name}\n" * 50)
    diff = repository.diff(before, repository.commit(), cut=300)
    assert [change.truncated for change in diff.changes] == [False, True]
    nothing = repository.diff(before, before)
    assert (nothing.files, nothing.changes, nothing.truncated) == (0, (), False)


@pytest.mark.parametrize(
    "listing", [b"nonsense", b":100644 100644 a b M\0", b"1\t1\tpath\0", b":100644 100644 a b M\0path\0x\t1\tp\0"]
)
def test_other_output_is_refused(listing: bytes) -> None:
    with pytest.raises(ValueError, match="git's"):
        read_diff(GitDiff(None, "c" * 40, listing, b""))
