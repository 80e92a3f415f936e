"""The `cofounder` command."""

import typer

from local.cli import local_app

app = typer.Typer(no_args_is_help=True, help="Build products from ideas.")
app.add_typer(local_app, name="local")


def main() -> None:
    """Run the command line."""
    app()
