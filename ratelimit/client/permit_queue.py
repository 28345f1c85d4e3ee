"""Permits for the requests that are on the wire at once, and the queues of requests that wait for one.

No function here waits: a request is woken when it gets its permit.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from operator import attrgetter


class Permit:
    """What one request to `server` needs to be on the wire.

    `wake` is called when the request gets it. `arrival` is the request's place in the order of arrival. The request keeps
    that place if it gives its permit back and asks again.
    """

    def __init__(self, server: Hashable, wake: Callable[[], None]) -> None:
        self.server, self.wake = server, wake
        self.arrival = -1


class PermitQueue:
    """Gives out `size` permits, first come first served.

    `holders` are the permits that are given out, and `waiting` those that requests wait for, in order of arrival;
    `arrivals` numbers them.
    """

    def __init__(self, size: int, arrivals: Iterator[int]) -> None:
        self.size = size
        self.holders: set[Permit] = set()
        self.waiting: list[Permit] = []
        self._arrivals = arrivals

    def acquire(self, permit: Permit) -> None:
        """Let a request wait for its permit, and give out what is free; repeating it has no effect."""
        if permit in self.holders:
            return
        if permit.arrival < 0:
            permit.arrival = next(self._arrivals)
        place = bisect_left(self.waiting, permit.arrival, key=attrgetter("arrival"))
        if self.waiting[place : place + 1] != [permit]:
            self.waiting.insert(place, permit)
        self._give_out()

    def release(self, permit: Permit) -> None:
        """Take a permit back, or remove it from the queue, and give out what is free; repeating it has no effect."""
        if permit in self.holders:
            self._drop_first(permit)
            self.holders.remove(permit)
        elif permit in self.waiting:
            self.waiting.remove(permit)
        self._give_out()

    def _give_out(self) -> None:
        while self.waiting and len(self.holders) < self.size:
            permit = self.waiting[0]
            self.holders.add(permit)
            permit.wake()
            self._drop_first(permit)

    def _drop_first(self, permit: Permit) -> None:
        # After an interrupt, a permit that was given out may still be the first in the queue.
        if self.waiting[:1] == [permit]:
            del self.waiting[0]


class ServerPermits:
    """Gives out `size` permits for the requests to each server, or any number where `size` is `None`.

    `queues` are the queues of the servers that requests are sent to at present. The caller takes care that one thread at
    a time uses the permits.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.queues: dict[Hashable, PermitQueue] = {}
        # Of all queues: a request that gave its permit back may outlast the queue that it came to.
        self._arrivals = count()

    def acquire(self, permit: Permit) -> None:
        """Let a request wait for its permit, and give out what is free."""
        if self.size is not None:
            if permit.server not in self.queues:
                self.queues[permit.server] = PermitQueue(self.size, self._arrivals)
            self.queues[permit.server].acquire(permit)

    def is_held(self, permit: Permit) -> bool:
        """Say whether a request that has asked for its permit has it."""
        return self.size is None or permit in self.queues[permit.server].holders

    def release(self, permit: Permit) -> None:
        """Take a permit back, or remove it from its queue; repeating it has no effect."""
        queue = self.queues.get(permit.server)
        if queue is not None:
            queue.release(permit)
            if not (queue.holders or queue.waiting):
                del self.queues[permit.server]
