"""Durations and keys are written in one way everywhere."""

import math

import pytest

from ratelimit._utils.texts import key_text, seconds_text, text_of, visible


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


def test_what_a_terminal_obeys_is_shown() -> None:
    """Escapes, bells, C1 controls, and what turns the direction of writing; letters, emoji and line breaks stay."""
    assert visible("\x1b[2Ja\x07\x9b\r\u202eb\u2066") == r"\x1b[2Ja\x07\x9b\r\u202eb\u2066"
    plain = "caf\u00e9 \U0001f600\n\tend"
    assert visible(plain) == plain


def test_texts_of_the_store_are_short_and_can_be_written() -> None:
    """Whatever type they have."""
    assert (text_of(None), text_of(7), text_of("\ud800"), len(text_of("x" * 999) or "")) == (None, "7", "?", 500)
