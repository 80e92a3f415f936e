"""Organisations: what their members may do, and how many there may be."""

from collections.abc import Collection, Mapping

from domain.errors import LastOwner
from domain.identity import Role

MAX_OWNED = 50
"""The most organisations, one's personal one aside, that a user may be an owner of when creating another."""

MAX_MEMBERS = 200
"""The most members of an organisation."""


def check_owner_remains(
    roles: Mapping[str, Role], user_id: str, role: Role | None, *, suspended: Collection[str] = ()
) -> None:
    """Check that an organisation has an owner who can sign in after a change of one member.

    Args:
        roles: the members' roles now.
        role: the member's new role; None if the member is removed.
        suspended: members who can't sign in. They may be about to be erased.

    Raises:
        LastOwner: it would have no owner.
    """
    others = {each for each, held in roles.items() if held is Role.OWNER and each != user_id}
    if role is Role.OWNER or roles.get(user_id) is not Role.OWNER or others - {*suspended}:
        return
    last = "last owner who is not suspended" if others else "last owner"
    raise LastOwner(f"{user_id} is the organisation's {last}, and it needs one. Make another member an owner first.")
