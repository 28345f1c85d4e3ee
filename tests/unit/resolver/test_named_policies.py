"""Policies by their names: charged, overridden and emptied without a request."""

import pytest

from ratelimit import ConfigurationError, Identity
from tests.unit.resolver.settings import charges_of, resolver_of


def test_an_unknown_policy_is_named_with_those_that_there_are() -> None:
    """A typo in a name shows what could be meant."""
    with pytest.raises(ConfigurationError, match="^policy: 'x' is not one of p0, p1 \\[RL303\\]$"):
        resolver_of({}, {}).named.get("x")
    with pytest.raises(ConfigurationError, match="^policy: 'x' is not one of none \\[RL303\\]$"):
        resolver_of().named.get("x")


def test_a_policy_per_endpoint_needs_one() -> None:
    """Otherwise all paths that no route matches would be charged."""
    resolver = resolver_of({"per": "endpoint"})
    with pytest.raises(ConfigurationError, match="'p0' is counted for each endpoint: say which, by endpoint="):
        resolver.named.charge("p0", Identity(), 1, 0, method="GET", endpoint="*")
    charge = resolver.named.charge("p0", Identity(), 7, 0, method="GET", endpoint="/x")
    assert charge is not None
    assert (charge.cost, charge.key) == (7, charges_of(resolver, Identity())[0].key)


def test_a_named_policy_that_does_not_apply_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is charged, which would otherwise go unnoticed."""
    assert resolver_of({"per": "org"}).named.charge("p0", Identity(), 1, 0, method="GET", endpoint="*") is None
    assert caplog.messages == ["policy 'p0' does not apply and counts nothing: the identity lacks one of org [RL507]"]


def test_a_counter_is_named_by_the_values_of_its_dimensions() -> None:
    """The name is the end of the key that requests are charged at; a token may be given as its hash."""
    resolver = resolver_of({"per": ["token", "endpoint", "method"]})
    (charge,) = charges_of(resolver, Identity(token="t"), "POST", "/x")
    key = {"token": "t", "endpoint": "POST /x", "method": "post"}
    name = resolver.named.counter_name("p0", key)
    assert charge.key.endswith(f":{name}")
    token_hash = name.partition(":")[0]
    assert (
        resolver.named.counter_name("p0", {**{k: v for k, v in key.items() if k != "token"}, "token_hash": token_hash})
        == name
    )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({}, "key: 'p0' is counted by token, endpoint, got nothing"),
        ({"token": "t"}, "key: 'p0' is counted by token, endpoint, got token"),
        ({"token": "t", "token_hash": "h", "endpoint": "*"}, "got token, token_hash, endpoint"),
        (
            {"token": "t", "endpoint": "/x"},
            "key: endpoint: '/x' is not an endpoint: write it like 'GET /v1/agents/{id}'",
        ),
        ({"token_hash": "", "endpoint": "*"}, "key: a value is empty"),
    ],
)
def test_a_key_that_names_no_counter_fails(key: dict[str, str], message: str) -> None:
    """A dimension is missing, is given twice, or has no value that requests could have."""
    with pytest.raises(ConfigurationError) as error:
        resolver_of({"per": ["token", "endpoint"]}).named.counter_name("p0", key)
    assert message in str(error.value)
