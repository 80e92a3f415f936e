"""`cofounder users …`: show and change founders' accounts, directly in the database at DATABASE_URL."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import AsJson

if TYPE_CHECKING:  # the database layer takes a second to import
    from db.transaction import Transaction
    from services.accounts import Account
    from settings import Settings

app = typer.Typer(no_args_is_help=True, help="Show and change founders' accounts (in the database at DATABASE_URL).")

_UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]


@app.command(name="set", epilog="\b\nExample: cofounder users set ada --plan partner --model coder=claude-opus-5-5")
def set_(
    user_id: _UserId,
    plan: Annotated[str | None, typer.Option("--plan", help="The plan's name.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="ROLE=MODEL",
            help="Model for a role: its name, or JSON with effort and fallbacks. ROLE= removes it. Repeatable.",
        ),
    ] = None,
    suspended: Annotated[
        bool | None, typer.Option("--suspended/--active", help="Refuse this user's builds, or allow them again.")
    ] = None,
    renewal_day: Annotated[
        int | None, typer.Option("--renewal-day", min=1, max=31, help="Day of the month on which the budget renews.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a user, or create a new one."""
    from cli.accounts import check_user_id, in_database, parse_models, today
    from db.users import UserChange
    from services.accounts import change_account
    from settings import load_settings

    check_user_id(user_id)
    settings = load_settings()
    change = UserChange(plan, parse_models(model or [], settings.model_prices), suspended, renewal_day)

    async def run(tx: "Transaction") -> "Account":
        return await change_account(tx, user_id, change, today())

    account = in_database(settings, run)
    affects_builds = plan is not None or renewal_day is not None or suspended is False
    _notify_and_print(settings, account, as_json, notify=affects_builds)


@app.command(name="top-up", epilog="Example: cofounder users top-up ada 2.50 --note 'for the demo on Friday'")
def top_up(
    user_id: _UserId,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="In dollars, e.g. 5 or 2.50.")],
    note: Annotated[str | None, typer.Option("--note", help="What it is for; stored with the top-up.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Identifies this top-up: repeating it with the same key adds nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add to what a user may spend today, and wake builds that wait for money."""
    from cli.accounts import in_database, microdollars, today
    from services.accounts import top_up_account
    from settings import load_settings

    settings = load_settings()
    added = microdollars(amount)

    async def run(tx: "Transaction") -> "Account":
        return await top_up_account(tx, user_id, added, today(), note=note, key=key)

    account = in_database(settings, run)
    _notify_and_print(settings, account, as_json)


@app.command(epilog="Example: cofounder users show ada")
def show(user_id: _UserId, as_json: AsJson = False) -> None:
    """Show a user's account and today's allowance."""
    from cli.accounts import as_json as to_json
    from cli.accounts import in_database, print_account, today
    from cli.output import Output
    from services.accounts import read_account
    from settings import load_settings

    async def run(tx: "Transaction") -> "Account":
        return await read_account(tx, user_id, today())

    account = in_database(load_settings(), run)
    Output(as_json).print_result(to_json(account), lambda console: print_account(console, account))


@app.command(epilog="Example: cofounder users link ada https://id.example.com/realms/acme 7f1c9a")
def link(
    user_id: _UserId,
    issuer: Annotated[
        str, typer.Argument(metavar="ISSUER", help="The identity provider: its `iss`, or its name in OIDC_ISSUERS.")
    ],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The person's `sub` there.")],
    as_json: AsJson = False,
) -> None:
    """Let a person whom an identity provider knows be a user who exists."""
    from cli.accounts import in_database
    from cli.output import Output
    from services.identities import link_user
    from settings import load_settings

    settings = load_settings()
    known = {each.name: each.issuer for each in settings.issuers}
    url = known.get(issuer, issuer)

    async def run(tx: "Transaction") -> None:
        await link_user(tx, user_id, url, subject)

    in_database(settings, run)
    Output(as_json).print_result(
        {"user": user_id, "issuer": url, "subject": subject},
        lambda console: console.print(f"{subject} of {url} is now the user {user_id}.", markup=False),
    )


def _notify_and_print(settings: "Settings", account: "Account", as_json: bool, *, notify: bool = True) -> None:
    """Signal the open builds after the change is committed, and print the account."""
    from cli.accounts import as_json as to_json
    from cli.accounts import notify_builds, print_account
    from cli.output import Output

    output = Output(as_json)
    build_ids, trouble = notify_builds(settings, account.user.id) if notify and account.open_builds else ([], None)
    output.print_result(
        to_json(account) | {"builds_told": build_ids, "trouble": trouble},
        lambda console: print_account(console, account),
    )
    if trouble:
        output.note(f"The open builds could not be notified now. The reaper notifies them within a minute. ({trouble})")
    elif build_ids:
        output.note(f"Open builds notified: {len(build_ids)}.")


@app.command(epilog="Example: cofounder users erase ada --confirm ada")
def erase(
    user_id: _UserId,
    confirm: Annotated[str, typer.Option("--confirm", metavar="USER", help="The user's id once more.")],
    as_json: AsJson = False,
) -> None:
    """Erase a founder for good: the account, and all projects that no one else is a member of.

    The account is suspended at once. What calls have cost stays in the ledger, under a random id.
    """
    import asyncio

    from cli.accounts import database
    from cli.output import Output
    from clients.build_workflows import BuildWorkflows
    from clients.temporal import connect_temporal
    from db.models import Erasure
    from domain.errors import InvalidInput
    from services.erasure import erase_user
    from settings import load_settings

    if confirm != user_id:
        raise InvalidInput(f"--confirm is not {user_id}. Name the user twice, to confirm that you mean this one.")
    settings = load_settings()

    async def run() -> Erasure:
        workflows = BuildWorkflows(await connect_temporal(), settings.temporal_task_queue)
        async with database(settings) as sessions:
            return await erase_user(sessions, workflows, user_id, "operator", confirmed=confirm)

    erasure = asyncio.run(run())
    Output(as_json).print_result(
        {"id": str(erasure.id), "user_id": user_id},
        f"{user_id} is being erased. To see how far it is: cofounder ops erasures",
    )
