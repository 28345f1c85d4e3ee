"""Bounded memories: whoever makes up names, addresses and tokens does not make this process grow."""

from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Route

import ratelimit.ahead
import ratelimit.fallback
import ratelimit.http.endpoints
import ratelimit.plan
import ratelimit.refusals
import ratelimit.rules
from ratelimit import Decision, Identity, Limiter, MemoryStore, Rate, RateLimitSettings, ResponseStyle
from ratelimit.ahead import Ahead
from ratelimit.charge import Charge
from ratelimit.decision import service_limits
from ratelimit.fallback import Fallback
from ratelimit.http import problems
from ratelimit.http.endpoints import Endpoints
from ratelimit.http.identify import ClientAddress
from ratelimit.plan import Plan
from ratelimit.refusals import Refusals
from ratelimit.stores import Answer, Op, Request
from ratelimit.testing.clock import START, ManualClock
from tests.support.engines import quota, terms

FEW = 500
"""What bounds are set to where filling the real ones would take seconds."""

SETTINGS = RateLimitSettings.model_validate(
    {"limits": [{"name": "t", "rate": "5/minute", "per": "token"}, {"name": "i", "rate": "5/minute", "per": "ip"}]}
)


def limits_of(charges: list[Charge], wait: int) -> Any:
    return service_limits(charges, [(0, 60_000, wait)] * len(charges), START)


def charges_of(n: int, **more: Any) -> list[Charge]:
    return [Charge(more.get("terms") or terms(5), f"rl:{{{n}}}:{part}") for part in "ab"]


def answer(visitor: Any) -> Response:
    return Response()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    for module in (ratelimit.fallback, ratelimit.ahead):
        monkeypatch.setattr(module, "_MOST", FEW)
    return FEW


def test_endpoints_and_their_rules() -> None:
    """Paths and methods that were looked for, and names that were handed to the limiter."""
    plan, most = Plan(SETTINGS), ratelimit.http.endpoints._REMEMBERED
    found = Endpoints(type("App", (), {"routes": [Route("/x/{name}", answer)]})(), plan)
    for n in range(3 * most):
        plan.rules(found.find({"type": "http", "path": f"/x/{n}", "method": "GET", "headers": []}))
        plan.rules(found.find({"type": "http", "path": f"/{n}", "method": f"M{n}", "headers": []}))
        plan.rules(found.find({"type": "http", "path": "/x/1", "method": f"M{n}", "headers": []}))
    assert len(found._found) <= most
    assert len(plan._endpoints) <= 10
    assert len(plan._rules) <= 20


def test_a_long_path_is_not_remembered() -> None:
    """The number is bounded, and so is the size of each."""
    found = Endpoints(type("App", (), {"routes": [Route("/{name}", answer)]})(), Plan(SETTINGS))
    for n in range(100):
        found.find({"type": "http", "path": f"/{n}" + "x" * 10_000, "method": "GET", "headers": []})
    assert not found._found


def test_names_of_endpoints_that_callers_make_up() -> None:
    """`Plan.endpoint` takes any name, as `Limiter.check` does."""
    plan, most = Plan(SETTINGS), ratelimit.plan._MOST_ENDPOINTS
    for n in range(3 * most):
        plan.rules(plan.endpoint("GET", f"/{n}"))
    assert len(plan._endpoints) <= most
    assert len(plan._rules) <= 2 * most


def test_charges_that_were_made() -> None:
    """Callers who come again are known, but only so many, and none with a long name."""
    plan, most = Plan(SETTINGS), ratelimit.rules._MOST_MADE
    rules = plan.rules(plan.endpoint("GET", "/x"))
    for n in range(3 * most):
        rules.charges(Identity(token=f"t{n}", ip="192.0.2.1"))
    assert len(plan._made._charges) <= most
    plan._made.forget(changing=False)
    for n in range(100):
        rules.charges(Identity(token=f"{n}" + "x" * 10_000))
        rules.charges(Identity(token="t", dimensions={f"{n}": "x" * 10_000}))
    assert not plan._made._charges


def test_terms_of_granted_rates() -> None:
    """As many rates as tokens: those that are known are as few as said."""
    plan = Plan(SETTINGS)
    rules, most = plan.rules(plan.endpoint("GET", "/x")), ratelimit.rules._MOST_TERMS
    for n in range(3 * most):
        rules.charges(Identity(token="t", rates={"t": Rate(n + 1, 60)}))
    assert max(len(rule._terms) for rule in rules.rules) <= most


def test_refusals_that_are_remembered() -> None:
    """A flood of callers who are all refused."""
    refusals, shared = Refusals(), terms(5)
    for n in range(3 * ratelimit.refusals.MOST):
        charges = charges_of(n, terms=shared)
        refusals.note(charges, limits_of(charges, 1000), START)
    assert len(refusals) <= ratelimit.refusals.MOST + 1


def test_what_the_store_said_last(few: int) -> None:
    """`Fallback.heard` is called with every answer of the store."""
    fallback, shared = Fallback(ManualClock()), terms(5)
    for n in range(3 * few):
        fallback.heard(charges_of(n, terms=shared), Answer([(1, 60_000, 0)] * 2, START, START // 1000))
    assert len(fallback._told) <= few + 1


@pytest.mark.parametrize("shared", [terms(10**6), quota(10**6, "day")], ids=["limit", "quota"])
def test_what_is_kept_for_a_store_that_is_away(few: int, shared: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Keys that were charged, keys in this worker's memory, and one line in the log about it."""
    fallback = Fallback(ManualClock())
    for n in range(3 * few):
        fallback.run(Request(charges_of(n, terms=shared)))
    assert len(fallback._spent) <= few
    assert len(fallback._memory) <= few
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert len(fallback.hand_over()) <= few


def test_keys_that_were_begun_while_the_store_is_away(few: int) -> None:
    """An outage of hours is no reason to remember every caller that came in it."""
    fallback, shared = Fallback(ManualClock()), terms(5)
    for n in range(3 * few):
        fallback.run(Request(charges_of(n, terms=shared)))
    assert len(fallback._seeded) <= few + 1


def test_shares_of_a_worker(few: int) -> None:
    """Granted rates and costs make shares of their own."""
    fallback = Fallback(ManualClock())
    fallback.workers = 3
    for n in range(3 * few):
        fallback.run(Request([Charge(terms(n + 10), "rl:{a}:p:60:a")], Op.PEEK))
    assert len(fallback._shares) <= few
    assert len(fallback._origins) <= few


def test_units_that_were_taken_ahead(few: int) -> None:
    """Hot keys, of which a worker holds units."""
    ahead, shared = Ahead(), terms(100)
    object.__setattr__(shared, "ahead", 10)
    for n in range(3 * few):
        charges = charges_of(n, terms=shared)
        ahead.arrive(ahead.take(charges, START), service_limits(charges, [(90, 61_000, 0)] * 2, START), START // 1000)
    assert len(ahead._held) <= few + 1


async def test_corrections_for_a_store_that_is_away() -> None:
    """The oldest give way."""
    limiter = Limiter(SETTINGS, MemoryStore())
    absence, shared = limiter._guard.absence, terms(5)
    for n in range(30_000):
        absence.keep(Request(charges_of(n, terms=shared), Op.ADJUST))
    assert len(absence._owed) <= 10_000


def test_addresses_that_were_read() -> None:
    """Peers, and what stands in the headers of those that are believed."""
    address = ClientAddress(["10.0.0.0/8"])
    for n in range(3 * 4096):
        client = f"2001:db8:{n >> 8:x}:{n & 255:x}::1"
        lines = [(b"x-forwarded-for", f"x{n}, {client}".encode())]
        address(HTTPConnection({"type": "http", "client": ("10.0.0.1", 1), "headers": lines}))
        address(HTTPConnection({"type": "http", "client": (client, 1), "headers": []}))
    caches: list[Any] = [address._read, address._trusts, address._name]
    assert all(cache.cache_info().currsize <= cache.cache_info().maxsize == 4096 for cache in caches)


def test_bodies_that_were_rendered() -> None:
    """Each refusal of another policy or wait has a body of its own."""
    style = ResponseStyle()
    for n in range(3 * problems._MOST_RENDERED):
        problems.problem(Decision.of(limits_of(charges_of(n, terms=terms(5, policy=f"p{n}")), 1000 * n + 1)), style)
    assert len(problems._rendered) <= problems._MOST_RENDERED


async def test_keys_in_memory() -> None:
    """A store of so many keys holds so many, whichever policies they belong to."""
    clock = ManualClock()
    store = MemoryStore(clock=clock, max_keys=FEW)
    shared = [terms(5), quota(5, "day"), quota(5, None)]
    for n in range(3 * FEW):
        await store.submit(Request([Charge(each, f"{n}:{each.kind}:{each.period}") for each in shared]))
    assert len(store) <= FEW
    assert len(store._expiries) <= FEW
    assert sum(len(heap) for heap in store._expiries._heaps.values()) <= FEW
