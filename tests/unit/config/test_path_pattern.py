"""Path patterns: route templates and globs, as the settings name endpoints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.config.path_pattern import PathPattern, PathSelection, strip_convertors


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/a?c", "/abc", True),
        ("/a?c", "/ac", False),
        ("/a/*", "/a/b/c", True),
        ("/a/{b}", "/a/{b}", True),
        ("/a/{b:int}", "/a/{b}", True),
        ("/a/{b}/", "/a/{b}", True),
        ("/a/{b}", "/a/{b}/", True),
        ("/a[b]", "/a[b]", True),
        ("/a[b]", "/ab", False),
        ("*", "*", True),
        ("/", "/", True),
    ],
)
def test_patterns(pattern: str, path: str, *, matches: bool) -> None:
    """`?` is one character and `*` any number of them, `/` included; convertors and a last slash make no difference."""
    assert PathPattern(pattern).matches(path) is matches


@given(st.text(alphabet="/ab{}:[]!-?*.\\", max_size=12).map("/".__add__))
def test_every_template_matches_itself(template: str) -> None:
    """Whatever characters it has that mean something in a glob or a regular expression."""
    assert PathPattern(template).matches(strip_convertors(template))


@pytest.mark.parametrize(
    ("path", "stripped"),
    [("/runs/{id:int}", "/runs/{id}"), ("/{a:path}/{b}", "/{a}/{b}"), ("/{a:b:c}", "/{a}"), ("/a:b", "/a:b")],
)
def test_convertors_are_stripped(path: str, stripped: str) -> None:
    """The name of a parameter stays, and other colons too."""
    assert strip_convertors(path) == stripped


@pytest.mark.parametrize(
    ("paths", "selected"),
    [
        ((), ["/v1/health", "/v1/a", "/other"]),
        (("/v1/*",), ["/v1/health", "/v1/a"]),
        (("/v1/*", "!/v1/health"), ["/v1/a"]),
        (("!/v1/health",), ["/v1/a", "/other"]),
        (("!/v1/*", "/other"), ["/other"]),
    ],
)
def test_a_selection_leaves_out_what_stands_after_an_exclamation_mark(
    paths: tuple[str, ...], selected: list[str]
) -> None:
    """In any order; with nothing else in the list, all other paths are meant."""
    selection = PathSelection(paths)

    def is_selected(path: str) -> bool:
        return selection.selects(lambda pattern: pattern.matches(path))

    assert list(filter(is_selected, ("/v1/health", "/v1/a", "/other"))) == selected


@pytest.mark.parametrize(
    ("pattern", "may"),
    [("/files/slow/*", True), ("/f*", True), ("*", True), ("/{any}/x", True), ("/files/a", True), ("/other", False)],
)
def test_a_pattern_may_match_below_a_path_that_it_does_not_contradict(
    pattern: str,
    may: bool,  # noqa: FBT001
) -> None:
    """Up to its first wildcard or parameter it begins as the paths do, or they as it does."""
    assert PathPattern(pattern).may_match_below("/files/") is may
