"""Top callers: who has used most of each policy, is near its limit, or was refused, in a bounded memory."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

from ratelimit.model.calendar_period import Period
from ratelimit.model.charge import Charge

By = Literal["refused", "shadow", "used", "near"]
"""What callers are ranked by: refusals, those that a policy in shadow would have made, units that they used, checks near a limit."""

MEASURES: Final[tuple[By, ...]] = get_args(By)

CAPACITY: Final = 200
"""Callers of one policy that are counted apart."""

_MAX_SEEN: Final = 65_536
"""Requests between two calls of `take` whose use is counted; of more, the last ones."""


class SpaceSaving(dict[str, int]):
    """Counts the most frequent names in a bounded memory: `counts[name] += n`.

    A count is never too low, and too high by no more than the largest count that was ever dropped: the guarantee of the
    Space-Saving algorithm (Metwally, Agrawal, El Abbadi 2005), whose names leave in portions here.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        super().__init__()
        self._capacity, self._floor = capacity, 0

    def __missing__(self, name: str) -> int:
        if len(self) >= 2 * self._capacity:
            self._drop_rarest()
        return self._floor

    def most_common(self) -> dict[str, int]:
        """Return the most frequent names, with their counts."""
        return dict(Counter(self).most_common(self._capacity))

    def _drop_rarest(self) -> None:
        kept = self.most_common()
        self._floor = max(self[name] for name in self.keys() - kept.keys())
        self.clear()
        self.update(kept)


class TopCallers:
    """Counts by policy and counter key since the last `take`. A request costs one `append` to `seen`."""

    def __init__(self) -> None:
        self.seen: deque[Sequence[Charge]] = deque(maxlen=_MAX_SEEN)
        """The charges of the requests that were admitted."""
        self._counts: dict[tuple[By, str], SpaceSaving] = {}
        self._quotas: dict[tuple[str, Period | None], dict[str, int]] = {}

    def add(self, by: By, policy: str, key: str, number: int = 1) -> None:
        """Count something of a caller, known by the key of its counter."""
        counts = self._counts.get((by, policy))
        if counts is None:
            counts = self._counts[by, policy] = SpaceSaving()
        counts[key] += number

    def take_quotas(self) -> Mapping[tuple[str, Period | None], Mapping[str, int]]:
        """Return the quotas that the callers of the last `take` were charged, each with their limits by counter key."""
        found, self._quotas = self._quotas, {}
        return found

    def take(self) -> Mapping[tuple[By, str], Mapping[str, int]]:
        """Return the most frequent callers since the last time, by measure and policy."""
        seen, self.seen = self.seen, deque(maxlen=_MAX_SEEN)
        # The charges of a frequent caller are one and the same list.
        times, known = Counter(map(id, seen)), {id(charges): charges for charges in seen}
        for charges, number in ((known[each], number) for each, number in times.items()):
            for limit, key, cost in charges:
                self.add("used", limit.policy, key, cost * number)
                if limit.kind == "quota":
                    self._quotas.setdefault((limit.policy, limit.period), {})[key] = limit.reported_limit
        counts, self._counts = self._counts, {}
        return {which: found.most_common() for which, found in counts.items()}
