"""Problems: what is rendered once is rendered for all that are told the same, and for nobody else."""

import math

from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, ResponseStyle, ServiceLimit
from ratelimit.charge import Kind
from ratelimit.http import problems

STYLES = [
    ResponseStyle(),
    ResponseStyle(problem="legacy"),
    ResponseStyle(problem_base="https://x/#", capacity_status=503, media_type="application/json"),
    ResponseStyle(titles={"quota_exceeded": "Used up"}),
]


@st.composite
def refusals(draw: st.DrawFn) -> ServiceLimit:
    kinds: list[Kind] = ["limit", "quota", "concurrency"]
    kind = draw(st.sampled_from(kinds))
    return ServiceLimit(
        policy=draw(st.sampled_from(["a", "b"])),
        kind=kind,
        scope=draw(st.sampled_from(["token", "global"])),
        limit=draw(st.sampled_from([0, 10])),
        remaining=draw(st.integers(0, 2)),
        window=draw(st.sampled_from([1, 60, 7])),
        reset_at=draw(st.sampled_from([1e9, 1e9 + 0.4, 1e9 + 60])),
        retry_after=draw(st.sampled_from([0.001, 1.0, 1.5, 61.0, math.inf])),
        cost=draw(st.integers(1, 2)),
        code=draw(st.sampled_from([None, "own"])),
        detail=draw(st.sampled_from([None, "Own."])),
        status=draw(st.sampled_from([403, 429])) if kind == "quota" else 429,
        unit=draw(st.sampled_from(["requests", "tokens"])),
        period=draw(st.sampled_from([None, "month"])) if kind == "quota" else None,
    )


decisions = st.one_of(
    st.lists(refusals(), min_size=1, max_size=3).map(Decision.of),
    st.sampled_from([1.0, 2.5]).map(Decision.unavailable),
)


@given(st.lists(st.tuples(decisions, st.sampled_from(STYLES)), min_size=2, max_size=12))
def test_what_was_rendered_before_is_what_would_be_rendered_now(told: list[tuple[Decision, ResponseStyle]]) -> None:
    """Status, media type and body are those of this decision in this style, whatever came before."""
    for decision, style in told:
        assert problems.problem(decision, style) == problems._render(decision, style)


def test_the_memory_is_bounded() -> None:
    """Five hundred bodies, whatever is asked."""
    for n in range(2000):
        problems.problem(Decision.unavailable(retry_after=n + 1), STYLES[0])
    assert len(problems._rendered) <= 512
