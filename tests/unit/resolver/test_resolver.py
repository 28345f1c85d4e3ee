"""The policy resolver (with `resolver.precedence`): which policies hold at which endpoint, without a store."""

from datetime import UTC, datetime

import pytest

from ratelimit import ConfigurationError, Identity, Limiter, MemoryStore, Override, Rate, RateLimitSettings, limit
from ratelimit.config.declarations import EndpointDeclaration, declaration_of
from ratelimit.resolver.resolver import MAX_CACHED_CHARGES, MAX_ENDPOINTS
from ratelimit.testing import ManualClock
from tests.unit.resolver.settings import applied, charges_of, resolver_of


@pytest.mark.parametrize(
    ("methods", "paths", "method", "path", "applies"),
    [
        (["GET"], [], "HEAD", "/x", True),
        (["head"], [], "GET", "/x", True),
        (["POST"], [], "GET", "/x", False),
        ([], ["/x"], "GET", "/x", True),
        ([], ["/x"], "GET", "/xy", False),
        ([], ["/v1/*"], "GET", "/v1/a/{b}", True),
        ([], ["/v1/batch*"], "GET", "/v1/batches/{id}", True),
        ([], ["/v1/a/{b}"], "GET", "/v1/a/{b}", True),
        ([], ["/a[b]"], "GET", "/a[b]", True),
        ([], ["/a[b]"], "GET", "/ab", False),
        ([], ["*"], "GET", "*", True),
        ([], ["/x"], "GET", "*", False),
    ],
)
def test_methods_and_paths_narrow_a_policy(
    methods: list[str], paths: list[str], method: str, path: str, *, applies: bool
) -> None:
    """Methods (HEAD is GET) and templates or globs decide where a policy applies."""
    resolver = resolver_of({"methods": methods, "paths": paths})
    assert bool(applied(resolver, Identity(), method, path)) == applies


@pytest.mark.parametrize(
    ("entry", "method", "path", "is_exempt"),
    [
        ("GET /healthz", "GET", "/healthz", True),
        ("GET /healthz", "HEAD", "/healthz", True),
        ("GET /healthz", "POST", "/healthz", False),
        ("/internal/*", "POST", "/internal/a/b", True),
        ("get /a/{b}", "GET", "/a/{b}", True),
    ],
)
def test_exempt_endpoints_have_no_policies(entry: str, method: str, path: str, *, is_exempt: bool) -> None:
    """An exempt entry names a path, with or without a method."""
    resolver = resolver_of({}, exempt=[entry])
    assert (applied(resolver, Identity(), method, path) == []) == is_exempt


def test_made_up_endpoints_do_not_grow_without_bound() -> None:
    """`check` takes any name, and the resolver keeps a bounded number of them."""
    resolver = resolver_of({})
    for n in range(20_001):
        resolver.policies_at(resolver.endpoint("GET", f"/{n}"))
    assert 0 < len(resolver.endpoints) <= MAX_ENDPOINTS == 10_000
    assert 0 < len(resolver.compiled) <= 2 * MAX_ENDPOINTS


def test_an_endpoint_is_the_same_at_each_call() -> None:
    """Its policies are compiled once; HEAD is GET."""
    resolver = resolver_of({})
    endpoint = resolver.endpoint("GET", "/x")
    assert resolver.endpoint("HEAD", "/x") is endpoint
    assert resolver.policies_at(endpoint) is resolver.policies_at(endpoint)


async def test_a_name_that_two_endpoints_share_means_the_policy_at_the_named_one(clock: ManualClock) -> None:
    """Decorated functions of one name are counted apart, and each by its own limit."""

    def at(rate: str) -> EndpointDeclaration:
        def answer() -> None: ...

        return declaration_of(limit(rate, per="org")(answer))

    limiter = Limiter(RateLimitSettings(), MemoryStore(clock=clock), clock)
    for path, rate in (("/a", "5/minute"), ("/b", "500/minute")):
        limiter.resolver.register_endpoint("GET", path, declaration=at(rate))
    decisions = [await limiter.consume("answer", Identity(org="o"), endpoint=path) for path in ("/a", "/b")]
    assert [decision.limits[0].remaining for decision in decisions] == [4, 499]


def test_a_name_that_was_chosen_twice_fails() -> None:
    """A name from a function is numbered instead; one that was chosen by hand means one policy."""

    @limit("5/minute", name="p0")
    def answer() -> None: ...

    with pytest.raises(ConfigurationError, match="on GET /x: name: 'p0' is already the name of limits.0"):
        resolver_of({}).register_endpoint("GET", "/x", declaration=declaration_of(answer))


def test_overrides_replace_those_before_and_clear_the_charges() -> None:
    """While one is going to end, no charges are cached, since they depend on the time."""
    resolver = resolver_of({"per": "org"})

    def limit_of(org: str) -> int:
        return charges_of(resolver, Identity(org=org))[0].limit.limit

    for overridden, expected in (({"a": 1, "b": 2}, [1, 2]), ({"b": 3}, [10, 3]), ({}, [10, 10])):
        resolver.set_overrides(
            {"p0": {org: Override(policy="p0", key={"org": org}, rate=Rate(n, 60)) for org, n in overridden.items()}}
        )
        assert [limit_of(org) for org in ("a", "b")] == expected
    until = datetime(2030, 1, 1, tzinfo=UTC)
    ending = Override(policy="p0", key={"org": "a"}, rate=Rate(1, 60), until=until)
    for overrides, max_size in (({"p0": {"a": ending}}, 0), ({}, MAX_CACHED_CHARGES)):
        resolver.set_overrides(overrides)
        assert (len(resolver.charge_cache), resolver.charge_cache.max_size) == (0, max_size)
