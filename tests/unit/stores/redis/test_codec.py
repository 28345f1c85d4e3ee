"""The wire format: each request's numbers go to the script once, and only a fitting reply is taken.

`tests/fuzz/test_wire.py` feeds it damaged replies, `tests/behaviour/test_lua_python_parity.py` any history.
"""

from typing import Any

import msgpack
import pytest

from ratelimit import StoreError
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.redis.codec import SCRIPT, decode, encode, encode_command, read_script, sibling_key
from ratelimit.testing.factories import concurrency_limit, fresh_key, pace_limit, quota_limit, window_limit
from tests.support.redis_server import RedisServer


def encoded(*requests: StoreRequest) -> tuple[list[bytes], list[Any]]:
    """Return the keys of a call, and its body."""
    count, *keys, body = encode(requests, now=None, ttl_floor=0, name="call", number=42)
    assert int(count) == len(keys)
    return keys, msgpack.unpackb(body)


def test_keys_and_limits_travel_once_in_a_call() -> None:
    """Requests of one batch that share them name them by index, from 1 on."""
    limit, other = window_limit(5), window_limit(5)
    requests = [
        StoreRequest([Charge(limit, "{o}a", 2)]),
        StoreRequest([Charge(limit, "{o}a"), Charge(other, "{o}b", 3)]),
    ]
    keys, (now, ttl_floor, limits, flat, number) = encoded(*requests)
    assert keys == [b"{o}a", b"{o}b", b"{o}:#call:call"]
    assert (now, ttl_floor, len(limits), number) == (-1, 0, 2, 42)
    assert flat == [0, 1, 1, 1, 2, 0, 2, 1, 1, 1, 2, 2, 3]


def test_a_holder_and_an_instant_go_with_the_operations_from_acquire_on() -> None:
    """A plain charge does without them."""
    charge = Charge(concurrency_limit(5), "k")
    _, (_, _, _, flat, _) = encoded(
        StoreRequest([charge], Operation.PEEK), StoreRequest([charge], Operation.ADJUST, 7, 9)
    )
    assert flat == [1, 1, 1, 1, 1, 4, 1, 7, 9, 1, 1, 1]


def test_each_kind_sends_the_numbers_that_it_has() -> None:
    """Kind, shadow, limit and the caller's capacity, and then those of the kind."""
    limits = [
        window_limit(100, 60, 20, share=50),
        quota_limit(10, "month", shadow=True),
        quota_limit(10, None),
        concurrency_limit(3, 5000),
        pace_limit(100, 1, 250),
    ]
    _, (_, _, numbers, _, _) = encoded(StoreRequest([Charge(limit, "k") for limit in limits]))
    assert numbers == [
        [1, 0, 100, 50, 20, 938, 60_032],
        [2, 1, 10, 10, 4],
        [2, 0, 10, 10, 0],
        [3, 0, 3, 3, 5000],
        [4, 0, 100, 100, 1, 250],
    ]


def test_a_call_may_leave_the_key_of_its_reply_unnamed() -> None:
    """For a hash slot that is being migrated: only one key can be named there, and the other one goes as an argument."""
    arguments = encode(
        [StoreRequest([Charge(window_limit(5), "{o}a")])],
        now=None,
        ttl_floor=0,
        name="call",
        number=42,
        names_reply_key=False,
    )
    count, key, _, *mode = arguments
    assert (count, key, mode) == (b"1", b"{o}a", [b"unnamed", b"{o}:#call:call"])


@pytest.mark.parametrize(
    ("key", "sibling"),
    [
        ("rl:{org}:p:1", "rl:{org}:#call:n"),
        ("rl:{}:p", "rl:{}:#call:n"),
        ("plain", "{plain}:#call:n"),
        ("odd}key", "{odd}key}:#call:n"),
        ("{any}", "{any}:#call:n"),
    ],
)
def test_the_kept_reply_lies_in_the_hash_slot_of_its_call(key: str, sibling: str) -> None:
    """A Cluster runs a script only where all of its keys are in one hash slot."""
    assert sibling_key(key, "n") == sibling


def test_a_reply_is_cut_into_the_readings_of_each_request() -> None:
    """In their order; `now` is this process's, the instant the store's."""
    requests = [
        StoreRequest([Charge(window_limit(5), "a")]),
        StoreRequest([Charge(window_limit(5), key) for key in "bc"]),
    ]
    body = msgpack.packb([42, 99, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert list(decode(body, requests, 7, 42)) == [
        StoreReply([(1, 2, 3)], 7, 99),
        StoreReply([(4, 5, 6), (7, 8, 9)], 7, 99),
    ]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (msgpack.packb([41, 99, 1, 2, 3]), "belongs to another call"),
        (msgpack.packb([42, 99, 1, 2]), "does not fit the call"),
        (msgpack.packb([42, 99, 1, 2, True]), "does not fit the call"),
        (msgpack.packb({"a": 1}), "does not fit the call"),
        (None, "does not fit the call"),
    ],
)
def test_a_reply_that_does_not_fit_raises(reply: object, message: str) -> None:
    """Nothing is decided by numbers of another call."""
    with pytest.raises(StoreError, match=message):
        list(decode(reply, [StoreRequest([Charge(window_limit(5), "a")])], 7, 42))


def test_a_command_is_written_as_the_server_reads_it() -> None:
    """Lengths count bytes, not characters."""
    assert encode_command(b"GET", "ü".encode()) == b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xbc\r\n"


def test_the_script_holds_every_algorithm_and_the_decision() -> None:
    """One text, made of the files of both folders."""
    before, _, after = read_script("decide").partition("local KINDS = {}")
    assert SCRIPT.startswith(before)
    assert SCRIPT.endswith(after)
    assert [f"KINDS[{number}] = function()" in SCRIPT for number in (1, 2, 3, 4, 5)] == [True] * 4 + [False]


@pytest.mark.parametrize(("operation", "least_ms"), [(Operation.CHARGE, 29_000), (Operation.ADJUST, 59_000)])
def test_a_reply_is_kept_until_it_is_looked_up(
    redis_server: RedisServer, redis_url: str, operation: Operation, least_ms: int
) -> None:
    """That of a correction for a minute: what a worker reports after an outage may be in doubt until the next one ends."""
    request = StoreRequest([Charge(window_limit(10), fresh_key())], operation)
    arguments = encode([request], now=None, ttl_floor=0, name=fresh_key(), number=1)
    with redis_server.client() as client:
        client.eval(SCRIPT, *arguments)
        assert least_ms < client.pttl(arguments[-2]) <= least_ms + 1_000


def test_a_call_that_was_looked_up_in_vain_is_never_done(redis_server: RedisServer, redis_url: str) -> None:
    """A look-up that finds nothing leaves a tombstone: the call charges nothing if it arrives later."""
    charge = Charge(window_limit(10), fresh_key())
    arguments = encode([StoreRequest([charge])], now=None, ttl_floor=0, name="late", number=1)
    again = encode([StoreRequest([charge])], now=None, ttl_floor=0, name="other", number=2)
    with redis_server.client() as client:
        assert client.eval(SCRIPT, *arguments, b"lookup") == b""
        assert client.eval(SCRIPT, *arguments) == b""
        ((reply,),) = [list(decode(client.eval(SCRIPT, *again), [StoreRequest([charge])], 0, 2))]
    ((remaining, _, _),) = reply.readings
    assert remaining == 9
