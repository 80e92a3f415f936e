"""Decides what `cofounder doctor --paid` may ask, and asks it."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from cli.doctor.model_questions import ModelQuestions
from cli.doctor.paid import Purse, Question, Verdict, ask_all, cannot_ask
from cli.doctor.sandbox_questions import SandboxQuestions
from clients.loopback import is_loopback
from clients.model.anthropic import AnthropicProvider
from clients.sandbox import sandbox_config
from domain.errors import Misconfigured
from settings import Settings

_STAND_IN = "it is a stand-in on this machine, which does what the program assumes"


def microdollars(cap: float) -> int:
    """Return a cap in USD as microdollars."""
    return int(cap * 1_000_000)


async def ask_services(
    settings: Settings, cap: int, report: Callable[[Verdict], object], *, stand_ins: bool = False
) -> tuple[list[Verdict], Purse]:
    """Ask the model's API and the sandbox service, whichever has a key. Costs at most `cap` µ$.

    Args:
        settings: where the services are, and their keys.
        cap: what all of it may cost, in µ$.
        report: called with each verdict.
        stand_ins: ask servers on this machine, too; for tests of the questions.

    Raises:
        Misconfigured: there is nothing to ask.
    """
    reasons = {
        "model": _reason(
            "ANTHROPIC_API_KEY",
            settings.anthropic_api_key is not None,
            settings.rehearsal_model or is_loopback(settings.anthropic_base_url),
            stand_ins,
        ),
        "sandboxes": _reason(
            "E2B_API_KEY", settings.e2b_api_key is not None, is_loopback(settings.e2b_api_url), stand_ins
        ),
    }
    if all(reasons.values()):
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise Misconfigured(
            f"There is no real service to ask ({said}). Set ANTHROPIC_API_KEY or E2B_API_KEY, or both, to keys of "
            "your accounts."
        )
    purse = Purse(cap)
    async with AsyncExitStack() as closing:
        questions: list[Question] = []
        for name, reason in reasons.items():
            if reason is not None:
                questions.append(cannot_ask(name, f"What docs/vendors.md assumes about {name}", reason))
            elif name == "model":
                provider = AnthropicProvider.from_settings(settings)
                closing.push_async_callback(provider.close)
                questions += ModelQuestions(provider, settings.model_prices, settings.fallback_model, purse).all()
            else:
                asked = await closing.enter_async_context(SandboxQuestions(sandbox_config(settings), purse))
                questions += asked.all()
        return await ask_all(questions, purse, report), purse


def as_document(verdicts: list[Verdict], purse: Purse) -> dict[str, Any]:
    """The result for scripts."""
    return {
        "good": is_good(verdicts),
        "cap_microdollars": purse.cap,
        "spent_microdollars": purse.spent,
        "answers": [verdict.as_json() for verdict in verdicts],
    }


def is_good(verdicts: list[Verdict]) -> bool:
    """Whether nothing that was asked is otherwise than assumed."""
    return all(verdict.state != "not held" for verdict in verdicts)


def _reason(variable: str, has_key: bool, is_stand_in: bool, stand_ins: bool) -> str | None:
    """Why a service is not asked."""
    if not has_key:
        return f"{variable} is not set"
    return _STAND_IN if is_stand_in and not stand_ins else None
