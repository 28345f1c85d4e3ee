"""The wire: each call gets one reply or one error of ours, whatever bytes a server sends and however they are cut."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import ConfigurationError, Identity, Limiter, RateLimitSettings
from ratelimit.enforcement.decision import Decision
from ratelimit.errors import StoreError
from ratelimit.model.charge import Charge
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.messages import SharedMap, StoreReply, StoreRequest
from ratelimit.stores.redis.batching import Batcher
from ratelimit.stores.redis.connect import connect
from ratelimit.stores.redis.connection import PipelinedConnection
from ratelimit.stores.redis.pending_call import PendingCall
from ratelimit.stores.urls import open_store
from tests.fuzz.inputs import PRINTABLE, fuzz, hostile, patient, secrets
from tests.support.stores import window_limit

pytestmark = patient


class Transport:
    """Stands for a connection: it records that it was aborted."""

    def __init__(self) -> None:
        self.closing = False

    def get_protocol(self) -> None:
        """Return the protocol before: there was none."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def write(self, data: bytes) -> None:
        pass


class Conversation:
    """A connection with some pending calls, and all replies that each of them got."""

    def __init__(self, calls: int) -> None:
        unused: Any = None
        self.transport = Transport()
        transport: Any = self.transport
        self.connection = PipelinedConnection(unused)
        self.connection.attach(transport)
        self.replies: list[list[bytes | StoreError]] = [[] for _ in range(calls)]
        deadline = asyncio.get_running_loop().time() + 1000
        for each in self.replies:
            self.connection.call(b"x", each.append, deadline)

    def receive(self, pieces: Iterable[bytes]) -> None:
        """Receive the pieces as from asyncio until the connection is aborted, and then lose it."""
        for piece in pieces:
            if not self.transport.closing:
                self.connection.data_received(piece)
        self.connection.abort()
        self.connection.connection_lost(None)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(ends)]


bulk = st.binary(max_size=20).map(lambda text: b"$%d\r\n%b\r\n" % (len(text), text))
sizes = st.text(alphabet="0123456789-+ _x\u00b2", max_size=30).map(lambda text: f"${text}\r\n".encode("latin-1"))
simple = st.binary(max_size=20).map(lambda text: b"+" + text.replace(b"\n", b"") + b"\r\n")
failed = st.one_of(st.binary(max_size=40), st.just(b"ERR Error running script (call to f_1): @user: -OOM no ")).map(
    lambda text: b"-" + text.replace(b"\n", b"") + b"\r\n"
)
garbage = st.one_of(st.binary(max_size=30), st.text(alphabet="$+-*:%_\r\n01239", max_size=20).map(str.encode))
replies = st.lists(st.one_of(bulk, bulk, simple, failed, sizes, garbage), max_size=12).map(b"".join)
places = st.lists(st.integers(0, 1000), max_size=12)


@fuzz
@given(data=replies, where=places, calls=st.integers(0, 10))
async def test_every_call_is_answered_once(data: bytes, where: list[int], calls: int) -> None:
    """Nothing raises, and each pending call gets one text or one error, in whatever pieces the bytes come."""
    talk = Conversation(calls)
    talk.receive(cut(data, where))
    assert [len(each) for each in talk.replies] == [1] * calls
    assert all(isinstance(each[0], (bytes, StoreError)) for each in talk.replies)
    assert not talk.connection.is_open


@fuzz
@given(data=replies, where=places, calls=st.integers(0, 10))
async def test_where_it_is_cut_does_not_matter(data: bytes, where: list[int], calls: int) -> None:
    """The same bytes give the same replies, one by one, in pieces or at once."""
    results = []
    for pieces in ([data], cut(data, where), cut(data, range(len(data)))):
        talk = Conversation(calls)
        talk.receive(pieces)
        results.append([(type(reply), str(reply)) for (reply,) in talk.replies])
    assert results[0] == results[1] == results[2]


@fuzz
@given(texts=st.lists(st.binary(max_size=60), max_size=8), where=places)
async def test_texts_come_as_they_were_sent(texts: list[bytes], where: list[int]) -> None:
    """Line ends, lengths and signs within a text are part of the text."""
    talk = Conversation(len(texts) + 1)
    talk.receive(cut(b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts), where))
    assert [each[0] for each in talk.replies[:-1]] == texts
    assert isinstance(talk.replies[-1][0], StoreError)


async def test_a_length_that_python_does_not_read_breaks_the_connection() -> None:
    """The pending calls get the error, and not the event loop."""
    talk = Conversation(2)
    talk.receive([b"$" + b"1" * 5000 + b"\r\n"])
    assert [len(each) for each in talk.replies] == [1, 1]


CHARGES = [Charge(window_limit(5), "rl:{a}:p:60:a"), Charge(window_limit(5), "rl:{b}:p:60:b")]
small = st.integers(-(2**63), 2**64 - 1)
things = st.recursive(
    st.one_of(st.none(), st.booleans(), small, st.floats(), st.text(max_size=5), st.binary(max_size=5)),
    lambda deeper: st.one_of(st.lists(deeper, max_size=4), st.dictionaries(st.integers(0, 9), deeper, max_size=2)),
    max_leaves=8,
)
wire = st.one_of(
    st.binary(max_size=40),
    st.builds(msgpack.packb, things),
    st.builds(msgpack.packb, st.lists(small, min_size=6, max_size=8)),
    st.builds(
        lambda numbers, more: msgpack.packb(numbers) + more,
        st.lists(small, min_size=7, max_size=7),
        st.binary(max_size=3),
    ),
    st.sampled_from(
        [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91" * 5000, b"\xc6\xff\xff\xff\xff", b"\xc1", b""]
    ),
)


async def reply_to(data: bytes, *, lookup_only: bool = False) -> StoreReply:
    """Return the reply that a caller gets when the server sends these bytes, decoded as the executor does it."""

    def send(requests: Sequence[StoreRequest], then: Any) -> None:
        call = PendingCall(requests, then, 1_700_000_000_000_000)
        call.lookup_only = lookup_only
        then(call.result_of(data))

    return await Batcher(send).submit(StoreRequest(CHARGES))


@fuzz
@given(data=wire)
async def test_any_bytes_are_a_reply_or_a_store_error(data: bytes) -> None:
    """A reply has three numbers for each charge; any other bytes are a `StoreError`, also as a kept reply."""
    for lookup_only in (False, True):
        if not data and lookup_only:
            continue  # No bytes: there is no kept reply.
        try:
            reply = await reply_to(data, lookup_only=lookup_only)
        except StoreError as error:
            assert str(error)
        else:
            assert [len(reading) for reading in reply.readings] == [3, 3]


@fuzz
@given(values=st.lists(things, min_size=7, max_size=7).filter(lambda row: any(type(one) is not int for one in row)))
async def test_a_reply_of_other_values_than_integers_is_a_store_error(values: list[Any]) -> None:
    """Texts, floats or lists in a reply of the right length decide nothing, and the request does not fail."""
    with pytest.raises(StoreError):
        Decision.from_readings(CHARGES, (await reply_to(msgpack.packb(values))).readings, 0)


class Prepared(MemoryStore):
    """A store whose shared map of overrides has these entries."""

    def __init__(self, values: dict[str, bytes]) -> None:
        super().__init__()
        self.values = values

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        return SharedMap(1, self.values)


LIMITED = RateLimitSettings.model_validate(
    {
        "limits": [{"name": "a", "rate": "5/minute", "per": "token"}],
        "quotas": [{"name": "b", "limit": 5, "per": "org", "period": "day"}],
    }
)
RESOLVER = PolicyResolver(LIMITED)
CALLER = Identity(token="t", org="o")
NAMES = [
    f"{c.limit.policy}:{c.key.rpartition(':')[2]}"
    for c in RESOLVER.policies_at(RESOLVER.endpoint("GET")).charges(CALLER)
]
rates = st.one_of(
    st.integers(0, 100),
    st.tuples(st.integers(0, 100), st.integers(1, 100)),
    things.filter(lambda x: x is None or isinstance(x, (list, dict))),
)
entries = st.fixed_dictionaries(
    {
        "policy": st.one_of(st.sampled_from(["a", "b"]), things),
        "key": st.one_of(st.just({}), st.dictionaries(st.text(max_size=3), things, max_size=2), things),
        "rate": rates,
        "until": st.one_of(st.none(), st.integers(0, 2**62), things),
    }
)
maps = st.dictionaries(
    st.one_of(st.sampled_from(NAMES), hostile),
    st.one_of(entries.map(msgpack.packb), things.map(msgpack.packb), st.binary(max_size=20)),
    max_size=3,
)


@fuzz
@given(values=maps)
async def test_no_entry_of_the_overrides_fails_a_request(values: dict[str, bytes]) -> None:
    """An entry that cannot be read has no effect, and requests are decided."""
    async with Limiter(LIMITED, Prepared(values)) as limiter:
        await limiter.overrides.refresh()
        assert (await limiter.check(CALLER)).status in {200, 429, 403}
        await limiter.overrides.list()


@pytest.mark.parametrize("rate", [-1, 10**15])
async def test_an_override_out_of_bounds_has_no_effect(rate: int) -> None:
    """A number that no rate can have is not read from the store, and fails no request."""
    entry = {"policy": "a", "key": {}, "rate": rate, "until": None}
    async with Limiter(LIMITED, Prepared({NAMES[0]: msgpack.packb(entry)})) as limiter:
        await limiter.overrides.refresh()
        assert (await limiter.check(CALLER)).allowed


SCHEMES = [
    "redis",
    "rediss",
    "unix",
    "redis+cluster",
    "redis+sentinel",
    "memory",
    "http",
    "",
    "Redis",
    "redis+cluster\n",
]
OPTIONS = [
    *(
        "db",
        "protocol",
        "ssl",
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "socket_timeout",
        "max_connections",
        "client_name",
        "x",
    ),
    *("health_check_interval", "connection_class", "encoding", "username", "retry_on_error", "cache", "host", "port"),
    *(
        "startup_nodes",
        "require_full_coverage",
        "read_from_replicas",
        "credential_provider",
        "retry",
        "single_connection",
    ),
]
odd = st.text(alphabet=PRINTABLE + "\u2100\uff0f é\0\n", max_size=8)
hosts = st.one_of(
    odd,
    st.sampled_from(
        ["h", "h:1", "h:x", "h:99999", "[::1]", "[::1]:7", "[::1", "h,i:2", "h,", "", "ho\u2100st", "a%zz", "1.2.3.4"]
    ),
)
queries = st.dictionaries(
    st.sampled_from(OPTIONS), st.one_of(odd, st.sampled_from(["1", "true", "none", "0", "-1", "3"])), max_size=3
).map(lambda options: "&".join(f"{name}={value}" for name, value in options.items()))
urls = st.one_of(
    st.builds(
        "{}{}{}{}/{}{}{}".format,
        st.sampled_from(SCHEMES),
        st.sampled_from(["://", "://", "://", ":/", "//", ""]),
        st.sampled_from(["", "user:{}@", ":{}@", "{}:{}@", "u:%40{}@", "u:{}:x@", "u:{}@@"]),
        hosts,
        st.one_of(st.sampled_from(["", "0", "x", "name", "name/1", "name/x", "0/1"]), odd),
        st.sampled_from(["", "?"]),
        queries,
    ),
    hostile,
)


@fuzz
@given(url=urls, secret=secrets)
def test_any_url_is_a_store_or_a_configuration_error(url: str, secret: str) -> None:
    """Neither the error nor the repr of the store shows the password, whatever redis-py reports."""
    address = url.replace("{}", secret)
    for make in (
        lambda: connect(address, connect_timeout=0.1, max_connections=2),
        lambda: open_store(address),
    ):
        try:
            made = make()
        except ConfigurationError as error:
            assert error.__cause__ is None
            assert error.__suppress_context__ or error.__context__ is None
            assert "://" not in address or secret not in f"{error} {error!r}"
        else:
            assert not isinstance(made, tuple)
            if "Store" in type(made).__name__:
                assert secret not in repr(made)


@pytest.mark.parametrize("address", ["redis+cluster://h/0/1", "redis+cluster://h?db=1"])
def test_a_database_of_a_cluster_is_refused(address: str) -> None:
    """A Cluster has database 0 alone, however the URL names another one."""
    with pytest.raises(ConfigurationError):
        connect(address, connect_timeout=0.1, max_connections=2)


@pytest.mark.parametrize(
    "address", ["unix://user:hunter2/x@/run/redis.sock", "redis://user:12/hunter2@host", "redis://:12#hunter2@h"]
)
def test_a_password_that_was_not_encoded_is_not_shown(address: str) -> None:
    """A password that was not percent-encoded is not in the log when the store is unavailable."""
    try:
        shown = repr(open_store(address))
    except ConfigurationError as error:
        shown = str(error)
    assert "hunter2" not in shown
    assert "12" not in shown


def test_a_url_without_a_scheme_is_not_repeated() -> None:
    """The error for `redis:/user:password@host` shows no password."""
    with pytest.raises(ConfigurationError) as error:
        open_store("redis:/user:hunter2@host")
    assert "hunter2" not in str(error.value)
