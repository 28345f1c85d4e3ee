"""Log lines that would come at every request."""

import logging

import pytest

from ratelimit._utils.sampling import LogOnce, SampledLog


def test_one_line_in_an_interval_says_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """The first comes at once."""
    now = 100.0
    log = SampledLog(logging.getLogger("ratelimit"), 10.0, lambda: now)
    for passed in (0, 1, 8, 1, 0, 10):
        now += passed
        log.error("failed at %d", now)
    assert caplog.messages == [
        "failed at 100",
        "failed at 110 (2 more such lines were left out)",
        "failed at 120 (1 more such lines were left out)",
    ]


def test_a_line_that_comes_again_is_written_once(caplog: pytest.LogCaptureFixture) -> None:
    """Another one is another; of more than a thousand different ones, the rest are left out."""
    log = LogOnce(logging.getLogger("ratelimit"))
    for number in (1, 1, 2, 1, 2):
        log.error("broken: %d", number)
    assert caplog.messages == ["broken: 1", "broken: 2"]
    for number in range(2000):
        log.error("broken: %d", number)
    assert len(caplog.messages) == 1000
