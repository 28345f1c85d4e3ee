"""Translates the errors of redis-py into those of this package, in one place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import AuthenticationError, AuthorizationError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ratelimit.errors import StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.redis.foreign_value import ForeignValue


@asynccontextmanager
async def translate_errors(timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - the block's own timeout
    """Raise `StoreError` for every failure of the block, and `StoreTimeout` if it takes longer than `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except (RedisTimeoutError, TimeoutError):
        raise StoreTimeout("the store did not answer in time [RL403]") from None
    except (AuthenticationError, AuthorizationError) as error:
        raise StoreError(f"the store refused the login: {error!s:.100} [RL405]") from None
    except (RedisConnectionError, RedisClusterException, OSError) as error:
        raise StoreUnavailable(f"the store could not be reached ({type(error).__name__}) [RL404]") from None
    except RedisError as error:
        if "WRONGTYPE" in str(error):
            raise ForeignValue("the store has a value of another type there [RL406]") from None
        raise StoreError(f"the store answered {type(error).__name__}: {error!s:.100} [RL406]") from None
