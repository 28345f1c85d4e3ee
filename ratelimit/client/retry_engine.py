"""The retry engine: turns one request into actions that a transport performs, without a socket, sleep or event loop."""

import math
import threading
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import httpx
from tenacity import Future, RetryCallState

from ratelimit._utils.bounded_cache import LruCache
from ratelimit.client.admission_queue import AdmissionQueue, QueuedRequest
from ratelimit.client.bodies import is_over, is_replayable
from ratelimit.client.permit_queue import Permit, ServerPermits
from ratelimit.client.refusal_log import log_refusal, warn_of_long_wait
from ratelimit.client.request_keys import route_key, server_key
from ratelimit.client.response_limits import ResponseLimits, parse_response_limits
from ratelimit.client.retry_policy import REFUSAL_STATUSES, RetryPolicy
from ratelimit.clock import system_clock

_NOTIFY_INTERVAL_S: Final = 1.0
"""Seconds between two calls of `on_wait` during one wait."""

_MAX_QUEUES: Final = 1000
"""Admission queues that a transport keeps; beyond that, the one used longest ago is dropped with its estimates."""

_ROUNDING_S: Final = 1e-6
"""Seconds by which sums of instants may be off."""


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """A wait of a client, reported to `on_wait` when it begins and every second.

    `reason` is `"refused"` (by `response`, whose body is read; `attempt` is the number of that attempt), `"ahead"` (the
    limit is known to be used up, and the request would be refused) or `"concurrency"` (`max_concurrency` requests are on
    the wire). `seconds_left` is the time still to wait, or infinite where it ends with the response of another request.
    """

    request: httpx.Request
    reason: Literal["refused", "ahead", "concurrency"]
    seconds_left: float
    attempt: int
    response: httpx.Response | None


class SendRequest(NamedTuple):
    """Send the request, and continue with the response; if sending raises, throw the error into the exchange.

    Call `on_closed`, where there is one, when the response is closed, unless it is over already.
    """

    on_closed: Callable[[], None] | None


class DrainResponse(NamedTuple):
    """Read the response, if it is short, and close it; continue with a response whose body is read."""

    response: httpx.Response


class Sleep(NamedTuple):
    """Continue after so many seconds (infinite: never), or as soon as `queued` is woken, where there is one."""

    seconds: float
    queued: QueuedRequest | Permit | None = None


Action = SendRequest | DrainResponse | Sleep
Exchange = Generator[Action, Any, httpx.Response]
_Attempt = Generator[Action, Any, tuple[ResponseLimits, httpx.Response, float]]


class RetryEngine:
    """Decides for one transport when each request is sent, and whether it is sent again.

    `queues` are the admission queues, by `key` of a request, and `permits` those of the requests on the wire. `clock`
    returns seconds and never goes back. `lock` guards queues and permits. `last_refusal` is the latest response that was
    a refusal, with its body where that was read.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        on_wait: Callable[[WaitEvent], None] | None,
        key: Callable[[httpx.Request], Hashable],
        clock: Callable[[], float],
        max_concurrency: int | None = None,
    ) -> None:
        self.policy, self.on_wait, self.key, self.clock = policy, on_wait, key, clock
        self.last_refusal: httpx.Response | None = None
        # Reentrant: an abandoned exchange may be garbage-collected, and closed, while its thread holds the lock.
        self.lock = threading.RLock()
        self.queues: LruCache[Hashable, AdmissionQueue] = LruCache(_MAX_QUEUES)
        self.permits = ServerPermits(max_concurrency)

    def exchange(self, request: httpx.Request, wake: Callable[[], None]) -> Exchange:
        """Yield the actions from a request to the response that its caller gets, and return that response.

        `wake` is called, from any thread, when a `Sleep` with a queued request has to end.
        """
        waited = 0.0
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.start_time = self.clock()
        while True:
            limits, response, queue_wait = yield from self._attempt(request, state.attempt_number, wake)
            waited += queue_wait
            response.extensions["ratelimit"] = {"attempts": state.attempt_number, "waited": waited}
            if not self.policy.retries_status(response.status_code):
                return response
            response.request, self.last_refusal = request, response
            seconds = yield from self._retry_delay(state, limits, request, response)
            if seconds is None:
                self._hand_on(request, response, limits, state.attempt_number)
                return response
            refusal = yield DrainResponse(response)
            self.last_refusal = refusal
            self._block_others(request, limits, seconds)
            yield from self._wait_for_retry(WaitEvent(request, "refused", seconds, state.attempt_number, refusal))
            waited += seconds
            state.idle_for = waited
            state.prepare_for_next_attempt()

    def _attempt(self, request: httpx.Request, attempt: int, wake: Callable[[], None]) -> _Attempt:
        """Send a request once it may go, and learn from the response; return also the seconds until it was sent."""
        queue = None if self.policy.slow_below is None else self._queue_of(request)
        permit = Permit(server_key(request), wake)
        queued = self._queued(request, permit)
        try:
            queue_wait = yield from self._wait_to_send(queue, queued, permit, request, attempt)
            response: httpx.Response = yield SendRequest(self._on_closed(permit))
        except BaseException:
            self._give_up(queue, queued, permit)
            raise
        limits = _parsed(response)
        if queue is not None:
            with self.lock:
                queue.record_response(queued, limits, self.clock(), refused=response.status_code in REFUSAL_STATUSES)
        if is_over(response):
            self._release(permit)
        return limits, response, queue_wait

    def _give_up(self, queue: AdmissionQueue | None, queued: QueuedRequest, permit: Permit) -> None:
        with self.lock:
            try:
                if queue is not None:
                    queue.record_lost(queued, self.clock())
            finally:  # The limits cannot admit the request any more, which would get it a permit.
                self.permits.release(permit)

    def _queued(self, request: httpx.Request, permit: Permit) -> QueuedRequest:
        """Return what waits for the limits; as soon as they admit it, the request waits for its permit."""

        def _wake() -> None:
            if queued.is_admitted:
                self.permits.acquire(permit)
            permit.wake()

        queued = QueuedRequest(route_key(request), _wake)
        return queued

    def _wait_to_send(
        self, queue: AdmissionQueue | None, queued: QueuedRequest, permit: Permit, request: httpx.Request, attempt: int
    ) -> Generator[Action, Any, float]:
        """Wait until a request has its permit and the limits admit it, and return the seconds that took."""
        began = self.clock()
        has_waited = yield from self._wait_for_permit(permit, request, attempt)
        if queue is not None and not self._enter(queue, queued, permit):
            yield from self._wait_for_admission(queue, queued, request, attempt)
            yield from self._wait_for_permit(permit, request, attempt)
            has_waited = True
        return self.clock() - began if has_waited else 0.0

    def _enter(self, queue: AdmissionQueue, queued: QueuedRequest, permit: Permit) -> bool:
        """Say whether the limits admit a request at once; else its permit serves others until they do."""
        with self.lock:
            queue.enter(queued, self.clock())
            if not queued.is_admitted:
                self.permits.release(permit)
            return queued.is_admitted

    def _wait_for_permit(self, permit: Permit, request: httpx.Request, attempt: int) -> Generator[Action, Any, bool]:
        """Wait until a request may be on the wire, and say whether it had to wait."""
        notified_at = -math.inf
        while not self._acquire(permit):
            if self.clock() - notified_at >= _NOTIFY_INTERVAL_S:
                notified_at = self.clock()
                self._notify(WaitEvent(request, "concurrency", math.inf, attempt, None))
            yield self._sleep(math.inf, permit)
        return notified_at > -math.inf

    def _acquire(self, permit: Permit) -> bool:
        """Say whether a request has its permit; if not, it waits for it."""
        with self.lock:
            self.permits.acquire(permit)
            return self.permits.is_held(permit)

    def _on_closed(self, permit: Permit) -> Callable[[], None] | None:
        return None if self.permits.size is None else partial(self._release, permit)

    def _release(self, permit: Permit) -> None:
        with self.lock:
            self.permits.release(permit)

    def _wait_for_admission(
        self, queue: AdmissionQueue, queued: QueuedRequest, request: httpx.Request, attempt: int
    ) -> Generator[Action, Any, None]:
        notified_at, head_since = -math.inf, math.inf
        while True:
            with self.lock:
                now = self.clock()
                if not queued.is_admitted and queue.delay(queued, now) <= 0:
                    queue.admit_ready(now)
                delay = 0.0 if queued.is_admitted else queue.delay(queued, now)
                head_since = min(head_since, now) if queue.is_head(queued) else head_since
                until_bound = head_since + self.policy.max_wait - now
                # Beyond `max_wait` the server itself has to refuse; and a response in flight may never come.
                is_too_long = self.policy.max_wait + _ROUNDING_S < delay < math.inf
                if not queued.is_admitted and (is_too_long or until_bound <= 0):
                    queue.bypass(queued, now)
            if queued.is_admitted:
                return
            if now - notified_at >= _NOTIFY_INTERVAL_S:
                notified_at = now
                self._notify(WaitEvent(request, "ahead", delay, attempt, None))
            yield self._sleep(min(delay, until_bound), queued)

    def _retry_delay(
        self, state: RetryCallState, limits: ResponseLimits, request: httpx.Request, response: httpx.Response
    ) -> Generator[Action, Any, float | None]:
        """Return the seconds until a request is sent again, or `None`; an error of the policy closes the response."""
        state.outcome, state.outcome_timestamp = Future(state.attempt_number), self.clock()
        state.outcome.set_result(limits)
        try:
            return self.policy.delay(state) if is_replayable(request) else None
        except BaseException:
            yield DrainResponse(response)
            raise

    def _hand_on(self, request: httpx.Request, response: httpx.Response, limits: ResponseLimits, attempt: int) -> None:
        """Log that a refusal goes to the caller; if it asks for too long a wait, warn, and note that on the response."""
        log_refusal(request, response, attempt, "not retried")
        if limits.retry_after is not None and self.policy.exceeds_max_wait(limits):
            bounds = {"retry_after": limits.retry_after, "max_wait": float(self.policy.max_wait)}
            response.extensions["ratelimit"].update(bounds)
            warn_of_long_wait(request, response, **bounds)

    def _block_others(self, request: httpx.Request, limits: ResponseLimits, seconds: float) -> None:
        """Hold back other requests too, after a refusal that does not say for how long."""
        is_refusal = limits.status in REFUSAL_STATUSES
        if self.policy.slow_below is not None and is_refusal and limits.available_after is None:
            with self.lock:
                self._queue_of(request).block(route_key(request), limits, seconds, self.clock())

    def _wait_for_retry(self, event: WaitEvent) -> Generator[Action, Any, None]:
        until = self.clock() + event.seconds_left
        if event.response is not None:
            log_refusal(event.request, event.response, event.attempt, f"retry in {event.seconds_left:.3g} s")
        while (left := until - self.clock()) > 0:
            self._notify(replace(event, seconds_left=left))
            yield self._sleep(left)

    def _sleep(self, seconds: float, queued: QueuedRequest | Permit | None = None) -> Sleep:
        """Return a sleep that ends in time for the next call of `on_wait`."""
        return Sleep(seconds if self.on_wait is None else min(seconds, _NOTIFY_INTERVAL_S), queued)

    def _notify(self, event: WaitEvent) -> None:
        if self.on_wait is not None:
            self.on_wait(event)

    def _queue_of(self, request: httpx.Request) -> AdmissionQueue:
        key = self.key(request)
        with self.lock:
            return self.queues.get_or_make(
                key, lambda: AdmissionQueue(self.policy.slow_below or 0.0, self.policy.max_wait)
            )


def _parsed(response: httpx.Response) -> ResponseLimits:
    return parse_response_limits(response.status_code, response.headers, system_clock() / 1e6)
