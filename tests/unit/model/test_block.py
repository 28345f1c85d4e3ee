"""A block tells when it is over."""

import math
from datetime import UTC, datetime

from ratelimit.model.block import Block


def test_it_ends_at_its_instant_or_never() -> None:
    """In epoch microseconds."""
    until = datetime.fromtimestamp(100, UTC)
    block = Block(key={"org": "o"}, until=until)
    assert (block.is_over(99_999_999), block.is_over(100_000_000)) == (False, True)
    assert block.seconds_left(90_500_000) == 9.5
    assert Block(key={"org": "o"}).seconds_left(0) == math.inf
    assert not Block(key={"org": "o"}).is_over(10**18)
