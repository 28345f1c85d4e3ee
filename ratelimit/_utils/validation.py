"""Checks of values that a caller hands in."""

from typing import Final, TypeGuard

from ratelimit.errors import ConfigurationError

_MAX_AMOUNT: Final = 10**15 - 1
"""Units: every sum of two such numbers is an exact integer in Lua."""

_MAX_WAIT: Final = 1e18
"""Seconds: a longer bound on a wait is the same as this one."""


def is_int(value: object) -> TypeGuard[int]:
    """Say whether `value` is an integer; `True` and `False` are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether `value` is an integer or a float; `True` and `False` are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_int_between(value: object, low: int, high: int) -> TypeGuard[int]:
    """Say whether `value` is an integer from `low` to `high`."""
    return is_int(value) and low <= value <= high


def check_amount(name: str, amount: object) -> None:
    """Raise `ConfigurationError` where a number of units is not a positive integer of at most 15 digits."""
    if not is_int_between(amount, 1, _MAX_AMOUNT):
        raise ConfigurationError(f"{name}: must be a positive integer, got {amount!r} [RL301]")


def check_max_wait(max_wait: object) -> float | None:
    """Return a bound on a wait in seconds (`None`: no bound), or raise `ConfigurationError`."""
    if max_wait is None:
        return None
    if not is_number(max_wait) or not max_wait >= 0:
        raise ConfigurationError(f"max_wait: must be seconds, 0 or more, or None; got {max_wait!r:.50} [RL701]")
    return float(min(max_wait, _MAX_WAIT))
