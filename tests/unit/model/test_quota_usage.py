"""What is used of a quota, from a store's reading."""

from ratelimit.model.charge import Charge
from ratelimit.model.quota_usage import QuotaUsage, quota_usage
from ratelimit.testing.factories import quota_limit


def test_a_reading_becomes_a_usage() -> None:
    """Periods end on the second, although the reply took a part of one; more than the limit leaves nothing."""
    charge = Charge(quota_limit(10, "day"), "k")
    now = 1_700_000_000_123_456
    assert quota_usage(charge, (4, 9_876, 7), now) == QuotaUsage("q", "requests", "day", 10, 4, 6, 1_700_000_010.0, 7)
    assert quota_usage(charge, (12, 9_876, 0), now).remaining == 0


def test_a_level_never_ends() -> None:
    """It comes down by releases alone."""
    assert quota_usage(Charge(quota_limit(10, None), "k"), (4, 0, 0), 0).resets_at is None
