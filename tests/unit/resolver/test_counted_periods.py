"""Counted periods: which windows count a request, and how many are remembered."""

from ratelimit import Hours, Identity, Limit, Override, Rate
from ratelimit.resolver.counted_periods import MAX_REMEMBERED, CountedPeriod, CountedPeriods

WHO = Identity(token="t")
MINUTE, HOUR = Rate(5, 60), Rate(9, 3600)


def periods_of(**options: object) -> tuple[CountedPeriods, list[None]]:
    """Return the periods of a limit of 5/minute, and a list that grows with each change."""
    changes: list[None] = []
    made = CountedPeriods(lambda: changes.append(None))
    made.declare(Limit.model_validate({"name": "a", "rate": MINUTE, "per": "token", **options}))
    return made, changes


def override(rate: Rate, set_at_ms: int = 0) -> Override:
    return Override(policy="a", key={}, rate=rate, set_at_ms=set_at_ms)


def others(periods: CountedPeriods, counter: str = "c", identity: Identity = WHO) -> list[Rate]:
    return [each.rate for each in periods.counted(counter, MINUTE, identity)[1]]


def test_a_limit_with_one_period_has_no_other() -> None:
    """Whatever rates it has in that period."""
    hours = Hours(start="01:00", end="02:00", rate="1/minute")
    periods, _ = periods_of(plans={"pro": "9/minute", "free": None}, schedule=[hours])
    periods.hold({"c": override(Rate(7, 60)), "=all": override(Rate(8, 60))})
    assert not periods.has_several
    assert periods.counted("c", MINUTE, WHO) == (0, ())


def test_plans_and_schedules_are_counted_from_the_start() -> None:
    """For every caller; above the own plan's rate is what counts as burst."""
    periods, _ = periods_of(plans={"pro": "9/hour"}, schedule=[Hours(start="01:00", end="02:00", rate="1/day")])
    assert others(periods) == [HOUR, Rate(1, 86_400)]
    declared, _ = periods_of(plans={"pro": "9/hour", "max": "90/hour"})
    assert others(declared, identity=Identity(plan="max")) == [Rate(90, 3600)]


def test_an_override_of_one_caller_is_counted_for_its_counter_alone() -> None:
    """That of a plan or of all callers, for all. Its period is new from when it was set, where that is known."""
    periods, changes = periods_of()
    periods.hold({"c": override(HOUR, 1000)})
    assert periods.counted("c", MINUTE, WHO) == (0, (CountedPeriod(HOUR, 3_601_000),))
    assert periods.counted("c", HOUR, WHO) == (3_601_000, (CountedPeriod(MINUTE),))
    assert others(periods, "d") == []
    both = {"=plan:pro": override(Rate(1, 7)), "c": override(HOUR, 5000)}
    periods.hold(both)
    periods.hold(both)
    assert periods.counted("d", MINUTE, WHO) == (0, (CountedPeriod(Rate(1, 7)),))
    assert periods.counted("c", MINUTE, WHO)[1][1] == CountedPeriod(HOUR, 3_601_000), "it was counted before"
    assert len(changes) == 2, "what is known is no change"
    periods.hold({})
    assert others(periods, "c") == [Rate(1, 7), HOUR], "the rates may come back"


def test_all_periods_of_overrides_are_counted_and_few_earlier_ones() -> None:
    """A caller with ever other grants does not have ever more counters; the last ones stay."""
    periods, _ = periods_of(per="org")
    for period in range(100, 200):
        periods.counted("c", Rate(1, period), Identity(token="t", rates={"a": Rate(1, period)}))
    last = [*range(200 - MAX_REMEMBERED, 200)]
    assert [each.period for each in others(periods)] == last
    assert [each.period for each in periods.rates("c")] == [*last, 60]
    periods.hold({f"=plan:{period}": override(Rate(1, period)) for period in range(300, 320)})
    assert [each.period for each in others(periods, "d")] == [*range(300, 320)]


def test_a_token_that_has_a_grant_brings_it_each_time() -> None:
    """Nothing has to be remembered for its counter."""
    periods, changes = periods_of()
    granted = Identity(token="t", rates={"a": HOUR})
    assert periods.counted("c", HOUR, granted) == (0, (CountedPeriod(MINUTE),))
    assert not (periods.has_several or changes)


def test_earlier_periods_go_on_and_those_that_come_are_new() -> None:
    """Where the policy is counted by the same dimensions: else its counters are others."""
    former, _ = periods_of(plans={"pro": "9/hour"})
    former.hold({"c": override(Rate(1, 7)), "=all": override(Rate(1, 8), 1000)})
    later, _ = periods_of(plans={"pro": "9/day"})
    later.adopt(former, 2000)
    later.hold({"=all": override(Rate(1, 8), 1500)})
    _, counted = later.counted("c", MINUTE, WHO)
    assert {each.rate.period: each.new_until_ms for each in counted} == {3600: 0, 7: 0, 8: 9000, 86_400: 86_402_000}
    other, _ = periods_of(per="org")
    other.adopt(former, 1000)
    assert not other.has_several
