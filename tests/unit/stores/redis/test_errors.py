"""Errors of redis-py become errors of this package, without an address or a password."""

import asyncio

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.redis.errors import translate_errors


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (RedisTimeoutError("10.0.0.1"), StoreTimeout, "the store did not answer in time"),
        (TimeoutError(), StoreTimeout, "the store did not answer in time"),
        (RedisConnectionError("10.0.0.1"), StoreUnavailable, r"the store could not be reached \(ConnectionError\)"),
        (RedisClusterException("10.0.0.1"), StoreUnavailable, r"could not be reached \(RedisClusterException\)"),
        (ConnectionRefusedError(1, "10.0.0.1"), StoreUnavailable, r"could not be reached \(ConnectionRefusedError\)"),
        (AuthenticationError("WRONGPASS"), StoreError, "the store refused the login: WRONGPASS"),
        (NoPermissionError("NOPERM"), StoreError, "the store answered NoPermissionError: NOPERM"),
        (ResponseError("OOM" + "x" * 200), StoreError, "the store answered ResponseError: OOMx{97} \\[RL406\\]$"),
        (RedisError("odd"), StoreError, "the store answered RedisError: odd"),
    ],
)
async def test_each_failure_has_an_error_of_this_package(
    raised: Exception, error: type[StoreError], message: str
) -> None:
    """The error's own chain is cut off, since its text may hold an address."""
    with pytest.raises(StoreError, match=message) as caught:
        async with translate_errors(10):
            raise raised
    assert type(caught.value) is error
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "10.0.0.1" not in str(caught.value)


async def test_a_block_that_takes_too_long_is_ended() -> None:
    """With `StoreTimeout`; a timeout that has passed already ends it at once."""
    with pytest.raises(StoreTimeout):
        async with translate_errors(-1):
            await asyncio.Event().wait()


async def test_any_other_error_passes_through() -> None:
    """A bug, or a cancellation, is not a failure of the store."""
    with pytest.raises(ZeroDivisionError):
        async with translate_errors(10):
            raise ZeroDivisionError
    with pytest.raises(asyncio.CancelledError):
        async with translate_errors(10):
            raise asyncio.CancelledError
