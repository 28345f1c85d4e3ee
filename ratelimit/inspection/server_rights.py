"""The rights of a login: which of the commands that the limiter needs are refused."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from ratelimit.errors import StoreError

_COMMANDS: Final = """
local refused = {}
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then refused[#refused + 1] = (select(1, ...)) .. ': ' .. reply.err end
end
local k = KEYS[1]
try('TIME') try('SET', k, '', 'PX', '1000') try('GET', k) try('MGET', k) try('SETRANGE', k, '0', 'x') try('PEXPIRE', k, '1000') try('DEL', k)
try('ZADD', k, '1', 'm') try('ZCOUNT', k, '-inf', '+inf') try('ZSCORE', k, 'm') try('ZRANGEBYSCORE', k, '-inf', '+inf') try('ZINCRBY', k, '1', 'm')
try('ZREM', k, 'm') try('ZREMRANGEBYSCORE', k, '-inf', '+inf') try('ZREMRANGEBYRANK', k, '0', '-1') try('ZCARD', k) try('DEL', k)
try('HSET', k, 'f', '1') try('HINCRBY', k, 'f', '1') try('HDEL', k, 'f') try('DEL', k) try('XADD', k, '*', 'f', 'v') try('DEL', k)
return refused
"""
"""Tries each command that the scripts use, at one key of its own."""

DENIED: Final = re.compile(r"NOPERM|permission|can't run this command")
"""How servers say that a login may not use a command."""

_PLAIN_COMMANDS: Final[Sequence[tuple[str, ...]]] = (
    ("HGET", "f"),
    ("HSCAN", "0"),
    ("HGETALL",),
    ("XRANGE", "-", "+"),
    ("XREVRANGE", "+", "-"),
    ("ZRANGE", "0", "-1"),
    ("UNLINK",),
)
"""Commands that are sent by themselves, and what follows the key."""


async def refused_commands(run: Callable[..., Awaitable[Any]], key: str) -> list[str]:
    """Try each command at a key of its own, and return those that the server refuses: `COMMAND: its words`."""
    refused = []
    for command, *more in _PLAIN_COMMANDS:
        if (error := await _refusal(run, command, key, *more)) is not None:
            refused.append(error)
    if (error := await _refusal(run, "EVAL", "return 1", "1", key)) is not None:
        return [*refused, error]
    found = await run("EVAL", _COMMANDS, 1, key)
    return refused + [each.decode("utf-8", "replace") for each in found]


async def _refusal(run: Callable[..., Awaitable[Any]], command: str, *arguments: str) -> str | None:
    try:
        await run(command, *arguments)
    except StoreError as error:
        return f"{command}: {error}"
    return None
