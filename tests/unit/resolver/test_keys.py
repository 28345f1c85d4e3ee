"""Keys of counters: two identities never share one, and none shows a token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Identity, RateLimitSettings
from ratelimit.resolver.keys import KeyBuilder, escape
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.redis.codec import sibling_key

hostile = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=":{}%h/*\0\n\r \ud800é", min_size=1, max_size=12),
    st.sampled_from(["a", "A", "%h", "%68", "a:b", "a%3Ab", "a" * 128, "a" * 129, "", " "]),
)


@given(a=hostile, b=hostile)
def test_escaping_keeps_texts_apart(a: str, b: str) -> None:
    """Distinct texts stay distinct, and an escaped text has no separator, brace, blank or control character."""
    assert (escape(a) == escape(b)) == (a == b)
    assert not set(escape(a)) & set(":{} \0\n\r\t")
    assert escape(a).isascii()


def test_no_value_equals_the_hash_of_another() -> None:
    """A long value is named by its hash; a short value that spells this hash is escaped to another text."""
    name = escape("x" * 1000)
    assert len(name) < 60
    assert len({name, escape(name), escape(name.removeprefix("%h")), escape("%h"), escape("%25h")}) == 5


def keys_of(resolver: PolicyResolver, identity: Identity) -> list[str]:
    return [charge.key for charge in resolver.policies_at(resolver.endpoint("GET", "/x")).charges(identity)]


SETTINGS = {
    "dimensions": ["team"],
    "limits": [
        {"name": "a", "rate": "1/minute", "per": ["org", "team"]},
        {"name": "b", "rate": "1/minute", "per": ["token"]},
        {"name": "a:60", "rate": "1/minute", "per": ["team", "org"]},
    ],
}
RESOLVERS = {
    partitions: PolicyResolver(RateLimitSettings.model_validate({**SETTINGS, "partitions": partitions}))
    for partitions in (None, 3)
}


@pytest.mark.parametrize("partitions", [None, 3])
@given(one=st.tuples(hostile, hostile, hostile), two=st.tuples(hostile, hostile, hostile))
def test_two_identities_never_share_a_key(
    partitions: int | None, one: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    """Equal keys mean equal values of all dimensions of the policy, whatever characters the values have."""
    (first, first_per), (second, second_per) = (_keys_and_values(partitions, *each) for each in (one, two))
    for key in first.keys() & second.keys():
        assert first[key] == second[key]
        assert first_per[key] == second_per[key]


def _keys_and_values(
    partitions: int | None, token: str, org: str, team: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    identity, resolver = Identity(token=token, org=org, dimensions={"team": team}), RESOLVERS[partitions]
    values, policies = dict[str, tuple[str, ...]](), dict[str, str]()
    for charge in resolver.policies_at(resolver.endpoint("GET", "/x")).charges(identity):
        counted = {"a": (org, team), "b": (token,), "a:60": (team, org)}[charge.limit.policy]
        values[charge.key], policies[charge.key] = counted, charge.limit.policy
    return values, policies


def test_partitions_bound_the_hash_slots_and_share_no_counter() -> None:
    """A thousand organizations have so many hash tags, each organization one, and as many counters as before."""
    identities = [Identity(token="t", org=f"o{number}") for number in range(1000)]
    keys = [keys_of(RESOLVERS[3], identity) for identity in identities]
    tags = [{key.partition("{")[2].partition("}")[0] for key in each} for each in keys]
    assert set[str]().union(*tags) == {"0", "1", "2"}
    assert {len(each) for each in tags} == {1}
    assert len({key for each in keys for key in each}) == 1000
    assert sibling_key(keys[0][0], "n").startswith(f"rl:{{{tags[0].pop()}}}:#call")


def test_keys_of_an_organization_share_a_hash_slot() -> None:
    """The organization is the hash tag of its own keys and of those of its tokens; an address has one key in all."""
    settings = {
        "limits": [
            {"name": "t", "rate": "1/minute", "per": ["token"]},
            {"name": "o", "rate": "1/minute", "per": ["org"]},
            {"name": "i", "rate": "1/minute", "per": ["ip"]},
            {"name": "all", "rate": "1/minute"},
        ]
    }
    resolver = PolicyResolver(RateLimitSettings.model_validate(settings))
    tags = [
        key.partition("{")[2].partition("}")[0] for key in keys_of(resolver, Identity(token="t", org="o", ip="::1"))
    ]
    assert tags == ["o", "o", "%3A%3A1", "*"]


def test_tokens_are_hashed_and_the_hash_can_be_keyed() -> None:
    """A key shows nothing of a token; another `hash_key` gives another hash."""
    plain, keyed = KeyBuilder(), KeyBuilder(secret="s3")
    assert "secret" not in plain.hashed("secret")
    assert plain.hashed("secret") != keyed.hashed("secret")
    assert len(plain.hashed("x" * 100_000)) == 32


def test_the_form_of_a_key() -> None:
    """A key is `<prefix>:{<partition>}:<policy>:<period>:<values>`; the app chooses the prefix."""
    settings = {"key_prefix": "shop", "limits": [{"name": "org", "rate": "5/hour", "per": ["org"]}]}
    resolver = PolicyResolver(RateLimitSettings.model_validate(settings))
    assert keys_of(resolver, Identity(org="acme")) == ["shop:{acme}:org:3600:acme"]
