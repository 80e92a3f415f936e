"""The questions that a founder is asked about an idea."""

from fastapi import APIRouter

from api.deps import needs
from api.responses import problems
from api.schemas import InterviewQuestions
from domain.brief import INTERVIEW_QUESTIONS
from domain.identity import Scope

router = APIRouter(tags=["projects"])


@router.get(
    "/interview-questions",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="List the interview's questions",
    responses=problems(422),
)
async def interview_questions() -> InterviewQuestions:
    """The questions of an interview, in order. Store them with the answers: the agent reads both. Any other questions
    will do, too."""
    return InterviewQuestions(questions=list(INTERVIEW_QUESTIONS))
