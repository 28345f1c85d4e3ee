"""One request until its last response, as steps that somebody else takes: no socket, no sleep, no colour."""

import logging
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import httpx
from tenacity import Future, RetryCallState

from ratelimit.client.advice import Advice, read
from ratelimit.client.gates import Gates, Place, Waiter
from ratelimit.client.policy import RetryPolicy
from ratelimit.clock import system_clock

logger = logging.getLogger("ratelimit.client")

_TICK: Final = 1.0
"""Seconds between two notices of a long wait."""

_MOST_SERVERS: Final = 1000
"""Servers and callers of whom something is remembered."""

_ROUNDING: Final = 1e-6
"""Seconds that sums of instants may be wrong by."""

_DIGIT: Final = re.compile("[0-9]")

_REFUSED: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a client waits for, told when it begins and every second.

    `reason` is `"refused"` (by `response`, whose body is read; `attempt` says which one that was) or `"ahead"` (so as not
    to be refused). `left` are the seconds still to wait, infinite where an answer to somebody else is waited for.
    """

    request: httpx.Request
    reason: Literal["refused", "ahead"]
    left: float
    attempt: int
    response: httpx.Response | None


class Send(NamedTuple):
    """Send the request, and come back with the response, or raise here what was raised."""


class Close(NamedTuple):
    """Read the response, if it is short, and close it; come back with one that is read."""

    response: httpx.Response


class Pause(NamedTuple):
    """Come back after so many seconds (infinite: never), or as soon as `waiter` is woken."""

    seconds: float
    waiter: Waiter | None = None


Step = Send | Close | Pause
Exchange = Generator[Step, Any, httpx.Response]
Once = Generator[Step, Any, tuple[Advice, httpx.Response, float]]


def caller(request: httpx.Request) -> Hashable:
    """Return what tells apart whose limits a request counts for: the server, and the credentials that it brings."""
    url, headers = request.url, request.headers
    return url.scheme, url.host, url.port, hash(headers.get("authorization")), hash(headers.get("x-api-key"))


def place(request: httpx.Request) -> Place:
    """Return what a request asks for: parts of the path that have a digit in them are taken for ids."""
    parts = request.url.path.split("/")
    return Place(request.method, "/".join("*" if _DIGIT.search(part) else part for part in parts))


class Memory:
    """What one transport knows of servers, and how it goes by that."""

    def __init__(
        self,
        policy: RetryPolicy,
        on_wait: Callable[[Wait], None] | None,
        key: Callable[[httpx.Request], Hashable],
        clock: Callable[[], float],
    ) -> None:
        self.policy, self.on_wait, self.key, self.clock = policy, on_wait, key, clock
        self.last_refusal: httpx.Response | None = None
        self.lock = threading.RLock()  # What is given up may be collected in the middle of anything.
        self._known: OrderedDict[Hashable, Gates] = OrderedDict()

    def exchange(self, request: httpx.Request, wake: Callable[[], None]) -> Exchange:
        """Return the steps from a request to the response that its caller gets."""
        begun, waited = self.clock(), 0.0
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.start_time = begun
        while True:
            advice, response, ahead = yield from self._once(request, state.attempt_number, wake)
            waited += ahead
            response.extensions["ratelimit"] = {"attempts": state.attempt_number, "waited": waited}
            if not self.policy.retries_status(response.status_code):
                return response
            response.request, self.last_refusal = request, response
            seconds = yield from self._decide(state, advice, request, response)
            if seconds is None:
                self._log(request, response, state.attempt_number, "not sent again")
                return response
            refusal = yield Close(response)
            self.last_refusal = refusal
            self._hold(request, advice, seconds)
            yield from self._pause(Wait(request, "refused", seconds, state.attempt_number, refusal))
            waited += seconds
            state.idle_for = waited
            state.prepare_for_next_attempt()

    def _decide(
        self, state: RetryCallState, advice: Advice, request: httpx.Request, response: httpx.Response
    ) -> Generator[Step, Any, float | None]:
        """Return the seconds until a request is sent again, or `None`; what a wait of somebody's raises leaks nothing."""
        state.outcome, state.outcome_timestamp = Future(state.attempt_number), self.clock()
        state.outcome.set_result(advice)
        try:
            return self.policy.pause(state) if _can_be_sent_again(request) else None
        except BaseException:
            yield Close(response)
            raise

    def _once(self, request: httpx.Request, attempt: int, wake: Callable[[], None]) -> Once:
        """Send a request once, when it may go, and learn from the answer; say also how long it waited for that."""
        if self.policy.slow_below is None:
            response: httpx.Response = yield Send()
            return read(response.status_code, response.headers, system_clock() / 1e6), response, 0.0
        gates, waiter, begun = self._gates(request), Waiter(place(request), wake), self.clock()
        try:
            with self.lock:
                gates.enter(waiter, begun)
            at_once = waiter.may
            yield from self._stand_in_line(gates, waiter, request, attempt)
            ahead = 0.0 if at_once else self.clock() - begun
            response = yield Send()
        except BaseException:
            with self.lock:
                gates.lost(waiter, self.clock())
            raise
        advice = read(response.status_code, response.headers, system_clock() / 1e6)
        with self.lock:
            gates.answered(waiter, advice, self.clock(), refused=response.status_code in _REFUSED)
        return advice, response, ahead

    def _stand_in_line(
        self, gates: Gates, waiter: Waiter, request: httpx.Request, attempt: int
    ) -> Generator[Step, Any, None]:
        told, first = -math.inf, math.inf
        while True:
            with self.lock:
                now = self.clock()
                if not waiter.may and gates.wait(waiter, now) <= 0:
                    gates.look(now)
                seconds = 0.0 if waiter.may else gates.wait(waiter, now)
                first = min(first, now) if gates.is_first(waiter) else first
                left = first + self.policy.max_wait - now
                # The server may say itself that it wants more than that; and answers may take for ever.
                if not waiter.may and (self.policy.max_wait + _ROUNDING < seconds < math.inf or left <= 0):
                    gates.insist(waiter, now)
            if waiter.may:
                return
            if now - told >= _TICK:
                told = now
                self._tell(Wait(request, "ahead", seconds, attempt, None))
            yield Pause(min(seconds, left, _TICK) if self.on_wait else min(seconds, left), waiter)

    def _hold(self, request: httpx.Request, advice: Advice, seconds: float) -> None:
        """Hold back others too, after a refusal that did not say for how long."""
        if self.policy.slow_below is not None and advice.status in _REFUSED and advice.opens is None:
            with self.lock:
                self._gates(request).hold(place(request), advice, seconds, self.clock())

    def _pause(self, wait: Wait) -> Generator[Step, Any, None]:
        until = self.clock() + wait.left
        if wait.response is not None:
            self._log(wait.request, wait.response, wait.attempt, f"next in {wait.left:.3g} s")
        while (left := until - self.clock()) > 0:
            self._tell(Wait(wait.request, wait.reason, left, wait.attempt, wait.response))
            yield Pause(min(left, _TICK) if self.on_wait else left)

    @staticmethod
    def _log(request: httpx.Request, response: httpx.Response, attempt: int, then: str) -> None:
        asked = response.headers.get("retry-after")
        logger.info(
            "%s %s: refused with %d%s, try %d; %s",
            request.method,
            request.url.copy_with(query=None, userinfo=b""),
            response.status_code,
            f" (Retry-After {asked:.50})" if asked else "",
            attempt,
            then,
        )

    def _tell(self, wait: Wait) -> None:
        if self.on_wait is not None:
            self.on_wait(wait)

    def _gates(self, request: httpx.Request) -> Gates:
        key = self.key(request)
        with self.lock:
            gates = self._known.get(key)
            if gates is None:
                gates = self._known[key] = Gates(self.policy.slow_below or 0.0, self.policy.max_wait)
                if len(self._known) > _MOST_SERVERS:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
        return gates


def _can_be_sent_again(request: httpx.Request) -> bool:
    """Say whether the body is still there after it was sent: in memory, or in files that can be rewound."""
    try:
        request.content  # noqa: B018 - raises where it was never read
    except RuntimeError:
        fields = getattr(request.stream, "fields", None)
        return fields is not None and all(_rewinds(getattr(field, "file", b"")) for field in fields)
    return True


def _rewinds(file: Any) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    try:
        return bool(file.seekable())
    except (AttributeError, ValueError):  # It is closed by now.
        return False


def as_read(response: Any, body: bytes, *, whole: bool) -> Any:
    """Return a response like the one that is closed, with what was read of its body."""
    headers = [each for each in response.headers.multi_items() if whole or each[0] != "content-encoding"]
    try:
        return type(response)(
            response.status_code,
            headers=headers,
            content=body,
            request=response.request,
            extensions={"ratelimit": response.extensions["ratelimit"]},
        )
    except Exception:  # noqa: BLE001 - its body is not what its headers say
        return as_read(response, body, whole=False) if whole else response
