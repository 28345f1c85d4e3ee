"""The route trie: finds the few routes that may match a path, and never rules out one that does."""

import re

from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import compile_path

from ratelimit.asgi.routing.route_trie import RouteTrie


def trie_of(*templates: str) -> RouteTrie[str]:
    trie: RouteTrie[str] = RouteTrie()
    for template in templates:
        trie.add(template, compile_path(template)[2], template)
    return trie


def test_candidates_come_in_the_order_of_adding() -> None:
    """The framework tries routes in that order, and so the first candidate that matches is the route."""
    trie = trie_of("/users/{id}", "/users/me", "/{any}/me", "/other")
    assert trie.candidates("/users/me") == ["/users/{id}", "/users/me", "/{any}/me"]


def test_other_routes_are_ruled_out_by_their_segments() -> None:
    """A literal segment or another number of segments rules a route out."""
    trie = trie_of("/a/{b}", "/a/b/c", "/x/{y}", "/")
    assert trie.candidates("/a/b") == ["/a/{b}"]
    assert trie.candidates("/a/b/c") == ["/a/b/c"]
    assert trie.candidates("/") == ["/"]
    assert trie.candidates("/nothing/at/all") == []


def test_a_path_convertor_spans_any_number_of_segments() -> None:
    """So does every convertor that the trie does not know."""
    trie = trie_of("/f/{rest:path}", "/f/{rest:path}/raw")
    assert trie.candidates("/f/a/b/raw") == ["/f/{rest:path}", "/f/{rest:path}/raw"]
    own: RouteTrie[str] = RouteTrie()
    own.add("/d/{day:date}", {"day": object()}, "date")
    assert own.candidates("/d/2026/01/01") == ["date"]


def test_a_value_that_was_added_anywhere_is_always_a_candidate() -> None:
    """A route whose matching is its own may match every path."""
    trie = trie_of("/a")
    trie.add_anywhere("own")
    assert (trie.candidates("/a"), trie.candidates("/b/c")) == (["/a", "own"], ["own"])


names = st.sampled_from(["a", "b", "a{}", "{}", "{}.json", "{:int}", "{:float}", "{:uuid}", "{:path}", ""])
values = st.sampled_from(["a", "b", "7", "7.5", "a.json", "a/b", "", "00000000-0000-0000-0000-000000000000", "\n"])


@st.composite
def routes_and_path(draw: st.DrawFn) -> tuple[list[str], str]:
    """Return some templates, and a path that one of them may match."""
    several = draw(st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=5))
    routes = [
        "/" + "/".join(segment.replace("{", f"{{r{n}_{i}") for i, segment in enumerate(route))
        for n, route in enumerate(several)
    ]
    filled = [re.sub(r"{.*}", lambda _: draw(values), segment) for segment in draw(st.sampled_from(several))]
    return routes, "/" + "/".join(filled) + draw(st.sampled_from(["", "", "\n"]))


@given(routes_and_path())
def test_no_route_that_matches_is_ruled_out(drawn: tuple[list[str], str]) -> None:
    """Whatever the framework's pattern of a template matches, its value is a candidate, in the order of adding."""
    routes, path = drawn
    matching = [route for route in routes if compile_path(route)[0].match(path)]
    assert [route for route in trie_of(*routes).candidates(path) if route in matching] == matching
