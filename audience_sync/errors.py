"""Every error audience-sync raises on purpose, grouped by what the caller does next.

::

    AudienceSyncError
    ├── UsageError            the command line is wrong                       exit 2
    ├── ConfigError           the configuration is wrong: a person edits it   exit 78
    ├── CannotListen          a port is taken, an address not there: later    exit 1
    ├── SourceFailed          a read did not finish: the next cycle retries   exit 1
    │   ├── SourceReplaced      a new file took the place of one: read again    exit 1
    │   └── SourceRefused       the data cannot be used: a person looks         exit 65
    ├── Held                  a person must approve (or discard)              exit 3
    ├── StoreFailed           the store cannot be written or read             exit 74
    │   ├── ChunkDamaged        one audience cannot be read, the others can     exit 74
    │   └── StoreTooNew       a newer version wrote it: upgrade               exit 78
    ├── LeaseTaken            somebody else is doing this right now           exit 75
    ├── LeaseLost             our right to write is over: stop at once        exit 1
    │   └── SpanEnded           one delivery is, by an order; the others go on
    ├── BadCalls              the destination refused a request for its content: bisect
    ├── CallsOutdated         calls are made anew, from the position on
    ├── RetryLater            one request failed; the same again, later       exit 69
    ├── QuotaUsed             one lane goes on tomorrow; nothing is wrong     exit 0
    └── DestinationPaused     stop sending there; nothing is lost             exit 69
        └── CredentialsRefused                                                exit 77

An error's text never holds a secret, a user id or an e-mail. ``hint`` says what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar


class AudienceSyncError(Exception):
    """Base of all. ``str(error)`` is one sentence for a person; ``hint`` the next step."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(AudienceSyncError):
    exit_code = 2


class ConfigError(AudienceSyncError):
    """All problems of a configuration at once, each ``place: what (hint)``."""

    exit_code = 78

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class CannotListen(AudienceSyncError):
    """A condition of the machine, not of the configuration: it may pass by itself."""

    exit_code = 1


class SourceFailed(AudienceSyncError):
    exit_code = 1


class SourceReplaced(SourceFailed):
    """What is there now is whole, so to read again at once is safe."""


class SourceRefused(SourceFailed):
    exit_code = 65


class Held(AudienceSyncError):
    exit_code = 3


class StoreFailed(AudienceSyncError):
    exit_code = 74


class StoreTooNew(StoreFailed):
    exit_code = 78


class ChunkDamaged(StoreFailed):
    """One audience's stored members cannot be read; the others can."""


class LeaseTaken(AudienceSyncError):
    exit_code = 75


class LeaseLost(AudienceSyncError):
    exit_code = 1


class SpanEnded(LeaseLost):
    """A person ended this delivery while it was walked."""


class BadCalls(AudienceSyncError):
    exit_code = 1


class CallsOutdated(AudienceSyncError):
    """The destination wants to be told in another way than the calls were made for, from now on.

    What was sent with them may have been applied in part, and counts as not sent.
    """

    exit_code = 1


class RetryLater(AudienceSyncError):
    """``after``: seconds the other side asked us to wait; ``None`` when it named none.

    ``slow_down``: the other side said that we are too fast (429), so the rate is halved too.
    ``unsent``: nothing of the request left us, so it cost nothing of a quota.
    """

    exit_code = 69

    def __init__(
        self,
        message: str,
        *,
        after: float | None = None,
        slow_down: bool = False,
        unsent: bool = False,
    ) -> None:
        super().__init__(message)
        self.after = after
        self.slow_down = slow_down
        self.unsent = unsent


class QuotaUsed(AudienceSyncError):
    """``until``: when the next day begins, and the lane goes on."""

    exit_code = 0

    def __init__(self, message: str, *, until: datetime) -> None:
        super().__init__(message)
        self.until = until


class DestinationPaused(AudienceSyncError):
    """``seconds``: do not try again before this many seconds; 0: the next run may probe."""

    exit_code = 69

    def __init__(self, message: str, *, seconds: float = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


class CredentialsRefused(DestinationPaused):
    exit_code = 77


PRECEDENCE = (78, 70, 74, 77, 65, 3, 69, 1, 75)


def worst(codes: Sequence[int]) -> int:
    """The exit code of a run with several outcomes: the first of ``PRECEDENCE`` that occurred."""
    return next((code for code in PRECEDENCE if code in codes), max(codes, default=0))
