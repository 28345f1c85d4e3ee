"""Fields: how texts, rates, methods, paths and costs are read, and the messages for other values."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ratelimit import Limit, Rate
from ratelimit.config import fields


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10/0minute", "'10/0minute' is not a rate: the period must be at least 1 second"),
        ("1/99999 days", "'1/99999 days' is not a rate: the period must be at most ten years"),
        (
            "1000000000000000/minute",
            "'1000000000000000/minute' is not a rate: the limit must be at most 999999999999999",
        ),
        ("1/fortnight", "'1/fortnight' is not a rate: 'fortnight' is not one of second, minute, hour, day, week"),
        ("1;2", "'1;2' is not a rate: write it like '600/minute', '200/60s' or '5/10 minutes'"),
        (600, "600 is not a rate: write it like '600/minute'"),
        ({"limit": -1, "period": 60}, "limit: must be between 0 and 999999999999999, got -1"),
        ("0/minute", "a rate of zero refuses every request; to block one plan or one caller, use plans or an override"),
    ],
)
def test_a_wrong_rate_says_what_is_wrong(value: Any, message: str) -> None:
    """The message names the text as it was written."""
    with pytest.raises(ValidationError) as error:
        Limit(name="a", rate=value)
    (found,) = error.value.errors()
    assert found["loc"] == ("rate",)
    assert found["msg"].partition(" [RL10")[0] == message


def test_a_rate_is_a_text_a_mapping_or_a_rate() -> None:
    """All three mean the same."""
    rates = [Limit(name="a", rate=rate).rate for rate in ("5/minute", {"limit": 5, "period": 60}, Rate(5, 60))]  # type: ignore[arg-type]
    assert rates == [Rate(5, 60)] * 3


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (fields.Text, "", "'' must be printable ASCII, not empty, and without blanks at its ends"),
        (fields.Text, " a", "' a' must be printable ASCII"),
        (fields.Text, "a\n", "'a\\n' must be printable ASCII"),
        (fields.Dimensions, ["org", "org"], "'org' is listed twice"),
        (fields.Statuses, [403, 403], "403 is listed twice"),
        (fields.Methods, ["GET, HEAD"], "'GET, HEAD' is not an HTTP method; write several methods as a list"),
        (fields.Paths, ["v1"], "'v1' is not a route template or glob: it must begin with '/' or '*'"),
        (fields.Paths, ["/a b"], "and have no blanks"),
        (fields.PositiveInt, True, "must be a number, not true or false"),
        (fields.PlanCount, "many", "'many' is neither a whole number nor 'unlimited'"),
        (fields.Cost, lambda: 5, "must be a number, or a function that takes the request and nothing else"),
        (fields.Cost, dict, "must be a number, or a function, not the class dict"),
    ],
)
def test_messages_say_what_a_value_must_be(kind: Any, value: Any, message: str) -> None:
    """They name the value, and say in words what is wrong with it."""
    with pytest.raises(ValidationError) as error:
        TypeAdapter(kind).validate_python(value)
    assert message in error.value.errors()[0]["msg"]


def test_methods_are_upper_case_and_head_is_get() -> None:
    """Each is listed once."""
    methods = TypeAdapter(fields.Methods).validate_python(["get", "HEAD", "m-search"])
    assert methods == ("GET", "M-SEARCH")


@pytest.mark.parametrize("cost", [len, lambda request: 1, lambda request, extra=None: 2, 7])
def test_a_cost_is_a_number_or_a_function_of_the_request(cost: int | Callable[[Any], int]) -> None:
    """Other arguments of the function need defaults."""
    assert Limit(name="a", rate="5/minute", cost=cost).cost == cost


@given(amount=st.integers(0, 10**9), percent=st.integers(0, 100))
def test_a_share_is_that_of_the_decimal_as_it_was_written(amount: int, percent: int) -> None:
    """0.29 of 100 is 29, although the product of the floats is less."""
    assert fields.share_of(amount, percent / 100) == amount * percent // 100


def test_unlimited_is_written_for_none() -> None:
    """TOML and JSON files say `unlimited` for a plan without a limit."""
    made = Limit(name="a", rate="5/minute", plans={"free": None, "b": "unlimited", "c": "0/minute"})
    assert made.plans == {"free": None, "b": None, "c": Rate(0, 60)}
    assert made.model_dump()["plans"] == {"free": "unlimited", "b": "unlimited", "c": "0/minute"}


def test_the_json_schema_keeps_the_patterns_of_texts() -> None:
    """Editors check names by it, although the messages are in words."""
    assert TypeAdapter(fields.Text).json_schema() == {
        "maxLength": 100,
        "pattern": "^[!-~]([ -~]*[!-~])?$",
        "type": "string",
    }
