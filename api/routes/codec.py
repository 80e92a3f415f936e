"""Decrypts what Temporal stores, for its UI in an operator's browser."""

from fastapi import APIRouter

from api.codec_schemas import DecodedPayloads, EncodedPayloads, PayloadJson
from api.deps import ResourcesDep, TransactionDep, needs
from api.operators_route import OperatorsRoute
from api.responses import TAKES_BODY, problems
from domain.audit import Action
from domain.errors import InvalidInput, PayloadUnreadable
from domain.identity import Scope
from services.audit import record

router = APIRouter(prefix="/ops/codec", tags=["operators"], route_class=OperatorsRoute)


@router.post(
    "/decode", dependencies=[needs(Scope.OPS_READ)], summary="Decrypt payloads", responses=problems(*TAKES_BODY)
)
async def decode(body: EncodedPayloads, resources: ResourcesDep, tx: TransactionDep) -> DecodedPayloads:
    """For operators: decrypt what Temporal stores, as its UI shows it. Set `…/v1/ops/codec` as the codec server in the
    UI's data encoder settings; only pages of TEMPORAL_UI_URL may call this from a browser. The audit says how many
    payloads were read, and by whom."""
    payloads = [each.payload() for each in body.payloads]
    try:
        decoded = await resources.workflows.decode(payloads)
    except PayloadUnreadable as problem:
        raise InvalidInput(str(problem), "payloads") from problem
    await record(tx, Action.PAYLOADS_DECODE, payloads=len(payloads))
    return DecodedPayloads(payloads=[PayloadJson.of(each) for each in decoded])
