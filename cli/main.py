"""The `cofounder` command: its commands are in `cli/commands/`, those of the embedded stack in `local/cli.py`."""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from cli.commands import (
    account,
    answer,
    audit,
    build,
    cancel,
    certificates,
    demo,
    deploy,
    diff,
    doctor,
    download,
    erasures,
    export,
    exports,
    files,
    finish,
    keys,
    ledger,
    limits,
    logs,
    me,
    messages,
    migrate,
    ops,
    ops_bulk,
    ops_controls,
    ops_erasures,
    ops_reaper,
    orgs,
    payload_keys,
    preview,
    projects,
    push,
    recover,
    replay,
    restore,
    say,
    screenshots,
    secrets,
    settings,
    show,
    sign_ins,
    switch,
    up,
    users,
    versions,
    wake,
    watch,
    webhooks,
)
from cli.commands import list as list_builds
from cli.commands import open as open_browser
from cli.exit_codes import INTERRUPTED, MEANINGS, USAGE_ERROR, exit_code_of
from domain.errors import CofounderError, InvalidInput
from local.cli import local_app
from local.errors import StackError

# In the order of the help. `account`, `projects`, `orgs`, `keys`, `sign-ins`, `webhooks`, `users`, `ops`, `secrets`,
# `switch`, `limits`, `ledger`, `deploy`, `payload-keys`, `erasures`, `certificates`, `exports` and `local` are groups.
_COMMANDS = (
    *(up, demo, doctor),
    *(build, watch, list_builds, show, logs),
    *(say, messages, answer, restore, wake, finish, cancel),
    *(versions, preview, files, diff, screenshots, download, export, push),
    *(open_browser, me),
    *(migrate, recover, settings, replay, audit),
)

# \b keeps these lines as they are when help is plain text.
_EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())


class _Commands(TyperGroup):
    """The command group. Removes pydantic's "Value error, " from messages about options."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="An idea goes in; a running, tested product comes out.",
    epilog=f"Commands use the API at COFOUNDER_API_URL with the API key or token in API_TOKEN.\n\n{_EXIT_CODES}",
)
for command in _COMMANDS:
    app.add_typer(command.app)
app.add_typer(account.app, name="account")
app.add_typer(projects.app, name="projects")
app.add_typer(orgs.app, name="orgs")
app.add_typer(keys.app, name="keys")
app.add_typer(sign_ins.app, name="sign-ins")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(users.app, name="users")
ops.app.add_typer(ops_bulk.acts)
ops.app.add_typer(ops_bulk.app, name="bulk")
ops.app.add_typer(ops_reaper.app, name="reaper")
ops.app.add_typer(ops_controls.acts)
ops.app.add_typer(ops_erasures.acts)
ops.app.add_typer(ops_controls.switch, name="switch")
ops.app.add_typer(ops_controls.limits, name="limits")
app.add_typer(ops.app, name="ops")
app.add_typer(secrets.app, name="secrets")
app.add_typer(switch.app, name="switch")
app.add_typer(limits.app, name="limits")
app.add_typer(ledger.app, name="ledger")
app.add_typer(deploy.app, name="deploy")
app.add_typer(payload_keys.app, name="payload-keys")
app.add_typer(erasures.app, name="erasures")
app.add_typer(certificates.app, name="certificates")
app.add_typer(exports.app, name="exports")
app.add_typer(local_app, name="local")


def main() -> None:
    """Run the command line. Expected errors become one sentence on standard error and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character of a goal shows a question mark.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not all(_is_text(argument) for argument in sys.argv):
        _print_error(InvalidInput("The command is not valid UTF-8. Type it again."))
        sys.exit(USAGE_ERROR)
    app.rich_markup_mode = "rich" if _wants_rich_help() else None
    try:
        app()
    except (CofounderError, StackError) as error:
        _print_error(error)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _is_text(argument: str) -> bool:
    """Whether the argument is valid UTF-8. Python turns invalid bytes into lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def _wants_rich_help() -> bool:
    """Whether help and usage errors may have boxes and colours."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb"
    return not plain and sys.stdout.isatty() and sys.stderr.isatty()


def _print_error(error: Exception) -> None:
    from cli.output import console_for_people

    console_for_people(stderr=True).print(f"error: {error}", style="red")
