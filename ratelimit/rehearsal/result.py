"""The result of a replay, as reports show it and programs read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ratelimit.rehearsal.access_log import LogCounts
from ratelimit.rehearsal.replay import CallerTally, Replay, Tally

SHOWN_CALLERS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What a replay has found. `refused_at_once` is there where all requests of a second were also tried at once (`--span`)."""

    tally: Tally
    counts: LogCounts
    not_rehearsed: Sequence[Mapping[str, str]]
    notes: Sequence[str]
    is_compared: bool
    refused_at_once: int | None = None

    @property
    def newly_refused_share(self) -> float:
        """The share of all requests that are served today and would be refused."""
        return self.tally.newly_refused / self.tally.requests if self.tally.requests else 0.0

    def worst_callers(self, most: int = SHOWN_CALLERS) -> list[tuple[str, CallerTally]]:
        """Return the callers that would be refused most, the worst first."""
        return _worst(self.tally.callers, most)

    def worst_routes(self, most: int = SHOWN_CALLERS) -> list[tuple[str, CallerTally]]:
        """Return the routes at which most is refused, the worst first."""
        return _worst(self.tally.routes, most)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON takes it."""
        tally = self.tally
        found: dict[str, Any] = {
            "requests": tally.requests,
            "refused": tally.refused,
            "newly_refused": tally.newly_refused,
            "newly_admitted": tally.newly_admitted,
            "refused_before": tally.refused_before,
            "first": instant_text(self.counts.first),
            "last": instant_text(self.counts.last),
            "policies": [
                {
                    "policy": name,
                    "checks": each.checks,
                    "refused": each.refused,
                    "shadow": each.shadow,
                    "longest_wait": each.longest_wait,
                }
                for name, each in sorted(tally.policies.items())
            ],
            "callers": [_row("caller", name, each) for name, each in self.worst_callers(1000)],
            "routes": [_row("route", name, each) for name, each in self.worst_routes(1000)],
            "not_rehearsed": [dict(each) for each in self.not_rehearsed],
            "unreadable": self.counts.unreadable,
            "unreadable_lines": list(self.counts.unreadable_lines),
            "late": self.counts.late,
            "jumps": self.counts.jumps,
            "notes": list(self.notes),
        }
        if self.refused_at_once is not None:
            found["refused_at_once"] = self.refused_at_once
        return found


def result_of(
    replay: Replay, counts: LogCounts, *, is_compared: bool, refused_at_once: int | None = None
) -> ReplayResult:
    """Return the result of a replay that has ended."""
    return ReplayResult(
        tally=replay.tally,
        counts=counts,
        not_rehearsed=replay.not_rehearsed,
        notes=replay.notes(counts),
        is_compared=is_compared,
        refused_at_once=refused_at_once,
    )


def instant_text(us: int | None) -> str | None:
    """Return an instant as reports show it, in UTC."""
    return None if not us else datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _worst(tallies: Mapping[str, CallerTally], most: int) -> list[tuple[str, CallerTally]]:
    hit = [(name, each) for name, each in tallies.items() if each.refused or each.newly_admitted]
    return sorted(hit, key=lambda pair: (-pair[1].refused, -pair[1].newly_admitted, pair[0]))[:most]


def _row(kind: str, name: str, each: CallerTally) -> dict[str, Any]:
    return {
        kind: name,
        "requests": each.requests,
        "refused": each.refused,
        "newly_refused": each.newly_refused,
        "newly_admitted": each.newly_admitted,
        "first_refused": instant_text(each.first_refused),
        "longest_wait": each.longest_wait,
    }
