"""Fleet switches: policies that only report, or count nothing, in all workers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSwitch:
    """One switch: the policy of that name (`None`: all of them) is in shadow or paused, until then (`None`: no end)."""

    policy: str | None
    mode: Literal["shadow", "paused"]
    until: datetime | None = None
    why: str | None = None
    by: str | None = None

    def is_over(self, now: int) -> bool:
        """Say whether the switch has ended at `now` (epoch microseconds)."""
        return self.until is not None and self.until.timestamp() * 1_000_000 <= now
