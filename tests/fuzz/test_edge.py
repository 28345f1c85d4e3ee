"""The HTTP edge: no request makes the limiter fail, or puts a byte of its own into a response."""

import json
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from ratelimit import Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.asgi.identify import ClientAddress, parse_address
from ratelimit.testing import ManualClock
from tests.fuzz.inputs import fuzz, hostile, patient, secrets

pytestmark = patient

PROXIES = ["10.0.0.0/8", "fd00::/8"]
SETTINGS = RateLimitSettings.model_validate(
    {
        "limits": [
            {"name": 'token "quoted\\', "rate": "3/minute", "per": "token", "unit": 'a";b=1', "burst": 0.5},
            {"name": "address", "rate": "5/minute", "per": "ip"},
            {"name": "place", "rate": "20/minute", "per": ["endpoint", "method", "ip"]},
            {
                "name": "narrow",
                "rate": "4/minute",
                "per": ["ip"],
                "paths": ["/a/*", "/b/?"],
                "methods": ["GET", "POST"],
            },
        ],
        "concurrency": [{"name": "slots", "limit": 2, "per": "token"}],
        "exempt": ["GET /free", "/free/*"],
        "response": {"headers": ["x-ratelimit", "ietf"], "retry_after": "exhausted"},
        "responses": [{"paths": ["/b/*"], "style": {"problem": "legacy"}}],
        "trusted_proxies": PROXIES,
    }
)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for an endpoint that is never called: only the routes are looked at."""


def answer(request: Any) -> Response:
    return Response()


class App:
    """Answers every request with 200 itself, so that a failure is one of the limiter; its routes are only read."""

    def __init__(self) -> None:
        below = [Route("/{name}/{rest:path}", answer), Route("/", answer, methods=["PATCH"])]
        self.routes = [
            Route("/", answer),
            Route("/a/{id:int}", answer, methods=["GET", "POST", "BREW"]),
            Route("/b/{id:uuid}/{more:float}", answer),
            WebSocketRoute("/ws/{room}", answer),
            Mount("/m", routes=below),
            Mount("/app", app=nothing),
            Host("{sub}.example.org", app=nothing),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": []})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


sizes = st.sampled_from([1, 1, 1, 7, 700])
raw = st.builds(lambda piece, times: piece * times, st.binary(max_size=15), sizes)
names = st.one_of(
    st.sampled_from(
        [
            *(b"authorization", b"x-api-key", b"x-forwarded-for", b"host", b"origin", b"Authorization", b"forwarded"),
            *(b"access-control-request-method", b"content-length", b"x-ratelimit-limit", b"cookie", b"upgrade"),
        ]
    ),
    st.binary(max_size=12),
)
addresses = st.one_of(st.ip_addresses().map(str), st.sampled_from(["10.0.0.1", "10.9.9.9", "fd00::1", "192.0.2.1"]))
chains = st.lists(st.one_of(addresses, hostile), max_size=6).map(
    lambda hops: ", ".join(hops).encode("utf-8", "replace")
)
fields = st.one_of(
    st.tuples(names, raw),
    st.tuples(st.just(b"x-forwarded-for"), chains),
    st.tuples(
        st.just(b"authorization"), st.builds(b" ".join, st.tuples(st.sampled_from([b"Bearer", b"bearer", b""]), raw))
    ),
)
headers = st.builds(lambda some, times: some * times, st.lists(fields, max_size=6), st.sampled_from([1, 1, 1, 2, 170]))
hosts = st.one_of(
    addresses, hostile, st.sampled_from(["fe80::1%eth0", "[::1]:80", "1.2.3.4:5", "testclient", "::ffff:10.0.0.1", ""])
)
clients = st.one_of(st.none(), st.tuples(hosts, st.one_of(st.integers(), st.none())))
paths = st.one_of(
    hostile,
    st.sampled_from(
        ["/", "/a/7", "/a/7/", "/a/x", "/b/c", "/ws/1", "/m", "/m/", "/m/x/y", "/app/z", "/free/1", "/a/1\n"]
    ),
    st.lists(hostile, max_size=4).map(lambda parts: "/" + "/".join(parts)),
)
methods = st.one_of(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "BREW", "get", "QUERY", ""]), hostile)


@st.composite
def scopes(draw: st.DrawFn) -> dict[str, Any]:
    path = draw(paths)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": draw(methods),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": draw(st.binary(max_size=20)),
        "root_path": draw(st.sampled_from(["", "/m", "/a/", path])),
        "headers": draw(headers),
        "client": draw(clients),
        "server": ("test", 80),
    }
    if draw(st.integers(0, 4)) == 0:
        scope |= {"type": "websocket", "extensions": draw(st.sampled_from([None, {}, {"websocket.http.response": {}}]))}
        del scope["method"]
    return scope


def limited() -> RateLimitMiddleware:
    clock = ManualClock()
    return RateLimitMiddleware(App(), limiter=Limiter(SETTINGS, MemoryStore(clock=clock, max_keys=1000), clock))


async def ask(app: RateLimitMiddleware, scope: dict[str, Any]) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"} if scope["type"] == "websocket" else {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({**scope, "headers": list(scope["headers"])}, receive, send)
    return sent


def check_fields(sent: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in sent:
        assert name == name.lower()
        assert name.replace(b"-", b"").isalnum()
        assert all(0x20 <= byte <= 0x7E for byte in value)


@fuzz
@given(scope=scopes())
async def test_no_request_fails_or_chooses_its_response(scope: dict[str, Any]) -> None:
    """Each of six equal requests, the last of which are refused, gets one 200 or 429 with printable ASCII fields."""
    app = limited()
    for _ in range(6):
        first, *rest = await ask(app, scope)
        assert first["type"] in {
            "http.response.start",
            "websocket.http.response.start",
            "websocket.accept",
            "websocket.close",
        }
        assert first.get("status", 200) in {200, 429}
        assert first.get("code", 1013) == 1013
        check_fields(first.get("headers", ()))
        assert len(rest) == (0 if first["type"] in {"websocket.accept", "websocket.close"} else 1)
        if first.get("status") == 429 and rest[0]["body"]:
            assert json.loads(rest[0]["body"])


@fuzz
@given(scope=scopes(), secret=secrets, times=st.sampled_from([1, 1000]), key=st.booleans())
async def test_a_credential_is_in_no_response_and_no_log(
    *, scope: dict[str, Any], secret: str, times: int, key: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Responses and the log never repeat it, whether the request is served, refused or malformed."""
    caplog.set_level("DEBUG")
    caplog.clear()
    value = (secret * times).encode()
    own = (b"x-api-key", value) if key else (b"authorization", b"Bearer " + value)
    app = limited()
    for _ in range(4):
        sent = await ask(app, {**scope, "headers": [own, *scope["headers"]]})
        assert secret not in str(sent)
    assert secret not in caplog.text


async def test_a_number_that_no_convertor_reads_is_for_the_app_to_refuse() -> None:
    """Starlette's int convertor raises for 5,000 digits; the limiter does not fail with it."""
    scope = {"type": "http", "method": "GET", "path": "/a/" + "1" * 5000, "headers": [], "client": ("192.0.2.1", 1)}
    sent = await ask(limited(), scope)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("client", [(None, None), (None, 0), ("192.0.2.1",), ()])
async def test_a_malformed_peer_fails_no_request(client: Any) -> None:
    """A request is served even if the server passes no valid address of its peer."""
    sent = await ask(limited(), {"type": "http", "method": "GET", "path": "/", "headers": [], "client": client})
    assert sent[0]["status"] == 200


def connection(client: str | None, lines: Iterable[bytes] = ()) -> HTTPConnection:
    peer = None if client is None else (client, 1)
    return HTTPConnection({"type": "http", "client": peer, "headers": [(b"x-forwarded-for", line) for line in lines]})


def is_name(text: str) -> bool:
    """Say whether a text is an address in its normal form: IPv4, or the network of an IPv6 address."""
    if "/" in text:
        return str(ip_network(text)) == text and text.endswith("/64")
    return str(ip_address(text)) == text and ip_address(text).version == 4


def is_proxy(host: str) -> bool:
    address = parse_address(host)
    return address is not None and any(address in ip_network(proxy) for proxy in PROXIES)


BEHIND = ClientAddress(PROXIES)
lines = st.lists(st.one_of(chains, raw), max_size=4)


@fuzz
@given(peer=st.one_of(st.none(), hosts), header=lines)
def test_a_client_is_an_address_whatever_the_header_says(peer: str | None, header: list[bytes]) -> None:
    """`None` without a peer, the server's own text if that is no address, else an address in its normal form."""
    name = BEHIND(connection(peer, header))
    assert name is None or (name == peer and parse_address(peer) is None) or is_name(name)
    assert (name is None) == (peer is None or not peer)


@fuzz
@given(peer=hosts.filter(lambda host: not is_proxy(host)), header=lines)
def test_a_peer_cannot_choose_its_address(peer: str, header: list[bytes]) -> None:
    """A peer that is not a trusted proxy is named by its connection alone."""
    assert BEHIND(connection(peer, header)) == BEHIND(connection(peer))


public = st.ip_addresses().filter(lambda ip: not any(ip in ip_network(proxy) for proxy in PROXIES))
proxies = st.sampled_from(["10.0.0.1", "10.255.0.3", "fd00::7", "[fd00::8]:443", "10.1.1.1:80", "::ffff:10.2.2.2"])


@fuzz
@given(
    header=lines, client=public, hops=st.lists(proxies, max_size=8), peer=proxies, own=st.booleans(), port=st.booleans()
)
def test_a_client_behind_trusted_proxies_cannot_choose_its_address(
    *, header: list[bytes], client: Any, hops: list[str], peer: str, own: bool, port: bool
) -> None:
    """The client's own entries are to the left of those of the proxies, in one header line or in several."""
    shown = str(client) if not port else f"[{client}]:4711" if client.version == 6 else f"{client}:4711"
    written = ", ".join([shown, *hops]).encode()
    chain = [*header, written] if own or not header else [*header[:-1], header[-1] + b", " + written]
    assert BEHIND(connection(peer, chain)) == BEHIND(connection(str(client)))


@fuzz
@given(network=st.integers(0, 2**64 - 1), one=st.integers(0, 2**64 - 1), other=st.integers(0, 2**64 - 1))
def test_an_ipv6_network_is_one_client(network: int, one: int, other: int) -> None:
    """All addresses of a /64 have one name, with a zone or without; the adjacent network has another."""
    first, second = (str(IPv6Address(network << 64 | low)) for low in (one, other))
    beside = str(IPv6Address((network ^ 1) << 64 | one))
    name = ClientAddress()(connection(first))
    if IPv6Address(first).ipv4_mapped is None and IPv6Address(second).ipv4_mapped is None:
        assert name == ClientAddress()(connection(f"{second}%eth0"))
    assert name != ClientAddress()(connection(beside))
