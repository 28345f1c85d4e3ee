"""Quiet counters: keys that are so far below their limit that their requests are admitted for certain, and only noted."""

from collections.abc import Callable, Sequence
from typing import Final

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate

MAX_NOTED: Final = 4096
"""Requests of one key that are noted; a key with more is counted by the store."""

_Noted = tuple[EffectiveRate, int, list[int]]
"""The limit of a key, below which number of requests it is quiet, and when (ms) they were."""


class QuietCounters:
    """Notes the requests of keys whose limits they cannot reach; `count(charge, ms)` has the store count one that was noted.

    A sliding window never counts more than the requests of the last window and bucket. While so many fit, nothing has to be
    decided; where they may not, the noted requests are counted by the store as if it had counted them when they were made, and from
    then on the key is the store's, as long as the store `holds` it. Most callers of a log are quiet all the time.
    """

    def __init__(self, count: Callable[[Charge, int], None], holds: Callable[[str], bool]) -> None:
        self._count, self._holds = count, holds
        self.dropped = 0
        """Keys that were forgotten although they count, because there were too many."""
        self._noted: dict[str, _Noted] = {}
        self._counted: set[str] = set()

    def __len__(self) -> int:
        return len(self._noted) + len(self._counted)

    def split(self, charges: Sequence[Charge], ms: int) -> tuple[list[list[int]], list[Charge]]:
        """Return where the requests of quiet keys are noted, and the charges that the store has to decide."""
        quiet: list[list[int]] = []
        others: list[Charge] = []
        noted = self._noted
        for charge in charges:
            limit, key, cost = charge
            found = noted.get(key)
            if found is None:
                if cost != 1 or limit.__class__ is not EffectiveRate or limit.other_windows or key in self._counted:
                    others.append(charge)
                    continue
                found = noted[key] = limit, min(limit.advertised_limit, MAX_NOTED), []
            own, most, times = found
            if own is limit and cost == 1 and (len(times) + 1 < most or self._forget_old(own, times, ms) + 1 < most):
                quiet.append(times)
            else:
                self.hand_over(key)
                others.append(charge)
        return quiet, others

    def hand_over(self, key: str) -> None:
        """Have the store count what was noted of a key, and all that follows."""
        self._counted.add(key)
        found = self._noted.pop(key, None)
        if found is not None:
            limit, _, times = found
            for ms in times:
                self._count(Charge(limit, key), ms)

    def sweep(self, ms: int, most: int) -> None:
        """Forget the keys that have had no request in their window, and of the others the oldest, so that half of `most` are left."""
        kept = {
            key: noted for key, noted in self._noted.items() if noted[2] and noted[2][-1] >= ms - 2 * noted[0].window_ms
        }
        if len(kept) > most // 2:
            latest = sorted(kept, key=lambda key: kept[key][2][-1], reverse=True)[: most // 2]
            self.dropped += len(kept) - len(latest)
            kept = {key: kept[key] for key in latest}
        self._noted = kept
        self._counted = {key for key in self._counted if self._holds(key)}

    def _forget_old(self, limit: EffectiveRate, times: list[int], ms: int) -> int:
        """Forget the requests that count no longer, and return the number of those that may."""
        horizon, old = ms - limit.window_ms - 2 * limit.bucket_ms, 0
        while old < len(times) and times[old] < horizon:
            old += 1
        del times[:old]
        return len(times)
