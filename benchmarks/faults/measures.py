"""The figures of a fault, computed from the answers of the workers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.fault import Fault
from benchmarks.faults.fleet import Found
from benchmarks.faults.settings import LIMIT, WINDOW

SETTLED = 1.0
"""Seconds after the beginning or end of a fault until all workers have noticed it."""

TOLERATED = 1.05
"""The most admissions in any window, as a multiple of the limit, that is no defect."""


@dataclass
class FaultResult:
    """The figures of one fault on one topology.

    `before`, `during` and `after` are the most admissions in any window, as multiples of the limit: in windows before the
    fault, in windows that touch it or the second after it, and in later ones. `longest_ms` is the longest wait. `later_ms`
    is how much longer the 99th percentile of requests waits once the fault is known than before it. `recovery` is the
    seconds from the end of the fault until the store has decided a request of every worker. `difference` is the count of
    the quota minus the served requests. `outages` and `lost` are what the workers' metrics say of outages that began and of
    units that were lost; `metrics_agree` is whether these count the same requests, refusals and local decisions.
    """

    name: str
    topology: str
    requests: int
    failed: int
    degraded: int
    before: float
    during: float
    after: float
    longest_ms: float
    later_ms: float
    recovery: float | None
    difference: int
    outages: int
    lost: int
    metrics_agree: bool
    timeline: list[tuple[float, float, float, float]] = field(default_factory=list)

    def is_well(self, fault: Fault) -> bool:
        """Return whether every request was answered, and limit, quota and metrics are exact where they can be."""
        within = max(self.before, self.during, self.after) <= TOLERATED or not fault.keeps_limit(self.topology)
        exact = self.difference == 0 or not fault.keeps_data(self.topology)
        return not self.failed and within and exact and self.metrics_agree

    def line(self) -> str:
        """Return the figures as one line of text."""
        back = "" if self.recovery is None else f", back after {self.recovery:.2f} s"
        return (
            f"{self.requests} answered, {self.failed} failed, {self.degraded} degraded; admitted {self.before:.2f}/"
            f"{self.during:.2f}/{self.after:.2f} × L; longest {self.longest_ms:.0f} ms, later {self.later_ms:+.1f} ms{back}, quota {self.difference:+d}, "
            f"{self.outages} outages, {self.lost} lost, metrics {'agree' if self.metrics_agree else 'DIFFER'}"
        )


Answers = Sequence[Sequence[Any]]
"""For each request of a worker: when it began, how many seconds it took, its status, and whether it was degraded."""


def measure(
    fault: Fault, topology: str, found: Sequence[Found], counted: int, times: tuple[float, float, float]
) -> FaultResult:
    """Return the figures of what the workers found.

    `times` are when the load began, and when the fault began and ended (monotonic seconds).
    """
    start, begun, ended = times
    workers: list[Answers] = [each.answers for each in found]
    known = [each.metrics for each in found if each.metrics is not None]
    answers = sorted((each for worker in workers for each in worker), key=lambda each: each[0])
    admitted = sorted(at + wait for at, wait, status, _ in answers if status == 200)
    ready = [wait for at, wait, *_ in answers if start + SETTLED <= at < begun]
    later = [wait for at, wait, *_ in answers if begun + SETTLED <= at < ended]
    lasted = [max((at + wait - begun for at, wait, _, degraded in each if degraded), default=0.0) for each in workers]
    recovered = [  # A worker that was killed has none.
        min((at + wait - ended for at, wait, _, degraded in each if at >= ended and not degraded), default=99.0)
        for each in workers
        if each[-1][0] >= ended
    ]
    return FaultResult(
        name=fault.name,
        topology=topology,
        requests=len(answers),
        failed=sum(status == 401 or status >= 500 or status == 0 for _, _, status, _ in answers),
        degraded=sum(bool(each[3]) for each in answers),
        before=_worst(admitted, start, begun - WINDOW),
        during=_worst(admitted, begun - WINDOW, ended + SETTLED),
        after=_worst(admitted, ended + SETTLED, float("inf")),
        longest_ms=max(wait for at, wait, *_ in answers if at >= begun - 0.2) * 1000,
        later_ms=(_percentile(later) - _percentile(ready)) * 1000,
        recovery=max(lasted if fault.heals else recovered) if fault.outage else None,
        difference=counted - len(admitted),
        outages=round(sum(each["store.outages"] for each in known)),
        lost=round(sum(each["outbox.lost"] for each in known)),
        metrics_agree=all(_agrees(each.metrics, each.answers) for each in found if each.metrics is not None),
        timeline=_timeline(answers, start),
    )


def _agrees(metrics: dict[str, float], answers: Answers) -> bool:
    refused = sum(status != 200 for _, _, status, _ in answers)
    degraded = sum(bool(each[3]) for each in answers)
    counted = metrics["requests"], metrics["refused"], metrics["local"], metrics["outbox.pending"]
    return counted == (len(answers), refused, degraded, 0)


def _worst(admitted: Sequence[float], first: float, last: float) -> float:
    """Return the most admissions in a window that begins between two instants, as a multiple of the limit."""
    worst, end = 0, 0
    for begin, at in enumerate(admitted):
        while end < len(admitted) and admitted[end] < at + WINDOW:
            end += 1
        if first <= at < last:
            worst = max(worst, end - begin)
    return worst / LIMIT


def _percentile(waits: Sequence[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)] if waits else 0.0


def _timeline(answers: Answers, start: float, step: float = 0.1) -> list[tuple[float, float, float, float]]:
    """Return for each tenth of a second its start, admissions and refusals per second, and the longest wait in ms."""
    found = []
    parts: dict[int, list[Sequence[Any]]] = {}
    for each in answers:
        parts.setdefault(int((each[0] - start) / step), []).append(each)
    for number, part in sorted(parts.items()):
        served = sum(each[2] == 200 for each in part) / step
        found.append((number * step, served, len(part) / step - served, max(each[1] for each in part) * 1000))
    return found
