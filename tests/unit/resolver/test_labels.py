"""Labels call callers by what is no credential, and the same caller always the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Identity, Limit, RateLimitSettings
from ratelimit.resolver.labels import key_of_caller, label_of, label_of_counter, masked
from ratelimit.resolver.resolver import PolicyResolver
from tests.unit.resolver.settings import resolver_of

NAMED = resolver_of({"per": "token"}).named


def test_a_caller_is_called_by_its_token_then_its_organization_then_its_address() -> None:
    """Of the token by a few digits of its hash."""
    token = label_of(Identity(token="secret", org="acme", ip="192.0.2.7"), NAMED)
    assert token.startswith("token#")
    assert len(token) == len("token#") + 8
    assert token == label_of(Identity(token="secret"), NAMED)
    assert label_of(Identity(org="acme", ip="192.0.2.7"), NAMED) == "org:acme"
    assert label_of(Identity(ip="192.0.2.7"), NAMED) == "ip:192.0.2.*"
    assert label_of(Identity(), NAMED) == "anonymous"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("192.0.2.7", "192.0.2.*"),
        ("2001:db8:1:2::/64", "2001:db8:*"),
        ("::1", "0:0:*"),
        ("testclient", "?"),
        ("", "?"),
        ("192.0.2.7\n2026-11-28 WARNING refused", "?"),
        ("\x1b[2J", "?"),
    ],
)
def test_an_address_is_shown_without_its_last_part(address: str, shown: str) -> None:
    """Enough to see a pattern, and no person."""
    assert masked(address) == shown


@given(org=st.text(min_size=1))
def test_no_organization_breaks_a_line(org: str) -> None:
    """It is escaped, and bounded."""
    label = label_of(Identity(org=org), NAMED)
    assert label.isprintable()
    assert " " not in label
    assert len(label) <= 64


def test_addresses_are_whole_where_the_settings_say_so() -> None:
    """Operators can then find a caller by it; what is no address is escaped all the same."""
    settings = RateLimitSettings(
        statistics={"mask_addresses": False}, limits=[Limit(name="ip", rate="5/minute", per="ip")]
    )
    named = PolicyResolver(settings).named
    caller = Identity(ip="192.0.2.7")
    assert label_of(caller, named) == "ip:192.0.2.7"
    assert label_of_counter("rl:{x}:ip:60:192.0.2.7", "ip", named) == "ip:192.0.2.7"
    assert key_of_caller(caller, named) == {"ip": "192.0.2.7"}
    assert key_of_caller(caller, NAMED) == {}
    assert label_of(Identity(ip="\x1b[2J"), named).isprintable()


def test_the_key_of_a_caller_holds_no_credential() -> None:
    """A token stands as its hash, and so does an organization where it is hashed."""
    settings = RateLimitSettings(hashed_dimensions=["org"], limits=[Limit(name="org", rate="5/minute", per="org")])
    key = key_of_caller(
        Identity(token="secret", org="acme", plan="pro", ip="192.0.2.7"), PolicyResolver(settings).named
    )
    assert set(key) == {"token_hash", "org_hash", "plan"}
    assert "secret" not in str(key)
    assert "acme" not in str(key)
