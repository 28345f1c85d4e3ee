"""Counted periods: which windows count a request, and how many are remembered."""

from ratelimit import Hours, Identity, Limit, Override, Rate
from ratelimit.resolver.counted_periods import MAX_NOTED, CountedPeriod, CountedPeriods

WHO = Identity(token="t")
MINUTE, HOUR = Rate(5, 60), Rate(9, 3600)


def periods_of(**options: object) -> tuple[CountedPeriods, list[None]]:
    """Return the periods of a limit of 5/minute, and a list that grows with each change."""
    changes: list[None] = []
    made = CountedPeriods(lambda: changes.append(None))
    made.declare(Limit.model_validate({"name": "a", "rate": MINUTE, "per": "token", **options}))
    return made, changes


def override(rate: Rate) -> Override:
    return Override(policy="a", key={}, rate=rate)


def others(periods: CountedPeriods, counter: str = "c", identity: Identity = WHO) -> list[Rate]:
    return [each.rate for each in periods.counted(counter, MINUTE, identity)[1]]


def test_a_limit_with_one_period_has_no_other() -> None:
    """Whatever rates it has in that period."""
    periods, _ = periods_of(
        plans={"pro": "9/minute", "free": None}, schedule=[Hours(start="01:00", end="02:00", rate="1/minute")]
    )
    assert not periods.has_several
    assert periods.counted("c", MINUTE, WHO) == (0, ())


def test_plans_and_schedules_are_counted_from_the_start() -> None:
    """For every caller; above the own plan's rate is what counts as burst."""
    periods, _ = periods_of(plans={"pro": "9/hour"}, schedule=[Hours(start="01:00", end="02:00", rate="1/day")])
    assert others(periods) == [HOUR, Rate(1, 86_400)]
    declared, _ = periods_of(plans={"pro": "9/hour", "max": "90/hour"})
    assert others(declared, identity=Identity(plan="max")) == [Rate(90, 3600)]


def test_an_override_of_one_caller_is_counted_for_its_counter_alone() -> None:
    """That of a plan or of all callers, for all; those that are older than the process are not new."""
    periods, changes = periods_of()
    periods.note_overrides({"c": override(HOUR)}, 1000)
    assert periods.counted("c", MINUTE, WHO) == (0, (CountedPeriod(HOUR, 3_601_000),))
    assert periods.counted("c", HOUR, WHO) == (3_601_000, (CountedPeriod(MINUTE),))
    assert others(periods, "d") == []
    periods.note_overrides({"=plan:pro": override(Rate(1, 7)), "c": override(HOUR)}, 0)
    assert periods.counted("d", MINUTE, WHO) == (0, (CountedPeriod(Rate(1, 7)),))
    assert len(changes) == 2, "what is known is no change"


def test_few_periods_are_remembered() -> None:
    """A caller with ever other grants does not have ever more counters; the last ones stay."""
    periods, _ = periods_of()
    for period in range(100, 200):
        periods.counted("c", Rate(1, period), Identity(token="t", rates={"a": Rate(1, period)}))
    assert [each.period for each in others(periods)] == [*range(200 - MAX_NOTED, 200)]
    assert [each.period for each in periods.rates("c")] == [60, *range(200 - MAX_NOTED, 200)]


def test_earlier_periods_go_on_and_those_that_come_are_new() -> None:
    """Where the policy is counted by the same dimensions: else its counters are others."""
    earlier, _ = periods_of(plans={"pro": "9/hour"})
    earlier.note_overrides({"c": override(Rate(1, 7))}, 0)
    later, _ = periods_of(plans={"pro": "9/day"})
    later.adopt(earlier, 1000)
    assert later.counted("c", MINUTE, WHO) == (
        0,
        (CountedPeriod(HOUR), CountedPeriod(Rate(1, 7)), CountedPeriod(Rate(9, 86_400), 86_401_000)),
    )
    other, _ = periods_of(per="org")
    other.adopt(earlier, 1000)
    assert not other.has_several
