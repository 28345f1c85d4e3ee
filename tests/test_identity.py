"""Identities: frozen, and silent about secrets."""

from dataclasses import FrozenInstanceError

import pytest

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


def test_granted_rates_are_read_at_once() -> None:
    """Text becomes a rate, and what is none names the policy."""
    assert Identity(rates={"reads": "1200/minute"}).granted("reads") == Rate(1200, 60)
    assert Identity(rates={"reads": Rate(1, 1)}).granted("writes") is None
    with pytest.raises(ConfigurationError, match=r"^rates\.reads: '12/min/' is not a rate"):
        Identity(rates={"reads": "12/min/"})
