"""The tree of errors: what the programmer declared wrong, apart from what the world did.

RateLimitError
├── ConfigurationError        a wrong setting, decorator or rate; raised at construction or start (also a ValueError)
│   └── InvalidRate           text that is no rate
├── NotTaken                  more was to be released than had been taken (also a ValueError)
├── LimitExceeded             a slot that was asked for is not free; carries the decision
└── StoreError                the store did not do its work
    ├── StoreUnavailable      it could not be reached, or hung up
    │   └── StorePartlyAway   one of its servers is known to be away
    └── StoreTimeout          it did not answer in time
"""

from typing import Any


class RateLimitError(Exception):
    """Catches everything that this package raises on purpose."""


class ConfigurationError(RateLimitError, ValueError):
    """Says which declared thing is wrong, by its field's path or its function's name."""


class InvalidRate(ConfigurationError):
    """Says why a text or a pair of numbers is no rate."""


class NotTaken(RateLimitError, ValueError):
    """Says that more was to be released than had been taken; nothing was released."""


class LimitExceeded(RateLimitError):
    """Says that what was asked for is not to be had now; `decision` says when."""

    def __init__(self, message: str, decision: Any) -> None:
        super().__init__(message)
        self.decision = decision


class StoreError(RateLimitError):
    """Says that a store answered with a failure; never carries its address or credentials."""


class StoreUnavailable(StoreError):
    """Says that the store could not be reached or broke off the conversation."""


class StorePartlyAway(StoreUnavailable):
    """One of several servers is away, and nothing was sent to it; what is kept by the others goes on."""


class StoreTimeout(StoreError):
    """Says that the store did not answer within its timeout; the charge may or may not have been made."""
