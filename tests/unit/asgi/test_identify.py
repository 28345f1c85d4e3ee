"""Identification of callers: bearer tokens, API keys, and addresses behind proxies."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from ratelimit import ConfigurationError, Identity
from ratelimit.asgi.identify import ClientAddress, api_key, bearer_token, default_identify, parse_address


def connection(client: str | None = None, headers: Mapping[str, str] | None = None) -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return HTTPConnection({"type": "http", "client": (client, 1) if client is not None else None, "headers": raw})


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("BEARER a.b.c", "a.b.c"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        ("abc", None),
    ],
)
def test_bearer_tokens(value: str, token: str | None) -> None:
    """The scheme's case does not matter; any other header is no token."""
    assert bearer_token(connection(headers={"authorization": value})) == token


def test_api_keys() -> None:
    """The app chooses the header; a blank value is no key."""
    headers = {"x-api-key": " k1 ", "api-key": "k2", "empty": " "}
    assert api_key(connection(headers=headers)) == "k1"
    assert api_key(connection(headers=headers), "api-key") == "k2"
    assert api_key(connection(headers=headers), "empty") is None


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.9.9.9, 192.168.0.7", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 10.0.0.3", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("fd00::1", "[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::/64"),
        ("2001:db8:5:6::7", "198.51.100.1", "2001:db8:5:6::/64"),
        ("testclient", "198.51.100.1", "testclient"),
        (None, "198.51.100.1", None),
    ],
)
def test_the_first_address_that_is_not_a_trusted_proxy_is_the_client(
    peer: str | None, forwarded: str, client: str | None
) -> None:
    """The header is read from the right, as far as trusted proxies wrote it; IPv6 clients are named by network."""
    address = ClientAddress(["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"])
    assert address(connection(peer, {"x-forwarded-for": forwarded})) == client


def test_a_header_that_appears_twice_is_read_as_one() -> None:
    """A proxy may add a line of its own; the last line is the nearest proxy's."""
    raw = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"198.51.100.1, 10.0.0.2")]
    scope = {"type": "http", "client": ("10.0.0.1", 1), "headers": raw}
    assert ClientAddress(["10.0.0.0/8"])(HTTPConnection(scope)) == "198.51.100.1"


@given(value=st.text(st.characters(max_codepoint=255), max_size=300))
def test_no_header_breaks_the_parser_or_renames_an_untrusted_peer(value: str) -> None:
    """An untrusted peer is named by its own address, and a trusted one by some address, whatever the header says."""
    address = ClientAddress(["10.0.0.0/8"])
    assert address(connection("203.0.113.1", {"x-forwarded-for": value})) == "203.0.113.1"
    assert address(connection("10.0.0.1", {"x-forwarded-for": value}))


def test_a_long_chain_is_cut() -> None:
    """Of a header of 100,000 hops only the last ones are read."""
    chain = ", ".join(["10.0.0.2"] * 100_000)
    assert ClientAddress(["10.0.0.0/8"])(connection("10.0.0.1", {"x-forwarded-for": chain})) == "10.0.0.2"


@pytest.mark.parametrize("network", ["10.0.0.0/33", "10.0.0.1/8", "proxies"])
def test_a_wrong_network_fails_at_construction(network: str) -> None:
    """A typo in a network does not become an empty list of proxies."""
    with pytest.raises(ConfigurationError, match="^trusted_proxies: "):
        ClientAddress([network])


def test_the_default_reads_key_or_token_and_address() -> None:
    """An API key wins, so that its caller gets no fresh counter by an invented token; the address is added to either."""
    identify = default_identify()
    both = {"authorization": "Bearer b", "x-api-key": "k"}
    assert identify(connection("192.0.2.1", both)) == Identity(token="k", ip="192.0.2.1")
    assert identify(connection("192.0.2.1", {"authorization": "Bearer b"})) == Identity(token="b", ip="192.0.2.1")
    assert identify(connection("192.0.2.1", {"x-api-key": "k"})) == Identity(token="k", ip="192.0.2.1")
    assert identify(connection("192.0.2.1")) == Identity(ip="192.0.2.1")


@pytest.mark.parametrize("peer", [None, ""])
def test_a_proxy_by_a_unix_socket_is_believed_if_it_is_trusted(peer: str | None) -> None:
    """There is no peer whose address could be trusted; without a header no address is known."""
    behind = connection(peer, {"x-forwarded-for": "6.6.6.6, 198.51.100.1, 10.0.0.9"})
    assert ClientAddress()(behind) is None
    assert ClientAddress(["10.0.0.0/8"])(behind) is None
    assert ClientAddress(["unix", "10.0.0.0/8"])(behind) == "198.51.100.1"
    assert ClientAddress(["unix"])(connection(peer)) is None
    assert ClientAddress(["unix"])(connection("192.0.2.1", {"x-forwarded-for": "6.6.6.6"})) == "192.0.2.1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("proxy", None),
        ("", None),
        ("[", None),
    ],
)
def test_an_address_is_read_with_or_without_a_port(text: str, expected: str | None) -> None:
    """Ports, brackets and zones are dropped, IPv4 inside IPv6 is IPv4, and any other text is no address."""
    address = parse_address(text)
    assert (None if address is None else str(address)) == expected


@pytest.mark.parametrize("prefix", [0, 129, -1])
def test_a_wrong_prefix_fails_at_construction(prefix: int) -> None:
    """An IPv6 network has between 1 and 128 bits."""
    with pytest.raises(ConfigurationError, match="^ipv6_prefix: must be between 1 and 128"):
        ClientAddress(ipv6_prefix=prefix)
