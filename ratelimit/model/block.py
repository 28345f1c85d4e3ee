"""Blocks: callers that are refused whatever their limits say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One blocked caller or group of callers: all whose identity has these values.

    `key` gives a value for each of some dimensions (`{"org": "acme"}`, `{"ip": "192.0.2.0/24"}`); a token stands as its
    hash, under `token_hash`. `until` is when the block ends (`None`: it does not). `why` and `by` are for operators, and
    no answer shows them.
    """

    key: Mapping[str, str]
    until: datetime | None = None
    why: str | None = None
    by: str | None = None

    def seconds_left(self, now: int) -> float:
        """Return for how long the block holds at `now` (epoch microseconds); infinite where it does not end."""
        return math.inf if self.until is None else self.until.timestamp() - now / 1e6

    def is_over(self, now: int) -> bool:
        """Say whether the block has ended at `now` (epoch microseconds)."""
        return self.until is not None and self.until.timestamp() * 1_000_000 <= now
