"""Rates: no text breaks the parser, slows it down, or is taken for another rate."""

from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit import Identity, Rate
from ratelimit.errors import ConfigurationError, InvalidRate
from tests.fuzz.inputs import fuzz, patient

pytestmark = patient

digits = st.text(alphabet="0123456789", max_size=25)
words = st.sampled_from(
    ["s", "sec", "second", "seconds", "m", "min", "minutes", "h", "hr", "d", "day", "w", "weeks", "month", "x", "S", ""]
)
blanks = st.sampled_from(["", " ", "  ", "\t", "\n", "\u00a0"])
near_valid = st.builds(
    "".join, st.tuples(blanks, digits, blanks, st.sampled_from("/:;|p"), blanks, digits, blanks, words)
)


@fuzz
@given(text=st.one_of(st.text(max_size=40), near_valid, st.text(alphabet="0123456789/ smhdw.+-eE_", max_size=30)))
def test_any_text_is_a_rate_or_an_invalid_rate(text: str) -> None:
    """A rate that was parsed is parsed again from its own text; any other text raises `InvalidRate`."""
    try:
        rate = Rate.parse(text)
    except InvalidRate as error:
        assert str(error)
    else:
        assert Rate.parse(str(rate)) == rate


@fuzz
@given(limit=st.integers(0, 10**25), count=st.integers(0, 10**25))
def test_a_text_means_its_numbers(limit: int, count: int) -> None:
    """Numbers of any size are read as they are written, or refused."""
    try:
        rate = Rate.parse(f"{limit}/{count}s")
    except InvalidRate:
        assert limit >= 10**15 or not 1 <= count <= 10 * 366 * 86_400
    else:
        assert (rate.limit, rate.period) == (limit, count)


@fuzz
@example(limit=600, zeros=20)
@given(limit=st.integers(1, 10**6), zeros=st.integers(20, 60))
def test_leading_zeros_change_nothing(limit: int, zeros: int) -> None:
    """A number after many zeros is that number, or refused; it is never another one."""
    try:
        rate = Rate.parse(f"{'0' * zeros}{limit}/minute")
    except InvalidRate:
        return
    assert rate.limit == limit


@pytest.mark.parametrize(
    "text",
    [
        "1" * 100_000,
        "1" * 100_000 + "/minute",
        "1/" + "1" * 100_000 + "x",
        "1/" + "1" * 100_000 + " !",
        "1/" + "s" * 100_000,
        "1/" + "s" * 100_000 + "1",
        " " * 100_000 + "1/minute" + " " * 100_000 + "x",
        "1 " * 50_000,
        "/" * 100_000,
        "\0" * 100_000,
    ],
    ids=range(10),
)
def test_long_texts_take_no_time(text: str) -> None:
    """A hundred kilobytes are refused at once: the grammar looks at each character a fixed number of times."""
    began = process_time()
    with pytest.raises(InvalidRate):
        Rate.parse(text)
    assert process_time() - began < 1


@fuzz
@given(
    limit=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5)),
    period=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
)
def test_numbers_of_any_type_are_a_rate_or_an_invalid_rate(limit: int, period: int) -> None:
    """Wrong types and sizes raise `InvalidRate`."""
    try:
        rate = Rate(limit, period)
    except InvalidRate:
        return
    assert Rate.parse(str(rate)) == rate


def test_a_number_that_python_does_not_write_out_is_refused() -> None:
    """A granted number that is too large for `str` raises `ConfigurationError`."""
    with pytest.raises(ConfigurationError):
        Identity(rates={"token": 10**5000})
