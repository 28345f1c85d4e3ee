"""Decorators: they say, and change nothing."""

import functools
import inspect
from typing import Any

import pytest

from ratelimit import ConfigurationError, Rate, exempt, limit
from ratelimit.decorators import declared_on
from ratelimit.plan import Plan
from ratelimit.settings import RateLimitSettings


def test_a_decorated_function_is_the_same_function() -> None:
    """No wrapper: identity, signature and name are untouched."""

    async def answer(question: str) -> str:
        return question

    decorated = limit("60/minute", per="token")(answer)
    assert decorated is answer
    assert str(inspect.signature(decorated)) == "(question: str) -> str"


def test_it_is_a_limit_of_scope_endpoint() -> None:
    """`@limit("60/minute", per="token")` is a `Limit` per endpoint and token, named after the function."""

    @limit("60/minute", per="token")
    def answer() -> None: ...

    (one,) = declared_on(answer).limits
    assert (one.name, one.rate, one.per, one.scope) == ("answer", Rate(60, 60), ("endpoint", "token"), "endpoint")


def test_several_limits_keep_their_order_and_get_names() -> None:
    """From top to bottom; names that were not chosen give way."""

    @limit("1/second", per="token")
    @limit("10/minute", per=["org", "token"], burst=0.5, cost=2, name="minutely")
    @limit("100/hour")
    def run() -> None: ...

    plan = Plan(RateLimitSettings(limits=[{"name": "run", "rate": "5/minute"}]))
    endpoint = plan.declare("POST", "/run", said=declared_on(run))
    assert [one.name for one in endpoint.limits] == ["run-2", "minutely", "run-3"]
    assert endpoint.limits[1].per == ("endpoint", "org", "token")
    assert (endpoint.limits[1].burst, endpoint.limits[1].cost) == (0.5, 2)


def test_limits_pass_through_wraps_and_partial() -> None:
    """Other decorators that use `functools.wraps`, and partials, keep what was said."""

    @limit("1/second")
    def inner(n: int) -> int:
        return n

    @functools.wraps(inner)
    def wrapper(*args: Any) -> int:
        return inner(*args)

    assert declared_on(wrapper) == declared_on(functools.partial(inner, 1)) == declared_on(inner)


def test_exempt_and_limit_combine() -> None:
    """Exempt stays exempt, whatever else is said."""

    @limit("1/second")
    @exempt
    def free() -> None: ...

    assert declared_on(free).exempt


@pytest.mark.parametrize(
    ("rate", "options", "field"),
    [
        ("often", {}, "rate"),
        ("0/minute", {}, "rate"),
        ("1/minute", {"burst": 2}, "burst"),
        ("1/minute", {"brust": 0.2}, "brust"),
        ("1/minute", {"name": "a\nb"}, "name"),
    ],
)
def test_wrong_values_fail_where_they_stand(rate: str, options: dict[str, Any], field: str) -> None:
    """The decorator's own line raises, before it sees a function."""
    with pytest.raises(ConfigurationError, match=f"^@limit: {field}: "):
        limit(rate, **options)


def test_a_decorator_without_its_rate_says_so() -> None:
    """`@limit` without parentheses, and `paths` where a decorator holds anyway."""
    with pytest.raises(ConfigurationError, match=r"write @limit\('5/minute'\)"):
        limit(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="paths"):
        limit("1/minute", paths=["/x"])  # type: ignore[call-arg]


def test_a_bound_method_takes_no_limit() -> None:
    """What cannot hold an annotation says so."""
    with pytest.raises(ConfigurationError, match="a method takes no limit"):
        limit("1/minute")(Plan(RateLimitSettings()).rules)
