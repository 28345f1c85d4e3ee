"""Hints: what a command line lacks is said, and nothing else."""

import pytest

from ratelimit import Identity, Limit, Limiter, RateLimitSettings
from ratelimit.cli.hints import hint_at_missing_org, hint_at_unknown

SETTINGS = RateLimitSettings(limits=[Limit(name="a", rate="5/minute", per="org", plans={"business": "9/minute"})])


def test_a_token_without_its_organization(capsys: pytest.CaptureFixture[str]) -> None:
    """Only where organizations count."""
    hint_at_missing_org(Limiter(SETTINGS), Identity(token="t"))
    assert "--org" in capsys.readouterr().err
    hint_at_missing_org(Limiter(SETTINGS), Identity(token="t", org="o"))
    hint_at_missing_org(Limiter(RateLimitSettings()), Identity(token="t"))
    assert capsys.readouterr().err == ""


def test_a_plan_that_no_policy_names(capsys: pytest.CaptureFixture[str]) -> None:
    """With those that there are."""
    hint_at_unknown(Limiter(SETTINGS), Identity(plan="buisness"))
    assert "they name business" in capsys.readouterr().err
    hint_at_unknown(Limiter(SETTINGS), Identity(plan="business"))
    hint_at_unknown(Limiter(RateLimitSettings()), Identity(plan="x"))
    assert capsys.readouterr().err == ""
