"""`cofounder certificates …`: what was archived, exported or erased, with counts and hashes."""

import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(no_args_is_help=True, help="Show certificates of what was archived, exported or erased.")


@app.command(name="list", epilog="Example: cofounder certificates list 9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11")
def list_(
    project: Annotated[uuid.UUID, typer.Argument(metavar="PROJECT", help="The project's id.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List the certificates of a project, the newest first."""
    from cli.certificates import sentence_of
    from cli.output import print_rows

    async def run(api: "ApiClient", output: "Output") -> None:
        listed = await api.list_certificates(str(project))
        rows = [(each["id"], sentence_of(each)) for each in listed["certificates"]]
        output.print_result(
            listed,
            lambda console: (
                print_rows(console, rows) if rows else console.print("Nothing of it was archived or exported.")
            ),
        )

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog="Example: cofounder certificates show 3f8e6f0a-61c7-4a0e-8f0e-5f6f6a1d2b10")
def show(
    certificate: Annotated[uuid.UUID, typer.Argument(metavar="CERTIFICATE", help="The certificate's id.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Show a certificate."""
    from cli import certificates, erasures
    from cli.output import print_rows

    async def run(api: "ApiClient", output: "Output") -> None:
        read = await api.read_certificate(str(certificate))
        rows = certificates.rows_of(read) if "issued_at" in read else erasures.rows_of(read)
        output.print_result(read, lambda console: print_rows(console, rows))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
