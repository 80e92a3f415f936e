"""`cofounder.json`: how to install, check and start a product."""

import json
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
