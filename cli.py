"""The `cofounder` command."""

import typer

app = typer.Typer(no_args_is_help=True, help="Build products from ideas.")


def main() -> None:
    """Run the command line."""
    app()
