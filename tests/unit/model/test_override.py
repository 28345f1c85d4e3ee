"""Overrides: when they end."""

from datetime import UTC, datetime, timedelta, timezone

from ratelimit import Override, Rate


def test_an_override_ends_at_its_instant() -> None:
    """From `until` on it no longer holds, to the microsecond; without one it holds for ever."""
    until = datetime(2026, 1, 1, tzinfo=UTC)
    override = Override(policy="p", key={"org": "o"}, rate=Rate(5, 60), until=until)
    instant = round(until.timestamp()) * 1_000_000
    assert [override.is_over(now) for now in (instant - 1, instant, instant + 1)] == [False, True, True]
    assert not Override(policy="p", key={}, rate=5).is_over(2**60)


def test_the_end_is_an_instant_in_any_time_zone() -> None:
    """The same instant written elsewhere is the same end."""
    until = datetime(2026, 1, 1, tzinfo=UTC)
    elsewhere = until.astimezone(timezone(timedelta(hours=9)))
    now = round(until.timestamp()) * 1_000_000
    ends = [Override(policy="p", key={}, rate=1, until=each).is_over(now) for each in (until, elsewhere)]
    assert ends == [True, True]
