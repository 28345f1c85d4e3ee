"""Bounded memory: callers that make up names, addresses and tokens do not make this process grow."""

from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Route

from ratelimit import Decision, Identity, Limiter, MemoryStore, Rate, RateLimitSettings, ResponseStyle
from ratelimit.asgi.identify import MAX_CACHED_ADDRESSES, ClientAddress
from ratelimit.asgi.problem_details import render_problem
from ratelimit.asgi.routing.endpoint_matcher import MAX_CACHED_PATHS, EndpointMatcher
from ratelimit.enforcement.local_fallback import LocalFallback
from ratelimit.enforcement.outbox import OUTBOX_CAPACITY
from ratelimit.enforcement.prefetch import PrefetchPool
from ratelimit.enforcement.rejection_cache import MAX_REJECTIONS, RejectionCache
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit, EffectiveRate
from ratelimit.model.service_limit import ServiceLimit, service_limits
from ratelimit.resolver.compiled_policy import MAX_EFFECTIVE_LIMITS
from ratelimit.resolver.resolver import MAX_CACHED_CHARGES, MAX_ENDPOINTS, PolicyResolver
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing.clock import START, ManualClock
from tests.support.stores import quota_limit, window_limit

FEW = 500
"""A bound that takes the place of a real one which would take seconds to reach."""

SETTINGS = RateLimitSettings.model_validate(
    {"limits": [{"name": "t", "rate": "5/minute", "per": "token"}, {"name": "i", "rate": "5/minute", "per": "ip"}]}
)


def limits_of(charges: Sequence[Charge], wait_ms: int) -> list[ServiceLimit]:
    return service_limits(charges, [(0, 60_000, wait_ms)] * len(charges), START)


def charges_of(n: int, limit: EffectiveLimit) -> list[Charge]:
    return [Charge(limit, f"rl:{{{n}}}:{part}") for part in "ab"]


def answer(request: Any) -> Response:
    return Response()


def fallback_of(workers: int = 1) -> LocalFallback:
    return LocalFallback(ManualClock(), lambda: workers, max_keys=FEW)


def test_endpoints_and_their_policies() -> None:
    """Made-up paths and methods are cached up to a bound, and make few endpoints."""
    resolver = PolicyResolver(SETTINGS)
    matcher = EndpointMatcher(type("App", (), {"routes": [Route("/x/{name}", answer)]})(), resolver)
    for n in range(3 * MAX_CACHED_PATHS):
        for path, method in ((f"/x/{n}", "GET"), (f"/{n}", f"M{n}"), ("/x/1", f"M{n}")):
            resolver.policies_at(matcher.find({"type": "http", "path": path, "method": method, "headers": []}))
    assert 0 < len(matcher.cache) <= MAX_CACHED_PATHS
    assert len(resolver.endpoints) <= 10
    assert len(resolver.compiled) <= 20


def test_long_paths() -> None:
    """The number of cached paths is bounded, and so is the size of each."""
    matcher = EndpointMatcher(type("App", (), {"routes": [Route("/{name}", answer)]})(), PolicyResolver(SETTINGS))
    for n in range(100):
        matcher.find({"type": "http", "path": f"/{n}" + "x" * 10_000, "method": "GET", "headers": []})
    assert not matcher.cache


def test_names_of_endpoints_that_callers_make_up() -> None:
    """`PolicyResolver.endpoint` takes any name, as `Limiter.check` does."""
    resolver = PolicyResolver(SETTINGS)
    for n in range(3 * MAX_ENDPOINTS):
        resolver.policies_at(resolver.endpoint("GET", f"/{n}"))
    assert 0 < len(resolver.endpoints) <= MAX_ENDPOINTS
    assert 0 < len(resolver.compiled) <= 2 * MAX_ENDPOINTS


def test_cached_charges() -> None:
    """The charges of so many callers are cached, and of none with a long name."""
    resolver = PolicyResolver(SETTINGS)
    policies = resolver.policies_at(resolver.endpoint("GET", "/x"))
    for n in range(3 * MAX_CACHED_CHARGES):
        policies.charges(Identity(token=f"t{n}", ip="192.0.2.1"))
    assert 0 < len(resolver.charge_cache) <= MAX_CACHED_CHARGES
    resolver.charge_cache.clear()
    for n in range(100):
        policies.charges(Identity(token=f"{n}" + "x" * 10_000))
        policies.charges(Identity(token="t", dimensions={f"{n}": "x" * 10_000}))
    assert not resolver.charge_cache


def test_effective_limits_of_granted_rates() -> None:
    """There may be as many granted rates as tokens."""
    resolver = PolicyResolver(SETTINGS)
    policies = resolver.policies_at(resolver.endpoint("GET", "/x"))
    for n in range(3 * MAX_EFFECTIVE_LIMITS):
        policies.charges(Identity(token="t", rates={"t": Rate(n + 1, 60)}))
    assert 0 < max(each.effective_limit_count for each in policies.compiled) <= MAX_EFFECTIVE_LIMITS


def test_cached_rejections() -> None:
    """A flood of callers that are all refused."""
    rejections, shared = RejectionCache(), window_limit(5)
    for n in range(3 * MAX_REJECTIONS):
        charges = charges_of(n, shared)
        rejections.store(charges, limits_of(charges, 1000), START)
    assert 0 < len(rejections) <= MAX_REJECTIONS


def test_usage_that_the_store_reported() -> None:
    """`LocalFallback.observe` is called with every reply of the store."""
    fallback, shared = fallback_of(), window_limit(5)
    for n in range(3 * FEW):
        reply = StoreReply([(1, 60_000, 0)] * 2, START, START // 1000)
        fallback.observe(charges_of(n, shared), reply)
    assert 0 < fallback.sizes["observed"] <= FEW + 1


@pytest.mark.parametrize("shared", [window_limit(10**6), quota_limit(10**6, "day")], ids=["limit", "quota"])
def test_usage_that_is_kept_for_an_unavailable_store(shared: EffectiveLimit, caplog: pytest.LogCaptureFixture) -> None:
    """Keys whose usage is to be reported, keys in the worker's memory, and one line in the log about the overflow."""
    fallback = fallback_of()
    for n in range(3 * FEW):
        fallback.decide(StoreRequest(charges_of(n, shared)))
    assert 0 < fallback.sizes["unreported"] <= FEW
    assert 0 < fallback.sizes["memory"] <= FEW
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert 0 < len(fallback.drain()) <= FEW


def test_keys_that_were_seeded_during_an_outage() -> None:
    """Only keys whose usage the store had reported are remembered, however long the outage is."""
    fallback, shared = fallback_of(), window_limit(5)
    for n in range(FEW // 4):
        fallback.observe(charges_of(n, shared), StoreReply([(1, 60_000, 0)] * 2, START, START // 1000))
    for n in range(3 * FEW):
        fallback.decide(StoreRequest(charges_of(n, shared)))
    assert fallback.sizes["seeded"] == FEW // 4 * 2


def test_local_limits_of_a_worker() -> None:
    """Granted rates and costs make local limits of their own."""
    fallback = fallback_of(workers=3)
    for n in range(3 * FEW):
        fallback.decide(StoreRequest([Charge(window_limit(n + 10), "rl:{a}:p:60:a")], Operation.PEEK))
    assert 0 < fallback.sizes["local_limits"] <= FEW
    assert 0 < fallback.sizes["global_limits"] <= FEW


def test_prefetched_units() -> None:
    """Hot keys of which a worker holds units."""
    pool = PrefetchPool()
    pool.held.max_size = FEW
    shared = EffectiveRate(policy="p", scope="token", limit=100, window=60, prefetch=10)
    for n in range(3 * FEW):
        charges = charges_of(n, shared)
        attempt = pool.acquire(charges, START)
        pool.store_reply(attempt, service_limits(charges, [(90, 61_000, 0)] * 2, START), START // 1000)
    assert 0 < len(pool.held) <= FEW


async def test_corrections_for_an_unavailable_store() -> None:
    """The oldest are dropped."""
    limiter = Limiter(SETTINGS, MemoryStore())
    outbox, shared = limiter.enforcer.outbox, window_limit(5)
    for n in range(3 * OUTBOX_CAPACITY):
        outbox.enqueue(StoreRequest(charges_of(n, shared), Operation.ADJUST))
    assert len(outbox) == OUTBOX_CAPACITY == 10_000


def test_addresses() -> None:
    """Peers, and the addresses in the headers of trusted proxies."""
    address = ClientAddress(["10.0.0.0/8"])
    for n in range(3 * MAX_CACHED_ADDRESSES):
        client = f"2001:db8:{n >> 8:x}:{n & 255:x}::1"
        lines = [(b"x-forwarded-for", f"x{n}, {client}".encode())]
        address(HTTPConnection({"type": "http", "client": ("10.0.0.1", 1), "headers": lines}))
        address(HTTPConnection({"type": "http", "client": (client, 1), "headers": []}))
    assert set(address.sizes.values()) == {MAX_CACHED_ADDRESSES} == {4096}


def test_rendered_bodies() -> None:
    """Each refusal by another policy, or with another wait, has a body of its own."""
    style = ResponseStyle()
    for n in range(3 * style.rendered.max_size):
        charges = charges_of(n, window_limit(5, policy=f"p{n}"))
        render_problem(Decision.from_limits(limits_of(charges, 1000 * n + 1)), style)
    assert 0 < len(style.rendered) <= style.rendered.max_size


async def test_keys_in_memory() -> None:
    """A memory store holds at most `max_keys` keys, whichever policies they belong to."""
    clock = ManualClock()
    store = MemoryStore(clock=clock, max_keys=FEW)
    shared = [window_limit(5), quota_limit(5, "day"), quota_limit(5, None)]
    for n in range(3 * FEW):
        await store.submit(StoreRequest([Charge(each, f"{n}:{each.kind}:{each.period}") for each in shared]))
    assert 0 < len(store) <= FEW
    assert len(store.expiry_index) <= FEW
    assert store.expiry_index.entries <= FEW
