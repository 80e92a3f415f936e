"""Claim a permit to have a sandbox running, for a build or preview that waits for one."""

from datetime import timedelta

from temporalio import activity

from activities.runtime.errors import application_errors
from clients.sandbox import Role
from domain.errors import NoPermit, SandboxRefused
from domain.payloads import ClaimPermit, PermitClaim
from services.permits import Permits


class PermitActivities:
    """The activity `claim_permit`."""

    def __init__(self, permits: Permits) -> None:
        self._permits = permits

    @activity.defn
    @application_errors
    async def claim_permit(self, request: ClaimPermit) -> PermitClaim:
        """Take a permit if one is free for this build; one that has one keeps it. Otherwise check its place."""
        role = Role(request.role)
        if request.anyway:
            await self._permits.take_anyway(request.build_id, role)
            return PermitClaim(held=True)
        try:
            await self._permits.take(request.build_id, role, timedelta(seconds=request.patience_seconds))
        except NoPermit as error:
            return PermitClaim.sparse(held=False, reason=str(error), refused=isinstance(error, SandboxRefused))
        return PermitClaim(held=True)
