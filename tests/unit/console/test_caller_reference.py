"""References name the same caller in an address, in a label and in the controls, without a credential."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import ConfigurationError, Identity, Limit, Limiter, RateLimitSettings
from ratelimit.console.caller_reference import (
    counter_key,
    identity_of_query,
    matches,
    override_key,
    query_of,
    query_of_label,
)
from ratelimit.resolver.labels import label_of, label_of_counter

LIMITER = Limiter(
    RateLimitSettings(
        dimensions=["region"],
        hashed_dimensions=["region"],
        limits=[
            Limit(name="both", rate="5/minute", per=["token", "region"]),
            Limit(name="place", rate="5/minute", per=["endpoint", "org"]),
            Limit(name="ip", rate="5/minute", per="ip"),
        ],
    )
)
NAMED = LIMITER.resolver.named
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(token=NAMES, org=NAMES, region=NAMES)
def test_a_query_names_the_caller_and_holds_no_credential(token: str, org: str, region: str) -> None:
    """Back and forth, the counters are the same."""
    caller = Identity(token=token, org=org, plan="pro", dimensions={"region": region})
    query = query_of(caller, NAMED)
    assert set(query) == {"token_hash", "org", "plan", "dimension.region_hash"}
    again = identity_of_query(query, NAMED)
    compiled = NAMED.get("both")
    place = LIMITER.resolver.endpoint("GET")
    assert NAMED.values(again, compiled, place) == NAMED.values(caller, compiled, place)
    assert label_of(again, NAMED) == label_of(caller, NAMED)
    assert query_of(again, NAMED) == query
    assert matches(again, query, NAMED)
    assert not matches(Identity(token=f"{token}x", org=org), query, NAMED)


def test_an_override_names_a_caller_by_all_dimensions_of_the_policy() -> None:
    """Where one is missing there is none."""
    caller = Identity(token="t", org="acme", dimensions={"region": "eu"})
    key = override_key(caller, NAMED.get("both"), NAMED)
    assert key == {"token_hash": NAMED.hashed("t"), "region_hash": NAMED.hashed("eu")}
    assert override_key(caller, NAMED.get("place"), NAMED) is None
    assert override_key(Identity(token="t"), NAMED.get("both"), NAMED) is None


def test_a_label_leads_to_its_caller_where_it_says_enough() -> None:
    """A masked address and a name that was too long for a key do not."""
    place = LIMITER.resolver.route("GET", "/v1/x")
    values = NAMED.values(Identity(org="a b"), NAMED.get("place"), place)
    charge = NAMED.get("place").any_charge(Identity(org="a b"), values, 0)
    assert charge is not None
    label = label_of_counter(charge.key, "place", NAMED)
    assert query_of_label(label) == {"endpoint": "GET /v1/x", "org": "a b"}
    assert query_of_label(f"token#{'1' * 32}", "org:acme") == {"org": "acme", "token_hash": "1" * 32}
    assert query_of_label(f"token#{'1' * 32}", "org:%3Cb%3E%20x") == {"org": "<b> x", "token_hash": "1" * 32}
    hashed = query_of_label(f"token#{'1' * 32}", f"org#{'2' * 32}")
    assert hashed == {"token_hash": "1" * 32, "org_hash": "2" * 32}
    assert query_of_label("ip:192.0.2.*") is None
    assert query_of_label("everybody") is None
    assert query_of_label("org:%h1234") is None
    assert query_of_label("endpoint:GET%20/v1") is None


def test_a_part_of_a_hash_is_no_reference() -> None:
    """As the first digits in a label are."""
    with pytest.raises(ConfigurationError, match=r"not a whole hash"):
        identity_of_query({"token_hash": "1a2b3c4d"}, NAMED)
    assert identity_of_query({"ip": "2001:db8::7"}, NAMED).ip == "2001:db8::/64"
    assert identity_of_query({"nonsense": "x", "org": ""}, NAMED) == Identity()


def test_what_was_granted_is_part_of_a_reference_and_of_no_counter() -> None:
    """The rate that a token was issued with is the one that counts on its page."""
    caller = Identity(token="t", rates={"both": "600/minute", "place": 7})
    query = query_of(caller, NAMED)
    assert query["grant.both"] == "600/minute"
    assert identity_of_query(query, NAMED).rates == caller.rates
    assert counter_key(query) == {"token_hash": NAMED.hashed("t")}
    with pytest.raises(ConfigurationError, match="rates.both"):
        identity_of_query({"grant.both": "many"}, NAMED)
