import json
import sys
from pathlib import Path

from cli.printable_text import printable_lines

GOLDEN = Path(__file__).parents[2] / "golden" / "unseen_characters.json"


def test_takes_out_the_characters_that_the_console_marks_and_no_others() -> None:
    ranges = [(int(first, 16), int(last, 16)) for first, last in json.loads(GOLDEN.read_text())]
    unseen = {code for first, last in ranges for code in range(first, last + 1)}
    taken_out = {code for code in range(sys.maxunicode + 1) if printable_lines(f"a{chr(code)}b") == "ab"}
    assert taken_out == unseen
