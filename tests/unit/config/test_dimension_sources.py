"""Sources of dimensions: a place in the request or a function of it; anything else fails with the field's path."""

from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit import Limit, RateLimitSettings


def test_a_list_of_names_has_no_sources() -> None:
    """`identify` alone tells their values."""
    settings = RateLimitSettings(dimensions=["teamspace", "region"])
    assert list(settings.dimensions) == ["teamspace", "region"]
    assert settings.dimension_sources == {}
    assert RateLimitSettings.model_validate(settings.model_dump()).dimensions == settings.dimensions


def test_sources_are_kept_as_they_were_written() -> None:
    """Places in a request, and functions of it."""

    def tenant(request: Any) -> str:
        return "acme"

    sources = {"tenant": tenant, "region": "header:x-region", "email": "json:user.email", "sid": "cookie:sid"}
    assert RateLimitSettings(dimensions=sources).dimension_sources == sources


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("headr:x", "'headr:x' is not a source: write 'path:', 'header:', 'query:', 'cookie:' or 'json:' and a name"),
        ("header:", "'header:' is not a source"),
        (5, "5 is not a source"),
        (lambda: "x", "must be a function that takes the request and nothing else"),
        (dict, "must be a function, not the class dict"),
    ],
)
def test_what_is_no_source_fails_at_construction(source: Any, message: str) -> None:
    """The message names the dimension, or the policy's field."""
    with pytest.raises(ValidationError, match=rf"dimensions.region\n  {message}"):
        RateLimitSettings(dimensions={"region": source})
    with pytest.raises(ValidationError, match=rf"key\n  {message}"):
        Limit(name="x", rate="1/minute", key=source)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimensions": {"org": "path:org"}}, "'org' is built in and needs no declaration"),
        ({"dimensions": ["a", "a"]}, "'a' is listed twice"),
        ({"dimensions": 5}, "must be a list of names, or a table of names and sources"),
        ({"dimensions": ["a"], "hashed_dimensions": ["b"]}, "hashed_dimensions\n  'b' is not one of a, ip, org"),
        ({"max_body": -1}, "max_body"),
    ],
)
def test_wrong_dimensions_fail_at_construction(settings: dict[str, Any], message: str) -> None:
    """By their field's path."""
    with pytest.raises(ValidationError, match=message):
        RateLimitSettings.model_validate(settings)


def test_a_limit_with_a_key_is_not_named_as_a_dimension() -> None:
    """The value of the key stands under the policy's name, and would be that of the dimension too."""
    limit = Limit(name="tenant", rate="1/minute", key="header:x-tenant")
    with pytest.raises(ValidationError, match="'tenant' is a dimension"):
        RateLimitSettings(dimensions=["tenant"], limits=[limit])


def test_the_scope_of_a_key_alone_is_the_name_of_its_policy() -> None:
    """It is not the one counter of the whole service."""
    assert Limit(name="uploads", rate="1/minute", key="header:x").scope == "uploads"


@pytest.mark.parametrize("names", [[[]], [{}], [5], 5])
def test_names_are_texts(names: Any) -> None:
    """Whatever a file has in their place."""
    with pytest.raises(ValidationError, match="dimensions\\n.*must be a list of names"):
        RateLimitSettings(dimensions=names)
