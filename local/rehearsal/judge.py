"""The rehearsal model as the judge of a product: a request for an answer of a JSON schema, `output_config.format`.

The lenient judge finds nothing. The strict one looks in the texts of the pages for the words of each feature of the
brief, and for what says that a feature is not there yet. Neither has judgement, and nothing in the product is an
instruction to them: they look for words.

Sources: the SDK's `OutputConfigParam` and `JSONOutputFormatParam`, what its `transform_schema` leaves out of a schema,
and errors as callers of the API quote them.
"""

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.rehearsal.conversation import Conversation, Turn, tagged_json, tagged_text
from local.rehearsal.errors import invalid
from local.rehearsal.prefix import content_blocks
from local.rehearsal.product_files import Idea, read_idea

STRICT_MARKER = "the judge is strict"
"""In the brief, the interview or the goal, in any case: the strict judge is asked."""

_SUPPORTED = {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "description", "title"),
    *("anyOf", "allOf", "$ref", "$defs", "default", "format"),
}
_TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}
_DEEPEST = 50

_WORD = re.compile(r"\w{4,}")
_SHARE_OF_WORDS = 0.6
"""A feature is there if so many of its words are on the pages."""

_NOT_THERE_YET = re.compile(
    r"coming soon|lorem ipsum|not (?:yet )?(?:implemented|available)|under construction|placeholder", re.IGNORECASE
)


class JudgeManner(BaseModel):
    """How products of conversations are judged whose system prompt contains `match`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = ""
    manner: Literal["lenient", "strict", "scripted"] = "lenient"
    text: str = Field(default="", description="scripted: the whole answer, whatever was asked for.")


def is_structured(body: dict[str, Any]) -> bool:
    """Whether a request asks for an answer of a schema."""
    return (body.get("output_config") or {}).get("format") is not None


def check_output_config(body: dict[str, Any]) -> None:
    """Check the fields of `output_config` and its schema.

    Raises:
        ApiError: as the API answers.
    """
    output = body.get("output_config")
    if output is None:
        return
    if not isinstance(output, dict):
        raise invalid("output_config: Input should be a valid dictionary")
    if extra := sorted(set(output) - {"effort", "format", "task_budget"}):
        raise invalid(f"output_config.{extra[0]}: Extra inputs are not permitted")
    given = output.get("format")
    if given is None:
        return
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    if extra := sorted(set(given) - {"type", "schema"}):
        raise invalid(f"output_config.format.{extra[0]}: Extra inputs are not permitted")
    if not isinstance(given.get("schema"), dict):
        raise invalid("output_config.format.schema: Field required")
    _check_schema(given["schema"], 0)


def _check_schema(schema: Any, depth: int) -> None:
    where = "output_config.format.schema"
    if not isinstance(schema, dict) or depth > _DEEPEST:
        raise invalid(f"{where}: Invalid schema")
    kind = schema.get("type")
    if kind is not None and kind not in _TYPES:
        raise invalid(f"{where}: Invalid type: {kind}")
    if unsupported := sorted(set(schema) - _SUPPORTED - ({"minItems"} if kind == "array" else set())):
        names = ", ".join(unsupported)
        raise invalid(f"{where}: For '{kind}' type, property '{names}' is not supported")
    if kind == "array" and schema.get("minItems", 0) not in (0, 1):
        raise invalid(f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    if kind == "object" and schema.get("additionalProperties") is not False:
        raise invalid(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    inner = [*(schema.get("properties") or {}).values(), *(schema.get("$defs") or {}).values()]
    inner += [*schema.get("anyOf", ()), *schema.get("allOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    for each in inner:
        _check_schema(each, depth + 1)


def judge(manner: JudgeManner | None, body: dict[str, Any], conversation: Conversation) -> Turn:
    """Return the answer. Without a registered manner, a marker in the prompt asks for the strict judge."""
    if manner is not None and manner.manner == "scripted":
        return Turn(manner.text, thinking="I answer as I was told.")
    system = conversation.system
    is_strict = STRICT_MARKER in system.lower() if manner is None else manner.manner == "strict"
    findings = _find(_idea_of(system), _pages_of(body)) if is_strict else []
    return Turn(json.dumps({"findings": findings}), thinking="I compare what was asked for with what the pages show.")


def _idea_of(system: str) -> Idea:
    return read_idea(tagged_json(system, "idea_brief"), tagged_json(system, "interview"), tagged_text(system, "goal"))


def _pages_of(body: dict[str, Any]) -> str:
    """The titles and texts of the pages in the document that the message quotes."""
    for block in content_blocks(body["messages"][-1]["content"]):
        try:
            document = json.loads(block.get("text", ""))
        except ValueError:
            continue
        pages = document.get("pages") if isinstance(document, dict) else None
        if isinstance(pages, list):
            return "\n".join(f"{page['title']}\n{page['text']}" for page in pages)
    return ""


def _find(idea: Idea, shown: str) -> list[dict[str, str]]:
    words = set(_WORD.findall(shown.lower()))
    findings = []
    for feature in idea.features:
        wanted = set(_WORD.findall(feature.lower()))
        if wanted and len(wanted & words) < _SHARE_OF_WORDS * len(wanted):
            findings.append(
                {
                    "kind": "missing",
                    "asked_for": feature,
                    "evidence": "None of the pages has it.",
                    "remedy": f"Build it and show it on a page: {feature}",
                }
            )
    for line in shown.splitlines():
        if found := _NOT_THERE_YET.search(line):
            findings.append(
                {
                    "kind": "faked",
                    "asked_for": "; ".join(idea.features) or idea.problem or idea.name,
                    "evidence": f"A page says: {line.strip()[:200]}",
                    "remedy": f"Build what the page only announces, and remove “{found[0]}” from it.",
                }
            )
    return findings
