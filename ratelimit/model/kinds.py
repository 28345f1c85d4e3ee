"""The kinds of limits, and two special values that every layer knows."""

from typing import Final, Literal

Kind = Literal["limit", "quota", "concurrency", "pace"]
"""What a counter does: the three kinds of policies, and the evenly spaced reservations of a pacer."""

NEVER: Final = 2**53 - 1
"""The wait, in milliseconds, of a cost that can never be admitted: the largest integer that Lua holds exactly."""

GLOBAL: Final = "global"
"""The scope of a policy that has one counter for all callers together."""
