"""Errors: one tree, in which mistakes in declarations are apart from failures of a store."""

import re

import pytest

from ratelimit import Decision, errors
from ratelimit.errors import (
    ConfigurationError,
    InvalidRate,
    LimitExceeded,
    MissingMiddlewareError,
    OverRelease,
    RateLimitError,
    StoreError,
    StorePartiallyUnavailable,
    StoreTimeout,
    StoreUnavailable,
)

ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_is_a_ratelimit_error(error: type[Exception]) -> None:
    """One `except` catches whatever this package raises on purpose."""
    assert issubclass(error, RateLimitError)


def test_mistakes_are_value_errors_and_failures_of_a_store_are_not() -> None:
    """Code that checks its input catches `ValueError`, and an outage does not look like a mistake."""
    mistakes: list[type[Exception]] = [each for each in ALL if issubclass(each, ValueError)]
    assert set(mistakes) == {ConfigurationError, InvalidRate, MissingMiddlewareError, OverRelease}
    failures = {each for each in ALL if issubclass(each, StoreError)}
    assert failures == {StoreError, StoreUnavailable, StorePartiallyUnavailable, StoreTimeout}
    assert issubclass(StorePartiallyUnavailable, StoreUnavailable)


def test_the_module_draws_the_tree_as_it_is() -> None:
    """Each error stands in the drawing, at the depth of its class."""
    drawn = {
        name: len(indent)
        for indent, name in re.findall(
            r"^((?:[│ ]   )*(?:[├└]── )?)(\w+(?:Error|Rate|Release|Exceeded|able|Timeout))\b",
            errors.__doc__ or "",
            re.MULTILINE,
        )
    }
    assert drawn == {each.__name__: 4 * (each.__mro__.index(RateLimitError)) for each in ALL}


def test_an_exceeded_limit_carries_its_decision() -> None:
    """It says when to try again."""
    decision = Decision(False, 429, 3.0)
    error = LimitExceeded("no permit is free", decision)
    assert (str(error), error.decision.retry_after) == ("no permit is free", 3.0)
