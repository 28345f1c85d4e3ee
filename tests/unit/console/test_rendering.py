"""Numbers and instants as people read them."""

from datetime import UTC, datetime

import pytest

from ratelimit.console.rendering import (
    clock_text,
    grouped_rate,
    instant_text,
    label_text,
    number_text,
    reset_text,
    share_text,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "–"),
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10k"),
        (999_499, "999k"),
        (999_990, "1M"),
        (1_234_567, "1.23M"),
        (10**12, "1T"),
    ],
)
def test_numbers(number: int | None, text: str) -> None:
    """Short, and never in powers of ten."""
    assert number_text(number) == text


def test_instants() -> None:
    """In UTC, for machines too; soon is said as a duration."""
    at = datetime(2031, 1, 31, 12, 30, 5, tzinfo=UTC)
    assert str(instant_text(at)) == '<time datetime="2031-01-31T12:30:05+00:00">2031-01-31 12:30 UTC</time>'
    assert instant_text(at.timestamp()) == instant_text(at)
    assert instant_text(None) == "–"
    assert ">12:30:05<" in clock_text(at.timestamp())
    assert reset_text(1000.5, 990.0) == "in 11 s"
    assert "UTC" in reset_text(10_000.0, 0.0)


def test_shares_rates_and_labels() -> None:
    """A share of nothing is none."""
    found = [share_text(*pair) for pair in ((0, 0), (1, 0), (1, 10_000), (1, 30), (1, 3), (3, 3))]
    assert found == ["0 %", "0 %", "< 0.1 %", "3.3 %", "33 %", "100 %"]
    assert (grouped_rate("1000000/month"), grouped_rate("unlimited")) == ("1,000,000/month", "unlimited")
    assert label_text("endpoint:GET%20/v1 org:a%3Cb") == "endpoint:GET /v1 org:a%3Cb"
