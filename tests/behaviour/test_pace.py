"""The promise: two processes with one pacer on Redis deliver 1,000 webhooks in 10 seconds, evenly spaced."""

from tests.support.pace import busiest, deliver

EACH = 500


def test_a_thousand_webhooks_in_ten_seconds(redis_url: str) -> None:
    """The last arrives 10 s ± 0.3 after the first, each arrives once, and at most 11 start in any 100 ms."""
    result = deliver(redis_url, EACH)
    assert result.paths == sorted(f"/hooks/{name}/{number}" for name in ("one", "two") for number in range(EACH))
    assert busiest(result.begun, 0.1) <= 11
    # A reservation that a busy machine has missed costs 10 ms.
    assert 9.7 <= result.arrived[-1] - result.arrived[0] <= 10.3 + result.missed / 100
