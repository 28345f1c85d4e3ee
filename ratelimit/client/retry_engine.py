"""The retry engine: turns one request into actions that a transport performs, without a socket, sleep or event loop."""

import logging
import math
import re
import threading
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import httpx
from tenacity import Future, RetryCallState

from ratelimit._utils.bounded_cache import LruCache
from ratelimit.client.admission_queue import AdmissionQueue, QueuedRequest, RouteKey
from ratelimit.client.response_limits import ResponseLimits, parse_response_limits
from ratelimit.client.retry_policy import REFUSAL_STATUSES, RetryPolicy
from ratelimit.clock import system_clock

logger = logging.getLogger("ratelimit.client")

_NOTIFY_INTERVAL_S: Final = 1.0
"""Seconds between two calls of `on_wait` during one wait."""

_MAX_QUEUES: Final = 1000
"""Admission queues that a transport keeps; beyond that, the one used longest ago is dropped with its estimates."""

_ROUNDING_S: Final = 1e-6
"""Seconds by which sums of instants may be off."""

_DIGIT: Final = re.compile("[0-9]")


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """A wait of a client, reported to `on_wait` when it begins and every second.

    `reason` is `"refused"` (by `response`, whose body is read; `attempt` is the number of that attempt) or `"ahead"`
    (the limit is known to be used up, and the request would be refused). `seconds_left` is the time still to wait, or
    infinite where it ends with the response of another request.
    """

    request: httpx.Request
    reason: Literal["refused", "ahead"]
    seconds_left: float
    attempt: int
    response: httpx.Response | None


class SendRequest(NamedTuple):
    """Send the request, and continue with the response; if sending raises, throw the error into the exchange."""


class DrainResponse(NamedTuple):
    """Read the response, if it is short, and close it; continue with a response whose body is read."""

    response: httpx.Response


class Sleep(NamedTuple):
    """Continue after so many seconds (infinite: never), or as soon as `queued` is woken, where there is one."""

    seconds: float
    queued: QueuedRequest | None = None


Action = SendRequest | DrainResponse | Sleep
Exchange = Generator[Action, Any, httpx.Response]
_Attempt = Generator[Action, Any, tuple[ResponseLimits, httpx.Response, float]]


def default_limit_key(request: httpx.Request) -> Hashable:
    """Return whose limits a request counts against: the server and the credentials in `Authorization` or `X-API-Key`."""
    url, headers = request.url, request.headers
    return url.scheme, url.host, url.port, hash(headers.get("authorization")), hash(headers.get("x-api-key"))


def route_key(request: httpx.Request) -> RouteKey:
    """Return the route of a request; each path segment that contains a digit is taken for an id."""
    segments = request.url.path.split("/")
    return RouteKey(request.method, "/".join("*" if _DIGIT.search(segment) else segment for segment in segments))


class RetryEngine:
    """Decides for one transport when each request is sent, and whether it is sent again.

    `queues` are the admission queues, by `key` of a request. `clock` returns seconds and never goes back. `lock` guards
    the queues. `last_refusal` is the latest response that was a refusal, with its body where that was read.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        on_wait: Callable[[WaitEvent], None] | None,
        key: Callable[[httpx.Request], Hashable],
        clock: Callable[[], float],
    ) -> None:
        self.policy, self.on_wait, self.key, self.clock = policy, on_wait, key, clock
        self.last_refusal: httpx.Response | None = None
        # Reentrant: an abandoned exchange may be garbage-collected, and closed, while its thread holds the lock.
        self.lock = threading.RLock()
        self.queues: LruCache[Hashable, AdmissionQueue] = LruCache(_MAX_QUEUES)

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
        """Send a request once it is admitted, and learn from the response; return also the seconds until admission."""
        if self.policy.slow_below is None:
            response: httpx.Response = yield SendRequest()
            return _parsed(response), response, 0.0
        queue, queued, began = self._queue_of(request), QueuedRequest(route_key(request), wake), self.clock()
        try:
            with self.lock:
                queue.enter(queued, began)
            was_admitted_at_once = queued.is_admitted
            yield from self._wait_for_admission(queue, queued, request, attempt)
            queue_wait = 0.0 if was_admitted_at_once else self.clock() - began
            response = yield SendRequest()
        except BaseException:
            with self.lock:
                queue.record_lost(queued, self.clock())
            raise
        limits = _parsed(response)
        with self.lock:
            queue.record_response(queued, limits, self.clock(), refused=response.status_code in REFUSAL_STATUSES)
        return limits, response, queue_wait

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
            return self.policy.delay(state) if _is_replayable(request) else None
        except BaseException:
            yield DrainResponse(response)
            raise

    def _hand_on(self, request: httpx.Request, response: httpx.Response, limits: ResponseLimits, attempt: int) -> None:
        """Log that a refusal goes to the caller; if it asks for too long a wait, warn, and note that on the response."""
        _log_refusal(request, response, attempt, "not retried")
        if self.policy.exceeds_max_wait(limits):
            bounds = {"retry_after": limits.retry_after, "max_wait": float(self.policy.max_wait)}
            response.extensions["ratelimit"].update(bounds)
            # Neither the path nor the query: both may contain credentials.
            logging.getLogger("ratelimit").warning(
                "%s: the response %d asks for a wait of %g s, more than max_wait=%g s: "
                "the caller gets it, and the request is not sent again",
                request.url.host,
                response.status_code,
                limits.retry_after,
                self.policy.max_wait,
            )

    def _block_others(self, request: httpx.Request, limits: ResponseLimits, seconds: float) -> None:
        """Hold back other requests too, after a refusal that does not say for how long."""
        is_refusal = limits.status in REFUSAL_STATUSES
        if self.policy.slow_below is not None and is_refusal and limits.available_after is None:
            with self.lock:
                self._queue_of(request).block(route_key(request), limits, seconds, self.clock())

    def _wait_for_retry(self, event: WaitEvent) -> Generator[Action, Any, None]:
        until = self.clock() + event.seconds_left
        if event.response is not None:
            _log_refusal(event.request, event.response, event.attempt, f"retry in {event.seconds_left:.3g} s")
        while (left := until - self.clock()) > 0:
            self._notify(replace(event, seconds_left=left))
            yield self._sleep(left)

    def _sleep(self, seconds: float, queued: QueuedRequest | None = None) -> Sleep:
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


def buffered_response(response: Any, body: bytes, *, whole: bool) -> Any:
    """Return a copy of a closed response, whose body is what was read of it.

    A body that is not `whole`, or cannot be decoded, is kept as it was received. If no copy can be made, the response
    itself is returned.
    """
    headers = [each for each in response.headers.multi_items() if whole or each[0] != "content-encoding"]
    try:
        return type(response)(
            response.status_code,
            headers=headers,
            content=body,
            request=response.request,
            extensions={"ratelimit": response.extensions["ratelimit"]},
        )
    except Exception:  # noqa: BLE001 - the body contradicts its headers
        return buffered_response(response, body, whole=False) if whole else response


def _parsed(response: httpx.Response) -> ResponseLimits:
    return parse_response_limits(response.status_code, response.headers, system_clock() / 1e6)


def _is_replayable(request: httpx.Request) -> bool:
    """Say whether the body can be sent again: it is in memory, or in files that can be rewound."""
    try:
        request.content  # noqa: B018 - raises where it was never read
    except RuntimeError:
        fields = getattr(request.stream, "fields", None)
        return fields is not None and all(_is_rewindable(getattr(field, "file", b"")) for field in fields)
    return True


def _is_rewindable(file: Any) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    try:
        return bool(file.seekable())
    except (AttributeError, ValueError):  # The file is closed by now.
        return False


def _log_refusal(request: httpx.Request, response: httpx.Response, attempt: int, outcome: str) -> None:
    retry_after = response.headers.get("retry-after")
    logger.info(
        "%s %s: refused with %d%s, attempt %d; %s",
        request.method,
        request.url.copy_with(query=None, userinfo=b""),
        response.status_code,
        f" (Retry-After {retry_after:.50})" if retry_after else "",
        attempt,
        outcome,
    )
