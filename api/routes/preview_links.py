"""Links with which people who have no account can see a build's preview."""

import uuid

from fastapi import APIRouter, Response

from api.deps import CurrentIdentity, ResourcesDep, TransactionDep, needs
from api.responses import TAKES_BODY, problems
from api.schemas import NewPreviewLink, NewPreviewLinkOut, PreviewLinkList, PreviewLinkOut
from domain.identity import Scope
from services import preview_access

router = APIRouter(prefix="/builds/{build_id}/preview/links", tags=["previews"])


@router.post(
    "",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=201,
    summary="Make a preview link",
    responses=problems(*TAKES_BODY, 403, 404),
)
async def make(
    build_id: uuid.UUID,
    identity: CurrentIdentity,
    resources: ResourcesDep,
    tx: TransactionDep,
    new: NewPreviewLink | None = None,
) -> NewPreviewLinkOut:
    """Anyone who has the link can see this build's preview until the link expires or is revoked, and nothing else. The
    response is the only one that has it."""
    made = await preview_access.make_link(tx, identity, build_id, (new or NewPreviewLink()).hours)
    url = f"{resources.settings.public_url}/previews/{build_id}#{made.secret}"
    return NewPreviewLinkOut(**PreviewLinkOut.of(made.link).model_dump(), url=url)


@router.get("", dependencies=[needs(Scope.BUILDS_READ)], summary="List preview links", responses=problems(404, 422))
async def read_all(build_id: uuid.UUID, identity: CurrentIdentity, tx: TransactionDep) -> PreviewLinkList:
    """The links that work, the newest first."""
    links = await preview_access.list_links(tx, identity, build_id)
    return PreviewLinkList(links=[PreviewLinkOut.of(link) for link in links])


@router.delete(
    "/{link_id}",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=204,
    summary="Revoke a preview link",
    responses=problems(403, 404, 422),
)
async def revoke(build_id: uuid.UUID, link_id: uuid.UUID, identity: CurrentIdentity, tx: TransactionDep) -> Response:
    """Those who have used the link can't see the preview any longer, within seconds."""
    await preview_access.revoke_link(tx, identity, build_id, link_id)
    return Response(status_code=204)
