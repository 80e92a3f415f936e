"""The picture of the demo: the screen of a terminal as a valid SVG."""

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scripts.terminal_svg import Frame, Terminal, animated_svg

_SVG = "{http://www.w3.org/2000/svg}"
_README = Path(__file__).parents[3] / "README.md"


def _output(columns: int) -> str:
    """Return the output of a live display with changing heights between ordinary lines."""
    console = Console(file=io.StringIO(), force_terminal=True, width=columns, color_system="truecolor")
    console.print("before")
    with Live(Text("one"), console=console, auto_refresh=False) as live:
        for lines in (["a", "b", "c"], ["d"], ["e & f", "<g>"]):
            live.update(Group(*(Text(line, "bold green") for line in lines)), refresh=True)
    console.print("z" * 25, soft_wrap=True)
    output = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    return str(output).replace("\n", "\r\n")


def test_screen_is_what_is_left_of_it() -> None:
    terminal = Terminal()
    said = _output(20)
    for start in range(0, len(said), 400):
        terminal.feed(said[start : start + 400])
    shown = [Text.from_markup(row).plain for row in terminal.screen(20, 10)]
    assert shown == ["before", "e & f", "<g>", "z" * 20, "z" * 5]
    assert [Text.from_markup(row).plain for row in terminal.screen(20, 2)] == ["z" * 20, "z" * 5]


def test_svg_holds_each_line_once_and_all_frames() -> None:
    frames = [Frame(0, ("[bold red]start[/]", "same")), Frame(1.5, ("same", "a & b")), Frame(2, ("", "end"))]
    svg = ElementTree.fromstring(animated_svg(frames, 40, 4, hold=2, title="A & B"))
    assert svg.findtext(f"{_SVG}title") == "A & B"
    names = {"".join(line.itertext()): line.get("id") for line in svg.findall(f"{_SVG}defs/{_SVG}g")}
    assert sorted(names) == ["", "a & b", "end", "same", "start"]
    strip = svg.findall(f"{_SVG}svg/{_SVG}g/{_SVG}g")
    assert [[use.get("href") for use in frame] for frame in strip] == [
        [f"#{names['start']}", f"#{names['same']}"],
        [f"#{names['same']}", f"#{names['a & b']}"],
        [f"#{names['end']}"],
    ]
    assert "font-weight:bold" in (svg.findtext(f"{_SVG}style") or "")


def test_readme_shows_a_small_recording_without_a_machine_s_paths() -> None:
    assert "(docs/images/demo.svg)" in _README.read_text()
    text = (_README.parent / "docs" / "images" / "demo.svg").read_text()
    said = "\n".join("".join(line.itertext()) for line in ElementTree.fromstring(text).iter(f"{_SVG}g"))
    assert len(text) < 100_000
    assert "make demo" in said
    assert "rehearsal model" in said
    assert "evidence gate 1: passed" in said
    assert "/home/" not in said
