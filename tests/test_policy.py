"""Policies: what they are made of, and what they refuse to be made of."""

from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit import Concurrency, Limit, Quota, RateLimitSettings
from ratelimit.policy import Policy

GOOD: dict[type[Policy], dict[str, Any]] = {
    Limit: {"name": "p", "rate": "1/minute"},
    Quota: {"name": "p", "limit": 1},
    Concurrency: {"name": "p", "limit": 1},
}


@pytest.mark.parametrize(
    ("kind", "wrong", "field"),
    [
        *[
            (kind, {"shares": {"backfill": share}}, "shares.backfill")
            for kind in GOOD
            for share in (1.5, 0, -0.5, True)
        ],
        *[(kind, {"shares": {"backfill": "half"}}, "shares.backfill") for kind in GOOD],
        *[(kind, {"refund_on": 99}, "refund_on") for kind in (Limit, Quota)],
        *[(kind, {"refund_on": [403, 403]}, "refund_on") for kind in (Limit, Quota)],
        *[(kind, {"cost": cost}, "cost") for kind in GOOD for cost in (0, -1, 1.5, True, "2 units")],
        *[(Quota, {"limit": limit}, "limit") for limit in (0, -5, 1.5, True, 10**15)],
        *[(Concurrency, {"limit": limit}, "limit") for limit in (0, -5, 1.5, True, 100_001)],
        *[
            (kind, {"plans": {"big": plan}}, "plans.big")
            for kind in (Quota, Concurrency)
            for plan in (-1, 1.5, True, "x")
        ],
        (Quota, {"period": "fortnight"}, "period"),
        (Quota, {"period": 60}, "period"),
        (Quota, {"status": 200}, "status"),
        (Quota, {"unit": ""}, "unit"),
        (Quota, {"rate": "1/minute"}, "rate"),
        *[(Concurrency, {"lease": lease}, "lease") for lease in (0, -1, 86_401, True, float("inf"))],
        (Concurrency, {"hold": "forever"}, "hold"),
        (Concurrency, {"cost": 2}, "cost"),
        (Concurrency, {"cost": len}, "cost"),
        (Concurrency, {"refund_on": 403}, "refund_on"),
        (Concurrency, {"plans": {"big": 10**6}}, ""),
        (Concurrency, {"schedule": [{"start": "01:00", "end": "02:00", "limit": 10**6}]}, ""),
        *[(Limit, {"cost": function}, "cost") for function in (int, lambda: 5, lambda a, b: 5)],
    ],
)
def test_a_wrong_value_names_its_field(kind: type[Policy], wrong: dict[str, Any], field: str) -> None:
    """At construction, with the path of the field."""
    with pytest.raises(ValidationError) as error:
        kind(**{**GOOD[kind], **wrong})
    assert ".".join(str(part) for part in error.value.errors()[0]["loc"]).startswith(field)


def test_plans_without_a_limit() -> None:
    """`unlimited` is how `None` is written in TOML, for every kind, and back."""
    for kind in (Quota, Concurrency):
        made = kind(**{**GOOD[kind], "plans": {"internal": "unlimited", "big": 10}})
        assert dict(made.by_plan) == {"internal": None, "big": 10}
        assert kind.model_validate_json(made.model_dump_json()) == made


def test_names_are_unique_over_all_kinds() -> None:
    """A name in two sections is said with both places."""
    with pytest.raises(ValidationError, match="concurrency.0.name: 'p' is already the name of limits.0"):
        RateLimitSettings(limits=[Limit(**GOOD[Limit])], concurrency=[Concurrency(**GOOD[Concurrency])])
    with pytest.raises(ValidationError, match="quotas.1.per: 'zone' is not one of"):
        RateLimitSettings(quotas=[Quota(**GOOD[Quota]), Quota(name="z", limit=1, per="zone")])


def test_a_kind_is_a_list_of_tables() -> None:
    """One table where several belong is said with the way to write it."""
    for section in ("limits", "quotas", "concurrency"):
        with pytest.raises(ValidationError, match=rf"write \[\[{section}\]\]"):
            RateLimitSettings.model_validate({section: {"name": "p"}})


def test_the_schema_of_the_settings() -> None:
    """What an editor completes from: functions cannot be written in a file and are not in it."""
    schema = RateLimitSettings.model_json_schema()
    cost = schema["$defs"]["Limit"]["properties"]["cost"]
    assert (cost["type"], cost["minimum"], cost["default"]) == ("integer", 1, 1)
    assert {"Limit", "Quota", "Concurrency", "Hours"} <= schema["$defs"].keys()


def test_the_order_in_which_policies_speak() -> None:
    """Limits, then quotas, then concurrency, each as they were declared."""
    settings = RateLimitSettings(
        concurrency=[Concurrency(name="c", limit=1)],
        quotas=[Quota(name="b", limit=1)],
        limits=[Limit(name="a", rate="1/second")],
    )
    assert [policy.name for policy in settings.policies] == ["a", "b", "c"]
