"""How `cofounder open` gives a link to a browser."""

import webbrowser
from pathlib import Path

import pytest

from cli.commands.open import open_in_browser


async def test_the_code_is_in_a_private_file_and_in_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    for code in ("first", "second&to=%2Fbuilds%2F1"):
        await open_in_browser(f"http://127.0.0.1:8000/sign-in#code={code}")
    page = tmp_path / ".cofounder" / "open.html"
    assert opened == [page.as_uri()] * 2
    assert page.stat().st_mode & 0o777 == 0o600
    assert "url=http://127.0.0.1:8000/sign-in#code=second&amp;to=%2Fbuilds%2F1" in page.read_text()
