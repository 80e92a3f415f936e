"""What the rehearsal model says next: the registered script for this conversation, or the product.

Everything is derived from the request's own messages, so a repeated request gets an equivalent answer and a restarted
server goes on where the old one was.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.rehearsal.agent import bash, glob
from local.rehearsal.conversation import Call, Conversation, Exchange, Outcome, Play, Turn, next_turn
from local.rehearsal.product_script import ProductOptions, build_product

NOTHING_LEFT = "There is nothing left for me to do."


class _Script(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProductScript(_Script):
    """The normal behaviour, with the ways in which it can go wrong on purpose; see `ProductOptions`."""

    kind: Literal["product"] = "product"
    withhold_mend: bool = False
    sabotage: (
        Literal[
            "check_true", "no_tests", "serve_500", "blank_page", "uncommitted_file", "ignored_file", "left_out_file"
        ]
        | None
    ) = None
    mend_after_bounce: bool = True


class LongScript(_Script):
    """Many turns of tiny calls."""

    kind: Literal["long"]
    turns: int = Field(ge=0)
    calls_per_turn: int = Field(default=1, ge=1)
    commit_every: int = Field(default=0, ge=0, description="Every so many turns a commit is the turn's first call.")
    mutating: bool = Field(default=True, description="bash when true; glob, which only reads, when false.")
    repeat: bool = Field(default=False, description="All inputs equal, so that the guard against circles sees one.")
    text: str = ""
    end: Literal["product", "end_turn"] = "end_turn"


class StepsScript(_Script):
    """Literal turns. A step is `{"text": …}` or `{"tool": …, "input": …}`; a turn without a tool ends the turn."""

    kind: Literal["steps"]
    turns: list[list[dict[str, Any]]]
    then: Literal["product", "end_turn"] = "end_turn"
    repeats_lost: bool = Field(default=False, description="Do again what was lost, as an agent does that looks.")


AnyScript = Annotated[ProductScript | LongScript | StepsScript, Field(discriminator="kind")]


def _long(script: LongScript) -> Play:
    for number in range(1, script.turns + 1):
        calls = []
        for position in range(1, script.calls_per_turn + 1):
            label = "again" if script.repeat else f"{number}-{position}"
            calls.append(bash(f"true # {label}") if script.mutating else glob(f"step-{label}-*"))
        if script.commit_every and number % script.commit_every == 0:
            calls[0] = bash(
                "([ -d .git ] || git init -q -b main) && git -c user.name=Cofounder -c user.email=cofounder@localhost "
                f"commit -q --allow-empty -m 'Step {number}'"
            )
        yield from _until_it_happens(Turn(script.text, tuple(calls)))


def _until_it_happens(turn: Turn) -> Play:
    outcome: Outcome = yield turn
    while not outcome.happened:
        outcome = yield turn
    return outcome


_LOST = ("The outcome of this call is unknown", "This call was not run")
"""How the result of a call begins that was lost with its sandbox."""

_UNDONE = ("what they changed in the workspace is lost", "Edits not applied again")
"""What the agent is told when earlier work went with a sandbox and was not done again for it."""


def _until_nothing_is_lost(turn: Turn, earlier: list[Call]) -> Play:
    """A turn of an agent that looks at what is lost; `earlier`: its calls so far, in order, this turn's come to it."""
    while True:
        told: list[str] = []
        happened = False
        while not happened:
            outcome: Outcome = yield turn
            told += outcome.texts
            happened = outcome.happened
        lost = [
            call for call, result in zip(turn.calls, outcome.results, strict=False) if result.text.startswith(_LOST)
        ]
        earlier += [call for call in turn.calls if call not in earlier]
        if any(sign in text for text in told for sign in _UNDONE):
            lost = list(earlier)
        if not lost:
            return
        turn = Turn("That was lost. Once more.", tuple(lost))


def _step_turn(steps: list[dict[str, Any]]) -> Turn:
    text = "".join(str(step["text"]) for step in steps if "text" in step)
    calls = tuple(Call(str(step["tool"]), step.get("input", {})) for step in steps if "tool" in step)
    thinking = next((str(step["thinking"]) for step in steps if "thinking" in step), None)
    return Turn(text or ("" if calls else NOTHING_LEFT), calls, thinking)


def _steps(script: StepsScript) -> Play:
    if not script.repeats_lost:
        for steps in script.turns:
            yield from _until_it_happens(_step_turn(steps))
        return
    earlier: list[Call] = []
    for steps in script.turns:
        yield from _until_nothing_is_lost(_step_turn(steps), earlier)
    while script.then == "end_turn":
        yield from _until_nothing_is_lost(Turn(NOTHING_LEFT), earlier)


def _play(script: ProductScript | LongScript | StepsScript, conversation: Conversation) -> Play:
    product = ProductScript()
    match script:
        case LongScript():
            yield from _long(script)
            goes_on = script.end == "product"
        case StepsScript():
            yield from _steps(script)
            goes_on = script.then == "product"
        case ProductScript():
            product, goes_on = script, True
    if goes_on:
        options = ProductOptions(product.withhold_mend, product.sabotage, product.mend_after_bounce)
        yield from build_product(conversation, options)


def decide(script: ProductScript | LongScript | StepsScript, conversation: Conversation) -> Turn:
    """The next turn of this conversation."""
    exchanges: tuple[Exchange, ...] = conversation.exchanges
    return next_turn(_play(script, conversation), exchanges) or Turn(NOTHING_LEFT)
