"""The audit: what operators do, and what destroys something or gives someone a right. Ids and names of fields only."""

from dataclasses import dataclass
from enum import StrEnum

from domain.identity import How


class Action(StrEnum):
    """What an entry of the audit says that someone did."""

    ACCOUNT_CHANGE = "account.change"
    ACCOUNT_TOP_UP = "account.top_up"
    AUDIT_READ = "audit.read"
    BRIEF_REPLACE = "brief.replace"
    BUILD_CANCEL = "build.cancel"
    BUILD_FINISH = "build.finish"
    BUILD_PUSH = "build.push"
    BUILD_RESTORE = "build.restore"
    BUILD_START = "build.start"
    BUILD_WAKE = "build.wake"
    BULK_CREATE = "bulk.create"
    """An act on many builds begins. Each build that it reaches has an entry of its own."""
    BULK_RESUME = "bulk.resume"
    BULK_STOP = "bulk.stop"
    BUILD_SETTINGS = "build.settings"
    DEPLOYMENT_CHANGE = "deployment.change"
    """Another version of the workers gets the builds, or a part of them."""
    EXPORT_CREATE = "export.create"
    """All that a project has, or what is known of a user, is written into a file."""
    FLEET_READ = "fleet.read"
    """An operator has looked at the builds of all users. Noted once an hour, as pages ask every few seconds."""
    IDENTITY_LINK = "identity.link"
    """A person whom an identity provider knows becomes a user who exists."""
    INTERVIEW_REPLACE = "interview.replace"
    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"
    KEY_ROTATE = "key.rotate"
    LEDGER_CORRECT = "ledger.correct"
    """An operator has set totals of days to the sums of their rows."""
    LIMIT_SET = "limit.set"
    MEMBER_ADD = "member.add"
    MEMBER_CHANGE = "member.change"
    MEMBER_REMOVE = "member.remove"
    MESSAGE_SEND = "message.send"
    MESSAGE_TAKE_BACK = "message.take_back"
    ORGANISATION_CHANGE = "organisation.change"
    ORGANISATION_CREATE = "organisation.create"
    PAYLOAD_KEY_RETIRE = "payload_key.retire"
    PAYLOADS_DECODE = "payloads.decode"
    """An operator has had decrypted what Temporal stores."""
    PREVIEW_LINK_CREATE = "preview_link.create"
    PREVIEW_LINK_REVOKE = "preview_link.revoke"
    PREVIEW_OPEN = "preview.open"
    PROJECT_CHANGE = "project.change"
    """Its name, or whether it is archived."""
    PROJECT_CREATE = "project.create"
    PROJECT_ERASE = "project.erase"
    PROJECT_MOVE = "project.move"
    QUESTION_ANSWER = "question.answer"
    REAPER_PAUSE = "reaper.pause"
    REAPER_RESUME = "reaper.resume"
    RECOVER = "recover"
    SECRET_REMOVE = "secret.remove"
    SECRET_SET = "secret.set"
    SECRETS_ROTATE = "secrets.rotate"
    SIGN_IN_LINK = "sign_in.link"
    SIGN_IN_REVOKE = "sign_in.revoke"
    SWITCH_OFF = "switch.off"
    SWITCH_ON = "switch.on"
    USER_ERASE = "user.erase"
    WEBHOOK_CHANGE = "webhook.change"
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_DELETE = "webhook.delete"
    WEBHOOK_REPLAY = "webhook.replay"
    WEBHOOK_ROTATE = "webhook.rotate"
    WEBHOOK_TEST = "webhook.test"
    USER_READ = "user.read"
    """An operator has read something of a user."""


HARMLESS = frozenset(
    {
        Action.BRIEF_REPLACE,
        Action.BUILD_FINISH,
        Action.BUILD_START,
        Action.BUILD_WAKE,
        Action.INTERVIEW_REPLACE,
        Action.MESSAGE_SEND,
        Action.MESSAGE_TAKE_BACK,
        Action.PREVIEW_OPEN,
        Action.PROJECT_CHANGE,
        Action.PROJECT_CREATE,
        Action.QUESTION_ANSWER,
        Action.USER_READ,
        Action.WEBHOOK_REPLAY,
        Action.WEBHOOK_TEST,
    }
)
"""Acts that neither destroy something nor give a right: they are recorded only if an operator does them for a user.
Replacing a brief or an interview keeps the earlier versions, and a message that is taken back stays in the feed. A
project that is archived keeps all that it has."""


@dataclass(frozen=True)
class Author:
    """Who acts, for the audit.

    - `actor`: a user's id, or `operator`.
    - `user_id`: the user for whom they act; None if it is for no one in particular.
    - `credential_id`: the id of the key or sign-in; on the command line the name of the operating system's user.
    - `ip`: the address of the client, as far as it is known.
    """

    actor: str
    how: How
    user_id: str | None = None
    credential_id: str | None = None
    request_id: str | None = None
    ip: str | None = None

    @property
    def name(self) -> str:
        """Whom to name to other operators: on the command line the name of the operating system's user."""
        return self.credential_id or self.actor if self.how is How.COMMAND_LINE else self.actor

    @property
    def acts_for_another(self) -> bool:
        """Whether an operator acts, and not the user."""
        return self.actor != self.user_id
