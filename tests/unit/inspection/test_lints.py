"""Lints: what can never refuse, and what is only like it."""

import pytest

from ratelimit import Hours, Limit, Quota, RateLimitSettings
from ratelimit.inspection.lints import lint, lint_routes, most_keys
from ratelimit.resolver.resolver import PolicyResolver


def codes(*limits: Limit, quotas: tuple[Quota, ...] = ()) -> list[str]:
    return [message[-6:-1] for message in lint(RateLimitSettings(limits=limits, quotas=quotas))]


def a(rate: str, **options: object) -> Limit:
    return Limit.model_validate({"name": "a", "rate": rate, "per": "token", **options})


def b(rate: str, **options: object) -> Limit:
    return Limit.model_validate({"name": "b", "rate": rate, "per": "token", **options})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (a("10/second"), b("600/minute"), ["RL609"]),
        (a("10/second"), b("599/minute"), []),
        (a("10/second", burst=0.5), b("604/minute"), []),
        (a("10/second", burst=0.5), b("605/minute"), ["RL609"]),
        (a("100/minute"), b("100/second"), ["RL609"]),
        (a("100/minute"), b("100/minute"), ["RL609"]),
        (a("10/second", methods="POST"), b("600/minute"), []),
        (a("10/second"), b("600/minute", methods="POST"), ["RL609"]),
        (a("10/second", paths="/x"), b("600/minute"), []),
        (a("10/second", shadow=True), b("600/minute"), ["RL617"]),
        (a("10/second"), b("600/minute", plans={"pro": "9/second"}), []),
        (a("10/second", schedule=[Hours(start="22:00", end="06:00", rate="99/second")]), b("600/minute"), []),
        (a("10/second", cost=2), b("600/minute"), []),
        (a("10/second"), b("600/minute", unit="tokens"), []),
        (a("10/second", refund_on=[500]), b("600/minute"), []),
        (a("10/second"), b("999/minute", plans={"standard-eu": "5/minute", "standard-us": "6/minute"}), []),
    ],
)
def test_a_limit_that_never_refuses_is_found(first: Limit, second: Limit, expected: list[str]) -> None:
    """By the bound of the other one: what it admits at most in a window of this one."""
    assert codes(first, second) == expected


def test_the_bound_of_a_lint_is_true() -> None:
    """A limit that the lint calls superfluous has never refused alone, for arrivals as dense as there may be."""
    from ratelimit import Identity, Limiter, MemoryStore  # noqa: PLC0415
    from ratelimit.testing import ManualClock  # noqa: PLC0415

    clock, settings = ManualClock(), RateLimitSettings(limits=[a("3/second", burst=0.4), b("10/3 seconds")])
    assert codes(*settings.limits) == ["RL609"]
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    for _ in range(2000):
        charges = limiter.resolver.policies_at(limiter.resolver.endpoint("GET")).charges(Identity(token="t"))
        decision = limiter.decide_now(charges)
        assert decision is not None
        assert "b" not in {limit.policy for limit in decision.violated} or len(decision.violated) == 2
        clock.advance(ms=7)


def test_quotas_and_routes() -> None:
    """Used up early, and without a limit."""
    quota = Quota(name="q", limit=1000, period="day", per="token")
    assert codes(a("1/second"), quotas=(quota,)) == ["RL612"]
    assert codes(a("1/2 minutes"), quotas=(quota,)) == []
    resolver = PolicyResolver(RateLimitSettings(limits=[a("5/minute", paths="/a")], exempt=["/c"]))
    places = [resolver.endpoint("GET", path) for path in ("/a", "/b", "/c")]
    assert list(lint_routes(resolver, places)) == ["route GET /b has no limit and is not exempt [RL610]"]
    assert list(most_keys(resolver, places)) == [
        "a request charges 1 key at most, at GET /a, in one script call [RL615]"
    ]
    assert list(most_keys(PolicyResolver(RateLimitSettings()), [])) == []
