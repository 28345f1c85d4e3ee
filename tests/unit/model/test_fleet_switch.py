"""Fleet switches: when one is over."""

from datetime import UTC, datetime

from ratelimit.model.fleet_switch import FleetSwitch


def test_a_switch_is_over_at_its_end() -> None:
    """One without an end never is."""
    switch = FleetSwitch(policy=None, mode="paused", until=datetime.fromtimestamp(10, UTC))
    assert [switch.is_over(now) for now in (9_999_999, 10_000_000)] == [False, True]
    assert not FleetSwitch(policy="a", mode="shadow").is_over(10**18)
