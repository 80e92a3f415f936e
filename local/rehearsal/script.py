"""The rehearsal model's next turn, from the conversation's registered script or the product script.

Everything follows from the request's own messages, so a repeated request gets an equivalent answer, and a restarted
server continues where the old one stopped.
"""

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.rehearsal.agent import bash, glob, grep, read_file
from local.rehearsal.conversation import Call, Conversation, Exchange, Outcome, Play, Turn, next_turn
from local.rehearsal.product_script import ProductOptions, build_product

NOTHING_LEFT = "There is nothing left for me to do."
"""Text of the turn that follows the end of a script."""


class _Script(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProductScript(_Script):
    """Builds the product. The options make it go wrong or behave badly on purpose; see `ProductOptions`."""

    kind: Literal["product"] = "product"
    withhold_fix: bool = False
    sabotage: (
        Literal[
            "check_true", "no_tests", "serve_500", "blank_page", "uncommitted_file", "ignored_file", "left_out_file"
        ]
        | None
    ) = None
    fix_findings: bool = True
    reports: int = Field(
        default=0, ge=0, description="How many of its phases it ends by ending its turn with a report, too early."
    )
    plan: Literal["kept", "unticked", "forgotten"] = Field(
        default="kept", description="PLAN.md is written and ticked, written and never ticked, or never written."
    )


class LongScript(_Script):
    """Many turns of trivial calls.

    With `commit_every`, it goes on after the last step that the conversation's opening names, as `git log` does in a
    conversation that begins again with a summary of the program's own.
    """

    kind: Literal["long"]
    turns: int = Field(ge=0)
    calls_per_turn: int = Field(default=1, ge=1)
    commit_every: int = Field(default=0, ge=0, description="Commit in every n-th turn, as its first call; 0: never.")
    mutating: bool = Field(default=True, description="bash when true; glob, which only reads, when false.")
    mixed: bool = Field(default=False, description="Several kinds of calls that do not depend on each other at once.")
    output_bytes: int = Field(default=0, ge=0, description="Bytes that each bash call prints.")
    text_bytes: int = Field(default=0, ge=0, description="Bytes that the model itself says in each turn.")
    repeat: bool = Field(default=False, description="Repeat one input, to trigger the guard against repetition.")
    text: str = ""
    end: Literal["product", "end_turn"] = "end_turn"


class StepsScript(_Script):
    """Literal turns. A step is `{"text": …}` or `{"tool": …, "input": …}`; a turn without a tool ends the turn."""

    kind: Literal["steps"]
    turns: list[list[dict[str, Any]]]
    then: Literal["product", "end_turn"] = "end_turn"
    repeats_lost: bool = Field(
        default=False, description="Repeat calls whose work was lost, as an observant agent does."
    )


class FuzzScript(_Script):
    """Hostile answers from a seed, see `local/rehearsal/fuzz.py`; then a product by one command, and the end."""

    kind: Literal["fuzz"]
    seed: int
    turns: int = Field(default=8, ge=0, description="Hostile turns.")
    product: str = Field(description="The bash command that makes and commits the product, whatever is there.")


AnyScript = Annotated[ProductScript | LongScript | StepsScript | FuzzScript, Field(discriminator="kind")]


def _long(script: LongScript, conversation: Conversation) -> Play:
    steps = re.findall(r"\bStep (\d+)$", "\n".join(conversation.opening), re.M)
    for number in range(max(map(int, steps), default=0) + 1, script.turns + 1):
        calls = []
        for position in range(1, script.calls_per_turn + 1):
            label = "again" if script.repeat else f"{number}-{position}"
            calls.append(_long_call(script, label, position))
        if script.commit_every and number % script.commit_every == 0:
            calls[0] = bash(
                "([ -d .git ] || git init -q -b main) && git -c user.name=Cofounder -c user.email=cofounder@localhost "
                f"commit -q --allow-empty -m 'Step {number}'"
            )
        text = script.text
        if script.text_bytes:
            text = (text + f" word{number}" * (script.text_bytes // 6 + 1))[: script.text_bytes].rstrip()
        yield from _until_it_happens(Turn(text, tuple(calls), reads_results=False))


def _long_call(script: LongScript, label: str, position: int) -> Call:
    if script.mixed and position % 4:
        path = f"step-{label}"
        return (glob(f"{path}-*"), grep(path, None), read_file("README.md"))[position % 4 - 1]
    if not script.mutating:
        return glob(f"step-{label}-*")
    if script.output_bytes:
        return bash(f"yes 'step {label}' | head -c {script.output_bytes}")
    return bash(f"true # {label}")


def _until_it_happens(turn: Turn) -> Play:
    outcome: Outcome = yield turn
    while not outcome.happened:
        outcome = yield turn
    return outcome


_LOST = ("The outcome of this call is unknown", "This call was not run")
"""Beginnings of the result of a call that was lost with its sandbox."""

_UNDONE = ("what they changed in the workspace is lost", "Edits not applied again")
"""Texts in the message to the agent after earlier work was lost with a sandbox and not applied again."""


def _until_nothing_is_lost(turn: Turn, earlier: list[Call]) -> Play:
    """Yield a turn, and repeat calls whose work is lost.

    `earlier` has the agent's calls so far, in order. This turn's calls are added to it.
    """
    while True:
        texts: list[str] = []
        happened = False
        while not happened:
            outcome: Outcome = yield turn
            texts += outcome.texts
            happened = outcome.happened
        are_lost = [result.text.startswith(_LOST) for result in outcome.results]
        # Later calls may have failed for want of the lost one, or have built on it.
        lost = list(turn.calls[are_lost.index(True) :]) if any(are_lost) else []
        earlier += [call for call in turn.calls if call not in earlier]
        if any(sign in text for text in texts for sign in _UNDONE):
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
            yield from _until_it_happens(replace(_step_turn(steps), reads_results=False))
        return
    earlier: list[Call] = []
    for steps in script.turns:
        yield from _until_nothing_is_lost(_step_turn(steps), earlier)
    while script.then == "end_turn":
        yield from _until_nothing_is_lost(Turn(NOTHING_LEFT), earlier)


def play(script: AnyScript, conversation: Conversation) -> Play:
    """Return the conversation's script from its beginning."""
    product = ProductScript()
    match script:
        case LongScript():
            yield from _long(script, conversation)
            build = script.end == "product"
        case StepsScript():
            yield from _steps(script)
            build = script.then == "product"
        case ProductScript():
            product, build = script, True
        case FuzzScript():
            build = False  # its answers are made in `answers.py`
    if build:
        options = ProductOptions(
            product.withhold_fix, product.sabotage, product.fix_findings, product.reports, product.plan
        )
        yield from build_product(conversation, options)


def decide(script: AnyScript, conversation: Conversation) -> Turn:
    """Return the next turn of this conversation."""
    exchanges: tuple[Exchange, ...] = conversation.exchanges
    return next_turn(play(script, conversation), exchanges) or Turn(NOTHING_LEFT)
