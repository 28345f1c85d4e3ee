"""Rankings tell the peaks and the history of callers; `test_refusal_stream.py` has who is first."""

from ratelimit import Identity, Limit, Limiter, RateLimitSettings
from ratelimit.enforcement.statistics import Statistics
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

SETTINGS = RateLimitSettings(
    statistics=True,
    limits=[Limit(name="token", rate="10/minute", per="token"), Limit(name="org", rate="99/minute", per="org")],
)


def statistics_of(limiter: Limiter) -> Statistics:
    assert limiter.statistics is not None
    return limiter.statistics


async def use(limiter: Limiter, identity: Identity, times: int) -> None:
    for _ in range(times):
        await limiter.check(identity)
    await statistics_of(limiter).flush_all()


async def test_the_organization_of_a_token_is_known(store: Store, clock: ManualClock) -> None:
    """Its counters are kept there, so an operator needs it; a counter by organization says it itself."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        await use(limiter, Identity(token="t", org="acme"), 1)
        await use(limiter, Identity(token="alone"), 1)
        found = {(each.policy, each.caller): each.org for each in await statistics_of(limiter).top("used")}
        hashed = limiter.resolver.named.hashed
        assert found == {
            ("token", f"token#{hashed('t')}"): "org:acme",
            ("token", f"token#{hashed('alone')}"): None,
            ("org", "org:acme"): None,
        }


async def test_the_peak_of_a_caller_is_its_busiest_span(store: Store, clock: ManualClock) -> None:
    """Not the sum of all, and the callers with the highest come first."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        for times in (3, 7, 2):
            await use(limiter, Identity(org="acme"), times)
            await use(limiter, Identity(org="small"), 1)
            clock.advance(seconds=600)
        peaks = await statistics_of(limiter).rankings.peaks("org")
        assert [(each.caller, each.count) for each in peaks] == [("org:acme", 7), ("org:small", 1)]


async def test_the_history_of_a_caller(store: Store, clock: ManualClock) -> None:
    """What it used in each span, and what it was refused; nothing of other callers."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        for times in (3, 14):
            await use(limiter, Identity(token="t", org="acme"), times)
            await use(limiter, Identity(token="u", org="acme"), 1)
            clock.advance(seconds=600)
        rankings, label = statistics_of(limiter).rankings, f"token#{limiter.resolver.named.hashed('t')}"
        used = await rankings.history("token", label, "org:acme", seconds=3600)
        assert [number for _, number in used if number] == [3, 10]
        refused = await rankings.history("token", label, "org:acme", by="refused", seconds=3600)
        assert [number for _, number in refused if number] == [4]
        assert [start for start, number in used if number] == [
            (clock() // 1_000_000 - 600 * back) // 300 * 300 for back in (2, 1)
        ]
