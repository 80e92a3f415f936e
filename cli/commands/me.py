"""`cofounder me`: who the token or key in API_TOKEN stands for, and what it may do."""

from typing import TYPE_CHECKING

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_HOW = {
    "api_token": "the API's token",
    "operator_token": "the operators' token",
    "api_key": "an API key",
    "sign_in": "a sign-in",
    "jwt": "a token of an identity provider",
}


@app.command(epilog="Example: cofounder me")
def me(as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Show who you are for the API, and what you may do."""

    async def run(api: "ApiClient", output: "Output") -> None:
        result = await api.read_me()

        def show(console: "Console") -> None:
            from cli.output import print_rows

            rows = [("user", result["user"])]
            rows += [(label, result[label]) for label in ("name", "email") if result[label]]
            by = _HOW.get(result["how"], result["how"])
            rows.append(("by", f"{by} {result['credential_id']}" if result["credential_id"] else by))
            if result["actor"] != result["user"]:
                rows.append(("acting", result["actor"]))
            rows.append(("scopes", " ".join(result["scopes"])))
            rows += [("organisation", f"{each['name']} ({each['role']})") for each in result["organisations"]]
            print_rows(console, rows)

        output.print_result(result, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)
