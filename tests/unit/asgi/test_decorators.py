"""Decorators: they declare limits on an endpoint, and change nothing else."""

import functools
import inspect
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from ratelimit import ConfigurationError, Limit, Rate, exempt, limit
from ratelimit.config.declarations import declaration_of
from ratelimit.config.settings import RateLimitSettings
from ratelimit.resolver.resolver import PolicyResolver


def test_a_decorated_function_is_the_same_function() -> None:
    """No wrapper: identity, signature and name are untouched."""

    async def answer(question: str) -> str:
        return question

    decorated = limit("60/minute", per="token")(answer)
    assert decorated is answer
    assert str(inspect.signature(decorated)) == "(question: str) -> str"


def test_a_decorator_declares_a_limit_of_scope_endpoint() -> None:
    """`@limit("60/minute", per="token")` is a `Limit` per endpoint and token, named after the function."""

    @limit("60/minute", per="token")
    def answer() -> None: ...

    (one,) = declaration_of(answer).limits
    assert (one.name, one.rate, one.per, one.scope) == ("answer", Rate(60, 60), ("endpoint", "token"), "endpoint")


def test_several_limits_keep_their_order_and_get_names() -> None:
    """Limits are listed from top to bottom; names that were not chosen by hand are numbered where they are in use."""

    @limit("1/second", per="token")
    @limit("10/minute", per=["org", "token"], burst=0.5, cost=2, name="minutely")
    @limit("100/hour")
    def run() -> None: ...

    resolver = PolicyResolver(RateLimitSettings(limits=[Limit(name="run", rate="5/minute")]))
    endpoint = resolver.register_endpoint("POST", "/run", declaration=declaration_of(run))
    assert [one.name for one in endpoint.limits] == ["run-2", "minutely", "run-3"]
    assert endpoint.limits[1].per == ("endpoint", "org", "token")
    assert (endpoint.limits[1].burst, endpoint.limits[1].cost) == (0.5, 2)


def test_limits_pass_through_wraps_and_partial() -> None:
    """Other decorators that use `functools.wraps`, and partials, keep the declaration."""

    @limit("1/second")
    def inner(n: int) -> int:
        return n

    @functools.wraps(inner)
    def wrapper(*args: Any) -> int:
        return inner(*args)

    assert declaration_of(wrapper) == declaration_of(functools.partial(inner, 1)) == declaration_of(inner)


def test_exempt_and_limit_combine() -> None:
    """An endpoint that is exempt and limited is exempt."""

    @limit("1/second")
    @exempt
    def free() -> None: ...

    assert declaration_of(free).exempt


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
def test_wrong_values_fail_at_the_decorator(rate: str, options: dict[str, Any], field: str) -> None:
    """A wrong value raises in the decorator's own line, before a function is decorated."""
    with pytest.raises(ConfigurationError, match=f"^@limit: {field}: "):
        limit(rate, **options)


def test_a_decorator_without_a_rate_or_with_paths_fails() -> None:
    """`@limit` needs parentheses, and takes no `paths`, since it limits its own endpoint."""
    with pytest.raises(ConfigurationError, match=r"write @limit\('5/minute'\)"):
        limit(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="paths"):
        limit("1/minute", paths=["/x"])  # type: ignore[call-arg]


def test_a_bound_method_takes_no_limit() -> None:
    """An object that cannot hold an attribute cannot be decorated, and the error says what to decorate instead."""
    with pytest.raises(ConfigurationError, match="a method takes no limit"):
        limit("1/minute")(PolicyResolver(RateLimitSettings()).policies_at)


@pytest.mark.parametrize("wrong", [None, Route("/x", len), Starlette()])
def test_only_endpoints_are_decorated(wrong: Any) -> None:
    """A route, an app or nothing at all, as some route decorators return, is not an endpoint."""
    for decorator, name in ((limit("1/minute"), "limit"), (exempt, "exempt")):
        with pytest.raises(ConfigurationError, match=f"^@{name} must stand on an endpoint"):
            decorator(wrong)


def test_names_are_ascii_whatever_the_function_is_called() -> None:
    """The name of a limit reaches headers, so other letters of a function's name are escaped."""

    def prüfen() -> None: ...  # noqa: PLC2401 - Python allows it

    (one,) = declaration_of(limit("1/second")(prüfen)).limits
    assert one.name == "pr\\xfcfen"
