"""The limits of one server as they are known, and the queue of requests that wait for them.

Instants are seconds of a monotonic clock. No function here waits: `delay` returns how long the caller has to.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final, NamedTuple

from ratelimit._utils.bounded_cache import LruCache
from ratelimit.client.limit_estimate import LimitEstimate
from ratelimit.client.response_limits import ResponseLimits

_MAX_ROUTES: Final = 1000
"""Routes of one server whose limits are remembered; beyond that, the one used longest ago is forgotten."""

_MAX_SHARED: Final = 100
"""Limits of other scopes that are remembered of one server; beyond that, the one used longest ago is forgotten."""

_ROUTE_SCOPES: Final = (None, "endpoint")
"""Scopes of limits that are taken to hold for one route."""


class RouteKey(NamedTuple):
    """The route of a request: its method, and its path with what looks like an id replaced by `*`."""

    method: str
    path: str


class QueuedRequest:
    """A request that waits for admission, or is in flight.

    `wake` is called when it is admitted, and whenever it has to ask again for its delay. `arrival` is its place in the
    order of arrival, and `sent_at` when it was admitted. `counted_by` are the estimates that count it, each with the
    number it has there.
    """

    def __init__(self, route: RouteKey, wake: Callable[[], None]) -> None:
        self.route, self.wake = route, wake
        self.arrival, self.sent_at = -1, -math.inf
        self.counted_by: list[tuple[LimitEstimate, int]] = []
        self.is_admitted = False


class AdmissionQueue:
    """Admits requests to one server, for one caller, first come first served, as far as its known limits allow.

    A limit whose scope is the endpoint's, or is not reported, holds for one route (`route_estimates`). Every other
    limit holds for all routes with a method that it was seen with (`shared_estimates`, by scope and limit). `waiting`
    are the requests that wait, by route. Below `slow_below` of a limit requests are spread, with at most `max_spacing`
    seconds between two. The caller takes care that one thread at a time uses the queue.
    """

    def __init__(self, slow_below: float, max_spacing: float) -> None:
        self._make_estimate = partial(LimitEstimate, slow_below, max_spacing)
        self.route_estimates: LruCache[RouteKey, LimitEstimate] = LruCache(_MAX_ROUTES)
        self.shared_estimates: LruCache[tuple[str | None, int | None], LimitEstimate] = LruCache(_MAX_SHARED)
        self.waiting: dict[RouteKey, deque[QueuedRequest]] = {}
        self._in_flight: dict[int, QueuedRequest] = {}
        self._arrivals = count()

    def enter(self, request: QueuedRequest, now: float) -> None:
        """Add a request to the queue, and admit it if it may go."""
        request.arrival = next(self._arrivals)
        self.waiting.setdefault(request.route, deque()).append(request)
        self.admit_ready(now)

    def admit_ready(self, now: float) -> None:
        """Admit every request that may go, in FIFO order, then wake each route's new head to recompute its delay."""
        heads = [(waiting[0].arrival, route) for route, waiting in self.waiting.items() if waiting]
        heapq.heapify(heads)
        previous_heads = {arrival for arrival, _ in heads}
        while heads:
            _, route = heapq.heappop(heads)
            waiting = self.waiting[route]
            if self._route_delay(route, now) > 0:
                if waiting[0].arrival not in previous_heads:
                    waiting[0].wake()
                continue
            self.admit(waiting[0], now)
            waiting.popleft()
            if waiting:
                heapq.heappush(heads, (waiting[0].arrival, route))
            else:
                del self.waiting[route]

    def admit(self, request: QueuedRequest, now: float) -> None:
        """Count a request as sent on every estimate that covers it, and wake it."""
        request.counted_by = [(estimate, estimate.record_sent(now)) for estimate in self._estimates_of(request.route)]
        request.is_admitted, request.sent_at = True, now
        self._in_flight[request.arrival] = request
        request.wake()

    def is_head(self, request: QueuedRequest) -> bool:
        """Say whether a request is the first that waits for its route."""
        waiting = self.waiting.get(request.route)
        return bool(waiting) and waiting[0] is request  # type: ignore[index]

    def delay(self, request: QueuedRequest, now: float) -> float:
        """Return the seconds after which to ask again; infinite: the request will be woken."""
        return self._route_delay(request.route, now) if self.is_head(request) else math.inf

    def bypass(self, request: QueuedRequest, now: float) -> None:
        """Admit a request out of order, whatever the limits are."""
        self._remove(request)
        self.admit(request, now)

    def record_lost(self, request: QueuedRequest, now: float) -> None:
        """Take note that a request was given up, in the queue or in flight."""
        self._remove(request)
        for estimate, number in request.counted_by:
            estimate.record_lost(number)
        self._admit_and_wake(now)

    def record_response(self, request: QueuedRequest, limits: ResponseLimits, now: float, *, refused: bool) -> None:
        """Update the estimates by the response of a request, and admit what may go then."""
        self._remove(request)
        if not refused and limits.remaining is None:
            for estimate, number in request.counted_by:
                estimate.record_lost(number)
                estimate.no_signal(now)
        else:
            self._update_estimates(request, limits, now, refused=refused)
        self._admit_and_wake(now)

    def block(self, route: RouteKey, limits: ResponseLimits, seconds: float, now: float) -> None:
        """Hold back all requests under the reported limit for `seconds`, after a refusal that does not say how long."""
        self._reported_estimate(route, limits).block(seconds, now)

    def _admit_and_wake(self, now: float) -> None:
        self.admit_ready(now)
        for waiting in self.waiting.values():
            if waiting:  # An interrupt may have left an empty one.
                waiting[0].wake()

    def _update_estimates(self, request: QueuedRequest, limits: ResponseLimits, now: float, *, refused: bool) -> None:
        reported, remaining = self._reported_estimate(request.route, limits), limits.remaining
        self._count_in_flight(request, reported, all_routes=limits.scope not in _ROUTE_SCOPES)
        others = dict(request.counted_by)
        number = others.pop(reported)
        if refused:
            # With units left, the refusal has another reason, which does not end with the reset.
            reported.record_refusal(number, limits.retry_after if remaining else limits.available_after, now)
        else:
            reported.record_admission(number, limits, now)
        for estimate, other_number in others.items():
            if refused or remaining is None:
                estimate.record_lost(other_number)
            else:
                estimate.record_lower_bound(other_number, remaining, now)

    def _reported_estimate(self, route: RouteKey, limits: ResponseLimits) -> LimitEstimate:
        """Return the estimate of the limit that a response reports."""
        if limits.scope in _ROUTE_SCOPES:
            return self.route_estimates.get_or_make(route, self._make_estimate)
        return self._shared_estimate(route.method, limits)

    def _count_in_flight(self, request: QueuedRequest, estimate: LimitEstimate, *, all_routes: bool) -> None:
        """Count a request, and all requests in flight, on an estimate that did not exist when they were sent."""
        method, route = request.route.method, request.route
        for other in (*self._in_flight.values(), request):
            is_covered = other.route.method == method if all_routes else other.route == route
            if is_covered and all(counted is not estimate for counted, _ in other.counted_by):
                other.counted_by.append((estimate, estimate.count_in_flight(other.sent_at)))

    def _shared_estimate(self, method: str, limits: ResponseLimits) -> LimitEstimate:
        # Two limits of one scope, such as those of reads and of writes, differ in their numbers.
        for (scope, limit), other in list(self.shared_estimates.items()):
            if scope == limits.scope and limits.limit not in (limit, None):
                other.methods.discard(method)
                if not other.methods:
                    del self.shared_estimates[scope, limit]
        estimate = self.shared_estimates.get_or_make((limits.scope, limits.limit), self._make_estimate)
        estimate.methods.add(method)
        return estimate

    def _estimates_of(self, route: RouteKey) -> list[LimitEstimate]:
        shared = [estimate for estimate in self.shared_estimates.values() if route.method in estimate.methods]
        own = self.route_estimates.get(route)
        return shared if own is None else [*shared, own]

    def _route_delay(self, route: RouteKey, now: float) -> float:
        return max((estimate.delay(now) for estimate in self._estimates_of(route)), default=0.0)

    def _remove(self, request: QueuedRequest) -> None:
        """Remove a request from the queue, and from those in flight."""
        self._in_flight.pop(request.arrival, None)
        waiting = self.waiting.get(request.route)
        if waiting and request in waiting:
            waiting.remove(request)
            if waiting:
                waiting[0].wake()  # The new head has to compute its delay.
            else:
                del self.waiting[request.route]
