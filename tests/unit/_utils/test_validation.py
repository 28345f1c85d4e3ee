"""Checks of values that a caller hands in."""

import math
from typing import Any

import pytest

from ratelimit import ConfigurationError
from ratelimit._utils.validation import check_max_wait, is_int, is_int_between, is_number


def test_a_bool_is_neither_an_integer_nor_a_number() -> None:
    """`True` in the place of a number is a mistake, although Python counts with it."""
    values: list[Any] = [1, 1.5, True, "1", None]
    assert [is_int(value) for value in values] == [True, False, False, False, False]
    assert [is_number(value) for value in values] == [True, True, False, False, False]


def test_the_bounds_of_a_range_belong_to_it() -> None:
    """From `low` to `high`, both included."""
    assert [is_int_between(value, 1, 3) for value in (0, 1, 3, 4, 2.0, True)] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_bound_on_a_wait_is_zero_or_more_seconds() -> None:
    """`None` is no bound, infinity a bound that a timer can take; anything else raises `ConfigurationError`."""
    assert (check_max_wait(None), check_max_wait(0), check_max_wait(1.5)) == (None, 0.0, 1.5)
    bound = check_max_wait(math.inf)
    assert bound is not None
    assert 1e9 < bound < math.inf
    for wrong in (-1, math.nan, True, "1"):
        with pytest.raises(ConfigurationError, match=r"^max_wait: must be seconds, 0 or more, or None; got "):
            check_max_wait(wrong)
