"""Rankings: the callers that used most of each policy, came near to its limit or were refused, for all workers together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ratelimit.clock import Clock
from ratelimit.enforcement.top_callers import CAPACITY, By
from ratelimit.stores.base import Store

SPAN_S: Final = 300
"""Seconds of one ranking."""

_ORG: Final = "\t"
"""Separates a label from the organization with which the counter is kept: no label has it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class TopCaller:
    """A caller of one policy, by its label, with a number; `org` is the label of a token's organization, where it is known."""

    policy: str
    caller: str
    count: int
    org: str | None = None


class CallerNames(Protocol):
    """How callers are called, by the key of a counter of a policy."""

    def label(self, key: str, policy: str) -> str:
        """Return the label of the callers that share a counter."""

    def org(self, key: str, policy: str) -> str | None:
        """Return the label of the organization of a token's counter, where its own label does not say so."""

    def policies(self) -> Iterable[str]:
        """Return the names of all policies."""


class CallerRankings:
    """Ranks callers by what they used, came near to, or were refused, in spans of five minutes, in the store.

    Each policy's 200 most frequent callers are known, as long as minutes are kept.
    """

    def __init__(self, store: Store, clock: Clock, prefix: str, seconds_kept: int, names: CallerNames) -> None:
        self._store, self._clock, self._prefix, self._kept, self._names = store, clock, prefix, seconds_kept, names

    async def add(self, counts: Mapping[tuple[By, str], Mapping[str, int]]) -> None:
        """Add counts by measure, policy and key of the counter; raises `StoreError`."""
        now, ranks = self._clock() // 1_000_000, dict[str, dict[str, int]]()
        for (by, policy), numbers in counts.items():
            ranking = ranks.setdefault(self._ranking(by, policy, now), {})
            for key, number in numbers.items():
                member = _member(self._names.label(key, policy), self._names.org(key, policy))
                ranking[member] = ranking.get(member, 0) + number
        if ranks:
            await self._store.add_ranks(ranks, keep=CAPACITY, seconds=self._kept)

    async def top(
        self, by: By = "refused", *, seconds: int = 3600, policy: str | None = None, count: int = 20
    ) -> Sequence[TopCaller]:
        """Return the callers that were refused most (or used most, or came near) in the last seconds; raises `StoreError`."""
        names = [policy] if policy is not None else sorted(self._names.policies())
        keys = [(name, self._ranking(by, name, start)) for name in names for start in self._starts(seconds)]
        found = Counter[tuple[str, str]]()
        for (name, _), counts in zip(keys, await self._store.read_ranks([key for _, key in keys]), strict=True):
            found.update({(name, member): number for member, number in counts.items()})
        return [_top_caller(name, member, number) for (name, member), number in found.most_common(count)]

    async def peaks(self, policy: str, *, by: By = "used", seconds: int = 86_400) -> Sequence[TopCaller]:
        """Return the most that each caller used (or was refused) within one span of five minutes, the largest first."""
        keys, found = [self._ranking(by, policy, start) for start in self._starts(seconds)], Counter[str]()
        for counts in await self._store.read_ranks(keys):
            found |= Counter(counts)  # The larger number of each.
        return [_top_caller(policy, member, number) for member, number in found.most_common()]

    async def history(
        self, policy: str, caller: str, org: str | None, *, by: By = "used", seconds: int = 86_400
    ) -> Sequence[tuple[int, int]]:
        """Return the start of each span of five minutes (epoch seconds), and how much a caller used in it.

        0 also where the caller was not among the 200 most frequent ones. Raises `StoreError`.
        """
        starts, member = self._starts(seconds), _member(caller, org)
        keys = [self._ranking(by, policy, start) for start in starts]
        found = await self._store.read_ranks(keys, member=member)
        return [(start, counts.get(member, 0)) for start, counts in zip(starts, found, strict=True)]

    def _starts(self, seconds: int) -> Sequence[int]:
        now = self._clock() // 1_000_000
        first = now - min(seconds, self._kept)
        return range(first - first % SPAN_S, now + 1, SPAN_S)

    def _ranking(self, by: By, policy: str, now: int) -> str:
        return f"{self._prefix}:top:{by}:{policy}:{now - now % SPAN_S}"


def _member(label: str, org: str | None) -> str:
    return label if org is None else f"{label}{_ORG}{org}"


def _top_caller(policy: str, member: str, number: int) -> TopCaller:
    label, _, org = member.partition(_ORG)
    return TopCaller(policy=policy, caller=label, count=number, org=org or None)
