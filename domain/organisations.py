"""Organisations: what their members may do, and how many there may be."""

from collections.abc import Mapping

from domain.errors import LastOwner
from domain.identity import Role

MAX_OWNED = 50
"""The most organisations, one's personal one aside, that a user may be an owner of when creating another."""

MAX_MEMBERS = 200
"""The most members of an organisation."""


def check_owner_remains(roles: Mapping[str, Role], user_id: str, role: Role | None) -> None:
    """Check that an organisation has an owner after a change of one member.

    Args:
        roles: the members' roles now.
        role: the member's new role; None if the member is removed.

    Raises:
        LastOwner: it would have no owner.
    """
    if Role.OWNER in {**roles, user_id: role}.values():
        return
    raise LastOwner(
        f"{user_id} is the organisation's last owner, and it needs one. Make another member an owner first."
    )
