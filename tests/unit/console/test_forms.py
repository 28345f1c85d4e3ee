"""Forms say which field is wrong, and when a change ends; `tests/behaviour/test_console.py` has the rest."""

from datetime import UTC, datetime, timedelta

import pytest

from ratelimit import ConfigurationError
from ratelimit.console.forms import Form
from ratelimit.testing import ManualClock


def test_a_change_ends_after_so_long_after_a_day_or_never(clock: ManualClock) -> None:
    """In UTC, and a day counts in whole."""
    now = datetime.fromtimestamp(clock() // 1_000_000, UTC)
    assert Form({"for": "4 hours"}, clock).until() == now + timedelta(hours=4)
    assert Form({"for": "the day", "day": "2031-12-31"}, clock).until() == datetime(2032, 1, 1, tzinfo=UTC)
    assert Form({"for": "no end"}, clock).until() is None
    assert Form({}, clock).until() is None


@pytest.mark.parametrize("fields", [{"for": "1"}, {"for": "the day"}, {"for": "the day", "day": "31.12.2031"}])
def test_a_wrong_end_is_named(fields: dict[str, str], clock: ManualClock) -> None:
    """By its field."""
    with pytest.raises(ConfigurationError, match=r"^(for|day): .*\[RL221\]$"):
        Form(fields, clock).until()


def test_rates_and_keys(clock: ManualClock) -> None:
    """A number is one, other rates are text; a key has the fields that are filled in."""
    assert Form({"rate": "600"}, clock).rate() == 600
    assert Form({"rate": "600/minute"}, clock).rate() == "600/minute"
    form = Form({"key.org": "acme", "key.ip": "", "policy": "x"}, clock)
    assert form.key() == {"org": "acme"}
    with pytest.raises(ConfigurationError, match="rate: say it"):
        form.rate()
