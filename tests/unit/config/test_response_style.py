"""Response styles: their fields, and the paths that have a style of their own."""

from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit import ResponseStyle
from ratelimit.config.response_style import PathStyle


def test_the_default_is_the_common_form() -> None:
    """`X-RateLimit-*` with the scope, `Retry-After` with refusals, and problem details of RFC 9457."""
    style = ResponseStyle()
    assert (style.headers, style.scope_header, style.retry_after) == (("x-ratelimit",), True, "rejected")
    assert (style.problem, style.media_type, style.problem_base) == ("rfc9457", "application/problem+json", None)
    assert style.capacity_status == 429


@pytest.mark.parametrize("base", ["https://e.org/errors/", "tag:e.org,2026:", "urn:problem:"])
def test_a_problem_base_is_any_absolute_uri(base: str) -> None:
    """RFC 9457 asks for a URI, which need not be one that can be opened."""
    assert ResponseStyle(problem_base=base).problem_base == base


@pytest.mark.parametrize("base", ["/errors#", "errors", "https://e.org/a b", "", "HTTPS://é"])
def test_a_relative_or_malformed_problem_base_fails(base: str) -> None:
    """A relative type would mean another problem on each path."""
    with pytest.raises(ValidationError, match="is not an absolute URI"):
        ResponseStyle(problem_base=base)


def test_each_style_caches_its_own_bodies() -> None:
    """A copy begins with an empty cache, since it may render another body."""
    style = ResponseStyle()
    style.rendered["key",] = (429, b"application/json", b"{}")
    assert style.model_copy(update={"problem": "legacy"}).rendered == {}
    assert style == ResponseStyle()


@pytest.mark.parametrize(
    "value", [{"paths": "/v1/*", "style": {"problem": "legacy"}}, (["/v1/*"], {"problem": "legacy"})]
)
def test_a_path_style_is_a_table_or_a_pair(value: Any) -> None:
    """Both are the same style for the same patterns."""
    made = PathStyle.model_validate(value)
    assert [pattern.text for pattern in made.patterns] == ["/v1/*"]
    assert made.style.problem == "legacy"


@pytest.mark.parametrize(
    ("paths", "message"), [([], "at least 1 item"), (["v1"], "'v1' is not a route template or glob")]
)
def test_a_path_style_has_paths(paths: list[str], message: str) -> None:
    """Without a path, or with one that no path can match, it would never apply."""
    with pytest.raises(ValidationError, match=message):
        PathStyle.model_validate({"paths": paths, "style": {}})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"X-Rate": "X"}, "'X-Rate' is not one of Retry-After, X-RateLimit-Limit"),
        ({"X-RateLimit-Limit": "a b"}, "'a b' is not the name of a header"),
        ({"X-RateLimit-Limit": ""}, "'' is not the name of a header"),
        ({"X-RateLimit-Limit": "x", "X-RateLimit-Reset": "X"}, "two headers have one name"),
        ({"X-RateLimit-Limit": "x-ratelimit-reset"}, "two headers have one name"),
    ],
)
def test_wrong_names_of_headers_fail(names: dict[str, str], message: str) -> None:
    """An unknown header, a name that no header has, and one for two."""
    with pytest.raises(ValidationError, match=message):
        ResponseStyle(header_names=names)


def test_two_headers_may_exchange_their_names() -> None:
    """Each is sent under one name."""
    names = {"X-RateLimit-Limit": "X-RateLimit-Reset", "X-RateLimit-Reset": "X-RateLimit-Limit"}
    assert ResponseStyle(header_names=names).renamed[b"x-ratelimit-limit"] == b"x-ratelimit-reset"
