"""Which builds an act on many of them fits."""

from dataclasses import replace

import pytest

from domain.bulk import BulkAct, Candidate, why_not
from domain.erasure import new_stand_in
from domain.status import Status

ASLEEP = Candidate(Status.SLEEPING, False, False, False, "ada", False)


@pytest.mark.parametrize("act", sorted(set(BulkAct) - {BulkAct.UNSUSPEND}))
def test_an_act_fits_open_builds_only(act: BulkAct) -> None:
    assert why_not(act, ASLEEP) is None
    assert why_not(act, replace(ASLEEP, status=Status.FAILED, is_closed=True)) == "The build has ended: it is failed."


def test_a_suspension_is_lifted_by_any_build_of_the_user() -> None:
    suspended = replace(ASLEEP, is_user_suspended=True)
    for build in (suspended, replace(suspended, status=Status.FAILED, is_closed=True)):
        assert why_not(BulkAct.UNSUSPEND, build) is None
    assert why_not(BulkAct.UNSUSPEND, ASLEEP) == "The user ada is not suspended."


def test_a_deleted_account_stays_suspended() -> None:
    erased = replace(ASLEEP, is_user_suspended=True, is_user_being_erased=True)
    assert why_not(BulkAct.UNSUSPEND, erased) == "The account of ada is being deleted, so it stays suspended."
    stand_in = replace(ASLEEP, is_user_suspended=True, user_id=new_stand_in())
    assert "was deleted" in (why_not(BulkAct.UNSUSPEND, stand_in) or "")
    assert why_not(BulkAct.UNSUSPEND, replace(stand_in, user_id="erased-bob")) is None


def test_what_is_done_already_is_not_done_again() -> None:
    assert why_not(BulkAct.SUSPEND, replace(ASLEEP, is_user_suspended=True)) == "The user ada is suspended already."
    for act in (BulkAct.WAKE, BulkAct.CANCEL, BulkAct.FINISH):
        assert why_not(act, replace(ASLEEP, is_cancelled=True)) == "The build is being cancelled."
    assert why_not(BulkAct.WAKE, replace(ASLEEP, status=Status.CODE)) == "The build does not wait: it is code."
    assert why_not(BulkAct.FINISH, replace(ASLEEP, has_passed=True)) == "The build has passed its checks."
