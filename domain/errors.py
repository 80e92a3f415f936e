"""Every error that Cofounder raises on purpose.

::

    CofounderError
    ├── InvalidInput            a person or program sent something wrong; the text says what to do
    │   ├── InvalidBrief
    │   └── InvalidToolInput    the model's tool input does not fit; the text goes back to the model
    ├── NotFound
    ├── Conflict                the request does not fit the current state; `details` are for programs
    │   ├── KeyReused
    │   ├── OpenBuildExists
    │   ├── ProjectArchived
    │   ├── BuildClosed
    │   ├── TooManyUnread
    │   ├── MessageRead
    │   ├── AlreadyAnswered
    │   ├── RestorePending
    │   ├── SnapshotNotStored
    │   ├── LastOwner           an organisation would have no owner
    │   └── PushFailed          a git server did not take a push, or the history can't be pushed
    ├── Refused                 well-formed, but not allowed now or for this user
    │   ├── AccountSuspended
    │   ├── KillSwitchOn
    │   └── NoSecretsKey        there is no SECRETS_KEY, so founders can't set secrets
    ├── CredentialRefused       a key or a sign-in that does not work
    │   ├── TokenRefused        a token of an identity provider
    │   └── SignInLinkRefused   the code of a sign-in link does not work
    ├── BuildFailed             this build cannot continue; the text is for the founder
    ├── RowsMoved               the build's rows do not fit what this run of its workflow asks for
    │   ├── RowsAreAhead        another run has gone further, as after a reset; or the build has ended
    │   └── RowsAreBehind       rows that this run has seen are gone, as after a restore of the database
    ├── CallInFlight            an attempt whose run is gone may still be making the model call; look again
    ├── StaleClaim              another attempt has claimed the row since; end without a write
    ├── NeedsPerson             only a person can fix it (key, spend limit, store); names whom the build waits for
    │   └── ConversationRefused     the conversation is at fault; one that begins again without it may be accepted
    │       ├── ConversationTooLong
    │       └── ConversationInvalid
    ├── ModelCallFailed         the model's API failed, and another attempt may succeed
    │   └── RateLimited             too many calls, or tokens, in the last minute
    ├── UnknownModel            a model without a price
    ├── SandboxGone             the sandbox no longer exists
    ├── SandboxFull             the sandbox's disk is full
    ├── SandboxUnavailable      the sandbox service failed; another attempt may succeed
    │   └── SandboxOverloaded   the service answers, and the sandbox can start no further process
    ├── NoPermit                no further sandbox may run now; the build queues for a permit
    │   └── SandboxRefused      the sandbox service has no room for it
    ├── StoreUnavailable        the object store failed; another attempt may succeed
    ├── DependencyUnavailable   a server that a request needs does not answer; try the request again later
    │   ├── DatabaseUnavailable
    │   ├── TemporalUnavailable
    │   ├── IssuerUnavailable   an identity provider does not answer, and what is known of it does not suffice
    │   ├── NoSandboxNow        no sandbox for a request: none is free, or the service does not answer
    │   └── NoGit               the machine's git is missing or does not work
    ├── SnapshotFailed
    ├── SecretUnreadable        a stored secret can't be decrypted with the keys of SECRETS_KEY
    ├── PayloadUnreadable       what Temporal stores can't be decrypted with the keys of PAYLOAD_KEY
    └── Misconfigured           a setting or a dependency is missing or wrong; the text says what to do
        ├── WrongNamespace      the database's builds are in another Temporal namespace
        ├── LostPayloadKey      PAYLOAD_KEY lacks a key with which builds have written to Temporal
        ├── WrongVersion        the program can't read what is stored
        └── NoRowSecurity       the API's database role sees every row, and it is to serve more than one user
"""

from collections.abc import Mapping
from typing import ClassVar

from domain.rates import RateKind, Reading


class CofounderError(Exception):
    """Root of the tree. The message is a sentence that can be shown to a person."""

    details: Mapping[str, object] = {}
    """Facts for programs, in addition to the message: the further members of the API's problem."""


class InvalidInput(CofounderError):
    """Invalid input. `field` names the part that is wrong, if it is one part."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidBrief(InvalidInput):
    """An idea brief that no build can start from."""


class InvalidToolInput(InvalidInput):
    """A tool call that does not fit its schema; the message is for the agent."""


class NotFound(CofounderError):
    """It does not exist, or belongs to another user."""


class Conflict(CofounderError):
    """The request does not fit the current state."""

    def __init__(self, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class KeyReused(Conflict):
    """The idempotency key was used for another request."""


class OpenBuildExists(Conflict):
    """The project has an open build already."""


class ProjectArchived(Conflict):
    """The project is archived, so it is not built."""


class BuildClosed(Conflict):
    """The build has ended, or is about to, so nothing reaches it any more."""


class TooManyUnread(Conflict):
    """Too many messages wait for the agent."""


class MessageRead(Conflict):
    """The agent has read the message, so it can't be taken back."""


class AlreadyAnswered(Conflict):
    """The question has another answer already."""


class RestorePending(Conflict):
    """Another restore of the build has not been carried out yet."""


class SnapshotNotStored(Conflict):
    """The snapshot is being taken, has failed or was deleted."""


class LastOwner(Conflict):
    """An organisation would have no owner."""


class PushFailed(Conflict):
    """A push has failed, and nothing was changed on the server. `reason`: why, for programs."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, {"reason": reason})


class Refused(CofounderError):
    """Not allowed now, or not for this user."""


class AccountSuspended(Refused):
    """The user's account is suspended."""


class KillSwitchOn(Refused):
    """AUTONOMOUS_AGENT is off, or a switch is."""


class NoSecretsKey(Refused):
    """Founders can't set secrets: there is no SECRETS_KEY."""

    def __init__(self) -> None:
        super().__init__(
            "Secrets can't be stored here yet, because there is no key to encrypt them with. Ask the operator to set "
            "SECRETS_KEY for the API and the workers, e.g. to main: followed by what `openssl rand -base64 32` prints."
        )


class CredentialRefused(CofounderError):
    """A key or a sign-in that does not work. `reason`: why, for programs."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.details = {"reason": reason}


class TokenRefused(CredentialRefused):
    """A token of an identity provider does not prove who sends it. The message says why, then what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "token")


class SignInLinkRefused(CredentialRefused):
    """The code of a sign-in link does not work. `reason`: `used`, `expired` or `unknown`."""


class BuildFailed(CofounderError):
    """The build cannot continue; the message is for the founder."""


class RowsMoved(CofounderError):
    """The build's rows do not fit what this run of its workflow asks for: the run has to read its state from them."""


class RowsAreAhead(RowsMoved):
    """Another run of the workflow has gone further, as after a reset of this one; or the build has ended."""


class RowsAreBehind(RowsMoved):
    """Rows that this run has seen are gone, as after the database was restored from a backup."""


class CallInFlight(CofounderError):
    """An earlier attempt, whose run is gone, may still be making the model call that this one is to make."""


class StaleClaim(CofounderError):
    """Another attempt has claimed the row; this one must end without a write."""


class NeedsPerson(CofounderError):
    """Only a person can fix it. `waiting_for` is founder, operator, store or kill_switch."""

    def __init__(self, message: str, waiting_for: str) -> None:
        super().__init__(message)
        self.waiting_for = waiting_for


class ConversationRefused(NeedsPerson):
    """The model's API does not accept the conversation, so every attempt with it fails. `vendor_message`: its words."""

    problem: ClassVar[str]

    def __init__(self, vendor_message: str) -> None:
        super().__init__(
            f"{self.problem} The agent cannot continue in it. All work is kept. Finish the build to have the product "
            "checked as it is, or cancel it and start another build, which continues from there with a new "
            f"conversation. ({vendor_message})",
            "founder",
        )
        self.vendor_message = vendor_message


class ConversationTooLong(ConversationRefused):
    """It is longer than the model can read, or has more images or bytes than the API accepts."""

    problem = "The agent's conversation has become longer than the model accepts."


class ConversationInvalid(ConversationRefused):
    """Something in it breaks a rule of the API, such as reasoning whose signature does not fit."""

    problem = "The model does not accept the agent's conversation any more."


class ModelCallFailed(CofounderError):
    """The model's API failed; worth another attempt, after `retry_after_seconds` if the server named a time."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(ModelCallFailed):
    """The API takes no more calls for now. `readings`: what it says of its limits; empty if it says nothing."""

    def __init__(
        self, message: str, retry_after_seconds: float | None, readings: Mapping[RateKind, Reading] | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds)
        self.readings = readings or {}


class UnknownModel(CofounderError):
    """A model without a price in the price table."""


class SandboxGone(CofounderError):
    """The sandbox no longer exists."""


class SandboxFull(CofounderError):
    """The sandbox's disk is full: no further call can run in it, or even be recorded."""


class SandboxUnavailable(CofounderError):
    """The sandbox service failed or did not answer in time."""


class SandboxOverloaded(SandboxUnavailable):
    """So many processes run in the sandbox that none can be started. The service is well: other sandboxes work."""


class NoPermit(CofounderError):
    """As many sandboxes run as may. The build has a place in the queue for a permit; the text is for its founder."""


class SandboxRefused(NoPermit):
    """The sandbox service has no room for another sandbox, whatever our own quota is."""


class StoreUnavailable(CofounderError):
    """The object store failed or did not answer in time."""


class DependencyUnavailable(CofounderError):
    """A server does not answer. Another attempt may succeed after `retry_after_seconds`, if that is known."""

    dependency: ClassVar[str]

    def __init__(self, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.details = {"dependency": self.dependency}


class DatabaseUnavailable(DependencyUnavailable):
    """The database does not answer, or has no tables yet."""

    dependency = "database"


class TemporalUnavailable(DependencyUnavailable):
    """Temporal does not answer."""

    dependency = "temporal"

    def __init__(self) -> None:
        super().__init__("Temporal does not answer, so nothing was started or changed. Try again in a minute.", 10)


class IssuerUnavailable(DependencyUnavailable):
    """An identity provider does not answer. Tokens whose keys are known are accepted; this one can't be checked."""

    dependency = "identity_provider"

    def __init__(self, label: str, retry_after_seconds: int) -> None:
        super().__init__(
            f"The identity provider {label} does not answer, so this sign-in can't be checked now. It is not refused: "
            f"try again in {retry_after_seconds} seconds. If this lasts, tell the operator.",
            retry_after_seconds,
        )


class NoSandboxNow(DependencyUnavailable):
    """There is no sandbox for a request: none is free, or the service does not answer, or this process has no key."""

    dependency = "sandbox"


class NoGit(DependencyUnavailable):
    """This machine has no git, an old one, or one that does not work."""

    dependency = "git"


class SnapshotFailed(CofounderError):
    """A snapshot was not taken, stored or verified."""


class SecretUnreadable(CofounderError):
    """A stored secret can't be decrypted. The message is the second half of a sentence, for operators."""


class PayloadUnreadable(CofounderError):
    """What Temporal stores can't be decrypted with the keys of PAYLOAD_KEY. Says what to do."""


class Misconfigured(CofounderError):
    """A setting or a server is missing or wrong; the message says what to do."""


class LostPayloadKey(Misconfigured):
    """PAYLOAD_KEY lacks a key with which builds have written to Temporal, or has another one of its id."""


class WrongVersion(Misconfigured):
    """The program can't read what is stored, or a migration would take away what running programs read."""


class NoRowSecurity(Misconfigured):
    """The API's database role sees every row, so the API may serve one user only."""


class WrongNamespace(Misconfigured):
    """The database's builds are in another Temporal namespace than the one that this process is connected to."""
