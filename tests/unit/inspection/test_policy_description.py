"""A policy as a settings file has it means the same again; `show` of the command line has the description."""

import tomllib
from pathlib import Path

import pytest

from ratelimit import Limit, Quota, RateLimitSettings
from ratelimit.inspection.policy_description import toml_of

EXAMPLES = Path(__file__).parents[3] / "examples" / "server"


@pytest.mark.parametrize("name", ["three_layers.toml", "per_endpoint.toml"])
def test_the_policies_of_the_examples_are_written_and_read(name: str) -> None:
    """Plans, schedules, shares and costs with them."""
    settings = RateLimitSettings.from_file(EXAMPLES / name)
    text = "\n".join(toml_of(policy) for policy in settings.policies)
    again = RateLimitSettings.model_validate(tomllib.loads(text) | {"dimensions": settings.dimensions})
    assert again.policies == settings.policies


def test_what_a_file_cannot_hold_is_a_comment() -> None:
    """Functions of the request; names that TOML has to quote are quoted."""
    text = toml_of(
        Limit(name='a "b"', rate="5/minute", per="org", cost=lambda request: 1, plans={"pro plan": "9/hour"})
    )
    assert "# cost: the function" in text
    found = tomllib.loads(text)["limits"][0]
    assert (found["name"], found["plans"]) == ('a "b"', {"pro plan": "9/hour"})
    level = Quota(name="stored", limit=5, per="org", period=None)
    assert Quota(**tomllib.loads(toml_of(level))["quotas"][0]) == level
