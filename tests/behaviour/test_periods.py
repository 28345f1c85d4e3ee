"""The promise: another period is no other budget, whether a schedule, a plan, an override, a grant or a reload brings it."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ratelimit import Hours, Identity, Limit, Limiter, Override, Rate, RateLimitSettings
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.model.charge import Charge
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.redis.split_requests import by_window
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import counted_together, fresh_key, window_limit, windowed
from tests.support.stores import RemoteStore, SyncMemoryStore, SyncRedisStore

WHO = Identity(token="t", org="o")
HOUR, HALF_DAY = 3600, 43_200


def settings(**options: Any) -> RateLimitSettings:
    return RateLimitSettings(limits=[Limit.model_validate({"name": "calls", "per": "token", **options})])


async def admitted(limiter: Limiter, most: int, identity: Identity = WHO) -> int:
    """Return how many of so many requests are admitted."""
    return sum([(await limiter.check(identity)).allowed for _ in range(most)])


async def test_a_schedule_of_another_period_admits_no_second_budget(store: Store, clock: ManualClock) -> None:
    """100/hour by day and 1200/12 hours at night; it was 22:13:20 when the clock began."""
    night = Hours(start="22:00", end="10:00", rate="1200/12 hours")
    limiter = Limiter(settings(rate="100/hour", schedule=[night]), store, clock)
    assert await admitted(limiter, 1300) == 1200
    clock.advance(seconds=11.9 * HOUR)  # 10:07: by day, nothing was admitted in the last hour.
    assert await admitted(limiter, 200) == 100
    clock.advance(seconds=11.9 * HOUR)  # 22:01: the hundred of the morning count in the twelve hours.
    assert await admitted(limiter, 1300) == 1100


async def test_a_rate_that_comes_back_finds_its_counter(store: Store, clock: ManualClock) -> None:
    """1200/12 hours, then 100/hour, then 1200/12 hours again admits 1200, and not 2400."""
    limiter = Limiter(settings(rate="1200/12 hours"), store, clock)
    assert await admitted(limiter, 1100) == 1100
    await limiter.overrides.set(policy="calls", key={"token": "t"}, rate="100/hour")
    assert await admitted(limiter, 10) == 0
    clock.advance(seconds=2 * HOUR)
    assert await admitted(limiter, 60) == 60
    await limiter.overrides.delete(policy="calls", key={"token": "t"})
    assert await admitted(limiter, 1300) == 40
    await limiter.overrides.set(policy="calls", key={"token": "t"}, rate="100/hour")
    assert await admitted(limiter, 10) == 0, "what was admitted meanwhile counts in the hour too"


async def test_a_reloaded_period_begins_with_what_the_old_one_holds(store: Store, clock: ManualClock) -> None:
    """From 100/hour to 1200/12 hours: what the last hour has used is used; a caller that comes later has all of it."""
    limiter = Limiter(settings(rate="100/hour"), store, clock)
    assert await admitted(limiter, 200) == 100
    assert await limiter.reload(settings(rate="1200/12 hours"))
    assert await admitted(limiter, 1300) == 1100
    assert await admitted(limiter, 1300, Identity(token="new")) == 1200
    clock.advance(seconds=1.1 * HOUR)
    assert await limiter.reload(settings(rate="100/hour"))
    assert await admitted(limiter, 200) == 100
    assert await limiter.reload(settings(rate="1200/12 hours"))
    assert await admitted(limiter, 10) == 0


async def test_a_shorter_period_counts_nothing_twice(store: Store, clock: ManualClock) -> None:
    """After a minute without requests, a limit by the minute is free, although the hours' last bucket is not over."""
    limiter = Limiter(settings(rate="10/minute", plans={"pro": "1200/12 hours"}), store, clock)
    for _ in range(5):
        assert await admitted(limiter, 11) == 10
        clock.advance(seconds=61)


async def test_a_grant_is_counted_from_its_first_request_on(store: Store, clock: ManualClock) -> None:
    """Also what other tokens of the organization use then."""
    limiter = Limiter(settings(rate="100/hour", per="org"), store, clock)
    granted = Identity(token="g", org="o", rates={"calls": "120/12 hours"})
    assert await admitted(limiter, 1, granted) == 1
    assert await admitted(limiter, 200) == 99
    assert await admitted(limiter, 200, granted) == 20


async def test_a_policy_of_one_period_has_one_counter(store: Store, clock: ManualClock) -> None:
    """Plans, a schedule, an override, a grant and a reload with the same period change nothing."""
    options = {"rate": "100/hour", "plans": {"pro": "200/hour"}}
    limiter = Limiter(settings(**options, schedule=[Hours(start="00:00", end="24:00", rate="50/hour")]), store, clock)
    await limiter.overrides.set(policy="calls", plan="pro", rate="300/hour")
    assert await limiter.reload(settings(**options))
    granted = Identity(token="t", org="o", plan="pro", rates={"calls": "7/hour"})
    for identity in (WHO, granted):
        (charge,) = limiter.resolver.policies_at(limiter.resolver.route("GET", "*")).charges(identity, now=clock())
        assert charge.others == []
        assert charge.apart == [charge]


async def test_a_reset_empties_every_window(store: Store, clock: ManualClock) -> None:
    """It counts them as the one counter that they are."""
    limiter = Limiter(settings(rate="10/minute", plans={"pro": "10/hour"}), store, clock)
    assert await admitted(limiter, 20) == 10
    assert await limiter.reset(WHO) == 1
    for plan in (None, "pro"):
        assert (await limiter.limits(Identity(token="t", org="o", plan=plan)))[0].remaining == 10


async def test_what_is_given_back_is_given_back_in_every_window(store: Store, clock: ManualClock) -> None:
    """A release, and a settlement."""
    limiter = Limiter(settings(rate="10/minute", plans={"pro": "10/hour"}), store, clock)
    decision = await limiter.consume("calls", WHO, 6)
    await limiter.consume("calls", WHO, 4)
    await limiter.release("calls", WHO, 3)
    await decision.settle({"calls": 1})
    for plan in (None, "pro"):
        assert (await limiter.limits(Identity(token="t", org="o", plan=plan)))[0].remaining == 8


async def test_an_outage_counts_in_every_window(clock: ManualClock) -> None:
    """What a worker admits alone counts in the other windows, there and, when it is handed over, in the store.

    What has left the shorter window by then is not counted in it.
    """
    store = RemoteStore(clock)
    store.is_down = True
    enforcer = Enforcer(store, clock, set())
    minute, hour = counted_together([window_limit(10, 60), window_limit(15, HOUR)])
    key = fresh_key()
    for _ in range(10):
        assert (await enforcer.decide([windowed(minute, key)])).allowed
    clock.advance(seconds=120)
    assert [(await enforcer.decide([windowed(hour, key)])).allowed for _ in range(6)] == [True] * 5 + [False]
    store.is_down = False
    await enforcer.outbox.flush()
    assert store.used(windowed(hour, key)) == 15
    assert store.used(windowed(minute, key)) == 5


async def test_an_outage_counts_no_report_of_one_window_in_another(clock: ManualClock) -> None:
    """What the store has said of the twelve hours says nothing of the minute."""
    store = RemoteStore(clock)
    enforcer = Enforcer(store, clock, set())
    minute, hour = counted_together([window_limit(10, 60), window_limit(1000, HOUR)])
    key = fresh_key()
    for _ in range(20):
        clock.advance(seconds=60)
        assert (await enforcer.decide([windowed(hour, key)])).allowed
    clock.advance(seconds=120)
    store.is_down = True
    assert (await enforcer.decide([windowed(hour, key)])).allowed
    assert [(await enforcer.decide([windowed(minute, key)])).allowed for _ in range(10)] == [True] * 9 + [False]


async def test_a_long_outage_is_reported_as_it_was(clock: ManualClock) -> None:
    """One request a minute is no burst of an hour's requests in the windows that are shorter."""
    store = RemoteStore(clock)
    enforcer = Enforcer(store, clock, set())
    minute, day = counted_together([window_limit(10, 60), window_limit(1000, 86_400)])
    key = fresh_key()
    store.is_down = True
    for _ in range(100):
        clock.advance(seconds=60)
        assert (await enforcer.decide([windowed(day, key)])).allowed
    store.is_down = False
    await enforcer.outbox.flush()
    assert store.used(windowed(day, key)) == 100
    assert store.used(windowed(minute, key)) <= 2


async def test_units_are_not_taken_ahead_for_several_windows(store: Store, clock: ManualClock) -> None:
    """They would be spent long after they were counted in the shorter ones."""
    limiter = Limiter(settings(rate="10000/day", prefetch=100, plans={"x": "10/minute"}), store, clock)
    assert await admitted(limiter, 100) == 100
    clock.advance(seconds=900)
    assert await admitted(limiter, 90) == 90
    assert await admitted(limiter, 20, Identity(token="t", org="o", plan="x")) == 0


async def test_a_reload_leaves_an_override_as_new_as_it_was(store: Store, clock: ManualClock) -> None:
    """Its counter begins with what the others hold, also in a worker that starts after it was set."""
    limiter = Limiter(settings(rate="100/hour"), store, clock)
    assert await admitted(limiter, 100) == 100
    await limiter.overrides.set(policy="calls", key={}, rate="120/day")
    assert await limiter.reload(settings(rate="100/hour", burst=0.01))
    assert await admitted(limiter, 300) == 21, "and a burst of one"
    other = Identity(token="u", org="o")
    assert await admitted(Limiter(settings(rate="100/hour"), store, clock), 300, other) == 120


@pytest.mark.parametrize("count", [1, 4, 5, 40])
async def test_every_override_is_counted(store: Store, clock: ManualClock, count: int) -> None:
    """However many plans have periods of their own."""
    limiter = Limiter(settings(rate="100/hour"), store, clock)
    assert await admitted(limiter, 100) == 100
    for number in range(count):
        await limiter.overrides.set(policy="calls", plan=f"p{number}", rate=f"120/{number + 2} hours")
    assert await admitted(limiter, 200, Identity(token="t", org="o", plan="p0")) == 20


async def test_a_reset_counts_a_period_that_was_never_charged(store: Store, clock: ManualClock) -> None:
    """A counter is emptied if it has any of its windows."""
    limiter = Limiter(settings(rate="100/hour"), store, clock)
    assert await admitted(limiter, 5) == 5
    assert await limiter.reload(settings(rate="100/day"))
    assert await limiter.reset(WHO) == 1
    assert await limiter.reset(WHO) == 0


def test_a_copy_that_was_only_looked_at_is_made_again(sync_redis: SyncRedisStore) -> None:
    """Within a batch, what a window begins with may change: a request of the same call gives some of it back."""
    clock, key, memory = sync_redis.clock, fresh_key(), SyncMemoryStore()
    memory.clock.now = clock.now
    day = window_limit(120, 86_400, new_until_ms=clock() // 1000 + 86_400_000)
    old = window_limit(100, HOUR)
    hour, day = counted_together([old, day])
    first = StoreRequest([windowed(old, key, 90)])
    made = memory.run(first)
    assert sync_redis.run(first) == made
    batch = [
        StoreRequest([windowed(hour, key)], Operation.PEEK),
        StoreRequest([windowed(old, key, -90)], Operation.ADJUST, 0, made.store_ms),
        StoreRequest([windowed(day, key)]),
    ]
    assert sync_redis.batch(batch) == [memory.run(request) for request in batch]


def changes(limiter: Limiter, chance: random.Random) -> list[Callable[[], Any]]:
    """Return what may change which rate holds for the caller."""
    overrides = limiter.overrides
    return [
        lambda: overrides.set(policy="calls", key={"token": "t"}, rate=chance.choice(["3/minute", "9/10 minutes"])),
        lambda: overrides.set(policy="calls", key={}, rate="5/10 minutes"),
        lambda: overrides.delete(policy="calls", key={"token": "t"}),
        lambda: overrides.delete(policy="calls", key={}),
        lambda: limiter.reload(settings(rate=chance.choice(["7/minute", "8/10 minutes"]), plans=PLANS, burst=0.5)),
    ]


PLANS = {"pro": "12/10 minutes", "hourly": "20/hour", "fast": "4/minute"}


def rate_of(limiter: Limiter, who: Identity) -> Rate:
    policy = limiter.resolver.named.get("calls")
    rate = policy.rate_for(who, policy.counter_name(limiter.resolver.named.values(who, policy, ENDPOINT)), 0)
    assert isinstance(rate, Rate)
    return rate


ENDPOINT = Limiter(settings(rate="1/minute")).resolver.endpoint("GET")


@pytest.mark.parametrize("seed", range(6))
async def test_the_bound_holds_for_each_rate_whatever_held_before(store: Store, clock: ManualClock, seed: int) -> None:
    """At each admission, no more than rate and burst were admitted in the window of the rate that holds then.

    Plans, overrides and settings change at random among periods of a minute, ten minutes and an hour.
    """
    chance = random.Random(seed)
    limiter = Limiter(settings(rate="7/minute", plans=PLANS, burst=0.5), store, clock)
    await limiter.overrides.set(policy="calls", key={"token": "other"}, rate="1/10 minutes")
    spent, refused = list[tuple[int, int]](), 0
    for _ in range(500):
        clock.advance(ms=chance.choice([0, 0, 0, 1, 500, 4000, 20_000, 61_000]) * (5 if chance.random() < 0.1 else 1))
        if chance.random() < 0.1:
            await chance.choice(changes(limiter, chance))()
        who = Identity(token="t", org="o", plan=chance.choice([None, *PLANS]))
        cost, rate = chance.randint(1, 3), rate_of(limiter, who)
        if (await limiter.check(who, cost=cost)).allowed:
            spent.append((clock() // 1000, cost))
            window = [units for at, units in spent if at > clock() // 1000 - rate.period * 1000]
            assert sum(window) <= rate.limit + rate.limit // 2, (rate, spent)
        else:
            refused += 1
    assert refused > 50
    assert len(spent) > 50


def test_a_migrating_slot_has_each_window_by_itself() -> None:
    """The charges of the request come first; the other windows refuse nothing, and keep what is released."""
    charges: Sequence[Charge] = [windowed(limit, fresh_key(), 5) for limit in counted_together(TWO)]
    apart = by_window(StoreRequest(charges))
    assert [each.key for each in apart.charges] == [
        *(each.key for each in charges),
        *(other.key for each in charges for other in each.others),
    ]
    assert [each.limit.shadow for each in apart.charges] == [False, False, True, True]
    assert not any(each.limit.other_windows for each in apart.charges)
    assert [each.cost for each in by_window(StoreRequest(charges, Operation.ADJUST)).charges] == [5] * 4
    for operation in (Operation.PEEK, Operation.USAGE, Operation.RELEASE):
        assert len(by_window(StoreRequest(charges, operation)).charges) == 2


TWO = [window_limit(10, 60), window_limit(15, HOUR)]


async def test_an_override_of_everybody_is_counted_for_everybody(store: Store, clock: ManualClock) -> None:
    """Also for a caller that comes while it is being set."""
    limiter = Limiter(settings(rate="100/hour"), store, clock)
    assert await admitted(limiter, 60) == 60
    await limiter.overrides.set(policy="calls", key={}, rate=Rate(110, HALF_DAY))
    assert await admitted(limiter, 100) == 50
    assert [each.rate for each in await limiter.overrides.list()] == [Rate(110, HALF_DAY)]
    assert isinstance((await limiter.overrides.list())[0], Override)
