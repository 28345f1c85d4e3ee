"""The difference of settings: what it says of counters is what real counters then do."""

import random
from typing import Any

import pytest

from ratelimit import Concurrency, Identity, Limit, Limiter, Quota, RateLimitSettings
from ratelimit.inspection.settings_diff import diff_settings
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.testing import ManualClock

WHO = Identity(token="t", org="o", ip="192.0.2.1", dimensions={"teamspace": "ts"})
PERS: tuple[list[str], ...] = (["token"], ["org"], ["ip"], ["org", "teamspace"], [])


def random_policy(chance: random.Random, name: str) -> tuple[str, Any]:
    per, kind = ["org"] if chance.random() < 0.7 else chance.choice(PERS), chance.random()
    if kind < 0.85:
        rate = f"{chance.choice([50, 60])}/{chance.choice(['minute', 'minute', 'hour'])}"
        return "limits", Limit(name=name, rate=rate, per=per, burst=chance.choice([0.0, 0.5]))
    if kind < 0.95:
        return "quotas", Quota(
            name=name, limit=chance.choice([50, 60]), period=chance.choice(["day", "month", None]), per=per
        )
    return "concurrency", Concurrency(name=name, limit=chance.choice([50, 60]), per=per)


def random_settings(chance: random.Random, prefix: str) -> RateLimitSettings:
    sections: dict[str, list[Any]] = {"limits": [], "quotas": [], "concurrency": []}
    for name in ("a", "b", "c"):
        if chance.random() < 0.85:
            section, policy = random_policy(chance, name)
            sections[section].append(policy)
    return RateLimitSettings(
        **sections,
        dimensions=["teamspace"],
        key_prefix=prefix + ("x" if chance.random() < 0.1 else ""),
        hash_key=chance.choice([None, None, None, "secret"]),
        hashed_dimensions=chance.choice([[], [], ["ip"]]),
    )


async def used(limiter: Limiter) -> dict[str, int]:
    """Return what is used of each policy."""
    policies = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", UNMATCHED))
    charges = policies.charges(WHO, now=limiter.clock())
    reply = await limiter.store.submit(StoreRequest(charges, Operation.USAGE))
    return {charge.limit.policy: reading[0] for charge, reading in zip(charges, reply.readings, strict=True)}


async def test_counters_do_what_the_difference_says(store: Store, clock: ManualClock) -> None:
    """For 300 random pairs of settings."""
    chance, seen = random.Random(7), {"go on": 0, "begin at zero": 0}
    for number in range(300):
        old, new = (random_settings(chance, f"rl{number}") for _ in range(2))
        limiter, difference = Limiter(old, store, clock), diff_settings(old, new)
        assert (await limiter.check(WHO)).allowed
        if difference.restart:
            limiter = Limiter(new, store, clock)
        else:
            await limiter.reload(new)
        counted = await used(limiter)
        for each in difference.policies:
            if difference.restart and "after a restart" in each.why:
                assert counted[each.policy] == 0
            elif each.counters in seen:
                assert counted[each.policy] == (each.counters == "go on"), (each, old, new)
                seen[each.counters] += 1
            elif each.counters == "begin":
                assert counted[each.policy] == 0
            else:
                assert each.policy not in counted
    assert min(seen.values()) > 100


def changed(old: dict[str, Any], new: dict[str, Any]) -> Any:
    base = {"name": "a", "rate": "5/minute", "per": "token"}
    pair = [RateLimitSettings(limits=[Limit.model_validate({**base, **each})]) for each in (old, new)]
    return diff_settings(*pair)


@pytest.mark.parametrize(
    ("old", "new", "counters", "why", "fields"),
    [
        ({}, {}, "go on", "", {}),
        ({}, {"rate": "9/minute"}, "go on", "", {"rate": ("5/minute", "9/minute")}),
        (
            {},
            {"rate": "5/hour"},
            "go on",
            "the counter of 60 min begins with what the fullest other one holds; after a restart, at zero",
            {"rate": ("5/minute", "5/hour")},
        ),
        ({}, {"per": "org"}, "begin at zero", "it is counted by other dimensions", None),
        (
            {"plans": {"p": "9/minute"}},
            {"plans": {"p": "9/hour"}},
            "go on",
            "the counter of 60 min begins with what the fullest other one holds; after a restart, at zero",
            None,
        ),
        ({"plans": {"p": "9/minute"}}, {"plans": {"p": None}}, "go on", "", {"plans": ("p=9/minute", "p=none")}),
        ({}, {"paths": ["/a", "/b"]}, "go on", "", {"paths": ("none", "/a, /b")}),
    ],
)
def test_fields_are_shown_old_and_new(old: Any, new: Any, counters: str, why: str, fields: Any) -> None:
    """With what becomes of the counters, and why."""
    diff = changed(old, new)
    (policy,) = diff.policies
    assert (policy.counters, policy.why) == (counters, why)
    assert fields is None or dict(policy.fields) == fields
    assert diff.is_empty == (old == new)
    assert diff.as_dict()["policies"][0]["counters"] == counters


def test_what_needs_a_restart_is_named_and_secrets_are_not_shown() -> None:
    """A URL may hold a password."""
    old = RateLimitSettings(store="redis://u:pw@a", hash_key="s1", exempt=["/a"])
    new = RateLimitSettings(store="redis://u:pw@b", hash_key="s2", exempt=["/b"])
    diff = diff_settings(old, new)
    assert list(diff.restart) == ["store", "hash_key"]
    assert diff.fields["exempt"] == ("/a", "/b")
    assert "pw" not in str(diff.as_dict())
    assert "s1" not in str(diff.as_dict())
