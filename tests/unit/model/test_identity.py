"""Identities: frozen, checked when they are made, and silent about secrets."""

import pickle
from copy import copy, deepcopy
from dataclasses import FrozenInstanceError, asdict, dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from ratelimit import ConfigurationError, Identity, Rate


def test_the_token_is_never_shown() -> None:
    """Neither `repr` nor `str` repeats the credential."""
    identity = Identity(token="very-secret", org="acme")
    assert "very-secret" not in f"{identity!r} {identity}"
    assert "acme" in repr(identity)


def test_an_identity_does_not_change() -> None:
    """Fields are frozen."""
    with pytest.raises(FrozenInstanceError):
        Identity().token = "t"  # type: ignore[misc]


def test_integers_and_uuids_are_taken_as_text() -> None:
    """Ids of a database are taken as their text; any other value raises an error that names its field."""
    uuid = UUID("12345678123456781234567812345678")
    identity: Any = Identity(org=7, token=uuid, dimensions={"team": 9})  # type: ignore[arg-type, dict-item]
    assert (identity.org, identity.token, identity.dimensions) == ("7", str(uuid), {"team": "9"})
    wrong: list[dict[str, Any]] = [{"plan": ["a"]}, {"org": True}, {"dimensions": None}, {"rates": 5}]
    for fields in wrong:
        with pytest.raises(ConfigurationError, match=f"^{next(iter(fields))}: must be"):
            Identity(**fields)


def test_an_identity_can_be_a_key() -> None:
    """Equal identities have equal hashes, also where they have dimensions and rates."""
    one, two = (Identity(org="o", dimensions={"team": "a"}, rates={"p": "1/minute"}) for _ in range(2))
    assert {one: 1}[two] == 1


def test_an_identity_is_copied_with_all_that_it_has() -> None:
    """By `replace`, `copy` and `pickle`; what it holds cannot be changed from outside, in it or through what it was made of."""
    teams = {"team": "a"}
    one = Identity(token="t", org="o", ip="::1", plan="p", priority="high", dimensions=teams, rates={"p": "1/minute"})
    assert one == pickle.loads(pickle.dumps(one)) == deepcopy(one) == replace(one)
    assert replace(one, org=None).rates == one.rates
    teams["team"] = "b"
    assert one.dimensions == {"team": "a"}
    with pytest.raises(TypeError):
        one.dimensions["team"] = "c"  # type: ignore[index]
    assert repr(Identity(org="o")).endswith("dimensions={}, rates={})")
    assert asdict(Identity(org="o"))["org"] == "o"


@dataclass(frozen=True, slots=True, kw_only=True)
class Employee(Identity):
    """An identity of an app's own."""

    user: str = ""


def test_identities_may_be_derived_from() -> None:
    """By a dataclass, whose fields are checked as they are here; copies keep the class, and pydantic reads it."""
    one = Employee(org=7, user="u", dimensions={"team": "a"})  # type: ignore[arg-type]
    assert (one.org, one.user, one.token) == ("7", "u", None)
    for other in (copy(one), deepcopy(one), replace(one), pickle.loads(pickle.dumps(one))):
        assert (type(other), other) == (Employee, one)
    with pytest.raises(ConfigurationError, match="^plan: must be text"):
        Employee(plan=[])  # type: ignore[arg-type]
    assert TypeAdapter(Identity).validate_python({"org": "x"}) == Identity(org="x")


def test_granted_rates_are_parsed_at_once() -> None:
    """Text becomes a rate, and a text that is not a rate raises an error that names the policy."""
    assert Identity(rates={"reads": "1200/minute"}).granted("reads") == Rate(1200, 60)
    assert Identity(rates={"reads": Rate(1, 1)}).granted("writes") is None
    with pytest.raises(ConfigurationError, match=r"^rates\.reads: '12/min/' is not a rate"):
        Identity(rates={"reads": "12/min/"})
