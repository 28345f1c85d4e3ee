"""How often, and after how long, a request that was refused is sent again."""

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

from ratelimit.errors import ConfigurationError

_REFUSED: Final = frozenset({429, 503})


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _made(value: object) -> bool:
    """Say whether this is a wait or a stop, and not the class of one."""
    return callable(value) and not isinstance(value, type)


def _part(value: object) -> bool:
    return _seconds(value) and value <= 1  # type: ignore[operator]


class wait_retry_after(wait_base):  # noqa: N801 - tenacity's waits are called so
    """Wait as long as the response's `Retry-After` says, times `factor` for each refusal before; a wait of tenacity's.

    `missing` is the wait where it says nothing. Adding `wait_random(0.05, 0.5)` to it spreads those who were refused
    together.
    """

    def __init__(self, missing: wait_base | None = None, *, factor: float = 1.0) -> None:
        self.missing, self.factor = missing or wait_exponential(multiplier=1, max=60), factor
        if not _made(self.missing):
            raise ConfigurationError(f"missing: must be one of tenacity's waits, not {missing!r:.50}")

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait after the refusal that the state tells of."""
        told: Any = retry_state.outcome.result() if retry_state.outcome else None
        if getattr(told, "retry_after", None) is None:
            return self.missing(retry_state)
        # Beyond that every factor is as good as the bound.
        return float(told.retry_after * self.factor ** min(retry_state.attempt_number - 1, 100))


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Say what is sent again, how often, and after how long; a value, to be changed with `dataclasses.replace`.

    429 and 503 are sent again up to `retries` times (0: never), after `wait`; `stop` may end it earlier. Both are
    tenacity's, and what they are asked about is the `Advice` of the response. Other statuses count as refusals where
    `retry_on` names them, for `retry_on_for` seconds from the first try: say `retry_on=[401]` of a server that is known
    to answer so under load. A 403 is never sent again. No wait is longer than `max_wait` seconds: a response that
    wants more goes to the caller as it is.

    `slow_below` is the part of a limit that has to remain for requests to go out unhindered: below it they are spread over
    the time until it is renewed, and where nothing remains they wait for that. 0.0 is only the latter; with `None`
    nothing is held back before it was refused. Wrong values raise `ConfigurationError`.
    """

    retries: int = 5
    wait: wait_base = wait_retry_after(wait_exponential_jitter(initial=1, max=60)) + wait_random(0, 0.25)
    stop: stop_base = stop_never
    retry_on: Collection[int] = ()
    retry_on_for: float = 30.0
    max_wait: float = 120.0
    slow_below: float | None = 0.0

    def __post_init__(self) -> None:
        given: Any = self.retry_on
        statuses: Collection[Any] = given if isinstance(given, Collection) else (None,)
        for name, holds in (
            ("retries: must be an integer, 0 or more", _whole(self.retries) and self.retries >= 0),
            ("wait: must be one of tenacity's", _made(self.wait)),
            ("stop: must be one of tenacity's", _made(self.stop)),
            ("retry_on: must be statuses from 400 to 599", all(_whole(one) and 400 <= one <= 599 for one in statuses)),
            ("retry_on: a 403 says that waiting does not help", 403 not in statuses),
            ("retry_on_for: must be seconds, 0 or more", _seconds(self.retry_on_for)),
            ("max_wait: must be seconds, 0 or more", _seconds(self.max_wait)),
            ("slow_below: must be between 0 and 1, or None", self.slow_below is None or _part(self.slow_below)),
        ):
            if not holds:
                field = name.partition(":")[0]
                raise ConfigurationError(f"{name}, got {getattr(self, field)!r:.50}")

    def retries_status(self, status: int) -> bool:
        """Say whether a response of that status is a refusal, after which the request may be sent again."""
        return status in _REFUSED or status in self.retry_on

    def pause(self, state: RetryCallState) -> float | None:
        """Return the seconds to wait before the request is sent again, or `None` where it is not."""
        told: Any = state.outcome.result() if state.outcome else None
        asked = told.retry_after or 0.0
        if asked > self.max_wait:
            return None
        state.upcoming_sleep = max(asked, min(self.wait(state), self.max_wait))
        if stop_after_attempt(self.retries + 1)(state) or self.stop(state):
            return None
        elapsed = state.seconds_since_start or 0.0
        if told.status not in _REFUSED and elapsed + state.upcoming_sleep > self.retry_on_for:
            return None
        return state.upcoming_sleep


EXPONENTIAL: Final = RetryPolicy()
"""The general rule: `Retry-After`, or 1 s doubling to 60 s with jitter; five times at most."""

CONTRACT_A: Final = RetryPolicy(retries=5, wait=wait_retry_after(factor=1.5) + wait_random(0.05, 0.5), slow_below=0.1)
"""`Retry-After` plus 50 to 500 ms, half as long again for each 429 before; five times; slower below 10 % of a limit."""

CONTRACT_B: Final = RetryPolicy(
    retries=2, wait=wait_retry_after(wait_exponential(multiplier=1, max=60)), slow_below=None
)
"""`Retry-After`, or 1 s doubling to 60 s; twice. `replace(CONTRACT_B, retries=0)` sends nothing again."""
