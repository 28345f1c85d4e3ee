"""Quiet counters: what is only noted decides as what is counted, for any history."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Identity, Limit, MemoryStore, RateLimitSettings
from ratelimit.rehearsal.engine import RehearsalEngine
from ratelimit.rehearsal.log_records import LogRecord
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.messages import StoreRequest

START = 1_795_000_000_000_000
SETTINGS = RateLimitSettings(
    limits=[
        Limit(name="small", rate="4/second", per="token", burst=0.5),
        Limit(name="large", rate="90/minute", per="org"),
        Limit(name="plans", rate="5/second", per="org", plans={"pro": "9/second"}),
        Limit(name="shadow", rate="3/second", per="token", shadow=True),
        Limit(name="dear", rate="40/minute", per="token", cost=3, paths="/dear"),
        Limit(name="refunded", rate="6/second", per="token", refund_on=[500], paths="/back"),
    ]
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 3, 40, 333, 1000, 1017, 30_000, 61_000]),
        st.integers(0, 3),
        st.sampled_from([None, "pro"]),
        st.sampled_from(["/", "/", "/", "/dear", "/back"]),
        st.sampled_from([200, 500]),
    ),
    max_size=150,
)


@settings(max_examples=60)
@given(events=EVENTS)
def test_it_decides_as_a_store_that_counts_everything(events: list[tuple[int, int, str | None, str, int]]) -> None:
    """Refusals and waits, of all policies; a refund comes at once here, as it does in the store beside it."""
    engine, now = RehearsalEngine(SETTINGS), START
    counting, resolver = MemoryStore(clock=lambda: now), PolicyResolver(SETTINGS)
    for ms, who, plan, path, status in events:
        now += ms * 1000
        identity = Identity(token=f"t{who}", org=f"o{who // 2}", plan=plan)
        record = LogRecord(now, now, "GET", path, 200 if status == 500 else status, False, {})
        place = engine.resolver.endpoint("GET", path)
        outcome = engine.decide(record, identity, engine.resolver.policies_at(place))
        charges = resolver.policies_at(resolver.endpoint("GET", path)).charges(identity, now=now)
        reply = counting.run(StoreRequest(charges))
        waits = [max(0, wait) for _, _, wait in reply.readings]
        assert [max(0, wait) for wait in outcome.waits] == (waits if any(waits) else [])
        assert outcome.is_refused == StoreRequest(charges).is_refused(reply)


def test_keys_without_a_recent_request_are_forgotten() -> None:
    """So that the memory is bounded by what happens in a window."""
    engine = RehearsalEngine(RateLimitSettings(limits=[Limit(name="a", rate="9/second", per="token")]))
    policies = engine.resolver.policies_at(engine.resolver.endpoint("GET", "/"))
    for n in range(50):
        engine.decide(LogRecord(START + n, START + n, "GET", "/", 200, False, {}), Identity(token=f"t{n}"), policies)
    assert len(engine.quiet) == 50
    engine.quiet.sweep(START // 1000 + 1000, 100)
    assert len(engine.quiet) == 50
    engine.quiet.sweep(START // 1000 + 1000, 20)
    assert (len(engine.quiet), engine.quiet.dropped) == (10, 40)
    engine.quiet.sweep(START // 1000 + 3000, 100)
    assert len(engine.quiet) == 0
