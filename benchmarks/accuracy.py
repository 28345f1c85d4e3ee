"""Find the worst window that an adversary gets out of each algorithm: how much of a limit is admitted within any window.

100 per window. The adversary knows the algorithm: it tries when to fill the limit and when to come back for more, asking
as often as it likes. No clock and no machine plays a part; the figures are the same everywhere.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable

from benchmarks.harness import result
from benchmarks.report import Result
from ratelimit import MemoryStore
from ratelimit.charge import Charge, Terms
from ratelimit.stores import Request

LIMIT, WINDOW, STEP = 100, 1000, 5
"""Units, milliseconds, and how often the adversary asks."""

Admit = Callable[[int], bool]


def run() -> Result:
    """Try all and return the most that any window held, in percent of the limit."""
    worst = {name: [float(adversary(make))] for name, make in ALGORITHMS.items()}
    return result(
        "accuracy",
        "The worst window an adversary gets, of a limit of 100",
        goal="ours: 100, with burst=0.25: 125",
        measured=", ".join(f"{name} {most[0]:.0f}" for name, most in worst.items()),
        unit="% of the limit",
        times=worst,
        first="log of all requests",
    )


def adversary(make: Callable[[], Admit]) -> int:
    """Return the most that any window holds, over many ways to fill it twice."""
    most = 0
    for first in range(0, WINDOW, 25):
        for pause in range(0, 2 * WINDOW, 25):
            admit, times = make(), list[int]()
            for now in (*range(first, first + 50, STEP), *range(first + 50 + pause, first + pause + 2 * WINDOW, STEP)):
                while admit(now):
                    times.append(now)
            most = max(most, *(bisect_right(times, at + WINDOW - 1) - i for i, at in enumerate(times)))
    return most


def fixed_window() -> Admit:
    """Count in windows of the clock."""
    state = [0, 0]

    def admit(now: int) -> bool:
        if now // WINDOW != state[0]:
            state[:] = [now // WINDOW, 0]
        if state[1] >= LIMIT:
            return False
        state[1] += 1
        return True

    return admit


def two_windows() -> Admit:
    """Weigh the count of the window before by how much of it is still in sight."""
    counts: dict[int, int] = {}

    def admit(now: int) -> bool:
        here, part = now // WINDOW, now % WINDOW / WINDOW
        if counts.get(here - 1, 0) * (1 - part) + counts.get(here, 0) + 1 > LIMIT:
            return False
        counts[here] = counts.get(here, 0) + 1
        return True

    return admit


def gcra() -> Admit:
    """Let a bucket of the whole limit refill evenly."""
    state = [0.0]

    def admit(now: int) -> bool:
        tat = max(state[0], now)
        if tat + WINDOW / LIMIT - now > WINDOW + 1e-9:
            return False
        state[0] = tat + WINDOW / LIMIT
        return True

    return admit


def log() -> Admit:
    """Remember every request."""
    times: deque[int] = deque()

    def admit(now: int) -> bool:
        while times and times[0] <= now - WINDOW:
            times.popleft()
        if len(times) >= LIMIT:
            return False
        times.append(now)
        return True

    return admit


def ours(burst: int = 0) -> Admit:
    """Ask the store that tests and apps ask."""
    clock = [0]
    store = MemoryStore(clock=lambda: clock[0])
    terms = Terms(kind="limit", policy="p", scope="token", limit=LIMIT, window=WINDOW // 1000, allowance=burst)

    def admit(now: int) -> bool:
        clock[0] = (now + 10**9) * 1000
        ((_, _, wait),) = store.run(Request([Charge(terms, "k")])).numbers
        return wait <= 0

    return admit


ALGORITHMS: dict[str, Callable[[], Admit]] = {
    "log of all requests": log,
    "fixed window": fixed_window,
    "two-window counter": two_windows,
    "GCRA, burst of the limit": gcra,
    "ours": ours,
    "ours, burst=0.25": lambda: ours(LIMIT // 4),
}
