"""Retry policies: which refusals are retried, how often, and after how long."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from tenacity import (
    RetryCallState,
    stop_after_attempt,
    stop_never,
    wait_exponential,
    wait_exponential_jitter,
    wait_random,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from ratelimit._utils.validation import is_int, is_int_between, is_number
from ratelimit.client.response_limits import ResponseLimits
from ratelimit.errors import ConfigurationError

REFUSAL_STATUSES: Final = frozenset({429, 503})
"""Statuses that always count as refusals (RFC 6585 §4, RFC 9110 §15.6.4)."""


def _is_duration(value: object) -> bool:
    return is_number(value) and value >= 0


def _is_fraction(value: object) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_callable_instance(value: object) -> bool:
    """Say whether this is a wait or a stop, and not its class."""
    return callable(value) and not isinstance(value, type)


class wait_retry_after(wait_base):  # noqa: N801 - tenacity's waits are called so
    """Wait as long as the response's `Retry-After` says; a tenacity wait.

    `missing` is the wait where the header is missing (default: 1 s doubling to 60 s). With a `factor` above 1 the waits
    of one request grow: each is at least `factor` times the request's previous wait, and exactly that where the header
    is missing; `missing` is then the first wait. Adding `wait_random(0.05, 0.5)` spreads clients that were refused
    together. A `missing` that is no tenacity wait, or a `factor` below 1, raises `ConfigurationError`.
    """

    def __init__(self, missing: wait_base | None = None, *, factor: float = 1.0) -> None:
        self.missing, self.factor = missing or wait_exponential(multiplier=1, max=60), factor
        if not _is_callable_instance(self.missing):
            raise ConfigurationError(f"missing: must be a tenacity wait, got {missing!r:.50} [RL706]")
        if not (is_number(factor) and factor >= 1):
            raise ConfigurationError(f"factor: must be a number, 1 or more, got {factor!r:.50} [RL706]")

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait after the refusal whose `ResponseLimits` are the outcome of `retry_state`.

        `retry_state.upcoming_sleep` is the previous wait (0.0: there was none).
        """
        limits: Any = retry_state.outcome.result() if retry_state.outcome else None
        retry_after = getattr(limits, "retry_after", None)
        grown = self.factor * retry_state.upcoming_sleep if self.factor > 1 else 0.0
        if retry_after is None:
            return grown or self.missing(retry_state)
        return max(float(retry_after), grown)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Define which refusals are retried, how often, and after how long; a value, changed with `dataclasses.replace`.

    A request that is refused with 429 or 503 is sent again up to `retries` times (0: never), after `wait`; `stop` may
    end that earlier. Both are tenacity's; the outcome that they see is the `ResponseLimits` of the response. A status
    in `retry_on` counts as a refusal too, for `retry_on_for` seconds from the first attempt: `retry_on=[401]` suits a
    server that is known to answer 401 under load. A 403 is never retried. No wait is longer than `max_wait` seconds: a
    response whose `Retry-After` is longer goes to the caller at once, with a warning in the log (`ratelimit`).

    `slow_below` is a fraction of a limit, by default a tenth. While less than that remains, requests are spread over the
    time until the limit resets; while nothing remains, they wait for the reset. 0.0 only waits for the reset. `None`
    holds back nothing before it was refused. Wrong values raise `ConfigurationError`.
    """

    retries: int = 5
    wait: wait_base = wait_retry_after(wait_exponential_jitter(initial=1, max=60)) + wait_random(0, 0.25)
    stop: stop_base = stop_never
    retry_on: Collection[int] = ()
    retry_on_for: float = 30.0
    max_wait: float = 120.0
    slow_below: float | None = 0.1

    def __post_init__(self) -> None:
        given: Any = self.retry_on
        statuses: Collection[Any] = given if isinstance(given, Collection) else (None,)
        for rule, holds in (
            ("retries: must be an integer, 0 or more", is_int(self.retries) and self.retries >= 0),
            ("wait: must be a tenacity wait", _is_callable_instance(self.wait)),
            ("stop: must be a tenacity stop", _is_callable_instance(self.stop)),
            ("retry_on: must be statuses from 400 to 599", all(is_int_between(one, 400, 599) for one in statuses)),
            ("retry_on: must not contain 403, which retrying does not change", 403 not in statuses),
            ("retry_on_for: must be seconds, 0 or more", _is_duration(self.retry_on_for)),
            ("max_wait: must be seconds, 0 or more", _is_duration(self.max_wait)),
            ("slow_below: must be between 0 and 1, or None", self.slow_below is None or _is_fraction(self.slow_below)),
        ):
            if not holds:
                field = rule.partition(":")[0]
                raise ConfigurationError(f"{rule}, got {getattr(self, field)!r:.50} [RL706]")

    def retries_status(self, status: int) -> bool:
        """Say whether a response with that status is a refusal, after which the request may be sent again."""
        return status in REFUSAL_STATUSES or status in self.retry_on

    def exceeds_max_wait(self, limits: ResponseLimits) -> bool:
        """Say whether a refused request is not retried because the server asks for a wait of more than `max_wait`."""
        return self.retries > 0 and (limits.retry_after or 0.0) > self.max_wait

    def delay(self, state: RetryCallState) -> float | None:
        """Return the seconds to wait before the request is sent again, or `None` where it is not.

        The outcome of `state` is the `ResponseLimits` of the refusal. `state.upcoming_sleep` is the previous wait, and
        becomes this one.
        """
        limits: Any = state.outcome.result() if state.outcome else None
        if self.exceeds_max_wait(limits):
            return None
        seconds = state.upcoming_sleep = max(limits.retry_after or 0.0, min(self.wait(state), self.max_wait))
        if stop_after_attempt(self.retries + 1)(state) or self.stop(state):
            return None
        elapsed = state.seconds_since_start or 0.0
        if limits.status not in REFUSAL_STATUSES and elapsed + seconds > self.retry_on_for:
            return None
        state.upcoming_sleep = max(seconds, self._held_back_for(limits))
        return seconds

    def _held_back_for(self, limits: ResponseLimits) -> float:
        """Return the seconds for which the reset of an exhausted limit holds a request back, after any wait of its own."""
        is_exhausted = self.slow_below is not None and limits.remaining == 0
        seconds = (limits.available_after or 0.0) if is_exhausted else 0.0
        return seconds if seconds <= self.max_wait else 0.0


DEFAULT_RETRY_POLICY: Final = RetryPolicy()
"""`Retry-After`, or 1 s doubling to 60 s with jitter; five retries; slower below 10 % of a limit."""

CONTRACT_A: Final = RetryPolicy(retries=5, wait=wait_retry_after(factor=1.5) + wait_random(0.05, 0.5))
"""`Retry-After`, at least 1.5 times the previous wait, plus 50 to 500 ms; five retries; slower below 10 % of a limit.

The first wait where the server does not say how long is 1 s.
"""

CONTRACT_B: Final = RetryPolicy(retries=2, wait=wait_retry_after(wait_exponential(multiplier=1, max=60)))
"""`Retry-After`, or 1 s doubling to 60 s; two retries; slower below 10 % of a limit.

`replace(CONTRACT_B, retries=0)` retries nothing.
"""
