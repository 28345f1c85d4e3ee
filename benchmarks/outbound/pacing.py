"""Deliver 1,000 webhooks from two processes, 100 a second, and count the arrivals in the receiver's busiest 100 ms.

A pacer on Redis is compared with a throttle on Redis (a sliding window that both processes share) and with a throttle of
half the rate in each process.
"""

from benchmarks.harness import redis, result
from benchmarks.report import Result
from tests.support.pace import busiest, deliver

EACH, ROUNDS = 500, 3
WAYS = {"a window for each": "alone", "a shared window": "throttle", "a shared pacer": "pacer"}


def run() -> Result:
    """Measure and return the most webhooks that arrived within any 100 ms."""
    most: dict[str, list[float]] = {name: [] for name in WAYS}
    took = list[float]()
    with redis() as server:
        for number in range(ROUNDS):
            for name, how in WAYS.items():
                print(f"\r  round {number + 1} of {ROUNDS}: {name:20}", end="", flush=True)
                with server.client() as client:
                    client.flushall()
                delivered = deliver(server.url, EACH, how)
                most[name].append(float(busiest(delivered.arrived, 0.1)))
                if how == "pacer":
                    took.append(delivered.arrived[-1] - delivered.arrived[0])
    print(f"\r{'':60}\r", end="")
    return result(
        "pacing",
        "Webhooks that arrive in the busiest 100 ms, of 100 a second from two processes",
        goal="≤ 11, and 1,000 in 10 s ± 0.3",
        measured=f"{max(most['a shared pacer']):.0f} at most, 1,000 in {min(took):.2f} to {max(took):.2f} s; "
        f"{max(most['a shared window']):.0f} with a window",
        unit="webhooks",
        times=most,
        first="a window for each",
    )
