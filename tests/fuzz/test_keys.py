"""Keys: two callers never share one, whatever their names are, and no key shows a token or breaks a hash tag."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis.crc import key_slot

from ratelimit import ConfigurationError, Identity, Limiter, MemoryStore, RateLimitSettings
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.redis.codec import sibling_key
from ratelimit.testing import ManualClock
from tests.fuzz.inputs import PRINTABLE, fuzz, hostile, patient, secrets

pytestmark = patient

LONGEST = 128 * 12
"""Characters of one value in a key: 128 of four bytes each, percent-encoded."""

SHAPES: dict[str, list[str]] = {
    "token": ["token"],
    "org": ["org"],
    "ip": ["ip"],
    "plan": ["plan"],
    "team": ["team"],
    "org+team": ["org", "team"],
    "team+org": ["team", "org"],
    "token+team": ["token", "team"],
    "ip+plan": ["ip", "plan"],
    "plan:60": ["ip"],
    "ip+endpoint": ["ip", "endpoint"],
    "all": ["token", "org", "ip", "plan", "team", "endpoint", "method"],
}
LIMITS = [{"name": name, "rate": "5/minute", "per": per} for name, per in SHAPES.items()]
RESOLVER = PolicyResolver(RateLimitSettings.model_validate({"dimensions": ["team"], "limits": LIMITS, "hash_key": "k"}))

maybe = st.one_of(st.none(), hostile)
identities = st.builds(
    lambda token, org, ip, plan, team: Identity(
        token=token, org=org, ip=ip, plan=plan, dimensions={} if team is None else {"team": team}
    ),
    *[maybe] * 5,
)


def charged(identity: Identity, resolver: PolicyResolver = RESOLVER, path: str = "/x") -> dict[str, str]:
    """Return the keys of an identity, by policy."""
    charges = resolver.policies_at(resolver.endpoint("GET", path)).charges(identity)
    return {charge.limit.policy: charge.key for charge in charges}


def counted(identity: Identity, policy: str) -> tuple[str | None, ...] | None:
    """Return the values that a policy counts apart, or `None` where it does not apply."""
    known = {"endpoint": "GET /x", "method": "GET", "team": identity.dimensions.get("team")}
    per = SHAPES[policy]
    values = [known[each] if each in known else getattr(identity, each) for each in per]
    return tuple([*values, identity.org or None] if "token" in per else values) if all(values) else None


def check_key(key: str) -> None:
    assert all("!" <= char <= "~" for char in key)
    tag = key[key.index("{") + 1 : key.index("}")]
    assert tag
    assert (key.count("{"), key.count("}")) == (1, 1)
    assert key_slot(key.encode()) == key_slot(tag.encode())
    assert key_slot(sibling_key(key, "call").encode()) == key_slot(tag.encode())
    assert len(key) < 200 + LONGEST * (2 + key.count(":"))


@fuzz
@given(one=identities, two=identities)
def test_two_callers_share_a_key_only_where_they_are_counted_together(one: Identity, two: Identity) -> None:
    """Keys are equal exactly where all values that the policy counts apart are; keys of two policies never are."""
    first, second = charged(one), charged(two)
    for policy in SHAPES:
        assert (policy in first) == (counted(one, policy) is not None)
        same = counted(one, policy) == counted(two, policy) is not None
        assert same == (policy in first and first.get(policy) == second.get(policy))
    keys = [*first.values(), *(key for policy, key in second.items() if first.get(policy) != key)]
    assert len(set(keys)) == len(keys)


@fuzz
@given(one=hostile, rest=identities, place=st.sampled_from(["token", "org", "ip", "plan"]), change=hostile)
def test_a_caller_that_differs_in_one_value_is_another(one: str, rest: Identity, place: str, change: str) -> None:
    """Neighbors, prefixes and texts that escaping could make equal stay apart."""
    values: dict[str, Any] = {name: getattr(rest, name) for name in ("token", "org", "ip", "plan")}
    first = Identity(**{**values, place: one + change})
    second = Identity(**{**values, place: one})
    ones, others = charged(first), charged(second)
    for policy in ones.keys() & others.keys():
        assert (ones[policy] == others[policy]) == (counted(first, policy) == counted(second, policy))


@fuzz
@given(identity=identities, path=hostile)
def test_keys_are_plain_and_have_one_hash_tag(identity: Identity, path: str) -> None:
    """A key is ASCII without blanks or control characters, of bounded length, and Redis reads the intended tag."""
    for key in charged(identity, path=path).values():
        check_key(key)


words = st.text(alphabet=PRINTABLE, min_size=1, max_size=30)


@fuzz
@given(
    names=st.lists(words, min_size=2, max_size=2, unique=True),
    rates=st.lists(st.sampled_from(["1/minute", "1/hour", "60/hour"]), min_size=2, max_size=2),
    prefix=st.text(alphabet=PRINTABLE, min_size=1, max_size=50),
    dimension=words,
    value=hostile.filter(bool),
)
def test_names_of_the_settings_keep_policies_apart(
    names: list[str], rates: list[str], prefix: str, dimension: str, value: str
) -> None:
    """Two policies have two keys, with one hash tag each, whatever the policies, dimensions and the prefix are called."""
    limits = [{"name": name, "rate": rate, "per": "org"} for name, rate in zip(names, rates, strict=True)]
    try:
        settings = RateLimitSettings.model_validate({"limits": limits, "key_prefix": prefix, "dimensions": []})
    except ValidationError as error:
        pytest.fail(str(error))
    keys = charged(Identity(org=value, dimensions={dimension: value}), PolicyResolver(settings))
    assert len(set(keys.values())) == 2
    for key in keys.values():
        check_key(key)


@fuzz
@given(secret=secrets, identity=identities, times=st.sampled_from([1, 400]))
def test_a_token_is_in_no_key_and_no_repr(secret: str, identity: Identity, times: int) -> None:
    """A token of ten kilobytes makes a key as long as one of ten bytes, and no part of it is shown."""
    values: dict[str, Any] = {name: getattr(identity, name) for name in ("org", "ip", "plan", "dimensions")}
    asking = Identity(token=secret * times, **values)
    assert secret not in repr(asking) + str(asking)
    keys, short = charged(asking), charged(Identity(token="short", **values))
    assert secret not in str(keys)
    assert {policy: len(key) for policy, key in keys.items()} == {policy: len(key) for policy, key in short.items()}


@fuzz
@given(
    secret=secrets, wrong=st.sampled_from(["rate", "1.5/x", "", "1/minute"]), amount=st.integers(-1, 2), data=st.data()
)
async def test_a_token_is_in_no_log_and_no_error(
    secret: str, wrong: str, amount: int, data: st.DataObject, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a caller does with it, and whether or not that works."""
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    clock = ManualClock()
    settings = RateLimitSettings.model_validate(
        {"limits": LIMITS, "dimensions": ["team"], "concurrency": [{"name": "slots", "limit": 1, "per": "token"}]}
    )
    limiter, output = Limiter(settings, MemoryStore(clock=clock), clock), ""
    caller = Identity(token=secret)
    policy = data.draw(st.sampled_from([*SHAPES, "slots", "unknown"]))
    for step in (
        lambda: limiter.check(caller, cost=amount),
        lambda: limiter.consume(policy, caller, amount),
        lambda: limiter.usage(caller),
        lambda: limiter.overrides.set(policy=policy, key={"token": secret}, rate=wrong),
        lambda: limiter.overrides.set(policy=policy, key={"token": secret, "org": secret}, rate=wrong),
        limiter.overrides.list,
        lambda: limiter.check(caller),
    ):
        try:
            output += repr(await step())
        except ConfigurationError as error:
            output += f"{error} {error!r}"
    for kind in (bytes, list, dict):
        with pytest.raises(ConfigurationError) as refused:
            Identity(token={bytes: secret.encode(), list: [secret], dict: {secret: secret}}[kind])  # type: ignore[arg-type]
        output += f"{refused.value} {refused.value!r}"
    await limiter.aclose()
    assert secret not in output + caplog.text
