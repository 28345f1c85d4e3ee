"""Instants by a test's clock."""

from datetime import UTC, datetime

from ratelimit.testing import ManualClock


def in_seconds(clock: ManualClock, seconds: float) -> datetime:
    """Return the instant that the clock shows after so many seconds."""
    return datetime.fromtimestamp(clock() / 1e6 + seconds, UTC)
