"""Statistics are read with one span for each minute asked for; `tests/behaviour/test_statistics.py` has the rest."""

from itertools import pairwise

from ratelimit import Limiter, MemoryStore, RateLimitSettings
from ratelimit.testing import ManualClock


async def test_spans_follow_each_other(clock: ManualClock) -> None:
    """The last one is that of now."""
    limiter = Limiter(RateLimitSettings(statistics=True), MemoryStore(clock=clock), clock)
    assert limiter.statistics is not None
    minutes = await limiter.statistics.minutes(5)
    assert [(later.start - earlier.start).seconds for earlier, later in pairwise(minutes)] == [60] * 4
    assert minutes[-1].start.timestamp() == clock() // 1_000_000 // 60 * 60
