"""Durations and keys are written in one way everywhere."""

import math

import pytest

from ratelimit._utils.texts import key_text, seconds_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "never"),
        (math.inf, "never"),
        (0.2, "1 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """Rounded up to the second."""
    assert seconds_text(seconds) == text


def test_keys() -> None:
    """As the command line takes them."""
    assert key_text({"org": "acme", "ip": "192.0.2.7"}) == "org=acme ip=192.0.2.7"
