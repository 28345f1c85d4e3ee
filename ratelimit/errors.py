"""The tree of errors: mistakes in declarations, apart from failures of a store.

RateLimitError
├── ConfigurationError        a wrong setting, decorator or rate; raised at construction or start (also a ValueError)
│   ├── InvalidRate           a text or pair of numbers that is not a rate
│   └── MissingMiddlewareError   what is used needs the middleware, which the request has not passed
├── OverRelease               more units were to be released than were charged (also a ValueError)
├── LimitExceeded             a permit or room that was asked for is not free; carries the decision
└── StoreError                the store did not do its work
    ├── StoreUnavailable      it could not be reached, or closed the connection
    │   └── StorePartiallyUnavailable   one of its servers is known to be unavailable
    └── StoreTimeout          it did not answer in time
"""

from typing import Any


class RateLimitError(Exception):
    """The base of all errors that this package raises on purpose."""


class ConfigurationError(RateLimitError, ValueError):
    """A declaration is wrong; the message names the field's path or the function."""


class MissingMiddlewareError(ConfigurationError):
    """Something needs the middleware, and the request has not passed it."""


class InvalidRate(ConfigurationError):
    """A text or a pair of numbers is not a rate; the message says why."""


class OverRelease(RateLimitError, ValueError):
    """More units were to be released than were charged; nothing was released."""


class LimitExceeded(RateLimitError):
    """A permit, or room in a limit, is not free now; `decision` says when to try again."""

    def __init__(self, message: str, decision: Any) -> None:
        super().__init__(message)
        self.decision = decision


class StoreError(RateLimitError):
    """A store failed or answered with an error; the message never contains its address or credentials."""

    @property
    def was_not_sent(self) -> bool:
        """Whether nothing of the request was sent, and the store does not complete it by itself."""
        return False


class StoreUnavailable(StoreError):
    """The store could not be reached or closed the connection."""


class StorePartiallyUnavailable(StoreUnavailable):
    """One of several servers is unavailable, and nothing was sent to it; the others are used."""

    is_kept = False
    """Whether the store keeps a correction of which a part was not sent, and completes it by itself."""

    @property
    def was_not_sent(self) -> bool:
        """Whether nothing of the request was sent, and the store does not complete it by itself."""
        return not self.is_kept


class StoreTimeout(StoreError):
    """The store did not answer within its timeout; whether the charge was made is unknown."""
