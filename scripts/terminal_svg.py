"""Turn a program's terminal output into an animated SVG, a picture that README.md can show without a video."""

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
"""In pixels: font size, character width, line height, and the padding around the screen."""


class Terminal:
    """As much of a terminal as rich's live display needs: it moves up, clears whole lines and writes them again."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = 0

    def feed(self, output: str) -> None:
        """Process output of the program."""
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
        """Return the last rows as rich's markup. A line that is too long continues in the next row."""
        texts = [Text.from_ansi(line) for line in self._lines[-rows:]]
        screen = [row for text in texts for row in text.divide(range(columns, len(text), columns))]
        while screen and not screen[-1].plain.strip():
            screen.pop()
        return tuple(row.markup for row in screen[-rows:])


@dataclass(frozen=True)
class Frame:
    """The screen's rows, as rich's markup, from `at` seconds on."""

    at: float
    rows: tuple[str, ...]


def animated_svg(frames: Sequence[Frame], columns: int, rows: int, hold: float, title: str) -> str:
    """Return the frames as a loop that stays `hold` seconds on the last one.

    Readers who have reduced motion set see only the last frame. Every line is defined once and referenced by all frames
    that show it.
    """
    width, height = round(columns * _CHARACTER + 2 * _PADDING), rows * _LINE + 2 * _PADDING
    lines: dict[str, str] = {}
    for line in (line for frame in frames for line in frame.rows):
        lines.setdefault(line, f"l{len(lines)}")
    styles: dict[str, str] = {}
    definitions = [f'<g id="{name}">{"".join(_spans(line, styles))}</g>' for line, name in lines.items()]
    strip = []
    for number, frame in enumerate(frames):
        rows_svg = "".join(
            f'<use href="#{lines[line]}" y="{row * _LINE}"/>' for row, line in enumerate(frame.rows) if line.strip()
        )
        strip.append(f'<g transform="translate({number * width})">{rows_svg}</g>')
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
            f"<defs>{''.join(definitions)}</defs>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{THEME.background_color.hex}"/>',
            f'<svg x="{_PADDING}" y="{_PADDING}" width="{width - _PADDING}" height="{height - _PADDING}">',
            f'<g id="s">{"".join(strip)}</g>',
            "</svg>",
            "</svg>\n",
        ]
    )


def _spans(line: str, styles: dict[str, str]) -> Iterator[str]:
    """Yield a line's pieces, each stretched to its width whatever the font; add new styles to `styles`."""
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
