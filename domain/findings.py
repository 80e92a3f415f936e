"""A finding: what the evidence gate holds against a product, with its cause, its evidence and its remedy."""

import re
from dataclasses import dataclass
from enum import StrEnum

from domain.tool_output import clean

_NAMES_ERROR = re.compile(
    r"\b(?:err(?:or)?|fatal|fail(?:ed|ure)|exception|traceback|panic(?:ked)?|denied|refused|killed|"
    r"not found|no such|cannot|can't|could not|unable to|undefined|missing|unresolved|invalid)\b|\bERR!",
    re.I,
)

HEAD_CHARACTERS = 3_000
"""How much of the beginning of an output a finding quotes: a first error is often followed by a page of usage."""

TAIL_CHARACTERS = 3_000
"""How much of the end of an output a finding quotes."""

EVIDENCE_CHARACTERS = 10_000
"""The most evidence of one finding. A longer one loses its middle."""

ERRORS_SHOWN = 12
"""How many lines of the left out middle of an output are quoted because they name an error."""

ERROR_CHARACTERS = 200
"""How much of such a line is quoted."""

SENTENCE_CHARACTERS = 1_000
"""The longest cause or remedy."""


class FindingKind(StrEnum):
    """What a finding is about. Each kind has a remedy, and a test in which an agent repairs it by that."""

    NO_COMMIT = "no_commit"
    GIT_FAILED = "git_failed"
    EMBEDDED_REPOSITORY = "embedded_repository"
    UNCOMMITTED = "uncommitted"
    PLAN = "plan"
    PRODUCT_FILE = "product_file"
    INSTALL_FAILED = "install_failed"
    CHECK_FAILED = "check_failed"
    TESTS_FAILED = "tests_failed"
    NO_TEST_RAN = "no_test_ran"
    START_ENDED = "start_ended"
    NOT_ANSWERING = "not_answering"
    BAD_STATUS = "bad_status"
    PAGE_FAILED = "page_failed"
    BLANK = "blank"
    DID_NOT_STAY_UP = "did_not_stay_up"
    TEMPLATE = "template"
    CONSOLE_ERROR = "console_error"
    FAILED_REQUEST = "failed_request"
    BROKEN_IMAGE = "broken_image"
    DEAD_LINK = "dead_link"
    PHONE_OVERFLOW = "phone_overflow"
    FEATURE_MISSING = "feature_missing"
    FEATURE_FAKED = "feature_faked"


@dataclass(frozen=True)
class Finding:
    """One reason why a product does not pass. The agent gets its `text`, and can repair the product by that alone."""

    kind: FindingKind
    cause: str
    """What is wrong, in a sentence or two."""
    evidence: str
    """What shows it: an output, a log, a list; may be empty."""
    remedy: str
    """What would satisfy the gate, as an instruction: "Commit your work."."""

    @property
    def problem(self) -> str:
        """Cause and evidence, without the remedy: what a founder reads about a preview."""
        evidence = bounded(self.evidence, EVIDENCE_CHARACTERS)
        return _sentence(self.cause) + (f"\n{evidence}" if evidence else "")

    def text(self) -> str:
        """Render the finding for the agent. It is bounded, has no ANSI sequences and can be stored."""
        return f"{self.problem}\nTo satisfy this: {_sentence(self.remedy)}"


@dataclass(frozen=True)
class Output:
    """What a command or a server has printed, as far as it is known here."""

    head: str
    """All of it, or its beginning if `tail` is its end."""
    tail: str = ""
    bytes: int = 0
    """The length of the whole output; 0 if unknown."""
    path: str = ""
    """The file in the agent's sandbox that has more of it than the finding; empty if there is none."""

    @property
    def is_long(self) -> bool:
        """Whether a finding can quote only a part."""
        return bool(self.tail) or len(self.head) > HEAD_CHARACTERS + TAIL_CHARACTERS

    def plain(self) -> str:
        """All that is known of it, as text that can be stored."""
        if not self.tail:
            return clean(self.head)
        known = len(self.head.encode("utf-8", "replace")) + len(self.tail.encode("utf-8", "replace"))
        return f"{clean(self.head)}\n[… {max(0, self.bytes - known):,} bytes are not kept …]\n{clean(self.tail)}"

    def quoted(self, name: str = "Its output") -> str:
        """Quote the beginning, the lines between that name an error, and the end. Say where the rest can be read."""
        text = self.plain().strip("\n").rstrip()
        if not text:
            return f"{name} is empty."
        if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
            return f"{name}:\n{text}"
        head, tail = _first_lines(text), _last_lines(text)
        size = f" ({self.bytes:,} bytes)" if self.bytes else ""
        place = f"; more of it is in {self.path}" if self.path else ""
        cut = f"[… left out{place} …]"
        if errors := _errors(text[len(head) : -len(tail)]):
            cut = "\n".join([f"[… left out{place}; lines of it that name an error: …]", *errors, "[…]"])
        return f"{name}{size}, its beginning and its end:\n{head}\n{cut}\n{tail}"


def bounded(text: str, characters: int) -> str:
    """Make a text plain and leave out its middle if it is longer than this many characters."""
    plain = clean(text).strip("\n").rstrip()
    if len(plain) <= characters:
        return plain
    half = characters // 2
    return f"{plain[:half]}\n[… {len(plain) - 2 * half} characters left out …]\n{plain[-half:]}"


def _sentence(text: str) -> str:
    return bounded(text, SENTENCE_CHARACTERS)


def _errors(text: str) -> list[str]:
    """The first different lines that name an error."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        if _NAMES_ERROR.search(line[:ERROR_CHARACTERS]) and len(found) < ERRORS_SHOWN:
            found[line.strip()[:ERROR_CHARACTERS]] = None
    return list(found)


def _first_lines(text: str) -> str:
    """The beginning of a text, cut at the end of a line if there is one in its second half."""
    cut = text[:HEAD_CHARACTERS]
    if len(cut) < len(text) and (end := cut.rfind("\n")) > HEAD_CHARACTERS // 2:
        return cut[:end]
    return cut


def _last_lines(text: str) -> str:
    """The end of a text, cut at the beginning of a line if there is one in its first half."""
    cut = text[-TAIL_CHARACTERS:]
    if len(cut) < len(text) and -1 < (begin := cut.find("\n")) < TAIL_CHARACTERS // 2:
        return cut[begin + 1 :]
    return cut
