"""The hash of settings: the same in every process, and another for other settings."""

from ratelimit import Limit, RateLimitSettings
from ratelimit.config.settings_hash import repr_of_function, settings_hash


def cost(request: object) -> int:
    return 1


def test_equal_settings_have_one_hash() -> None:
    """Where they count, and the key of the hash, make no difference: two regions may differ there."""
    one = RateLimitSettings(limits=[Limit(name="a", rate="5/minute", per="token", cost=cost)])
    same = RateLimitSettings(
        store="redis://localhost", hash_key="s", limits=[Limit(name="a", rate="5/minute", per="token", cost=cost)]
    )
    other = RateLimitSettings(limits=[Limit(name="a", rate="6/minute", per="token", cost=cost)])
    assert settings_hash(one) == settings_hash(same) != settings_hash(other)
    assert len(settings_hash(one)) == 8


def test_functions_are_known_by_their_names() -> None:
    """Their addresses differ in each process."""
    assert repr_of_function(cost) == f"{__name__}.cost"
