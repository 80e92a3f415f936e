"""`cofounder webhooks …`: addresses that are told when a build sleeps, wakes, needs its founder, is ready or fails."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_organisation, with_api
from cli.parameters import ApiUrl, AsJson, User
from domain.webhooks import CHOICES, LONGEST_OVERLAP, OVERLAP, Topic

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

_HOUR = timedelta(hours=1)

app = typer.Typer(
    no_args_is_help=True,
    help="Tell other programs of builds: what is asleep, awake, ready or failed, and what needs its founder.",
)

_Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id; see `cofounder webhooks list`.")]
_Delivery = Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id; see `cofounder webhooks deliveries`.")]
_Topics = Annotated[
    list[Topic] | None,
    typer.Option("--topic", help=f"What it is told. Repeatable. Default: {', '.join(CHOICES)}."),
]


@app.command(epilog="Example: cofounder webhooks create https://hooks.example.com/cofounder --topic build.ready")
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="An https address that answers within 15 seconds.")],
    topic: _Topics = None,
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    organisation: Annotated[
        str | None, typer.Option("--org", help="Whose builds: its name or id; your own by default.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Make a webhook and print the secret that verifies its messages. It is shown only now."""

    async def run(api: "ApiClient", output: "Output") -> None:
        org_id = None if organisation is None else await resolve_organisation(api, organisation)
        made = await api.create_webhook(
            {"url": url, "topics": topic, "description": description or None, "organisation_id": org_id}
        )

        def show(console: "Console") -> None:
            from cli.output import print_rows

            print_rows(console, [("webhook", made["webhook"]["id"]), ("secret", made["secret"])])
            output.note(f"Try it: cofounder webhooks test {made['webhook']['id']}")

        output.print_result(made, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(name="list", epilog="Example: cofounder webhooks list")
def list_(as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List the webhooks of all organisations that you own."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.list_webhooks()

        def show(console: "Console") -> None:
            from cli.output import print_table

            if not result["webhooks"]:
                output.note("No webhooks. Make one: cofounder webhooks create URL")
                return
            rows = [
                (each["id"], "on" if each["enabled"] else "off", " ".join(each["topics"]), each["url"])
                for each in result["webhooks"]
            ]
            print_table(console, ("webhook", "state", "topics", "url"), rows)
            for each in result["webhooks"]:
                if each["disabled_reason"]:
                    output.note(f"{each['id']} is off: {each['disabled_reason']}")

        output.print_result(result, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder webhooks change 0d5b8a7c-6d1f-4e5c-9f0b-4c1a52a7e0f3 --off")
def change(
    webhook: _Webhook,
    url: Annotated[str | None, typer.Option("--url", help="Another address.")] = None,
    topic: _Topics = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether it is told of what happens.")] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Change the address or the topics of a webhook, or switch it off and on. Its secret stays."""

    async def run(api: "ApiClient", output: "Output") -> None:
        changed = await api.change_webhook(webhook, {"url": url, "topics": topic, "enabled": enabled})
        output.print_result(changed, f"Webhook {webhook} is {'on' if changed['enabled'] else 'off'}.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder webhooks rotate 0d5b8a7c-6d1f-4e5c-9f0b-4c1a52a7e0f3 --overlap 2")
def rotate(
    webhook: _Webhook,
    overlap: Annotated[
        float,
        typer.Option(
            "--overlap",
            min=0,
            max=LONGEST_OVERLAP / _HOUR,
            help="Hours for which messages are signed with the old secret, too; 0 if it has leaked.",
        ),
    ] = OVERLAP / _HOUR,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Give a webhook a new secret and print it. It is shown only now. Messages have both signatures for a while."""

    async def run(api: "ApiClient", output: "Output") -> None:
        made = await api.rotate_webhook_secret(webhook, round(overlap * _HOUR.total_seconds()))

        def show(console: "Console") -> None:
            from cli.output import print_rows

            print_rows(console, [("webhook", made["webhook"]["id"]), ("secret", made["secret"])])
            ends = f"signs for another {overlap:g} hours, too" if overlap else "does not sign any more"
            output.note(f"The old secret {ends}.")

        output.print_result(made, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder webhooks delete 0d5b8a7c-6d1f-4e5c-9f0b-4c1a52a7e0f3")
def delete(webhook: _Webhook, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Delete a webhook with its deliveries. Nothing more is sent to it."""

    async def run(api: "ApiClient", output: "Output") -> None:
        await api.delete_webhook(webhook)
        output.print_result({"id": webhook, "deleted": True}, f"Webhook {webhook} is deleted.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(name="test", epilog="Example: cofounder webhooks test 0d5b8a7c-6d1f-4e5c-9f0b-4c1a52a7e0f3")
def send_test(webhook: _Webhook, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Send a message that only shows that the webhook works."""

    async def run(api: "ApiClient", output: "Output") -> None:
        sent = await api.test_webhook(webhook)
        output.print_result(sent, f"Queued. What came of it: cofounder webhooks deliveries {webhook}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder webhooks deliveries 0d5b8a7c-6d1f-4e5c-9f0b-4c1a52a7e0f3 --dead")
def deliveries(
    webhook: _Webhook,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were given up.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="List at most this many.")] = 50,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Continue from the `next_cursor` of an earlier --json.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List the last messages to a webhook, and what came of each."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.list_deliveries(webhook, "dead" if dead else None, limit=limit, cursor=cursor)
        output.print_result(result, lambda console: _print_deliveries(console, result["deliveries"]))
        if result["next_cursor"]:
            output.note(f"There are more: add --cursor {result['next_cursor']}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder webhooks replay 0d5b8a7c-… 7f0c7a52-…")
def replay(
    webhook: _Webhook, delivery: _Delivery, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None
) -> None:
    """Send a message again that was delivered or is dead, with the same id."""

    async def run(api: "ApiClient", output: "Output") -> None:
        sent = await api.replay_delivery(webhook, delivery)
        output.print_result(sent, f"Queued. What came of it: cofounder webhooks deliveries {webhook}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _print_deliveries(console: "Console", found: list[dict[str, Any]]) -> None:
    from cli.output import print_table, table_time

    rows = [
        (
            each["id"],
            table_time(console, each["created_at"]),
            each["topic"],
            each["state"],
            str(each["attempts"]),
            each["error"] or (str(each["status"]) if each["status"] else ""),
        )
        for each in found
    ]
    print_table(console, ("delivery", "queued", "topic", "state", "attempts", "answer"), rows)
