"""Declarations: what decorators leave on an endpoint, and how several of them are merged."""

import functools

from ratelimit import Limit, exempt, limit
from ratelimit.config.declarations import EndpointDeclaration, declaration_of


def test_an_endpoint_without_decorators_declares_nothing() -> None:
    """So does anything that uses the attribute for a purpose of its own."""

    def answer() -> None: ...

    assert declaration_of(answer) == declaration_of(None) == EndpointDeclaration()
    answer.__ratelimit__ = "5/minute"  # type: ignore[attr-defined]
    assert declaration_of(answer) == EndpointDeclaration()


def test_declarations_are_merged_in_order() -> None:
    """Limits of both are kept, the first one's first; exempt is whatever either exempts."""
    first, second = Limit(name="a", rate="1/second"), Limit(name="b", rate="2/second")
    merged = EndpointDeclaration((first,), explicit_names=frozenset({"a"})).merged(
        EndpointDeclaration((second,), exempt=True)
    )
    assert merged == EndpointDeclaration((first, second), exempt=True, explicit_names=frozenset({"a"}))


def test_a_partial_declares_what_its_function_does_unless_it_declares_itself() -> None:
    """At any depth of partials."""

    @exempt
    def answer(a: int, b: int) -> None: ...

    inner = functools.partial(answer, 1)
    assert declaration_of(functools.partial(inner, 2)).exempt
    own = limit("1/second", name="own")(functools.partial(answer, 1))
    assert [one.name for one in declaration_of(own).limits] == ["own"]
