"""The plans that users are on."""

from sqlalchemy.exc import SQLAlchemyError

from db.session import Sessions, unusable
from db.transaction import transaction
from db.users import list_plans
from domain.errors import Misconfigured, UnknownModel
from domain.model_choice import ModelChoice, check_choice
from domain.pricing import PriceTable


async def check_plans(sessions: Sessions, prices: PriceTable) -> None:
    """Check that every plan's default model has a price: a missing one is an error now, not a guess later.

    Raises:
        Misconfigured: a model has no price, or the database can't be read.
    """
    try:
        async with transaction(sessions) as tx:
            plans = await list_plans(tx)
    except (OSError, SQLAlchemyError) as error:
        raise unusable(error) from error
    for plan in plans:
        for role, model in plan.default_models.items():
            try:
                check_choice(ModelChoice.parse(model), prices, f"the default for {role}")
            except UnknownModel as error:
                raise Misconfigured(f"The plan {plan.name} has no usable model for the role {role}. {error}") from error
