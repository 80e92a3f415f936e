"""Who uses a command that works on the database itself."""

import getpass

from domain.audit import Author
from domain.identity import How


def operator() -> str:
    """The name of the operating system's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def operator_author() -> Author:
    """Who changes something, for the audit."""
    return Author(actor="operator", how=How.COMMAND_LINE, credential_id=operator())
