"""Structured fields: a parser of RFC 9651 reads back the numbers of any policy."""

import math
from typing import Any

import http_sf
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, Identity, Limiter, MemoryStore, RateLimitSettings, ResponseStyle, ServiceLimit
from ratelimit.asgi.headers import rejection_headers, response_headers
from ratelimit.asgi.problem_details import render_problem
from ratelimit.model.kinds import NEVER
from ratelimit.model.rate import MAX_LIMIT, MAX_PERIOD
from ratelimit.testing import ManualClock
from tests.fuzz.inputs import PRINTABLE, fuzz, patient

pytestmark = patient

STYLES = [
    ResponseStyle(headers=["x-ratelimit", "ietf"], retry_after="exhausted"),
    ResponseStyle(headers="ietf", problem="legacy", scope_header=False),
]

inner = st.text(alphabet=PRINTABLE + " ", max_size=30)
words = st.builds("{}{}{}".format, st.sampled_from(PRINTABLE), inner, st.sampled_from(PRINTABLE))
awkward = st.one_of(words, st.sampled_from(['"', "\\", '\\"', "a;b=c", "a, b", '";q=0', "?1", "(a b)", ":YQ==:", "%"]))

REGISTERED = {"content-bytes", "concurrent-requests"}
"""The quota units of the draft's registry that are not the default."""


def parsed(fields: dict[bytes, bytes], name: bytes) -> dict[str, dict[str, Any]]:
    """Return the items of a field by their strings, with their parameters."""
    assert fields[name].isascii()
    items: Any = http_sf.parse(fields[name], tltype="list")
    assert all(type(item) is str for item, _ in items)
    assert len({item for item, _ in items}) == len(items)
    return dict(items)


@st.composite
def limits(draw: st.DrawFn, name: str) -> ServiceLimit:
    limit = draw(st.one_of(st.integers(0, 5), st.integers(0, MAX_LIMIT)))
    wait = draw(st.one_of(st.just(0.0), st.floats(0.001, MAX_PERIOD), st.just(math.inf)))
    reset = draw(st.floats(0, 2.0 * MAX_PERIOD)) if wait in {0, math.inf} else wait
    return ServiceLimit(
        policy=name,
        kind=draw(st.sampled_from(["limit", "limit", "quota", "concurrency"])),
        scope=draw(st.one_of(st.just("global"), awkward)),
        limit=limit,
        remaining=0 if wait else draw(st.integers(0, limit)),
        window=draw(st.integers(1, MAX_PERIOD)),
        reset_at=1_700_000_000.5 + reset,
        retry_after=wait,
        shadow=draw(st.integers(0, 5)) == 0,
        exhausted=draw(st.booleans()),
        cost=draw(st.integers(0, 3)),
        reset_after=reset,
        unit=draw(st.one_of(st.just("requests"), st.sampled_from(sorted(REGISTERED)), awkward)),
    )


limits_of_policies = st.lists(awkward, min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.tuples(*[limits(name) for name in names])
)


@fuzz
@given(
    several=limits_of_policies, style=st.sampled_from(STYLES), status=st.sampled_from([200, 204, 301, 404, 500, 101])
)
def test_any_decision_is_read_back(several: tuple[ServiceLimit, ...], style: ResponseStyle, status: int) -> None:
    """`RateLimit` and `RateLimit-Policy` are lists of strings whose numbers are those of the limits."""
    decision, known = Decision.from_limits(several), {limit.policy: limit for limit in several}
    made = response_headers(decision, style, status, []) if decision.allowed else rejection_headers(decision, style)
    fields = dict(made)
    assert len(fields) == len(made)
    assert all(0x20 <= byte <= 0x7E for value in fields.values() for byte in value)
    for name, parameters in (parsed(fields, b"ratelimit-policy") if b"ratelimit-policy" in fields else {}).items():
        limit = known[name]
        window = {"w": limit.window} if limit.kind == "limit" else {}
        unit = {"qu": limit.unit} if limit.unit in REGISTERED else {}
        assert parameters == {"q": limit.limit, **window, **unit}
    for name, parameters in (parsed(fields, b"ratelimit") if b"ratelimit" in fields else {}).items():
        reset = {} if math.isinf(known[name].retry_after) else {"t": math.ceil(known[name].reset_after)}
        assert parameters == {"r": known[name].remaining if decision.allowed else 0, **reset}
    for field in (b"retry-after", b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"):
        assert fields.get(field, b"0").isdigit()
    if not decision.allowed:
        render_problem(decision, style)


@fuzz
@given(
    names=st.lists(awkward, min_size=1, max_size=4, unique=True),
    rate=st.tuples(st.integers(1, MAX_LIMIT), st.integers(1, MAX_PERIOD)),
    unit=awkward,
    burst=st.sampled_from([0, 0.3, 1]),
    amounts=st.lists(st.integers(1, MAX_LIMIT), min_size=1, max_size=4),
)
async def test_whatever_the_settings_accept_can_be_sent(
    names: list[str], rate: tuple[int, int], unit: str, burst: float, amounts: list[int]
) -> None:
    """Every name, unit, rate and cost that settings and limiter accept has fields that can be read."""
    clock, (limit, period) = ManualClock(), rate
    shared = {"rate": {"limit": limit, "period": period}, "unit": unit, "burst": burst, "per": "token"}
    settings = RateLimitSettings.model_validate({"limits": [{"name": name, **shared} for name in names]})
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    for amount in amounts:
        decision = await limiter.check(Identity(token="t"), cost=amount)
        assert decision.retry_after == math.inf or decision.retry_after < NEVER / 1000
        made = (
            response_headers(decision, STYLES[0], 200, [])
            if decision.allowed
            else rejection_headers(decision, STYLES[0])
        )
        fields = dict(made)
        policies = parsed(fields, b"ratelimit-policy")
        assert list(policies) == names
        assert all(policy["q"] == limit and policy["w"] == period for policy in policies.values())
        assert list(parsed(fields, b"ratelimit")) == names
    await limiter.aclose()
