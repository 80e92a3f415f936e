"""What is shown of a workspace's file."""

import pytest

from domain.manifest import Entry, Kind, directory
from domain.workspace_files import BINARY_TYPE, is_shown, picture_type, shown_content, shown_path


def test_a_path_is_valid_text() -> None:
    assert shown_path("ünï/✓") == "ünï/✓"
    assert shown_path(b"a\xff\xfeb".decode("utf-8", "surrogateescape")) == "a\ufffd\ufffdb"


def test_directories_and_gits_own_files_are_not_shown() -> None:
    shown = {
        path: is_shown(Entry(path, Kind.FILE, 0o644, 0, "")) for path in (".gitignore", ".git", ".git/config", "a")
    }
    assert shown == {".gitignore": True, ".git": False, ".git/config": False, "a": True}
    assert not is_shown(directory("app", 0o755))


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", None),
        (b"<!doctype html>", None),
        (b"", None),
    ],
)
def test_a_picture_is_known_by_its_content(head: bytes, media_type: str | None) -> None:
    assert picture_type(head) == media_type


def test_a_text_is_cut_between_characters() -> None:
    whole = "aü✓𝄞".encode()
    for kept in range(1, len(whole) + 1):
        shown = shown_content(whole[:kept], len(whole))
        assert shown.text is not None
        assert "aü✓𝄞".startswith(shown.text), kept
        assert shown.truncated == (kept < len(whole))
        assert len(shown.text.encode()) > kept - 4
    assert shown_content(b"caf\xe9\n", 5).text == "caf\ufffd\n"
    assert shown_content(b"", 0).text == ""


def test_a_binary_file_has_no_text() -> None:
    assert shown_content(b"\0asm", 4).text is None
    assert shown_content(b"\0asm", 4).media_type == BINARY_TYPE
    assert shown_content(b"GIF89a", 6).text is None
