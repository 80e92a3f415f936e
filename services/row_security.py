"""Whether row-level security holds in this process: its database role may not see every row.

With the role that owns the tables, the API serves one user, API_USER, to whom all rows belong anyway.
"""

from sqlalchemy.exc import SQLAlchemyError

from db import api_role
from db.session import Access, Sessions, unusable
from db.transaction import request_transaction, transaction
from domain.api_role import API_ROLE
from domain.errors import NoRowSecurity

REFUSAL = (
    "The API's database user sees the rows of all users, so the API can't serve more than one. Set its DATABASE_URL to "
    f"one with the user {API_ROLE}. `cofounder migrate` makes that user, with API_DATABASE_PASSWORD as its password."
)


async def check_row_security(sessions: Sessions, only_user: str, *, has_issuers: bool) -> None:
    """Refuse to serve more than one user with a role that sees every row.

    Args:
        only_user: the user of API_TOKEN.
        has_issuers: whether identity providers may make further users.

    Raises:
        NoRowSecurity: there are more users, or may soon be.
        Misconfigured: the database does not answer.
    """
    try:
        async with transaction(sessions.acting(Access.everything())) as tx:
            if await api_role.sees_every_row(tx) and (has_issuers or await api_role.has_other_users(tx, only_user)):
                raise NoRowSecurity(REFUSAL)
    except (OSError, SQLAlchemyError) as error:
        raise unusable(error) from error


class RowSecurity:
    """Lets a process serve several users only if its role does not see every row, which is asked once."""

    def __init__(self, sessions: Sessions, only_user: str) -> None:
        self._sessions = sessions
        self._only_user = only_user
        self._holds = False

    async def require(self, user_id: str) -> None:
        """Let the process serve this user.

        Raises:
            NoRowSecurity: it may not: the role sees every row, and this is not the only user.
            DatabaseUnavailable: that can't be found out now.
        """
        if self._holds or user_id == self._only_user:
            return
        async with request_transaction(self._sessions) as tx:
            self._holds = not await api_role.sees_every_row(tx)
        if not self._holds:
            raise NoRowSecurity(REFUSAL)
