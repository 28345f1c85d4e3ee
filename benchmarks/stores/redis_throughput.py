"""Count decisions per second through Redis, three layers each, 64 at a time, against other libraries and the floor.

Each competitor runs in a child process against the same server, in turns. The floor is three bare increments per
request: INCR in pipelines of 16 over eight connections, divided by three.
"""

import selectors
import socket
from collections.abc import Callable
from functools import partial
from time import perf_counter

from benchmarks.harness import child, compared, in_turns, peers_python, redis, result
from benchmarks.report import Result
from benchmarks.stores.competitors import COMPETITORS, OURS, interpreter
from tests.support.redis_server import RedisServer

ROUNDS, SECONDS, CONCURRENCY, PIPELINE = 5, 1.0, 64, 16
FLOOR = "three bare increments"
WITH_NUMBERS = "limits, sliding-window counter"
BY_HAND = "GCRA by hand, in a pipeline"


def run() -> Result:
    """Measure and return decisions per second."""
    peers = peers_python()
    with redis() as server:
        measures: dict[str, Callable[[], float]] = {
            name: partial(_decisions, interpreter(name, peers), name, server.url) for name in COMPETITORS
        }
        measures[FLOOR] = partial(increments, server)
        times = in_turns(measures, ROUNDS)
    against = {name: 1 / ratio for name, ratio in compared(times, "ours").items()}
    others = min(
        against[name] for name in COMPETITORS if name not in (*OURS, BY_HAND) and not name.startswith("limits")
    )
    return result(
        "redis_throughput",
        "Decisions per second through Redis, 3 layers, 64 at a time",
        goal="≥ 30× limits with header numbers, ≥ 18× the best other library, ≥ 9× GCRA by hand, ≥ 0.13 of three increments",
        measured=f"{against[WITH_NUMBERS]:.0f}× limits, {others:.1f}× the best other library, {against[BY_HAND]:.1f}× GCRA by hand, "
        f"{against[FLOOR]:.2f} of the floor",
        unit="decisions/s",
        times=times,
        first="ours",
    )


def _decisions(python: str, name: str, url: str) -> float:
    return child(python, "benchmarks.stores.competitors", name, url, CONCURRENCY, SECONDS)["per_second"]


def increments(server: RedisServer, connections: int = 8) -> float:
    """Return the number of requests, of three increments each, that the server serves in a second."""
    command = b"".join(b"*2\r\n$4\r\nINCR\r\n$6\r\nk%05d\r\n" % n for n in range(PIPELINE))
    replies, received = 0, dict[socket.socket, int]()
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", server.port))
            selector.register(connection, selectors.EVENT_READ)
            received[connection] = 0
            connection.sendall(command)
        began = perf_counter()
        while (now := perf_counter()) < began + SECONDS:
            for key, _ in selector.select(0.1):
                connection = key.fileobj  # type: ignore[assignment]
                received[connection] += connection.recv(65536).count(b"\n")
                if received[connection] == PIPELINE:
                    replies, received[connection] = replies + PIPELINE, 0
                    connection.sendall(command)
        for connection in received:
            connection.close()
    return replies / (now - began) / 3
