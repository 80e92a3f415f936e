"""`cofounder.json`: how to install, check and start a product. Also: how many tests a check has run."""

import json
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from domain.errors import InvalidInput

PRODUCT_FILE = "cofounder.json"


def _without_nul(command: str) -> str:
    if "\x00" in command:
        raise ValueError("must not contain a NUL character, which bash does not accept")
    return command


Command = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000), AfterValidator(_without_nul)
]


class ProductManifest(BaseModel):
    """The declaration at the top of the workspace. Commands run with bash in the workspace."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    install: Command = Field(description="Installs what the product needs; `true` when it needs nothing.")
    check: Command = Field(description="Runs the product's tests; exits 0 when they pass.")
    start: Command = Field(description="Starts the server in the foreground.")
    port: int = Field(ge=1024, le=65535, description="The port that the server listens on.")


def parse_product_manifest(text: str) -> ProductManifest:
    """Parse the text of the file.

    Raises:
        InvalidInput: the file is not valid; the message is a sentence for the agent.
    """
    try:
        return ProductManifest.model_validate(json.loads(text))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise InvalidInput(f"{PRODUCT_FILE} does not fit: {problems}") from error
    except ValueError as error:
        raise InvalidInput(f"{PRODUCT_FILE} is not valid JSON: {error}") from error


# The summary lines of common test runners. The group is the number of tests that ran, or passed.
_COUNTS = [
    re.compile(r"^Ran (\d+) tests? in", re.M),  # unittest
    re.compile(r"^=+ .*?\b(\d+) passed\b.* in [\d.]+s", re.M),  # pytest
    re.compile(r"^(\d+) passed\b.* in [\d.]+s", re.M),  # pytest -q
    re.compile(r"^(?:#|\u2139) pass (\d+)$", re.M),  # node --test
    re.compile(r"^\s*Tests:?\s+(?:.*?\b)?(\d+) passed\b", re.M),  # jest, vitest
    re.compile(r"^\s+(\d+) passing\b", re.M),  # mocha
    re.compile(r"^test result: ok\. (\d+) passed", re.M),  # cargo
    re.compile(r"^\s*(\d+) passed\b.*\(\d", re.M),  # playwright
    re.compile(r"^(\d+) (?:runs|examples),", re.M),  # minitest, rspec
    re.compile(r"^OK \((\d+) tests?,", re.M),  # phpunit
]
_GO_PASS = re.compile(r"^\s*--- PASS: ", re.M)


def count_tests(output: str) -> int:
    """Return how many tests ran according to a check's output; 0 without a summary line of a known test runner."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output)
    total = sum(int(number) for pattern in _COUNTS for number in pattern.findall(plain))
    return total or len(_GO_PASS.findall(plain))
