"""Keys: two identities never share one."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Identity, RateLimitSettings
from ratelimit.keys import Keys, escape
from ratelimit.plan import Plan

hostile = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=":{}%h/*\0\n\r \ud800é", min_size=1, max_size=12),
    st.sampled_from(["a", "A", "%h", "%68", "a:b", "a%3Ab", "a" * 128, "a" * 129, "", " "]),
)


@given(a=hostile, b=hostile)
def test_escaping_keeps_texts_apart(a: str, b: str) -> None:
    """Distinct texts stay distinct, and none brings a separator, a brace, a blank or a control character."""
    assert (escape(a) == escape(b)) == (a == b)
    assert not set(escape(a)) & set(":{} \0\n\r\t")
    assert escape(a).isascii()


def test_nobody_can_write_down_the_hash_of_another() -> None:
    """A long value is named by its hash; a value that spells that hash is another one."""
    name = escape("x" * 1000)
    assert len(name) < 60
    assert len({name, escape(name), escape(name.removeprefix("%h")), escape("%h"), escape("%25h")}) == 5


def keys_of(plan: Plan, identity: Identity) -> list[str]:
    return [charge.key for charge in plan.rules(plan.endpoint("GET", "/x")).charges(identity)]


PLAN = Plan(
    RateLimitSettings.model_validate(
        {
            "dimensions": ["team"],
            "limits": [
                {"name": "a", "rate": "1/minute", "per": ["org", "team"]},
                {"name": "b", "rate": "1/minute", "per": ["token"]},
                {"name": "a:60", "rate": "1/minute", "per": ["team", "org"]},
            ],
        }
    )
)


@given(one=st.tuples(hostile, hostile, hostile), two=st.tuples(hostile, hostile, hostile))
def test_two_identities_never_share_a_key(one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
    """Whatever stands in token, organization and dimension, equal keys mean equal values of what is counted."""
    (first, first_per), (second, second_per) = (_keys_and_values(*each) for each in (one, two))
    for key in first.keys() & second.keys():
        assert first[key] == second[key]
        assert first_per[key] == second_per[key]


def _keys_and_values(token: str, org: str, team: str) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    identity = Identity(token=token, org=org, dimensions={"team": team})
    values, policies = dict[str, tuple[str, ...]](), dict[str, str]()
    for charge in PLAN.rules(PLAN.endpoint("GET", "/x")).charges(identity):
        counted = {"a": (org, team), "b": (token,), "a:60": (team, org)}[charge.terms.policy]
        values[charge.key], policies[charge.key] = counted, charge.terms.policy
    return values, policies


def test_keys_of_a_tenant_live_together() -> None:
    """The organization is the hash tag of its own and of its tokens' keys; an address has one key everywhere."""
    settings = {
        "limits": [
            {"name": "t", "rate": "1/minute", "per": ["token"]},
            {"name": "o", "rate": "1/minute", "per": ["org"]},
            {"name": "i", "rate": "1/minute", "per": ["ip"]},
            {"name": "all", "rate": "1/minute"},
        ]
    }
    plan = Plan(RateLimitSettings.model_validate(settings))
    tags = [key.partition("{")[2].partition("}")[0] for key in keys_of(plan, Identity(token="t", org="o", ip="::1"))]
    assert tags == ["o", "o", "%3A%3A1", "*"]


def test_tokens_are_hashed_and_the_hash_can_be_keyed() -> None:
    """Nothing of a token stands in a key; another `hash_key` gives another hash."""
    plain, keyed = Keys(), Keys(secret="s3")
    assert "secret" not in plain.hashed("secret")
    assert plain.hashed("secret") != keyed.hashed("secret")
    assert len(plain.hashed("x" * 100_000)) == 32


def test_the_form_of_a_key() -> None:
    """`rl:{partition}:policy:period:values`, with a prefix of the app's choice."""
    settings = {"key_prefix": "shop", "limits": [{"name": "org", "rate": "5/hour", "per": ["org"]}]}
    plan = Plan(RateLimitSettings.model_validate(settings))
    assert keys_of(plan, Identity(org="acme")) == ["shop:{acme}:org:3600:acme"]
