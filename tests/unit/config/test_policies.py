"""Policies: their fields, and the values that they refuse."""

from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit import Concurrency, Limit, Quota, RateLimitSettings
from ratelimit.config.policies import Policy

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
        (Concurrency, {"plans": {"big": 10**6}}, "plans.big"),
        (Concurrency, {"schedule": [{"start": "01:00", "end": "02:00", "limit": 10**6}]}, "schedule.0"),
        *[(Limit, {"cost": function}, "cost") for function in (int, lambda: 5, lambda a, b: 5)],
    ],
)
def test_a_wrong_value_names_its_field(kind: type[Policy], wrong: dict[str, Any], field: str) -> None:
    """It fails at construction, with the path of the field."""
    with pytest.raises(ValidationError) as error:
        kind(**{**GOOD[kind], **wrong})
    assert ".".join(str(part) for part in error.value.errors()[0]["loc"]).startswith(field)


def test_a_plan_may_have_no_limit() -> None:
    """`None` is written as `unlimited`, in TOML and in JSON, for quotas and concurrency."""
    for kind in (Quota, Concurrency):
        made = kind(**{**GOOD[kind], "plans": {"internal": "unlimited", "big": 10}})
        assert dict(made.by_plan) == {"internal": None, "big": 10}
        assert kind.model_validate_json(made.model_dump_json()) == made


def test_names_are_unique_over_all_kinds() -> None:
    """The error of a name in two sections gives both places."""
    with pytest.raises(ValidationError, match="concurrency.0.name: 'p' is already the name of limits.0"):
        RateLimitSettings(limits=[Limit(**GOOD[Limit])], concurrency=[Concurrency(**GOOD[Concurrency])])
    with pytest.raises(ValidationError, match="quotas.1.per: 'zone' is not one of"):
        RateLimitSettings(quotas=[Quota(**GOOD[Quota]), Quota(name="z", limit=1, per="zone")])


def test_a_section_is_a_list_of_tables() -> None:
    """The error of a single table says how to write a list of them."""
    for section in ("limits", "quotas", "concurrency"):
        with pytest.raises(ValidationError, match=rf"write \[\[{section}\]\]"):
            RateLimitSettings.model_validate({section: {"name": "p"}})


def test_the_json_schema_has_all_policies_and_no_functions() -> None:
    """Editors complete from the schema; a cost in a file is a number."""
    schema = RateLimitSettings.model_json_schema()
    cost = schema["$defs"]["Limit"]["properties"]["cost"]
    assert (cost["type"], cost["minimum"], cost["default"]) == ("integer", 1, 1)
    assert {"Limit", "Quota", "Concurrency", "Hours"} <= schema["$defs"].keys()


def test_the_order_of_policies() -> None:
    """Limits come first, then quotas, then concurrency, each in the order of declaration."""
    settings = RateLimitSettings(
        concurrency=[Concurrency(name="c", limit=1)],
        quotas=[Quota(name="b", limit=1)],
        limits=[Limit(name="a", rate="1/second")],
    )
    assert [policy.name for policy in settings.policies] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("per", "scope"),
    [([], "global"), (["org"], "org"), (["org", "endpoint"], "endpoint"), (["method", "ip"], "method")],
)
def test_the_default_scope(per: list[str], scope: str) -> None:
    """`endpoint` if it is in `per`, else the first dimension, else `global`; a scope that was given stays."""
    assert Limit(name="p", rate="1/minute", per=per).scope == scope
    assert Limit(name="p", rate="1/minute", per=per, scope="mine").scope == "mine"
