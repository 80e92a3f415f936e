"""What a program writes to a terminal as an animated SVG: a picture that README.md can show, and no video."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from rich.cells import cell_len
from rich.color import blend_rgb
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME as THEME
from rich.text import Text

_TOKENS = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)")

_FONT, _CHARACTER, _LINE, _PADDING = 14, 8.4, 19, 14
"""In pixels: the size of the font, and what a character and a line take up."""


class Terminal:
    """As much of a terminal as rich's live display needs: it goes up, clears whole lines and writes them anew."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = 0

    def feed(self, output: str) -> None:
        """Take what the program wrote."""
        for token in filter(None, _TOKENS.split(output)):
            if token == "\n":
                self._row += 1
                if self._row == len(self._lines):
                    self._lines.append("")
            elif token == "\x1b[2K":
                self._lines[self._row] = ""
            elif token.startswith("\x1b[") and token.endswith("A"):
                self._row = max(0, self._row - int(token[2:-1] or 1))
            elif token.endswith("m") or not token.startswith(("\x1b[", "\r")):
                self._lines[self._row] += token

    def screen(self, columns: int, rows: int) -> tuple[str, ...]:
        """The last rows, as rich's markup. A line that is too long goes on in the next row."""
        texts = [Text.from_ansi(line) for line in self._lines[-rows:]]
        shown = [row for text in texts for row in text.divide(range(columns, len(text), columns))]
        while shown and not shown[-1].plain.strip():
            shown.pop()
        return tuple(row.markup for row in shown[-rows:])


@dataclass(frozen=True)
class Frame:
    """What is on the screen from a moment on, in seconds; the rows as rich's markup."""

    at: float
    rows: tuple[str, ...]


def animated_svg(frames: Sequence[Frame], columns: int, rows: int, hold: float, title: str) -> str:
    """The frames in a loop, which rests `hold` seconds at the last. Who wants no motion sees the last one only.

    Every line is written once and used in all the frames that show it.
    """
    width, height = round(columns * _CHARACTER + 2 * _PADDING), rows * _LINE + 2 * _PADDING
    lines: dict[str, str] = {}
    for line in (line for frame in frames for line in frame.rows):
        lines.setdefault(line, f"l{len(lines)}")
    styles: dict[str, str] = {}
    drawn = [f'<g id="{name}">{"".join(_spans(line, styles))}</g>' for line, name in lines.items()]
    strip = []
    for number, frame in enumerate(frames):
        used = "".join(
            f'<use href="#{lines[line]}" y="{row * _LINE}"/>' for row, line in enumerate(frame.rows) if line.strip()
        )
        strip.append(f'<g transform="translate({number * width})">{used}</g>')
    end = frames[-1].at + hold
    moves = "".join(
        f"{100 * frame.at / end:.2f}%{{transform:translateX({-number * width}px)}}"
        for number, frame in enumerate(frames)
    )
    last = f"transform:translateX({-(len(frames) - 1) * width}px)"
    css = [
        f"text{{font:{_FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:"
        f"{THEME.foreground_color.hex};white-space:pre}}",
        *(f".{name}{{{style}}}" for style, name in styles.items()),
        f"#s{{{last};animation:s {end:.1f}s steps(1,end) infinite}}",
        f"@keyframes s{{{moves}100%{{{last}}}}}",
        "@media (prefers-reduced-motion:reduce){#s{animation:none}}",
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{''.join(css)}</style>",
            f"<defs>{''.join(drawn)}</defs>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{THEME.background_color.hex}"/>',
            f'<svg x="{_PADDING}" y="{_PADDING}" width="{width - _PADDING}" height="{height - _PADDING}">',
            f'<g id="s">{"".join(strip)}</g>',
            "</svg>",
            "</svg>\n",
        ]
    )


def _spans(line: str, styles: dict[str, str]) -> Iterator[str]:
    """A line's pieces, each held to its width, whatever the font's is; new styles are added."""
    column = 0
    console = Console(width=10_000, color_system="truecolor", force_terminal=True)
    for text, style, _ in console.render(Text.from_markup(line, end="", emoji=False)):
        cells = cell_len(text)
        if text.strip():
            css = _css(style) if style is not None else ""
            name = styles.setdefault(css, f"c{len(styles)}") if css else ""
            yield (
                f'<text x="{column * _CHARACTER:g}" y="{_FONT}" textLength="{cells * _CHARACTER:g}"'
                f"{f' class={chr(34)}{name}{chr(34)}' if name else ''}>{escape(text, quote=False)}</text>"
            )
        column += cells


def _css(style: Style) -> str:
    parts = []
    colour = THEME.foreground_color if style.color is None else style.color.get_truecolor(THEME)
    if style.dim:
        colour = blend_rgb(colour, THEME.background_color, 0.4)
    if colour != THEME.foreground_color:
        parts.append(f"fill:{colour.hex}")
    if style.bold:
        parts.append("font-weight:bold")
    return ";".join(parts)
