"""Rates: a strict grammar, and a text form that is parsed back to the same rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Rate
from ratelimit.errors import InvalidRate
from ratelimit.model.rate import MAX_LIMIT, MAX_PERIOD


@pytest.mark.parametrize(
    ("text", "limit", "period", "shortest"),
    [
        ("600/minute", 600, 60, "600/minute"),
        ("200/60s", 200, 60, "200/minute"),
        ("1/hour", 1, 3600, "1/hour"),
        ("100/second", 100, 1, "100/second"),
        ("5/10 minutes", 5, 600, "5/10 minutes"),
        ("5/10minutes", 5, 600, "5/10 minutes"),
        ("7 / 90 sec", 7, 90, "7/90 seconds"),
        ("1/24 hours", 1, 86_400, "1/day"),
        ("2/7d", 2, 604_800, "2/week"),
        ("0/minute", 0, 60, "0/minute"),
        ("999999999999999/week", MAX_LIMIT, 604_800, "999999999999999/week"),
        ("5 per minute", 5, 60, "5/minute"),
        ("5/MINUTE", 5, 60, "5/minute"),
        ("1 per 3 hours", 1, 10_800, "1/3 hours"),
        ("10/wk", 10, 604_800, "10/week"),
        ("100/10", 100, 10, "100/10 seconds"),
    ],
)
def test_text_is_parsed_and_the_shortest_form_returned(text: str, limit: int, period: int, shortest: str) -> None:
    """Every form of the grammar is parsed, and `str` returns the shortest one."""
    rate = Rate.parse(text)
    assert (rate, str(rate)) == (Rate(limit=limit, period=period), shortest)


@pytest.mark.parametrize(
    "text",
    [
        *("10/0minute", "1/second;2/minute", "-1/minute", "1.5/minute", "1/1.5 minutes", "1/-5 seconds"),
        *(
            "",
            "600",
            "600/",
            "/minute",
            "600per minute",
            "600 per",
            "600/fortnight",
            "600/mınute",
            "10/w\u212a",
            "1e3/minute",
            "+1/minute",
        ),
        *("١/minute", "600/minute/minute", "600//minute", "1_000/minute", "0x10/minute", "1/minute\n2/minute"),
        *("1000000000000000/second", "1/99999999999 weeks", "9" * 5000 + "/minute", "1/month"),
    ],
)
def test_any_other_text_raises_an_error_with_a_reason(text: str) -> None:
    """A text that the grammar does not know raises `InvalidRate`, whatever it is."""
    with pytest.raises(InvalidRate, match="."):
        Rate.parse(text)


@pytest.mark.parametrize(("text", "period"), [("5/month", "month"), ("5 per 2 months", "month"), ("1/year", "year")])
def test_a_period_without_a_fixed_length_says_what_to_use(text: str, period: str) -> None:
    """A calendar period is that of a quota."""
    with pytest.raises(InvalidRate, match=f"use Quota.*period='{period}'"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("limit", "period", "field"),
    [
        (-1, 60, "limit"),
        (1, 0, "period"),
        (1.5, 60, "limit"),
        (1, 0.5, "period"),
        (True, 60, "limit"),
        ("1", 60, "limit"),
    ],
)
def test_a_wrong_number_raises_an_error_that_names_its_field(limit: int, period: int, field: str) -> None:
    """A rate with a number of the wrong type or range cannot be made."""
    with pytest.raises(InvalidRate, match=f"^{field}: "):
        Rate(limit, period)


@given(limit=st.integers(0, MAX_LIMIT), period=st.integers(1, MAX_PERIOD))
def test_every_rate_is_parsed_back_from_its_text(limit: int, period: int) -> None:
    """`Rate.parse(str(rate))` is the rate."""
    assert Rate.parse(str(Rate(limit, period))) == Rate(limit, period)


@given(text=st.text(max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is a rate or raises `InvalidRate`."""
    try:
        Rate.parse(text)
    except InvalidRate as error:
        assert str(error)
